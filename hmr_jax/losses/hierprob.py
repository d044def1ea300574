"""The losses of the hierarchical distribution network, each as (sum, count).

Source: specs/hierprob.md sections 7.3 and 8.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from hmr_jax.distributions.gaussian import DiagonalGaussian
from hmr_jax.distributions.matrix_fisher import Normalizer, log_normalizer
from hmr_jax.geometry.svd3 import SvdSigns, proper_svd
from hmr_jax.losses.reduce import SumCount, weighted_sum

STAGE1_WEIGHTS = {
    "pose": 80.0,
    "shape": 50.0,
    "joints2d": 5000.0,
    "global_rotmat": 5000.0,
    "vertices": 0.0,
    "joints3d": 0.0,
}
"""The published weights of the first stage, whose 2D loss sees the mode alone."""
STAGE2_WEIGHTS = {
    "pose": 10.0,
    "shape": 80.0,
    "joints2d": 30000.0,
    "global_rotmat": 5000.0,
    "vertices": 5000.0,
    "joints3d": 5000.0,
}
"""The published weights from epoch 66 on; the 2D loss sees the mode and 8 samples."""
OVERREG = 1.005
"""The published factor on the log normaliser, which bounds the concentration."""
IMAGE_SIZE_PX = 256.0


def matrix_fisher_nll(
    matrix: Float[Array, "*batch 3 3"],
    target_rotmat: Float[Array, "*batch 3 3"],
    overreg: float = OVERREG,
    normalizer: Normalizer = "accurate",
    signs: SvdSigns = "lapack_old",
    s: Float[Array, "*batch 3"] | None = None,
) -> Float[Array, "*batch"]:
    """Negative log likelihood of rotations, the normaliser weighed by ``overreg``.

    Args:
        matrix: parameters F of the distributions.
        target_rotmat: observed rotations.
        overreg: factor on log c; 1 is the plain likelihood.
        normalizer: ``accurate``, or ``published`` for the original's biased sum.
        signs: of the decomposition; they change neither value nor gradient.
        s: the proper singular values of ``matrix``, as differentiable functions of it,
            where they are known already; None decomposes here.

    Returns:
        ``-tr(F^T R) + overreg log c``; finite with finite gradients for every F.

    Raises:
        ValueError: the shapes differ (they would broadcast).

    Source: specs/hierprob.md section 7.3.
    """
    if matrix.shape != target_rotmat.shape:
        raise ValueError(
            f"matrix {matrix.shape} and target {target_rotmat.shape} differ"
        )
    if s is None:
        s = proper_svd(matrix, signs).s
    return overreg * log_normalizer(s, normalizer) - jnp.sum(
        matrix * target_rotmat, (-2, -1)
    )


def hierprob_losses(
    predictions: Mapping[str, Array],
    batch: Mapping[str, Array],
    *,
    overreg: float = OVERREG,
    normalizer: Normalizer = "accurate",
    signs: SvdSigns = "lapack_old",
    image_size_px: float = IMAGE_SIZE_PX,
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
        overreg: see ``matrix_fisher_nll``.
        normalizer: ``accurate`` or ``published``.
        signs: see ``matrix_fisher_nll``.
        image_size_px: side of the image in which the 2D targets are given.

    Returns:
        Name to (sum, count), names as in ``STAGE1_WEIGHTS``. Every mean is over all
        elements; that of ``joints2d`` over the elements of visible joints. A visible
        joint whose target is not finite counts as not visible. With no visible joint at
        all the 2D loss is 0.

    Raises:
        ValueError: shapes of a prediction and its target differ.

    Source: specs/hierprob.md section 8.
    """
    matrix = predictions["pose_fisher_matrix"]
    valid = batch.get("valid", jnp.ones_like(matrix[:, 0, 0, 0]))
    # Labels of padding are cleared: a NaN there must not reach the gradient.
    rotmats = _cleared(batch["target_pose_rotmats"], valid)
    s = predictions.get("pose_s")
    nll = matrix_fisher_nll(matrix, rotmats, overreg, normalizer, signs, s)
    shape = DiagonalGaussian(predictions["shape_mean"], predictions["shape_log_std"])
    target_shape = _cleared(batch["target_shape"], valid)
    losses = {
        "pose": weighted_sum(nll, _leading(valid, nll)),
        "shape": weighted_sum(-shape.log_prob(target_shape), valid),
        "joints2d": _joints2d(
            predictions["joints2d_norm"], batch, valid, image_size_px
        ),
        "global_rotmat": _square(
            predictions["global_rotmat"], batch["target_global_rotmat"], valid
        ),
    }
    for name, key in (("vertices", "vertices_m"), ("joints3d", "joints3d_m")):
        if key in predictions:
            losses[name] = _square(predictions[key], batch[f"target_{key}"], valid)
    return losses


def _leading(valid: Array, like: Array) -> Array:
    """A weight per sample, repeated to the shape of ``like``."""
    expanded = valid.reshape(valid.shape + (1,) * (like.ndim - 1))
    return jnp.broadcast_to(expanded, like.shape)


def _cleared(target: Array, valid: Array) -> Array:
    return jnp.where(_leading(valid, target) != 0, target, 0)


def _square(predicted: Array, target: Array, valid: Array) -> SumCount:
    """Squared differences over all elements."""
    if predicted.shape != target.shape:
        raise ValueError(
            f"prediction {predicted.shape} and target {target.shape} differ"
        )
    weight = _leading(valid, predicted)
    difference = jnp.where(weight != 0, predicted - target, 0)
    return weighted_sum(difference * difference, weight)


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
    weight = known.astype(predicted.dtype) * _leading(valid, known)
    weight = jnp.broadcast_to(weight[:, None, :, None], predicted.shape)
    # Masked before the subtraction: a NaN target must not reach the gradient.
    counted = weight != 0
    target = jnp.broadcast_to(target[:, None], predicted.shape)
    difference = jnp.where(counted, predicted, 0) - jnp.where(counted, target, 0)
    return weighted_sum(difference * difference, weight)
