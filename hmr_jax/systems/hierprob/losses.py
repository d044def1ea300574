"""The losses of the hierarchical distribution network, each as (sum, count).

Source: specs/hierprob.md sections 7.3 and 8.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array

from hmr_jax.distributions.matrix_fisher import Normalizer
from hmr_jax.geometry.svd3 import SvdSigns
from hmr_jax.losses.elementwise import (
    OVERREG,
    gaussian_nll,
    matrix_fisher_nll,
    squared_error,
)
from hmr_jax.losses.reduce import SumCount, masked, masked_error, per_sample

NAMES = ("pose", "shape", "joints2d", "global_rotmat", "vertices", "joints3d")
"""All that a stage may weigh."""


def hierprob_losses(
    predictions: Mapping[str, Array],
    batch: Mapping[str, Array],
    *,
    image_size_px: float,
    overreg: float = OVERREG,
    normalizer: Normalizer = "accurate",
    signs: SvdSigns = "lapack_old",
) -> dict[str, SumCount]:
    """All losses of a batch for which predictions are given.

    Args:
        predictions: ``pose_fisher_matrix`` [B, 23, 3, 3], optionally its proper
            singular values ``pose_s`` [B, 23, 3], ``shape_mean`` and
            ``shape_log_std`` [B, 10], ``joints2d_norm`` [B, K, 17, 2] in [-1, 1] over
            the image (K = 1 for the mode, 1 + samples with samples stacked behind it),
            ``global_rotmat`` [B, 3, 3], and optionally ``vertices_m`` [B, V, 3] and
            ``joints3d_m`` [B, 14, 3] of the mode.
        batch: ``target_pose_rotmats``, ``target_shape``, ``target_joints2d_px``
            [B, 17, 2], ``target_joints2d_visible`` [B, 17], ``target_global_rotmat``,
            ``target_vertices_m``, ``target_joints3d_m``; ``valid`` [B] zero for
            padding (all ones where absent).
        image_size_px: side of the image in which the 2D targets are given.
        overreg: see ``matrix_fisher_nll``.
        normalizer: ``accurate`` or ``published``.
        signs: see ``matrix_fisher_nll``.

    Returns:
        Name to (sum, count), of ``NAMES``. Every mean is over all elements; that of
        ``joints2d`` over the elements of visible joints. A visible joint whose target
        is not finite counts as not visible. With no visible joint at all the 2D loss
        is 0.

    Raises:
        ValueError: shapes of a prediction and its target differ.

    Source: specs/hierprob.md section 8.
    """
    matrix = predictions["pose_fisher_matrix"]
    valid = batch.get("valid", jnp.ones_like(matrix[:, 0, 0, 0]))

    def cleared(target: Array) -> Array:
        """Without the labels of padding: a NaN there must not reach the gradient."""
        return jnp.where(per_sample(valid, target) != 0, target, 0)

    def squared(key: str) -> SumCount:
        target = batch[f"target_{key}"]
        return masked_error(squared_error, predictions[key], target, valid=valid)

    pose = matrix_fisher_nll(
        matrix,
        cleared(batch["target_pose_rotmats"]),
        overreg,
        normalizer,
        signs,
        predictions.get("pose_s"),
    )
    shape = gaussian_nll(
        predictions["shape_mean"],
        predictions["shape_log_std"],
        cleared(batch["target_shape"]),
    )
    losses = {
        "pose": masked(pose, valid=valid),
        "shape": masked(shape, valid=valid),
        "joints2d": _joints2d(
            predictions["joints2d_norm"], batch, valid, image_size_px
        ),
        "global_rotmat": squared("global_rotmat"),
    }
    for name, key in (("vertices", "vertices_m"), ("joints3d", "joints3d_m")):
        if key in predictions:
            losses[name] = squared(key)
    return losses


def _joints2d(
    predicted: Array, batch: Mapping[str, Array], valid: Array, image_size_px: float
) -> SumCount:
    """Squared differences in [-1, 1] units over visible joints, samples and axes."""
    target = 2 * batch["target_joints2d_px"] / image_size_px - 1
    if predicted.shape[:1] + predicted.shape[2:] != target.shape:
        raise ValueError(
            f"joints2d_norm: expected [batch, samples, joints, 2] for targets "
            f"{target.shape}, got {predicted.shape}"
        )
    known = jnp.all(jnp.isfinite(target), -1) & (batch["target_joints2d_visible"] != 0)
    weight = known.astype(predicted.dtype)[:, None, :, None]
    target = jnp.broadcast_to(target[:, None], predicted.shape)
    return masked_error(squared_error, predicted, target, weight, valid)
