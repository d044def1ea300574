"""Parts of the published layer that are solved once: root, spine3, twists, leaves."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hmr_jax.geometry import rotations, safe

_HIGHEST = jax.lax.Precision.HIGHEST


def direction_to_direction(
    start: Float[Array, "3"], end: Float[Array, "3"], eps: float
) -> Float[Array, "3 3"]:
    """The published rotation from one direction to another, every ``eps`` in place.

    Not exactly a rotation for short vectors, and the identity for opposite ones:
    ``geometry.rotations.rotation_between`` is the clean form.
    """
    axis = jnp.cross(start, end)
    sine = safe.norm(axis)
    scale = safe.norm(start) * safe.norm(end) + eps
    unit = axis / (sine + eps)
    return rotations.rodrigues(unit, (start * end).sum() / scale, sine / scale)


def two_vector_root(
    bones_m: Float[Array, "23 3"], aims_m: Float[Array, "23 3"], eps: float
) -> Float[Array, "3 3"]:
    """Root rotation from the spine bone and the middle of the hips (spec 6.2).

    Args:
        bones_m: rest bones in bone order (left hip, right hip, spine first).
        aims_m: target bones in the same order; no gradient reaches them.
        eps: the original's guard.

    Returns:
        Rotation of joint 0; not exactly orthonormal when the hips lie on the spine.
    """
    aims_m = jax.lax.stop_gradient(aims_m)
    spine = aims_m[2]
    spine = spine / (safe.norm(spine) + eps)
    first = direction_to_direction(bones_m[2], aims_m[2], eps)
    front = (aims_m[0] + aims_m[1]) / 2
    rest_front = rotations.matvec3(first, (bones_m[0] + bones_m[1]) / 2)
    front = front - (front * spine).sum() * spine
    rest_front = rest_front - (rest_front * spine).sum() * spine
    second = direction_to_direction(rest_front, front, eps)
    return rotations.matmul3(second, first)


def procrustes_rotation(
    sources: Float[Array, "n 3"], targets: Float[Array, "n 3"]
) -> Float[Array, "3 3"]:
    """Rotation that best carries the source vectors onto the targets; no gradient.

    Singular vectors have no derivative at repeated singular values, and the original
    blocks this gradient too.
    """
    correlation = jax.lax.stop_gradient(
        (sources[:, :, None] * targets[:, None, :]).sum(0)
    )
    left, _, right = jnp.linalg.svd(correlation)
    flip = jnp.sign(jnp.linalg.det(left) * jnp.linalg.det(right))
    ones = jnp.ones_like(flip)
    right = right * jnp.stack([ones, ones, flip])[:, None]
    rotation = jnp.matmul(left, right, precision=_HIGHEST).T
    undetermined = jnp.all(correlation == 0.0)
    return jnp.where(undetermined, jnp.eye(3, dtype=rotation.dtype), rotation)


def twist_rotmats(
    bones_m: Float[Array, "n 3"],
    twist_cos_sin: Float[Array, "n 2"],
    eps: float,
    axis_eps: float,
) -> Float[Array, "n 3 3"]:
    """Rotation about each rest bone by the raw (cos, sin) of its joint."""
    length = safe.norm(bones_m, keepdims=True) + axis_eps
    length = jnp.where(length > 0, length, jnp.ones_like(length))
    unit = twist_cos_sin / (safe.norm(twist_cos_sin, keepdims=True) + eps)
    return rotations.rodrigues(bones_m / length, unit[:, 0], unit[:, 1])


def quaternions_to_rotmats(
    quaternions: Float[Array, "*n 4"], eps: float
) -> Float[Array, "*n 3 3"]:
    """Rotations of raw quaternions (w, x, y, z) divided by their norm plus ``eps``."""
    unit = quaternions / (safe.norm(quaternions, keepdims=True) + eps)
    w, x, y, z = (unit[..., i] for i in range(4))
    rows = (
        (w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z),
    )
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)
