"""The training loop: restore, feed, step, log, evaluate, save, in that order."""

import contextlib
import dataclasses
import functools
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import optax
import tqdm
from absl import logging

from hmr_jax import progress
from hmr_jax.errors import UserError
from hmr_jax.files import locked
from hmr_jax.remote import Location, check_writable, location
from hmr_jax.systems.system import DEVICE_AXIS, Task, Variables
from hmr_jax.training import feeding, parallel, processes, records
from hmr_jax.training.checkpoints import Checkpoints
from hmr_jax.training.state import TrainState, from_variables, init_key, init_state
from hmr_jax.training.step import step as train_step
from hmr_jax.training.writers import MetricWriter, run_writer


@dataclasses.dataclass(frozen=True)
class LoopOptions:
    """How long a run is and how often it does what.

    Attributes:
        num_steps: updates from the very start, resumed parts included; at least 1.
        seed: of initialisation, dropout and every other draw on the devices.
        accumulate: micro-batches per step and device; at least 1.
        log_every: steps between lines of the log; at least 1.
        checkpoint_every: steps between checkpoints; 0 for the end alone.
        evaluate_every: steps between evaluations; 0 for the end alone.
        keep_latest: checkpoints kept; at least 1.
        best_metric: the evaluation's metric by which one more is kept.
        best_mode: 'min' or 'max'.
        progress: show a progress bar.
    """

    num_steps: int
    seed: int = 0
    accumulate: int = 1
    log_every: int = 10
    checkpoint_every: int = 500
    evaluate_every: int = 0
    keep_latest: int = 2
    best_metric: str | None = None
    best_mode: str = "min"
    progress: bool = True

    def __post_init__(self) -> None:
        least = {"num_steps": 1, "accumulate": 1, "log_every": 1, "keep_latest": 1}
        least |= {"checkpoint_every": 0, "evaluate_every": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise UserError(
                    f"{name}: expected a whole number of at least {low}, found {value}"
                )


class NonFiniteLossError(UserError, FloatingPointError):
    """The total or the gradient is not finite; the message names step and losses."""


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        state: the last state, on the devices.
        finished: False where a signal stopped it before ``num_steps``.
        metrics: the last evaluation, if there was one.
    """

    state: TrainState
    finished: bool
    metrics: Mapping[str, float] | None


def train(
    task: Task,
    make_iterator: Callable[[], Any],
    *,
    tx: optax.GradientTransformation,
    options: LoopOptions,
    workdir: str | os.PathLike,
    assets: Any = None,
    schedule: Callable[[Any], Any] | None = None,
    start_from: Callable[[Variables], Variables] | None = None,
    evaluate: Callable[[Variables, int], Mapping[str, float]] | None = None,
    record: records.RunRecord | None = None,
) -> Result:
    """Train from the latest checkpoint in ``workdir``, or from the start.

    Args:
        task: what is trained.
        make_iterator: gives an iterator of numpy batches, this process's share. With
            ``state()`` and ``restore(state)`` resuming is immediate; without, a resumed
            run reads the stream again up to its place.
        tx: the optimiser.
        options: lengths and intervals.
        workdir: folder of checkpoints, logs and curves, local or remote; processes of
            one run share it.
        assets: pytree handed to the task, for example the body model.
        schedule: step to learning rate, for the log.
        start_from: changes the initial variables, for example to pretrained ones; a
            resumed run does not call it.
        evaluate: ``evaluate(variables, step)`` gives metrics by name.
        record: checked where a run is resumed; written after the first step, so that a
            start that fails leaves the record of the run as it was. Where it allows
            other data, a stream that cannot go on where the run stands begins anew.

    Returns:
        The final state and whether the run reached its end.

    Raises:
        NonFiniteLossError: the total or gradient is NaN or infinite. The checkpoints
            there are precede it.
        UserError: the checkpoint belongs to another model; another process trains in
            this folder; the processes of the run do not start alike; or the folder
            cannot be written.
        ProcessLostError: another process of the run is gone.
    """
    folder = location(workdir)
    main = jax.process_index() == 0
    with processes.ending_together(), contextlib.ExitStack() as held:
        if main:
            check_writable(folder)
            held.enter_context(locked(folder, "training here"))
        return _train(
            task, make_iterator, folder, main,
            tx=tx, options=options, assets=assets, schedule=schedule,
            start_from=start_from, evaluate=evaluate, record=record,
        )  # fmt: skip


def _train(
    task, make_iterator, workdir: Location, main: bool, *,
    tx, options, assets, schedule, start_from, evaluate, record,
) -> Result:  # fmt: skip
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep_latest=options.keep_latest,
        best_metric=options.best_metric,
        best_mode=options.best_mode,
    )
    iterator = feeding.resumable(make_iterator)
    with contextlib.closing(checkpoints):
        if checkpoints.latest is None:
            _refuse_to_begin_again(workdir, checkpoints)
        elif record is not None:
            record.check()
        state, first = _initial_state(
            task, iterator, tx, options.seed, checkpoints, start_from,
            other_data=record is not None and record.allow_other_data,
        )  # fmt: skip
        processes.check_same(
            {
                "step": first,
                "data position": json.loads(json.dumps(iterator.state())),
                "options": dataclasses.asdict(
                    dataclasses.replace(options, progress=False)
                ),
                "run": None if record is None else record.identity(),
            }
        )
        done = first >= options.num_steps
        if done:
            logging.info("%s: already trained for %d steps", workdir, first)
        if done and not _lacks_metrics(checkpoints, evaluate, options, first):
            return Result(parallel.place(state), True, None)
        writer = run_writer(workdir, first) if main else MetricWriter()
        with contextlib.closing(writer):
            if done:
                result = _make_up_for(evaluate, state, checkpoints, writer)
            else:
                result = _run(
                    task, iterator, state, first,
                    tx=tx, options=options, assets=assets, schedule=schedule,
                    checkpoints=checkpoints, writer=writer, evaluate=evaluate,
                    record=record if main else None,
                )  # fmt: skip
    if main:
        records.plot_curves(workdir / "log.jsonl", workdir / "loss_curve.png")
    return result


def _refuse_to_begin_again(workdir: Location, checkpoints: Checkpoints) -> None:
    """A run whose checkpoints are all unreadable must not be written over."""
    unreadable = checkpoints.unreadable()
    if unreadable and (workdir / "run.json").is_file():
        raise UserError(
            f"{checkpoints.directory}: none of {', '.join(unreadable)} is a whole "
            "checkpoint; restore them, or move them away and the run begins again"
        )


def _lacks_metrics(checkpoints, evaluate, options: LoopOptions, step: int) -> bool:
    """Whether the evaluation at the end of the run failed, or never was."""
    at_end = evaluate is not None and step == options.num_steps
    return at_end and checkpoints.metrics(step) is None


def _make_up_for(evaluate, state, checkpoints, writer) -> Result:
    """Evaluate a state whose run has ended, and keep the result with it."""
    step = int(state.step)
    logging.info("evaluating step %d, which was not done", step)
    _, extra = checkpoints.restore(state, step)
    state = parallel.place(state)
    metrics = _evaluated(evaluate, state, step, writer)
    checkpoints.save(state, extra=extra, metrics=metrics)
    return Result(state, True, metrics)


def _initial_state(
    task, iterator, tx, seed, checkpoints, start_from, *, other_data: bool
):
    """The restored or fresh state (host arrays), its step; the iterator set to it."""
    before = iterator.state()
    batch = next(iterator)
    iterator.restore(before)
    init = functools.partial(init_state, task, tx)
    key = init_key(seed)
    if checkpoints.latest is not None:
        abstract = jax.eval_shape(init, key, batch)
        state, extra = checkpoints.restore(abstract)
        feeding.go_on(iterator, extra["iterator"], other_data=other_data)
        logging.info("resuming from step %d", int(state.step))
        return state, int(state.step)
    state = jax.jit(init)(key, batch)
    if start_from is not None:
        begun = start_from(jax.device_get(state.variables))
        state = from_variables(begun, tx, task.trainable)
    return jax.device_get(state), 0


def _run(
    task, iterator, state, first, *,
    tx, options, assets, schedule, checkpoints, writer, evaluate, record,
) -> Result:  # fmt: skip
    step_fn = parallel.map_step(
        functools.partial(
            train_step,
            task=task,
            tx=tx,
            axis_name=DEVICE_AXIS,
            accumulate=options.accumulate,
        )
    )
    state, assets = parallel.place(state), parallel.place(assets)
    # A stream apart from initialisation's, which uses the bare seed.
    key = parallel.place(jax.random.fold_in(jax.random.key(options.seed), 1))
    window = _Window(writer, schedule)
    metrics = None
    batches = feeding.Prefetcher(iterator, parallel.shard_batch)
    with (
        contextlib.closing(batches),
        _progress_bar(first, options) as bar,
        processes.stop_on_signal() as stop,
    ):
        for number in range(first + 1, options.num_steps + 1):
            batch, position = next(batches)
            state, step_metrics = step_fn(state, batch, key, assets)
            if number == first + 1 and record is not None:
                record.write()
            window.add(number, step_metrics, _batch_size(batch))
            bar.update()
            last = number == options.num_steps
            logging_now = last or number % options.log_every == 0
            stopping = stop.reached(number) and not last
            if logging_now or stopping:
                bar.set_postfix_str(window.write())
            evaluating = evaluate is not None and (
                last or _every(number, options.evaluate_every)
            )
            saving = last or stopping or _every(number, options.checkpoint_every)
            if not (evaluating or saving):
                continue
            with window.paused():
                metrics = None
                save = functools.partial(
                    checkpoints.save, state, extra={"iterator": position}
                )
                if evaluating:
                    with _saved_on_error(save, may_go_on=not last):
                        metrics = _evaluated(evaluate, state, number, writer)
                        bar.write(_line(f"step {number}: evaluation", metrics))
                save(metrics=metrics)
                writer.flush()
            if stopping:
                logging.warning("stopped by a signal after step %d; saved", number)
                return Result(state, False, metrics)
    return Result(state, True, metrics)


def _evaluated(evaluate, state, number, writer) -> dict[str, float]:
    """The metrics of a state, written to the log."""
    metrics = dict(evaluate(state.variables, number))
    writer.write_scalars(number, {f"eval/{name}": v for name, v in metrics.items()})
    return metrics


@contextlib.contextmanager
def _saved_on_error(save: Callable[[], int], *, may_go_on: bool) -> Iterator[None]:
    """Save the state where its evaluation fails.

    A model whose predictions cannot be scored now, or data that cannot be read now, may
    be well at the next evaluation: that does not end the training. The last one must
    succeed, and the next start makes up for it.
    """
    try:
        yield
    except Exception as error:
        save()
        if not may_go_on or not isinstance(error, UserError | OSError):
            raise
        logging.warning("the evaluation failed; the training goes on: %s", error)


def _every(number: int, interval: int) -> bool:
    return interval > 0 and number % interval == 0


def _batch_size(batch) -> int:
    """Samples of this step over all processes."""
    leaf = jax.tree.leaves(batch)[0]
    return leaf.shape[0] * leaf.shape[1] * jax.process_count()


def _line(head: str, values: Mapping[str, float]) -> str:
    return head + "".join(f", {name} {value:.4g}" for name, value in values.items())


class _Window:
    """Metrics between two lines of the log, read one step behind the devices."""

    def __init__(self, writer: MetricWriter, schedule):
        self._writer, self._schedule = writer, schedule
        self._pending: tuple[int, Any] | None = None
        self._number = 0
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        self._samples, self._idle_s = 0, 0.0
        self._start = time.monotonic()

    def add(self, number: int, metrics: Any, samples: int) -> None:
        """Take a step's metrics; check and add up those of the step before."""
        self._drain()
        self._pending = (number, metrics)
        self._samples += samples

    def _drain(self) -> None:
        if self._pending is None:
            return
        self._number, metrics = self._pending
        self._pending = None
        terms = {
            name: (float(total), float(count))
            for name, (total, count) in jax.device_get(metrics).items()
        }
        if not all(math.isfinite(terms[name][0]) for name in ("total", "grad_norm")):
            means = {name: _mean(*term) for name, term in terms.items()}
            raise NonFiniteLossError(
                _line(f"training stopped at step {self._number}", means)
            )
        for name, (total, count) in terms.items():
            before = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (before[0] + total, before[1] + count)

    def write(self) -> str:
        """Write the means since the last call; returns the progress bar's text."""
        self._drain()
        seconds = max(time.monotonic() - self._start - self._idle_s, 1e-9)
        rate = self._samples / seconds
        scalars = {
            (name if name.endswith("_norm") else f"loss/{name}"): _mean(*term)
            for name, term in self._sums.items()
            if term[1] > 0
        }
        scalars["images_per_s"] = rate
        if self._schedule is not None:
            scalars["learning_rate"] = float(self._schedule(self._number - 1))
        self._writer.write_scalars(self._number, scalars)
        self._reset()
        return f"loss {scalars['loss/total']:.4g}, {rate:.1f} images/s"

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time inside; check the last step before it."""
        self._drain()
        start = time.monotonic()
        yield
        self._idle_s += time.monotonic() - start


def _mean(total: float, count: float) -> float:
    return total / count if count > 0 else float("nan")


def _progress_bar(first: int, options: LoopOptions) -> tqdm.tqdm:
    shown = options.progress and jax.process_index() == 0
    return progress.bar(
        initial=first,
        total=options.num_steps,
        desc="train",
        unit="step",
        disable=not shown,
    )
