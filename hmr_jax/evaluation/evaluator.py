"""Runs protocols over batches, and prints what they found."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hmr_jax.evaluation.protocols import (
    Protocol,
    array_key,
    get_protocol,
    sample_errors,
)
from hmr_jax.metrics.accumulate import Mean, merge_all

Batch = Mapping[str, Any]
# Batch key of the truth, per joint set: [B, J, 4], metres and validity.
TARGET_KEYS = {"h36m_17": "joints_h36m_cam_m", "smpl_24": "joints_cam_m"}


@dataclasses.dataclass
class Report:
    """What an evaluation found.

    Attributes:
        means: protocol name to metric name to mean (millimetres or percent).
        groups: protocol name to label value to metric name to mean.
        per_sample: protocol name to the headline metric of each sample, in order.
        num_samples: samples counted.
    """

    means: dict[str, dict[str, Mean]]
    groups: dict[str, dict[str, dict[str, Mean]]]
    per_sample: dict[str, np.ndarray]
    num_samples: int

    def values(self) -> dict[str, dict[str, float]]:
        """Protocol name to metric name to number."""
        return {
            protocol: {name: mean.compute() for name, mean in metrics.items()}
            for protocol, metrics in self.means.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Everything as plain containers, for a result file."""
        return {
            "num_samples": self.num_samples,
            "protocols": self.values(),
            "groups": {
                protocol: {
                    label: {name: mean.compute() for name, mean in metrics.items()}
                    for label, metrics in labels.items()
                }
                for protocol, labels in self.groups.items()
            },
            "per_sample": {k: v.tolist() for k, v in self.per_sample.items()},
        }


def batch_targets(batch: Batch) -> dict[str, np.ndarray]:
    """The truth of a batch under the evaluator's names.

    Args:
        batch: with the keys of ``TARGET_KEYS`` it has, [B, J, 4] each.

    Returns:
        ``joints_<set>_m`` [B, J, 3] and ``weights_<set>`` [B, J] per joint set.
    """
    targets = {}
    for joint_set, key in TARGET_KEYS.items():
        if key in batch:
            joints = np.asarray(batch[key])
            targets[array_key(joint_set)] = joints[..., :3]
            targets[f"weights_{joint_set}"] = joints[..., 3]
    return targets


def evaluate(
    predict_fn: Callable[[Batch], Mapping[str, Any]],
    batches: Iterable[Batch],
    protocols: Sequence[str | Protocol],
    *,
    target_fn: Callable[[Batch], Mapping[str, Any]] = batch_targets,
    labels_fn: Callable[[Batch], Mapping[str, Sequence[str]]] | None = None,
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
            that report groups.

    Returns:
        A ``Report``. Any split into batches gives the same means.

    Raises:
        ValueError: a prediction or the truth lacks an array, a prediction of a counted
            sample is not finite, or no sample was counted.
    """
    chosen = [get_protocol(p) if isinstance(p, str) else p for p in protocols]
    means: dict[str, dict[str, Mean]] = {p.name: {} for p in chosen}
    groups: dict[str, dict[str, dict[str, Mean]]] = {p.name: {} for p in chosen}
    samples: dict[str, list[np.ndarray]] = {p.name: [] for p in chosen}
    seen = 0
    for batch in batches:
        predictions = dict(predict_fn(batch))
        targets = dict(target_fn(batch))
        if "target_vertices_m" in predictions:
            targets.setdefault("vertices_m", predictions["target_vertices_m"])
        labels = labels_fn(batch) if labels_fn else {}
        valid = _valid(batch, predictions)
        seen += int(valid.sum())
        for protocol in chosen:
            values = _batch_values(protocol, predictions, targets, valid)
            means[protocol.name] = merge_all(
                means[protocol.name], {k: Mean.of(*v) for k, v in values.items()}
            )
            samples[protocol.name].append(
                _per_sample(*values[protocol.headline])[valid]
            )
            if protocol.group_by is not None and protocol.group_by in labels:
                _add_groups(
                    groups[protocol.name], values, labels[protocol.group_by], valid
                )
    if seen == 0:
        raise ValueError("evaluation: expected at least one valid sample, found none")
    return Report(
        means, groups, {k: np.concatenate(v) for k, v in samples.items()}, seen
    )


def _valid(batch: Batch, predictions: Mapping[str, Any]) -> np.ndarray:
    if "valid" in batch:
        return np.asarray(batch["valid"]) > 0
    first = next(iter(predictions.values()))
    return np.ones(np.shape(first)[0], bool)


def _batch_values(protocol, predictions, targets, valid):
    """Values and weights of one protocol for one batch, inputs checked."""
    predicted = _fetch(predictions, protocol.key, "predictions", protocol)
    target = _fetch(targets, protocol.key, "targets", protocol)
    finite = np.isfinite(predicted).all((-1, -2))
    if not finite[valid].all():
        bad = np.flatnonzero(valid & ~finite)
        raise ValueError(
            f"predictions {protocol.key}: {len(bad)} of {int(valid.sum())} samples "
            f"of a batch are not finite (first at row {bad[0]})"
        )
    predicted = np.where(finite[:, None, None], predicted, 0.0)
    weights = targets.get(f"weights_{protocol.joint_set}")
    if weights is None:
        weights = np.ones(predicted.shape[:-1], predicted.dtype)
    weights = np.asarray(weights) * valid[:, None].astype(predicted.dtype)
    roots = None
    if protocol.root_set is not None:
        roots = tuple(
            jnp.asarray(
                _fetch(arrays, protocol.root_key, side, protocol)[:, protocol.root]
            )
            for arrays, side in ((predictions, "predictions"), (targets, "targets"))
        )
    dtype = predicted.dtype
    return sample_errors(
        protocol,
        jnp.asarray(predicted),
        jnp.asarray(target, dtype),
        jnp.asarray(weights, dtype),
        roots,
    )


def _fetch(arrays, key, side, protocol) -> np.ndarray:
    if key not in arrays:
        raise ValueError(
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
    labels = np.asarray(labels)
    for label in np.unique(labels[valid]):
        rows = valid & (labels == label)
        part = {k: Mean.of(v[rows], w[rows]) for k, (v, w) in values.items()}
        groups[str(label)] = merge_all(groups.get(str(label)), part)


def mean_over_groups(report: Report, protocol: str, metric: str) -> float:
    """Mean of a metric's group means, each group (an action, say) counting once."""
    labels = report.groups[protocol]
    if not labels:
        raise ValueError(f"protocol {protocol}: no groups were labelled")
    return float(np.mean([metrics[metric].compute() for metrics in labels.values()]))


def format_table(rows: Mapping[str, Report]) -> str:
    """A table of named reports: one line each, a column per protocol and metric.

    Args:
        rows: row name to report; the first row's protocols make the columns.

    Returns:
        Text with aligned columns; millimetres, percent for PCK and AUC.
    """
    first = next(iter(rows.values()))
    columns = [
        (protocol, metric)
        for protocol, metrics in first.means.items()
        for metric in metrics
        if metric not in "xyz" and "/" not in metric
    ]
    head = ["", *(f"{protocol} {metric}" for protocol, metric in columns), "samples"]
    body = []
    for name, report in rows.items():
        values = report.values()
        cells = [f"{values[p].get(m, float('nan')):.1f}" for p, m in columns]
        body.append([name, *cells, str(report.num_samples)])
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *body]
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
