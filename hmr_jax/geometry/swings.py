"""Minimal rotations between directions, and the split of rotations about an axis."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from hmr_jax.geometry import safe
from hmr_jax.geometry.matrices import (
    identity_like,
    matmul3,
    outer,
    rodrigues,
    transpose,
)
from hmr_jax.geometry.quaternions import matrix_to_quaternion


def _perpendicular(unit: Array) -> Array:
    """Some unit vector at right angles, chosen by the smallest component."""
    smallest = jnp.argmin(jnp.abs(unit), -1)
    return safe.normalize(
        jnp.cross(unit, jax.nn.one_hot(smallest, 3, dtype=unit.dtype))
    )


def _halfway(a: Array, b: Array) -> Array:
    """Unit vectors half way between two directions; perpendicular to opposite ones."""
    total, across = a + b, a - b
    obtuse = jnp.sum(a * b, -1, keepdims=True) < 0
    across = safe.normalize(jnp.where(obtuse, across, a))
    # The sum of nearly opposite vectors is mostly rounding error; what of it is not at
    # right angles to their difference is nothing else.
    error = jnp.sum(total * across, -1, keepdims=True) * across
    total = jnp.where(obtuse, total - error, total)
    limit = 16 * float(jnp.finfo(a.dtype).eps) ** 2
    regular = jnp.sum(total * total, -1, keepdims=True) > limit
    half = safe.normalize(jnp.where(regular, total, a))
    return jnp.where(regular, half, _perpendicular(across))


def rotation_between(
    a: Float[Array, "*batch 3"], b: Float[Array, "*batch 3"]
) -> Float[Array, "*batch 3 3"]:
    """Minimal rotations that take the direction of ``a`` to the direction of ``b``.

    Args:
        a: vectors of any length.
        b: vectors of any length.

    Returns:
        Rotation matrices: two reflections through the half-way direction. The identity
        where either vector is zero; a half turn about some perpendicular axis where
        they are opposite.
    """
    a, b = safe.normalize(a), safe.normalize(b)
    half = _halfway(a, b)
    along = 4 * jnp.sum(a * half, -1)[..., None, None]
    turned = along * outer(half, a) - 2 * outer(a, a) - 2 * outer(half, half)
    defined = (jnp.sum(a * a, -1) > 0.5) & (jnp.sum(b * b, -1) > 0.5)
    return identity_like(a) + jnp.where(defined[..., None, None], turned, 0)


def _unit_cos_sin(cos_sin: Array) -> Array:
    """Unit (cos, sin) pairs; (1, 0) for the zero pair."""
    pair = safe.normalize(cos_sin)
    is_zero = (jnp.sum(pair * pair, -1) < 0.5)[..., None]
    default = jnp.broadcast_to(jnp.array([1, 0], pair.dtype), pair.shape)
    return jnp.where(is_zero, default, pair)


def twist_matrix(
    axis: Float[Array, "*batch 3"], cos_sin: Float[Array, "*batch 2"]
) -> Float[Array, "*batch 3 3"]:
    """Rotations about given axes by the angles of (cos, sin) pairs.

    Args:
        axis: vectors of any length; the identity results where one is zero.
        cos_sin: pairs of any length; the zero pair counts as angle 0.

    Returns:
        Rotation matrices.
    """
    pair = _unit_cos_sin(cos_sin)
    return rodrigues(safe.normalize(axis), pair[..., 0], pair[..., 1])


def twist_cos_sin(
    rotmat: Float[Array, "*batch 3 3"], axis: Float[Array, "*batch 3"]
) -> Float[Array, "*batch 2"]:
    """Cosine and sine of the twist about an axis that a rotation contains.

    Args:
        rotmat: rotation matrices.
        axis: vectors of any length, in the frame the rotation acts on.

    Returns:
        Unit (cos, sin) pairs; (1, 0) where the swing is a half turn to rounding, which
        leaves the twist undefined, and where the axis is zero.
    """
    q = matrix_to_quaternion(rotmat)
    along = jnp.sum(q[..., 1:] * safe.normalize(axis), -1)
    half = jnp.stack([q[..., 0], along], -1)
    # The pair's length is the cosine of half the swing's angle.
    rounding = 8 * float(jnp.finfo(half.dtype).eps)
    regular = jnp.sum(half * half, -1, keepdims=True) > rounding**2
    half = _unit_cos_sin(jnp.where(regular, half, 0))
    cos, sin = half[..., 0], half[..., 1]
    return jnp.stack([cos * cos - sin * sin, 2 * cos * sin], -1)


def swing_twist(
    rotmat: Float[Array, "*batch 3 3"], axis: Float[Array, "*batch 3"]
) -> tuple[Float[Array, "*batch 3 3"], Float[Array, "*batch 3 3"]]:
    """Split rotations as ``rotmat = swing @ twist``, the twist about ``axis``.

    Args:
        rotmat: rotation matrices.
        axis: vectors of any length, in the frame the rotation acts on.

    Returns:
        The minimal rotation that moves the axis as ``rotmat`` does, and the twist.
    """
    twist = twist_matrix(axis, twist_cos_sin(rotmat, axis))
    return matmul3(rotmat, transpose(twist)), twist
