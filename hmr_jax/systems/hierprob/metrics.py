"""Errors of predicted body distributions: meshes, joints, samples and silhouettes.

Per point and per frame, in metres and pixels; the tables of names below produce means
that merge over frames. Unlike the usual protocol nothing is centred on a root joint
unless an alignment says so.

Source: specs/hierprob.md section 13.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hmr_jax.geometry import safe
from hmr_jax.metrics.accumulate import Mean
from hmr_jax.metrics.pose import align, joint_errors

Variant = Literal["", "-SC", "-PA"]
METRES_NAMES = (
    "PVE",
    "PVE-SC",
    "PVE-PA",
    "PVE-T",
    "PVE-T-SC",
    "MPJPE",
    "MPJPE-SC",
    "MPJPE-PA",
)
"""Errors in metres: posed vertices, zero-pose vertices (T), evaluation joints."""
_FIELDS = {
    "PVE": "vertices_m",
    "PVE-T": "zero_pose_vertices_m",
    "MPJPE": "joints3d_m",
}
IMAGE_SIZE_PX = 256.0


class FrameMetrics(NamedTuple):
    """Metrics of a batch of frames.

    Attributes:
        means: name to a mean that merges over batches; silhouette IOUs pool pixels.
        per_frame: name to one number per frame, for names without samples.
    """

    means: dict[str, Mean]
    per_frame: dict[str, np.ndarray]


def align_scale_translation(
    predicted_m: Float[Array, "*batch points 3"],
    target_m: Float[Array, "*batch points 3"],
) -> Float[Array, "*batch points 3"]:
    """Give the prediction the target's centroid and root-mean-square size.

    Args:
        predicted_m: points in metres.
        target_m: their counterparts.

    Returns:
        Moved prediction; a prediction of size zero becomes the centroid.

    Note: not the least-squares scale, which depends on how well the points agree.
    """
    centre = jnp.mean(predicted_m, -2, keepdims=True)
    target_centre = jnp.mean(target_m, -2, keepdims=True)

    def size(points):
        return safe.sqrt(jnp.mean(jnp.sum(points * points, -1), -1))[..., None, None]

    centred = predicted_m - centre
    scale = safe.divide(size(target_m - target_centre), size(centred))
    return centred * scale + target_centre


def point_errors(
    predicted_m: Float[Array, "*batch points 3"],
    target_m: Float[Array, "*batch points 3"],
    variant: Variant = "",
) -> Float[Array, "*batch points"]:
    """Distances of vertices or joints after the variant's alignment.

    Args:
        predicted_m: points in metres.
        target_m: their counterparts.
        variant: none, ``-SC`` scale and translation, ``-PA`` similarity.

    Raises:
        ValueError: the shapes differ, or the variant is unknown.
    """
    if predicted_m.shape != target_m.shape:
        raise ValueError(
            f"predicted_m: expected the target's shape {target_m.shape}, "
            f"got {predicted_m.shape}"
        )
    if variant == "-SC":
        predicted_m = align_scale_translation(predicted_m, target_m)
    elif variant == "-PA":
        predicted_m = align(predicted_m, target_m, "procrustes")
    elif variant:
        raise ValueError(f"variant: expected '', -SC or -PA, got {variant!r}")
    return joint_errors(predicted_m, target_m)


def best_sample_error(
    errors: Float[Array, "*batch samples points"],
) -> Float[Array, "*batch"]:
    """Mean error of the sample whose mean error is the lowest.

    Args:
        errors: distances per sample and point.
    """
    return jnp.min(jnp.mean(errors, -1), -1)


def pixels_of_norm(
    joints2d_norm: Float[Array, "*batch 2"], image_size_px: float = IMAGE_SIZE_PX
) -> Float[Array, "*batch 2"]:
    """Pixels of coordinates in [-1, 1] over the image.

    Args:
        joints2d_norm: (x, y), -1 at the left or upper border.
        image_size_px: side of the image.
    """
    return 0.5 * image_size_px * (joints2d_norm + 1)


def joints2d_errors(
    predicted_px: Float[Array, "*batch joints 2"],
    target_px: Float[Array, "*batch joints 2"],
) -> Float[Array, "*batch joints"]:
    """Pixel distance of each joint.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted_px.shape != target_px.shape:
        raise ValueError(
            f"predicted_px: expected the target's shape {target_px.shape}, "
            f"got {predicted_px.shape}"
        )
    return safe.norm(predicted_px - target_px)


