"""Losses as functions of a prediction and its target, one number an entry.

None reduces: see ``losses.reduce``. Shapes that would broadcast are refused.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hmr_jax.distributions.gaussian import DiagonalGaussian
from hmr_jax.distributions.matrix_fisher import Normalizer, log_normalizer
from hmr_jax.geometry.svd3 import SvdSigns, proper_svd
from hmr_jax.losses.reduce import check_same_shape

OVERREG = 1.005
"""HierProb's published factor on the log normaliser."""


def absolute_error(
    predicted: Float[Array, "*shape"], target: Float[Array, "*same"]
) -> Float[Array, "*shape"]:
    """``|p - t|``, in the unit of both.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(predicted, target)
    return jnp.abs(predicted - target)


def squared_error(
    predicted: Float[Array, "*shape"], target: Float[Array, "*same"]
) -> Float[Array, "*shape"]:
    """``(p - t)^2``, in the square of the unit of both.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(predicted, target)
    return jnp.square(predicted - target)


def nearer_sign(
    quaternions: Float[Array, "*batch 4"], targets: Float[Array, "*batch 4"]
) -> Float[Array, "*batch 4"]:
    """Each target or its negative, whichever is nearer to the quaternion beside it.

    Both are one rotation: an error is taken to what this gives.
    """
    same = jnp.sum(quaternions * targets, -1, keepdims=True) >= 0
    return jnp.where(same, targets, -targets)


def gaussian_nll(
    mean: Float[Array, "*batch n"],
    log_std: Float[Array, "*batch n"],
    target: Float[Array, "*same n"],
) -> Float[Array, "*batch"]:
    """Negative log likelihood of vectors under diagonal Gaussians.

    Args:
        mean: of the distributions.
        log_std: logarithms of the standard deviations.
        target: observed vectors.

    Raises:
        ValueError: the shapes differ.

    Source: specs/hierprob.md section 8.
    """
    check_same_shape(mean, target)
    return -DiagonalGaussian(mean, log_std).log_prob(target)


def matrix_fisher_nll(
    matrix: Float[Array, "*batch 3 3"],
    target_rotmat: Float[Array, "*same 3 3"],
    overreg: float = OVERREG,
    normalizer: Normalizer = "accurate",
    signs: SvdSigns = "lapack_old",
    s: Float[Array, "*batch 3"] | None = None,
) -> Float[Array, "*batch"]:
    """Negative log likelihood of rotations, the normaliser weighed by ``overreg``.

    Args:
        matrix: parameters F of the distributions.
        target_rotmat: observed rotations.
        overreg: factor on log c, above 1 to bound the concentration; 1 is the plain
            likelihood.
        normalizer: ``accurate``, or ``published`` for the original's biased sum.
        signs: of the decomposition; they change neither value nor gradient.
        s: the proper singular values of ``matrix``, as differentiable functions of it,
            where they are known already; None decomposes here.

    Returns:
        ``-tr(F^T R) + overreg log c``; finite with finite gradients for every F.

    Raises:
        ValueError: the shapes differ.

    Source: specs/hierprob.md section 7.3.
    """
    check_same_shape(matrix, target_rotmat)
    if s is None:
        s = proper_svd(matrix, signs).s
    return overreg * log_normalizer(s, normalizer) - jnp.sum(
        matrix * target_rotmat, (-2, -1)
    )


def heatmap_cross_entropy(
    logits: Float[Array, "batch height width channels"],
    target_uvd: Float[Array, "batch joints 3"],
    spread_cells: float = 1.0,
) -> tuple[Float[Array, "batch joints"], Float[Array, "batch joints"]]:
    """Cross-entropy of the heat maps' marginals and Gaussians around the labels.

    A soft-argmax is content with any heat map of the right mean, which leaves its
    shape, and much of what an untrained network could learn from, open; this loss asks
    for a peak.

    Args:
        logits: channel ``joint * depth + slice``.
        target_uvd: centres of the Gaussians, in [-.5, .5] across the heat map.
        spread_cells: standard deviation of the Gaussians, heat-map cells.

    Returns:
        In the plane (u, v), and along the depth.

    Source: after Nibali et al., Numerical coordinate regression (2018), section 3.3.
    """
    count, height, width, channels = logits.shape
    joints = target_uvd.shape[1]
    depth = channels // joints
    values = jnp.asarray(logits, jnp.promote_types(jnp.float32, logits.dtype))
    values = values.reshape(count, height * width, joints, depth)
    in_plane = jax.nn.logsumexp(values, axis=3)
    total = jax.nn.logsumexp(in_plane, axis=1)
    in_plane = in_plane - total[:, None]
    along = jax.nn.logsumexp(values, axis=1) - total[..., None]
    u, v, d = (
        _gaussian(target_uvd[..., axis], cells, spread_cells)
        for axis, cells in enumerate((width, height, depth))
    )
    plane = (v[..., :, None] * u[..., None, :]).reshape(count, joints, -1)
    return -jnp.sum(plane * jnp.swapaxes(in_plane, 1, 2), -1), -jnp.sum(d * along, -1)


def _gaussian(centres: Array, cells: int, spread_cells: float) -> Array:
    """Weights of the cells that add up to one, for centres in [-.5, .5]."""
    places = jnp.arange(cells, dtype=centres.dtype) - 0.5 * cells
    offset = jnp.expand_dims(cells * centres, -1) - jnp.expand_dims(
        places, tuple(range(centres.ndim))
    )
    return jax.nn.softmax(-0.5 * jnp.square(offset / spread_cells), axis=-1)
