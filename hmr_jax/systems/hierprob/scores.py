"""Scores of predicted body distributions: what is compared, and the table of it.

Source: specs/hierprob.md sections 12 to 14.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from hmr_jax.body.forward import body_forward
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.metrics.accumulate import Mean, merge_all
from hmr_jax.systems import hierprob
from hmr_jax.systems.hierprob.metrics import (
    IMAGE_SIZE_PX,
    frame_metrics,
    pixels_of_norm,
    with_mode_first,
)

Fields = dict[str, Array]


class Prediction(NamedTuple):
    """What is scored of a batch, under the names of ``metrics.hierprob``.

    Attributes:
        mode: [B, ...].
        samples: [B, samples, ...], empty without samples.
        raw: the distributions.
    """

    mode: Fields
    samples: Fields
    raw: Fields


class Scores(NamedTuple):
    """What an evaluation found.

    Attributes:
        means: metric to its mean, metres, pixels or shares.
        per_frame: metric to one number per frame, in order.
        source: what was evaluated.
        published: arrays of the published files, by name.
    """

    means: dict[str, Mean]
    per_frame: dict[str, np.ndarray]
    source: str = "synthetic"
    published: Mapping[str, np.ndarray] = {}

    def values(self) -> dict[str, float]:
        """Metric to number: millimetres, pixels of a crop of 256, or shares."""
        return {
            name: mean.compute() * (1000.0 if in_metres(name) else 1.0)
            for name, mean in self.means.items()
        }

    def flat(self) -> dict[str, float]:
        """The numbers as ``source/metric``."""
        return {f"{self.source}/{k}": value for k, value in self.values().items()}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain containers, for a result file; None for NaN."""

        def plain(x: float) -> float | None:
            return None if np.isnan(x) else round(float(x), 7)

        return {
            "metrics": {name: plain(x) for name, x in self.values().items()},
            "per_frame": {n: list(map(plain, x)) for n, x in self.per_frame.items()},
        }


def in_metres(name: str) -> bool:
    """Whether a metric is a length in space."""
    return name.startswith(("PVE", "MPJPE"))


def predict(
    key: PRNGKeyArray,
    raw: Mapping[str, Array],
    body: BodyModel,
    num_samples: int,
    *,
    mode_first: bool = True,
) -> Prediction:
    """Pose the most likely bodies and samples, with everything that is scored.

    Args:
        key: random key of the samples.
        raw: output of ``HierProbNet``.
        body: the body.
        num_samples: bodies per image; 0 for none.
        mode_first: put the mode in place of each image's first sample (in metres, not
            in the picture), as the published evaluation does.
    """
    mode = hierprob.decode(raw, body, reposed=True)
    fields = {
        "vertices_m": mode["vertices_m"],
        "zero_pose_vertices_m": mode["reposed_vertices_m"],
        "joints2d_px": pixels_of_norm(mode["joints2d_norm"][:, 0]),
    }
    if "joints3d_m" in mode:
        fields["joints3d_m"] = mode["joints3d_m"]
    samples: Fields = {}
    if num_samples:
        drawn = hierprob.decode_samples(key, raw, body, num_samples)
        betas = drawn["sample_betas"]
        rest = jnp.zeros((*betas.shape[:-1], body.num_joints, 3), betas.dtype)
        samples = {
            "vertices_m": drawn["sample_vertices_m"],
            "zero_pose_vertices_m": body_forward(body, betas, rest).vertices_m,
            "joints2d_px": pixels_of_norm(drawn["sample_joints2d_norm"]),
        }
        if "sample_joints3d_m" in drawn:
            samples["joints3d_m"] = drawn["sample_joints3d_m"]
        if mode_first:
            samples = with_mode_first(samples, fields)
    return Prediction(fields, samples, dict(raw))


def rendered_targets(batch: Mapping[str, Array], image_size_px: int) -> Fields:
    """The truth of a batch of ``synthetic.proxies.make_batch`` with all targets.

    Args:
        batch: the batch.
        image_size_px: side of its pictures.
    """
    names = ("vertices_m", "zero_pose_vertices_m", "joints3d_m")
    fields = {n: batch[f"target_{n}"] for n in names if f"target_{n}" in batch}
    scale = IMAGE_SIZE_PX / image_size_px
    fields["joints2d_px"] = batch["target_joints2d_px"] * scale
    fields["joints2d_visible"] = batch["target_joints2d_visible"]
    return fields


def score(
    batches: Iterable[tuple[Prediction, Mapping[str, Any], int]],
) -> Scores:
    """Score predictions.

    Args:
        batches: predictions, their targets, and how many samples count: the rest is
            padding.

    Returns:
        Means over all of them; any split into batches gives the same.

    Raises:
        UserError: there was no sample, or a prediction or a target is not finite.
    """
    means: dict[str, Mean] | None = None
    seen = 0
    frames: dict[str, list[np.ndarray]] = {}
    for prediction, target, count in batches:
        kept = jax.tree.map(lambda x, n=count: x[:n], (prediction, dict(target)))
        for what, fields in zip(
            ("prediction's", "samples'", "target's"),
            (kept[0].mode, kept[0].samples, kept[1]),
            strict=True,
        ):
            _check_finite(fields, what, seen)
        found = frame_metrics(kept[0].mode, kept[1], kept[0].samples or None)
        seen += count
        means = merge_all(means, found.means)
        for name, values in found.per_frame.items():
            frames.setdefault(name, []).append(values)
    if means is None:
        raise UserError("there was no sample to score")
    return Scores(means, {name: np.concatenate(x) for name, x in frames.items()})


def _check_finite(fields: Mapping[str, Any], what: str, first: int) -> None:
    """Refuse what is not finite: distances of it may look like none."""
    for name, values in fields.items():
        values = np.asarray(values)
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
        if bad.any():
            raise UserError(
                f"{what} {name}: expected finite numbers, found NaN or infinity in "
                f"frame {first + int(np.argmax(bad))}"
            )


def format_scores(columns: Mapping[str, Scores]) -> str:
    """A table with a row for each metric.

    Args:
        columns: name of a model to its scores.

    Returns:
        Lines of text: millimetres, pixels of a crop of 256, and percent for overlaps.
    """
    values = {name: scores.values() for name, scores in columns.items()}
    metrics = list(dict.fromkeys(m for found in values.values() for m in found))
    first = max(len(name) for name in metrics)
    lines = ["  ".join([" " * first, "unit", *columns])]
    for metric in metrics:
        unit = "mm" if in_metres(metric) else "%" if metric.endswith("IOU") else "px"
        cells = [metric.ljust(first), unit.ljust(4)]
        for name, found in values.items():
            value = found.get(metric, float("nan")) * (100.0 if unit == "%" else 1.0)
            cell = "-" if np.isnan(value) else f"{value:.1f}"
            cells.append(cell.rjust(max(len(name), 1)))
        lines.append("  ".join(cells))
    return "\n".join(lines)
