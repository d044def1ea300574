"""Runs protocols over batches, and counts what they find."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging

from hmr_jax.errors import UserError
from hmr_jax.evaluation.protocols import (
    Protocol,
    array_key,
    get_protocol,
    sample_errors,
)
from hmr_jax.evaluation.report import Groups, Report, format_table, mean_over_groups
from hmr_jax.metrics.accumulate import Mean, merge_all

__all__ = ["Report", "batch_targets", "evaluate", "format_table", "mean_over_groups"]

Batch = Mapping[str, Any]
Labels = Mapping[str, Sequence[str] | np.ndarray]
Values = Mapping[str, tuple[np.ndarray, np.ndarray]]
# Batch key of the truth, per joint set: [B, J, 4], metres and validity.
TARGET_KEYS = {"h36m_17": "joints_h36m_cam_m", "smpl_24": "joints_cam_m"}


def batch_targets(batch: Batch) -> dict[str, np.ndarray]:
    """The truth of a batch under the evaluator's names.

    Args:
        batch: with the keys of ``TARGET_KEYS`` it has, [B, J, 4] each, and ``has_smpl``
            [B, 1], 1 where the sample has a body.

    Returns:
        ``joints_<set>_m`` [B, J, 3] and ``weights_<set>`` [B, J] per joint set;
        ``weights_vertices`` [B, 1].
    """
    targets = {}
    for joint_set, key in TARGET_KEYS.items():
        if key in batch:
            joints = np.asarray(batch[key])
            targets[array_key(joint_set)] = joints[..., :3]
            targets[f"weights_{joint_set}"] = joints[..., 3]
    if "has_smpl" in batch:
        has_smpl = np.asarray(batch["has_smpl"])
        targets["weights_vertices"] = has_smpl.reshape(len(has_smpl), 1)
    return targets


class _Tally:
    """What has been counted under one protocol."""

    def __init__(self, protocol: Protocol):
        self.protocol = protocol
        self.means: dict[str, Mean] = {}
        self.groups: Groups = {}
        self.samples: list[np.ndarray] = []

    def add(self, values: Values, labels: Labels, valid: np.ndarray) -> None:
        """Count one batch."""
        found = {name: Mean.of(*pair) for name, pair in values.items()}
        self.means = merge_all(self.means, found)
        self.samples.append(_per_sample(*values[self.protocol.headline])[valid])
        for name in self.protocol.group_by:
            if name in labels:
                groups = self.groups.setdefault(name, {})
                _add_groups(groups, values, np.asarray(labels[name]), valid)

    def warn(self) -> None:
        """Say which metrics have nothing under them."""
        empty = [name for name, mean in self.means.items() if not mean.weight > 0]
        if empty:
            logging.warning(
                "protocol %s: no labelled samples for %s",
                self.protocol.name,
                ", ".join(empty),
            )


def evaluate(
    predict_fn: Callable[[Batch], Mapping[str, Any]],
    batches: Iterable[Batch],
    protocols: Sequence[str | Protocol],
    *,
    target_fn: Callable[[Batch], Mapping[str, Any]] = batch_targets,
    labels_fn: Callable[[Batch], Labels] | None = None,
    names_fn: Callable[[Batch], Sequence[str]] | None = None,
) -> Report:
    """Score a predictor on batches under named protocols.

    Args:
        predict_fn: batch to predictions: ``joints_h36m_17_m``, ``joints_smpl_24_m``
            [B, J, 3] and ``vertices_m`` [B, V, 3], those the protocols need, metres.
            ``target_vertices_m`` may be among them where the truth is computed too.
        batches: dicts of arrays; ``valid`` [B] marks padding with zero.
        protocols: protocols or their names.
        target_fn: batch to the truth under the same names plus ``weights_<set>``.
        labels_fn: batch to per-sample labels (``action``, ``sequence``), for protocols
            that report groups; an empty one is in no group.
        names_fn: batch to names of its samples, for error messages.

    Returns:
        A ``Report``. Any split into batches gives the same means. A sample without a
        labelled root counts in no metric that subtracts the root.

    Raises:
        UserError: a prediction or the truth lacks an array; a prediction of a counted
            sample, or the truth of a counted joint, is not finite; or there was no
            sample.
    """
    chosen = [get_protocol(p) if isinstance(p, str) else p for p in protocols]
    tallies = [_Tally(protocol) for protocol in chosen]
    wanted = labels_fn is not None and any(p.group_by for p in chosen)
    seen = 0
    for batch in batches:
        predictions, targets = dict(predict_fn(batch)), dict(target_fn(batch))
        if "target_vertices_m" in predictions:
            targets.setdefault("vertices_m", predictions["target_vertices_m"])
        labels = labels_fn(batch) if wanted and labels_fn else {}
        valid = _valid(batch, predictions)
        for tally in tallies:
            try:
                values = _batch_values(tally.protocol, predictions, targets, valid)
            except _NotFiniteError as error:
                raise error.named(batch, seen, valid, names_fn) from error
            tally.add(values, labels, valid)
        seen += int(valid.sum())
    if seen == 0:
        raise UserError("evaluation: expected at least one valid sample, found none")
    for tally in tallies:
        tally.warn()
    return Report(
        {t.protocol.name: t.means for t in tallies},
        {t.protocol.name: t.groups for t in tallies},
        {t.protocol.name: np.concatenate(t.samples) for t in tallies},
        seen,
    )


def _valid(batch: Batch, predictions: Mapping[str, Any]) -> np.ndarray:
    if "valid" in batch:
        return np.asarray(batch["valid"]) > 0
    first = next(iter(predictions.values()))
    return np.ones(np.shape(first)[0], bool)


class _NotFiniteError(UserError):
    """Rows of an array that should be finite."""

    def __init__(self, field: str, bad: np.ndarray):
        super().__init__(field)
        self.field, self.bad = field, bad

    def named(self, batch, seen, valid, names_fn) -> UserError:
        """The error that says which sample of the evaluation it is."""
        rows = np.flatnonzero(self.bad)
        row = int(rows[0])
        where = f"sample {seen + int(valid[:row].sum())}"
        if "sample_index" in batch:
            where += f", record {int(np.asarray(batch['sample_index'])[row])}"
        if names_fn is not None:
            where += f", {names_fn(batch)[row]!r}"
        return UserError(
            f"{self.field}: {len(rows)} of {int(valid.sum())} samples of a batch are "
            f"not finite (first: {where})"
        )


def _check_finite(field: str, array: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The array with zeros where it does not count; raises where it does.

    Args:
        field: for the error.
        array: [B, ..., 3] coordinates, or [B, ...] as ``counted``.
        counted: [B, ...], which of them must be finite.
    """
    finite = np.isfinite(array)
    if array.ndim > counted.ndim:
        finite = finite.all(-1)
    bad = counted & ~finite
    if bad.any():
        raise _NotFiniteError(field, bad.reshape(len(bad), -1).any(-1))
    keep = counted if array.ndim == counted.ndim else counted[..., None]
    return np.where(keep, array, np.zeros((), array.dtype))


