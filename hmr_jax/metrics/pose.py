"""Pose errors per joint, before any averaging.

All lengths are metres; means, thresholds in millimetres and printed units belong to
``evaluation``. Weights mask joints: zero drops one from alignments and averages.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hmr_jax.geometry import alignment, safe
from hmr_jax.geometry.matrices import matvec3

Alignment = Literal["none", "scale", "procrustes", "unscaled_shift"]


def joint_errors(
    predicted_m: Float[Array, "*batch joints 3"],
    target_m: Float[Array, "*batch joints 3"],
) -> Float[Array, "*batch joints"]:
    """Euclidean distance per joint (or vertex), in metres.

    Raises:
        ValueError: the shapes differ (they would broadcast).
    """
    if predicted_m.shape != target_m.shape:
        raise ValueError(
            f"predicted_m: expected the target's shape {target_m.shape}, "
            f"got {predicted_m.shape}"
        )
    return safe.norm(predicted_m - target_m)


def align(
    predicted_m: Float[Array, "*batch joints 3"],
    target_m: Float[Array, "*batch joints 3"],
    method: Alignment,
    weights: Float[Array, "*batch joints"] | None = None,
) -> Float[Array, "*batch joints 3"]:
    """Align each prediction to its target.

    Args:
        predicted_m: joints in metres.
        target_m: joints in metres.
        method: ``none``; ``scale``, the least-squares scale about the origin;
            ``procrustes``, the least-squares similarity (scale, rotation, translation);
            ``unscaled_shift``, the same with the translation of a scale of one, which
            I2L-MeshNet's first published numbers used.
        weights: per joint; zero leaves a joint out of the fit. None is all ones.

    Returns:
        The aligned prediction, every joint of it, also those left out of the fit.

    Source: spec sections 17.2 and 17.5.
    """
    if method == "none":
        return predicted_m
    if method == "scale":
        if weights is None:
            weights = jnp.ones(predicted_m.shape[:-1], predicted_m.dtype)
        product = (weights[..., None] * predicted_m * target_m).sum((-2, -1))
        square = (weights[..., None] * predicted_m**2).sum((-2, -1))
        return safe.divide(product, square)[..., None, None] * predicted_m
    if method == "procrustes":
        return alignment.align(predicted_m, target_m, weights, with_scale=True)
    if method == "unscaled_shift":
        if weights is None:
            weights = jnp.ones(predicted_m.shape[:-1], predicted_m.dtype)
        aligned = alignment.align(predicted_m, target_m, weights, with_scale=True)
        found = alignment.procrustes(predicted_m, target_m, weights, with_scale=True)
        total = (weights[..., None] * predicted_m).sum(-2)
        middle = safe.divide(total, weights.sum(-1, keepdims=True))
        turned = matvec3(found.rotation, middle)
        return aligned + ((found.scale[..., None] - 1) * turned)[..., None, :]
    raise ValueError(
        f"method: expected none, scale, procrustes or unscaled_shift, got {method!r}"
    )


def axis_errors(
    predicted_m: Float[Array, "*batch joints 3"],
    target_m: Float[Array, "*batch joints 3"],
) -> Float[Array, "*batch joints 3"]:
    """Absolute error along x, y and z per joint, in metres."""
    return jnp.abs(predicted_m - target_m)


def correct_keypoints(
    errors_m: Float[Array, "*batch joints"], threshold_m: float
) -> Bool[Array, "*batch joints"]:
    """Whether each joint is strictly nearer than the threshold: PCK before the mean."""
    return errors_m < threshold_m


def area_under_curve(
    errors_m: Float[Array, "*batch joints"],
    max_threshold_m: float = 0.15,
    num_thresholds: int = 31,
) -> Float[Array, "*batch joints"]:
    """Share of thresholds in [0, max] that each joint is under: AUC before the mean.

    Args:
        errors_m: distances in metres.
        max_threshold_m: last threshold, metres.
        num_thresholds: evenly spaced, both ends included; strict comparison.

    Source: MPI-INF-3DHP's protocol, 0 to 150 mm in steps of 5 (spec section 17.4).
    """
    steps = jnp.arange(num_thresholds, dtype=errors_m.dtype)
    thresholds = steps * jnp.asarray(
        max_threshold_m / (num_thresholds - 1), errors_m.dtype
    )
    under = errors_m[..., None] < jnp.broadcast_to(
        thresholds, (*errors_m.shape, num_thresholds)
    )
    return under.mean(-1, dtype=errors_m.dtype)


def acceleration_errors(
    predicted_m: Float[Array, "frames joints 3"],
    target_m: Float[Array, "frames joints 3"],
) -> Float[Array, "inner joints"]:
    """Difference of the second differences in time, per inner frame and joint.

    Args:
        predicted_m: a sequence of joints in metres, at least three frames.
        target_m: the same for the truth.

    Returns:
        [frames - 2, joints], metres per frame squared.
    """

    def acceleration(joints):
        return joints[:-2] - joints[1:-1] - joints[1:-1] + joints[2:]

    return safe.norm(acceleration(predicted_m) - acceleration(target_m))
