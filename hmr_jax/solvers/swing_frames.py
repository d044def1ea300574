"""Parts of the published layer that are solved once: root, spine3, twists, leaves."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hmr_jax.geometry import alignment, rotations, safe
from hmr_jax.geometry.quaternions import matrix_entries


def directions_to_directions(
    start: Float[Array, "*n 3"], end: Float[Array, "*n 3"], eps: float
) -> Float[Array, "*n 3 3"]:
    """The published rotations of directions onto others, every ``eps`` in place.

    Not exactly rotations for short vectors and near half turns, and the identity for
    opposite ones: ``geometry.rotations.rotation_between`` is the clean form.
    """
    axis = jnp.cross(start, end)
    sine = safe.norm(axis)
    scale = safe.norm(start) * safe.norm(end) + eps
    unit = axis / (sine + eps)[..., None]
    return rotations.rodrigues(unit, (start * end).sum(-1) / scale, sine / scale)


def two_vector_root(
    bones_m: Float[Array, "23 3"], aims_m: Float[Array, "23 3"], eps: float
) -> Float[Array, "3 3"]:
    """Root rotation from the spine bone and the middle of the hips (spec 6.2).

    Args:
        bones_m: rest bones in bone order (left hip, right hip, spine first).
        aims_m: target bones in the same order.
        eps: the original's guard.

    Returns:
        Rotation of joint 0; not exactly orthonormal near half turns of the body and
        where the hips lie on the spine.
    """
    spine = aims_m[2]
    spine = spine / (safe.norm(spine) + eps)
    first = directions_to_directions(bones_m[2], aims_m[2], eps)
    front = (aims_m[0] + aims_m[1]) / 2
    rest_front = rotations.matvec3(first, (bones_m[0] + bones_m[1]) / 2)
    front = front - (front * spine).sum() * spine
    rest_front = rest_front - (rest_front * spine).sum() * spine
    second = directions_to_directions(rest_front, front, eps)
    return rotations.matmul3(second, first)


def turned(rotmat: Float[Array, "3 3"], vectors: Float[Array, "n 3"]) -> Array:
    """Several vectors turned by one matrix."""
    return rotations.matmul3(rotmat, vectors.T).T


def correlation(
    sources: Float[Array, "n 3"], targets: Float[Array, "n 3"]
) -> Float[Array, "3 3"]:
    """Sum of target times source transposed, what a rotation is fitted to."""
    return (targets[:, :, None] * sources[:, None, :]).sum(0)


def stiffness(fit: Float[Array, "3 3"], correlation: Float[Array, "3 3"]) -> tuple:
    """What resists turning a rotation away from the correlation it is fitted to.

    Returns:
        Cofactors and determinant of ``tr(S) I - S``, S the symmetric part of
        ``fit^T correlation``; its eigenvalues are the sums of two singular values.
    """
    s = rotations.matmul3(fit.T, correlation)
    matrix = jnp.trace(s) * jnp.eye(3, dtype=s.dtype) - 0.5 * (s + s.T)
    next_rows, last_rows = (jnp.roll(matrix, -k, axis=0) for k in (1, 2))
    cofactors = jnp.cross(next_rows, last_rows)
    return cofactors, (matrix[0] * cofactors[0]).sum()


def _turn_towards(fit, correlation, change):
    """Small rotation by which a change of the correlation moves its fit."""
    return alignment.turn_of_fit(fit, correlation, change)


@jax.custom_jvp
def fit_in_frame(
    correlation: Float[Array, "3 3"],
    world_rotmat: Float[Array, "3 3"],
    frame: Float[Array, "3 3"],
) -> Float[Array, "3 3"]:
    """The best rotation seen from a frame that is a rotation only up to the guards.

    The original solves the fit in the parent's frame, which the guards leave some 1e-8
    off orthonormal. One Newton step from the world's solution gives that fit without a
    decomposition inside the iterations; its derivative is that of the exact fit.

    Args:
        correlation: sum of target times rest bone transposed, in the world.
        world_rotmat: the rotation fitted in the world.
        frame: the parent's matrix.

    Returns:
        Rotation in the parent's frame.
    """
    seen = rotations.matmul3(frame.T, correlation)
    fit = rotations.matmul3(frame.T, world_rotmat)
    eye = jnp.eye(3, dtype=fit.dtype)
    for _ in range(2):  # back onto the rotations
        gram = rotations.matmul3(fit.T, fit)
        fit = rotations.matmul3(fit, 1.5 * eye - 0.5 * gram)
    turn = _turn_towards(fit, seen, seen)
    # The start is nearly exact; more than 0.6 degrees means a singular fit.
    turn = jnp.where((turn * turn).sum() < 1e-4, turn, jnp.zeros_like(turn))
    across = rotations.skew(turn)
    step = eye + across + 0.5 * rotations.matmul3(across, across)
    return rotations.matmul3(fit, step)


@fit_in_frame.defjvp
def _fit_in_frame_jvp(primals, tangents):
    correlation, _, frame = primals
    d_correlation, _, d_frame = tangents
    fit = fit_in_frame(*primals)
    seen = rotations.matmul3(frame.T, correlation)
    change = rotations.matmul3(d_frame.T, correlation)
    change = change + rotations.matmul3(frame.T, d_correlation)
    turn = _turn_towards(fit, seen, change)
    return fit, rotations.matmul3(fit, rotations.skew(turn))


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
    entries = [unit[..., i] for i in range(4)]
    rows = matrix_entries(entries, one=(unit * unit).sum(-1))
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)
