"""The evaluation that goes on while a model is trained, and which one is the best."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from hmr_jax.errors import UserError
from hmr_jax.metrics.kinds import higher_is_better
from hmr_jax.remote import Location
from hmr_jax.systems.system import Evaluator, Variables
from hmr_jax.training.records import read_jsonl


def periodic(
    evaluator: Evaluator, config: Any, workdir: Location
) -> Callable[[Variables, int], dict[str, float]]:
    """``evaluate(variables, step)`` for the training loop.

    Where ``eval.best_metric`` names several metrics with '+' between them, a metric of
    that name counts how often the best was replaced, see ``BestOf``.

    Args:
        evaluator: of the system.
        config: an experiment.
        workdir: receives pictures after each evaluation, where the system has some.

    Raises:
        UserError: the best checkpoint is to be chosen by what no evaluation finds.
    """
    best, protocol = config.eval.best_metric, config.eval.best_protocol
    names = [f"{protocol}/{name}" for name in best.split("+")]
    _check_best(evaluator.metrics, names, protocol)
    chosen: BestOf | None = None

    def evaluate(variables: Variables, step: int) -> dict[str, float]:
        nonlocal chosen
        values = dict(evaluator.score(variables).flat())
        if len(names) > 1:
            chosen = chosen or BestOf(names, _earlier(workdir, step, names))
            values[f"{protocol}/{best}"] = chosen(values)
        if evaluator.shown_in_training and jax.process_index() == 0:
            evaluator.draw(variables, evaluator.shown_in_training, workdir)
        return values

    return evaluate


def _check_best(known: Sequence[str], names: Sequence[str], protocol: str) -> None:
    protocols = sorted({name.split("/")[0] for name in known})
    if protocol not in protocols:
        raise UserError(
            "config.eval.best_protocol: expected one of those that are evaluated, "
            f"{protocols}, found {protocol!r}"
        )
    unknown = [name.split("/", 1)[1] for name in names if name not in known]
    if unknown:
        metrics = [n.split("/", 1)[1] for n in known if n.startswith(f"{protocol}/")]
        raise UserError(
            f"config.eval.best_metric: expected one of {metrics}, or several with '+' "
            f"between them, found {unknown}"
        )


class BestOf:
    """Whether an evaluation is the best so far by one metric or by several.

    Args:
        names: of metrics, ``protocol/metric``.
        history: earlier evaluations in order, for a resumed run.
    """

    def __init__(
        self, names: Sequence[str], history: Iterable[Mapping[str, float]] = ()
    ):
        self._names, self._count = tuple(names), 0
        self._signs = [
            -1.0 if higher_is_better(name.split("/", 1)[-1]) else 1.0 for name in names
        ]
        self._best: tuple[float, ...] | None = None
        for values in history:
            self(values)

    def __call__(self, values: Mapping[str, float]) -> float:
        """How many times the best was replaced so far; 0 where these values do not.

        All metrics must be no worse than those of the best.
        """
        pairs = zip(self._signs, self._names, strict=True)
        found = tuple(sign * values[name] for sign, name in pairs)
        best = self._best
        if best is not None and not all(
            x <= y for x, y in zip(found, best, strict=True)
        ):
            return 0.0
        self._best, self._count = found, self._count + 1
        return float(self._count)


def _earlier(
    workdir: Location, step: int, names: Sequence[str]
) -> list[dict[str, float]]:
    """What the log of a run says of its evaluations before a step."""
    rows = read_jsonl(workdir / "log.jsonl")
    return [
        {name: row[f"eval/{name}"] for name in names}
        for row in rows
        if row["step"] < step and all(f"eval/{name}" in row for name in names)
    ]