def silhouette_counts(
    predicted: Bool[Array, "*batch rows columns"],
    target: Bool[Array, "*batch rows columns"],
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """Pixels in both silhouettes, and pixels in at least one.

    Args:
        predicted: foreground of the prediction.
        target: foreground of the label.

    Returns:
        Intersection and union; their sums over a data set give the published IOU,
        which is not the mean of the frames' own.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != target.shape:
        raise ValueError(
            f"predicted: expected the target's shape {target.shape}, "
            f"got {predicted.shape}"
        )
    dtype = jnp.result_type(float)
    both = jnp.sum(predicted & target, (-2, -1))
    either = jnp.sum(predicted | target, (-2, -1))
    return both.astype(dtype), either.astype(dtype)


@jax.jit
def _points(predicted, target):
    """Every error in metres that the given fields allow, [B, points] by name."""
    errors = {}
    for name in METRES_NAMES:
        base = name.removesuffix("-SC").removesuffix("-PA")
        field = _FIELDS[base]
        if field in predicted and field in target:
            errors[name] = point_errors(
                predicted[field], target[field], name[len(base) :]
            )
    return errors


@jax.jit
def _best_samples(samples, target):
    """Errors of every sample against its frame's target, the best one's mean."""
    count = {field: array.shape[1] for field, array in samples.items()}
    repeated = {
        field: jnp.broadcast_to(
            target[field][:, None], (len(target[field]), n, *target[field].shape[1:])
        )
        for field, n in count.items()
    }
    return {
        f"{name}_samples_min": best_sample_error(errors)
        for name, errors in _points(samples, repeated).items()
    }


def frame_metrics(
    predicted: Mapping[str, Array],
    target: Mapping[str, Array],
    samples: Mapping[str, Array] | None = None,
) -> FrameMetrics:
    """All metrics that the given fields allow.

    Args:
        predicted: of the mode, any of ``vertices_m`` and ``zero_pose_vertices_m``
            [B, V, 3], ``joints3d_m`` [B, 14, 3], ``joints2d_px`` [B, 17, 2],
            ``silhouette`` [B, H, W] boolean.
        target: the same names; ``joints2d_visible`` [B, 17] restricts the sampled 2D
            error to visible joints (that of the mode always counts all).
        samples: the same names with samples on axis 1. As published, the evaluation
            puts the mode in place of the first sample; see ``with_mode_first``.

    Returns:
        Means and numbers per frame, metres and pixels.
    """
    means: dict[str, Mean] = {}
    per_frame: dict[str, np.ndarray] = {}
    for name, errors in _points(dict(predicted), dict(target)).items():
        means[name] = Mean.of(errors)
        per_frame[name] = np.asarray(errors, np.float64).mean(-1)
    if "joints2d_px" in predicted and "joints2d_px" in target:
        errors = joints2d_errors(predicted["joints2d_px"], target["joints2d_px"])
        means["joints2D-L2E"] = Mean.of(errors)
        per_frame["joints2D-L2E"] = np.asarray(errors, np.float64).mean(-1)
    if "silhouette" in predicted and "silhouette" in target:
        both, either = silhouette_counts(predicted["silhouette"], target["silhouette"])
        means["silhouette-IOU"] = _pooled(both, either)
        per_frame["silhouette-IOU"] = _shares(both, either)
    if samples:
        means |= _sample_means(samples, target)
    return FrameMetrics(means, per_frame)


def _sample_means(
    samples: Mapping[str, Array], target: Mapping[str, Array]
) -> dict[str, Mean]:
    fields = {f: samples[f] for f in _FIELDS.values() if f in samples and f in target}
    means = {
        name: Mean.of(best)
        for name, best in _best_samples(fields, {f: target[f] for f in fields}).items()
    }
    if "joints2d_px" in samples and "joints2d_px" in target:
        found = samples["joints2d_px"]
        errors = joints2d_errors(
            found, jnp.broadcast_to(target["joints2d_px"][:, None], found.shape)
        )
        visible = target.get("joints2d_visible")
        weights = None
        if visible is not None:
            weights = np.broadcast_to(np.asarray(visible)[:, None], errors.shape)
        means["joints2Dsamples-L2E"] = Mean.of(errors, weights)
    if "silhouette" in samples and "silhouette" in target:
        masks = samples["silhouette"]
        label = jnp.broadcast_to(target["silhouette"][:, None], masks.shape)
        means["silhouettesamples-IOU"] = _pooled(*silhouette_counts(masks, label))
    return means


def with_mode_first(
    samples: Mapping[str, Array], mode: Mapping[str, Array]
) -> dict[str, Array]:
    """Samples whose first one is replaced by the mode, as the published evaluation.

    Args:
        samples: fields [B, samples, ...].
        mode: fields [B, ...]; only those in metres and silhouettes are replaced, the 2D
            joints keep the genuine first sample.
    """
    return {
        name: array.at[:, 0].set(mode[name])
        if name in mode and name != "joints2d_px"
        else array
        for name, array in samples.items()
    }


def _pooled(both: Array, either: Array) -> Mean:
    return Mean(
        np.sum(np.asarray(both), dtype=np.float64),
        np.sum(np.asarray(either), dtype=np.float64),
    )


def _shares(both: Array, either: Array) -> np.ndarray:
    """Intersection over union per frame; NaN where both silhouettes are empty."""
    counted = np.asarray(either, np.float64)
    empty = counted == 0
    return np.where(empty, np.nan, np.asarray(both) / np.where(empty, 1, counted))