def _weights(targets, joint_set, shape, valid) -> np.ndarray:
    """Weights [B, J] of a set's joints, zero in padding."""
    key = f"weights_{joint_set}"
    weights = np.broadcast_to(np.asarray(targets.get(key, 1.0), np.float32), shape)
    rows = np.broadcast_to(valid[:, None], shape)
    return _check_finite(f"targets {key}", weights, rows)


def _batch_values(protocol, predictions, targets, valid) -> Values:
    """Values and weights of one protocol for one batch, inputs checked."""
    key = protocol.branch + protocol.key
    found = _fetch(predictions, key, "predictions", protocol)
    truth = _fetch(targets, protocol.key, "targets", protocol)
    weights = _weights(targets, protocol.joint_set, found.shape[:-1], valid)
    rows = np.any(weights > 0, axis=-1)
    every = np.broadcast_to(rows[:, None], weights.shape)
    found = _check_finite(f"predictions {key}", found, every)
    truth = _check_finite(f"targets {protocol.key}", truth, weights > 0)
    roots, root_weights = None, weights[:, protocol.root]
    if protocol.root_set is not None:
        roots, root_weights = _roots(protocol, predictions, targets, valid, rows)
    predicted = jnp.asarray(found)
    return sample_errors(
        protocol,
        predicted,
        jnp.asarray(truth, predicted.dtype),
        jnp.asarray(weights, predicted.dtype),
        roots,
        jnp.asarray(root_weights, predicted.dtype),
    )


def _roots(protocol, predictions, targets, valid, rows):
    """Predicted and target root [B, 3] of another joint set, and weights [B]."""
    key = protocol.root_key
    own = protocol.branch + key
    found = _fetch(predictions, own, "predictions", protocol)[:, protocol.root]
    joints = _fetch(targets, key, "targets", protocol)
    weights = _weights(targets, protocol.root_set, joints.shape[:-1], valid)
    weights = weights[:, protocol.root]
    counted = rows & (weights > 0)
    found = _check_finite(f"predictions {own}", found, counted)
    truth = _check_finite(f"targets {key}", joints[:, protocol.root], counted)
    predicted = jnp.asarray(found)
    return (predicted, jnp.asarray(truth, predicted.dtype)), weights


def _fetch(arrays, key, side, protocol) -> np.ndarray:
    if key not in arrays:
        raise UserError(
            f"{side}: protocol {protocol.name} expects {key!r}, found {sorted(arrays)}"
        )
    return np.asarray(arrays[key])


def _per_sample(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over each sample's counted joints; NaN where none is."""
    count = weights.sum(-1)
    total = np.where(weights > 0, values * weights, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1e-12), np.nan)


def _add_groups(groups, values, labels, valid) -> None:
    """Merge each label's rows of ``values`` into ``groups``."""
    for label in np.unique(labels[valid]):
        if not label:
            continue
        rows = valid & (labels == label)
        part = {k: Mean.of(v[rows], w[rows]) for k, (v, w) in values.items()}
        groups[str(label)] = merge_all(groups.get(str(label)), part)
