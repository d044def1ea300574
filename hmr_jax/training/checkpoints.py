"""Checkpoints: whole or absent, the latest few and the best, exact resume.

A checkpoint holds the state's arrays, and beside them as JSON the position in the data
and the metrics it was saved with. Orbax writes to a temporary folder and renames it, so
a run killed at any moment finds complete checkpoints only.
"""

import math
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from orbax.checkpoint import v1 as ocp

from hmr_jax.errors import UserError
from hmr_jax.training.state import TrainState

_NUM_NAMED = 6  # parameters an error lists before it counts the rest


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: where they are kept, one folder per step.
        keep_latest: how many of the newest are kept.
        best_metric: name of the metric by which one more is kept; None for none.
        best_mode: 'min' or 'max'.
        read_only: never delete anything, not even another run's unfinished folder.
    """

    def __init__(
        self,
        directory: str | pathlib.Path,
        *,
        keep_latest: int = 2,
        best_metric: str | None = None,
        best_mode: str = "min",
        read_only: bool = False,
    ):
        if best_mode not in ("min", "max"):
            raise UserError(f"best_mode: expected 'min' or 'max', found {best_mode!r}")
        self.directory = pathlib.Path(directory).absolute()
        self.best_metric = best_metric
        self._sign = 1.0 if best_mode == "max" else -1.0
        if read_only and not self.directory.is_dir():
            raise FileNotFoundError(f"no checkpoints: {self.directory} does not exist")
        policies = ocp.training.preservation_policies
        keep = [policies.LatestN(None if read_only else keep_latest)]
        if best_metric is not None:
            keep.append(
                policies.BestN(
                    get_metric_fn=self._score,
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        if not read_only and jax.process_index() == 0:
            _remove_broken(self.directory)
        self._checkpointer = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=policies.AnyPreservationPolicy(keep),
            cleanup_tmp_directories=not read_only,
        )

    def _score(self, metrics: Mapping[str, float] | None) -> float:
        """Larger is better; a checkpoint without the metric is never the best."""
        value = (metrics or {}).get(self.best_metric or "")
        if value is None or math.isnan(value):
            return -math.inf
        return self._sign * value

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *unused) -> None:
        self.close()

    def close(self) -> None:
        """Finish and free what is held."""
        self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    @property
    def latest(self) -> int | None:
        """The newest complete checkpoint's step; None without any."""
        return self.steps[-1] if self.steps else None

    @property
    def best(self) -> int | None:
        """The step of the best complete checkpoint; None where none was scored."""
        scored = [
            (self._score(checkpoint.metrics), checkpoint.step)
            for checkpoint in self._checkpointer.checkpoints
        ]
        score, step = max(scored, default=(-math.inf, None))
        return step if score > -math.inf else None

    def save(
        self,
        state: TrainState,
        *,
        extra: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> int:
        """Write a checkpoint and return when it is complete.

        Args:
            state: the run's arrays, the same on every process.
            extra: JSON values kept beside them (the position in the data).
            metrics: evaluation results at this step, if there are any.

        Returns:
            The step. One that is there already is left as it is.
        """
        arrays = jax.tree.map(np.asarray, jax.device_get(_as_dict(state)))
        step = int(arrays["step"])
        if step in self.steps:
            return step
        self._checkpointer.save(
            step,
            arrays,
            force=True,
            metrics=dict(metrics) if metrics else None,
            custom_metadata=dict(extra or {}),
        )
        return step

    def restore(
        self, abstract: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]]:
        """Read a checkpoint into numpy arrays.

        Args:
            abstract: a state, or its shapes (``jax.eval_shape``).
            step: which one, the latest by default.

        Returns:
            The state and what ``save`` was given as ``extra``.

        Raises:
            FileNotFoundError: no such checkpoint.
            UserError: another model or optimiser wrote it; the error names the
                arrays, the expected and the found shapes.
        """
        step, metadata = self._metadata(step)
        expected = _as_dict(abstract)
        where = f"checkpoint {self.directory / str(step)}"
        check_matches(expected, metadata.metadata, where)
        like = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), expected)
        values = self._checkpointer.load(step, abstract_state=like)
        return TrainState(**values), dict(metadata.custom_metadata or {})

    def restore_variables(self, step: int | None = None) -> dict[str, Any]:
        """Read the model's variables alone, whatever the optimiser was.

        Args:
            step: which one, the latest by default.

        Returns:
            ``{'params': ..., 'batch_stats': ...}`` as numpy arrays.

        Raises:
            FileNotFoundError: no such checkpoint.
        """
        step, _ = self._metadata(step)
        values = self._checkpointer.load(step)
        return {name: values[name] for name in ("params", "batch_stats")}

    def _metadata(self, step):
        if step is None:
            step = self.latest
        if step is None or step not in self.steps:
            wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
            found = f"the steps there are {self.steps}" if self.steps else "it has none"
            raise FileNotFoundError(f"no {wanted} in {self.directory}: {found}")
        return step, self._checkpointer.metadata(step)


def _as_dict(state: TrainState) -> dict[str, Any]:
    names = ("step", "params", "batch_stats", "opt_state")
    return {name: getattr(state, name) for name in names}


def flat_names(tree: Any) -> dict[str, Any]:
    """Leaves by slash-joined names, for messages and comparisons.

    Args:
        tree: any pytree of dicts, sequences and named tuples.

    Returns:
        For example ``{'params/conv1/kernel': leaf}``.
    """
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in pairs
    }


def check_matches(expected: Any, found: Any, where: str) -> None:
    """Compare the names and shapes of two trees of arrays.

    Args:
        expected: arrays or shapes of the model at hand.
        found: arrays or metadata of a file.
        where: the file, for the message.

    Raises:
        UserError: names and shapes of what differs, the first few of them.
    """
    ours = {name: tuple(leaf.shape) for name, leaf in _comparable(expected).items()}
    theirs = {name: tuple(leaf.shape) for name, leaf in _comparable(found).items()}
    problems = [
        f"{name}: expected {ours.get(name, 'nothing')}, "
        f"found {theirs.get(name, 'nothing')}"
        # Parameters first: they say most.
        for name in sorted(
            ours.keys() | theirs.keys(), key=lambda n: (not n.startswith("params"), n)
        )
        if ours.get(name) != theirs.get(name)
    ]
    if problems:
        # The optimiser's arrays follow the parameters: only alone are they news.
        problems = [p for p in problems if not p.startswith("opt_state")] or problems
        more = len(problems) - _NUM_NAMED
        rest = [f"and {more} more"] if more > 0 else []
        raise UserError(
            f"{where} does not fit this model: "
            + "; ".join(problems[:_NUM_NAMED] + rest)
        )


def _comparable(tree: Any) -> dict[str, Any]:
    """Leaves by name; the optimiser's, which files keep as lists, by position."""
    leaves = {}
    for name, part in tree.items():
        if name == "opt_state":
            for index, leaf in enumerate(jax.tree.leaves(part)):
                leaves[f"opt_state/{index}"] = leaf
        else:
            leaves.update(flat_names({name: part}))
    return leaves


def _remove_broken(directory: pathlib.Path) -> None:
    """Delete folders a killed run left half-deleted: a number without its metadata."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        complete = (path / "_CHECKPOINT_METADATA").is_file() and (
            path / "state" / "_METADATA"
        ).is_file()
        if path.is_dir() and path.name.isdigit() and not complete:
            logging.warning("removing incomplete checkpoint %s", path)
            shutil.rmtree(path)
