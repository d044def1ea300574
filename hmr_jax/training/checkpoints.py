"""Checkpoints of a run: the latest few and the best, exact resume, nothing lost.

A checkpoint holds the state's arrays, the position in the data and the metrics it was
saved with (``checkpoint_folders``). Folders that this run did not write are never
deleted nor written over, whatever they are called; a damaged one is named and passed
over for the newest that is whole.
"""

import dataclasses
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from hmr_jax.errors import UserError
from hmr_jax.remote import Location, location
from hmr_jax.systems.system import collections
from hmr_jax.training import checkpoint_folders as folders
from hmr_jax.training.checkpoint_folders import DamagedError, Record
from hmr_jax.training.matching import check_matches
from hmr_jax.training.processes import of_first
from hmr_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Entry:
    """A whole checkpoint.

    Attributes:
        name: of its folder.
        step: of the run.
        record: what is kept beside the arrays.
    """

    name: str
    step: int
    record: Record


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: where they are kept, one folder per step; local or remote.
        keep_latest: how many of the newest are kept.
        best_metric: name of the metric by which one more is kept; None for none.
        best_mode: 'min' or 'max'.
        read_only: never delete anything.

    Raises:
        UserError: a setting out of range.
        FileNotFoundError: to be read only, and not there.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        keep_latest: int = 2,
        best_metric: str | None = None,
        best_mode: str = "min",
        read_only: bool = False,
    ):
        if best_mode not in ("min", "max"):
            raise UserError(f"best_mode: expected 'min' or 'max', found {best_mode!r}")
        if keep_latest < 1:
            raise UserError(f"keep_latest: expected at least 1, found {keep_latest}")
        self.directory: Location = location(directory).absolute()
        self.best_metric = best_metric
        self._sign = 1.0 if best_mode == "max" else -1.0
        self._keep_latest = keep_latest
        if read_only and not self.directory.is_dir():
            raise FileNotFoundError(f"no checkpoints: {self.directory} does not exist")
        self._records: dict[str, Record] = {}
        self._damaged: set[str] = set()
        if not read_only and jax.process_index() == 0:
            folders.clear_unfinished(self.directory)
        entries = self._entries()
        runs = [entry.record.run for entry in entries if entry.record.run]
        self._run = runs[-1] if runs else uuid.uuid4().hex
        for name in self.unreadable():
            logging.warning(
                "%s: no whole checkpoint of a run; left as it is", self.directory / name
            )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held: every call has finished when it returns."""

    def _all_entries(self) -> list[Entry]:
        entries = []
        for name in folders.list_names(self.directory):
            record = self._records.get(name)
            if record is None:
                record = folders.read_record(self.directory / name)
            if record is not None:
                self._records[name] = record
                entries.append(Entry(name, int(name.split(".")[0]), record))
        return entries

    def _entries(self) -> list[Entry]:
        """One for each step, in order: the last written that is not known damaged."""
        whole = [e for e in self._all_entries() if e.name not in self._damaged]
        return list({entry.step: entry for entry in whole}.values())

    def unreadable(self) -> list[str]:
        """Names that stand where a checkpoint would, of what is none that is whole."""
        whole = {entry.name for entry in self._all_entries()} - self._damaged
        return [n for n in folders.list_names(self.directory) if n not in whole]

    def _score(self, record: Record) -> float:
        """Larger is better; a checkpoint without the metric is never the best."""
        value = (record.metrics or {}).get(self.best_metric or "")
        if value is None or math.isnan(value):
            return -math.inf
        return self._sign * value

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return [entry.step for entry in self._entries()]

    @property
    def latest(self) -> int | None:
        """The newest complete checkpoint's step; None without any."""
        steps = self.steps
        return steps[-1] if steps else None

    @property
    def best(self) -> int | None:
        """The step of the best complete checkpoint; None where none was scored."""
        ranked = self._ranked()
        found = ranked and self._score(ranked[0].record) > -math.inf
        return ranked[0].step if found else None

    def _ranked(self) -> list[Entry]:
        """The best first, of equals the newest; those without a score at the end."""
        key = lambda entry: (self._score(entry.record), entry.step)  # noqa: E731
        return sorted(self._entries(), key=key, reverse=True)

    def metrics(self, step: int) -> dict[str, float] | None:
        """What the checkpoint of a step was evaluated to, if it was."""
        return self._entry(step).record.metrics

    def save(
        self,
        state: TrainState,
        *,
        extra: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> int:
        """Write a checkpoint and return when it is complete.

        Args:
            state: the run's arrays, the same on every process; all of them call this,
                process 0 writes.
            extra: JSON values kept beside them (the position in the data).
            metrics: evaluation results at this step, if there are any.

        Returns:
            The step. One that is there already is left as it is, unless it has no
            metrics and is given some now.
        """
        arrays = jax.tree.map(np.asarray, jax.device_get(_as_dict(state)))
        step = int(arrays["step"])
        metrics = dict(metrics or {}) or None
        there = [entry for entry in self._entries() if entry.step == step]
        wanted = not there or (metrics and not there[0].record.metrics)
        name = of_first(folders.free_name(self.directory, step) if wanted else "")
        if name:
            record = Record(run=self._run, extra=dict(extra or {}), metrics=metrics)
            folders.write(self.directory, name, arrays, record)
            if jax.process_index() == 0:
                self._remove_superfluous()
            of_first("")  # nobody goes on before all is in place
        return step

    def _remove_superfluous(self) -> None:
        """Keep the latest and the best; touch nothing that another run wrote."""
        own = [e for e in self._entries() if e.record.run == self._run]
        kept = {entry.name for entry in own[-self._keep_latest :]}
        ranked = [e for e in self._ranked() if e in own]
        if ranked and self._score(ranked[0].record) > -math.inf:
            kept.add(ranked[0].name)
        for entry in self._all_entries():
            superfluous = entry.record.run == self._run and entry.name not in kept
            if superfluous and entry.name not in self._damaged:
                folders.remove(self.directory / entry.name)
                del self._records[entry.name]

    def restore(
        self, abstract: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a checkpoint into numpy arrays.

        Args:
            abstract: a state, or its shapes (``jax.eval_shape``).
            step: which one; by default the newest that is whole.

        Returns:
            The state and what ``save`` was given as ``extra``.

        Raises:
            FileNotFoundError: no such checkpoint.
            DamagedError: the one asked for is damaged, or all are.
            UserError: another model or optimiser wrote it; the error names the
                arrays, the expected and the found shapes.
        """
        expected = _as_dict(abstract)
        like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), expected)
        chosen = self._entries()[::-1] if step is None else [self._entry(step)]
        values, entry = self._read(chosen, expected, like)
        return TrainState(**values), dict(entry.record.extra)

    def restore_variables(self, step: int | None = None) -> dict[str, Any]:
        """Read the model's variables alone, whatever the optimiser was.

        Args:
            step: which one; by default the newest that is whole.

        Returns:
            ``{'params': ..., 'batch_stats': ...}`` as numpy arrays.

        Raises:
            FileNotFoundError: no such checkpoint.
            DamagedError: the one asked for is damaged, or all are.
        """
        return self.read_variables("latest" if step is None else str(step))[0]

    def read_variables(self, which: str) -> tuple[dict[str, Any], int, str]:
        """Read the variables of the checkpoint that a user names.

        Args:
            which: 'best' (of the whole ones, or the newest where none was scored),
                'latest', or a step.

        Returns:
            The variables, their step and the folder they were read from.

        Raises:
            FileNotFoundError: no such checkpoint.
            DamagedError: the one asked for is damaged, or all are.
            UserError: ``which`` is none of these.
        """
        if which == "best":
            chosen = self._ranked()
        elif which == "latest":
            chosen = self._entries()[::-1]
        elif which.isdigit():
            chosen = [self._entry(int(which))]
        else:
            raise UserError(
                f"checkpoint: expected best, latest or a step, found {which!r}"
            )
        values, entry = self._read(chosen)
        variables = collections(values["params"], values["batch_stats"])
        return variables, entry.step, str(self.directory / entry.name)

    def _read(
        self, chosen: Sequence[Entry], expected: Any = None, like: Any = None
    ) -> tuple[dict[str, Any], Entry]:
        """The first of some checkpoints that is whole, and which one it was."""
        if not chosen:
            raise self._none("checkpoint")
        for number, entry in enumerate(chosen):
            path = self.directory / entry.name

            def prepare(found, path=path):
                if expected is not None:
                    check_matches(expected, found, f"checkpoint {path}")
                return like

            try:
                values = folders.read(path, prepare)
            except DamagedError as error:
                self._damaged.add(entry.name)
                if number + 1 == len(chosen):
                    raise DamagedError(f"{error}; {self._whole()}") from error
                logging.warning("%s; trying %s instead", error, chosen[number + 1].name)
            else:
                return values, entry
        raise AssertionError("unreachable")

    def _entry(self, step: int) -> Entry:
        for entry in self._entries():
            if entry.step == step:
                return entry
        names = [n for n in self.unreadable() if n.split(".")[0] == str(step)]
        if names:
            raise DamagedError(
                f"{self.directory / names[-1]}: no whole checkpoint of a run; "
                f"{self._whole()}"
            )
        raise self._none(f"checkpoint of step {step}")

    def _whole(self) -> str:
        steps = self.steps
        return f"the whole ones are of steps {steps}" if steps else "none is whole"

    def _none(self, wanted: str) -> FileNotFoundError:
        steps = self.steps
        found = f"the steps there are {steps}" if steps else "it has none"
        return FileNotFoundError(f"no {wanted} in {self.directory}: {found}")


def _as_dict(state: TrainState) -> dict[str, Any]:
    names = ("step", "params", "batch_stats", "opt_state")
    return {name: getattr(state, name) for name in names}
