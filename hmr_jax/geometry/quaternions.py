"""Quaternions (w, x, y, z) and the smooth series behind axis-angle conversions."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from hmr_jax.geometry import safe

_SERIES_LIMIT = 0.25
"""Below this squared angle the power series (7 terms, exact in float64) is used."""


def _polynomial(x: Array, coefficients: list[float]) -> Array:
    result = jnp.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = result * x + c
    return result


def _factorial_series(first: int) -> list[float]:
    """Coefficients (-1)^k / (2 k + first)!, the series of sin x / x and its kin."""
    terms, value = [], 1.0
    for i in range(2, first + 1):
        value /= i
    for k in range(7):
        terms.append(value)
        value /= -(2 * k + first + 1) * (2 * k + first + 2)
    return terms


_SINC = _factorial_series(1)
_COSC = _factorial_series(2)
_ATAN = [(-1.0) ** k / (2 * k + 1) for k in range(6)]


def sinc_terms(
    angle_squared: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """``sin(t) / t`` and ``(1 - cos t) / t^2`` as smooth functions of ``t^2``.

    Args:
        angle_squared: radians squared.

    Returns:
        Both quotients; 1 and 1/2 at zero.
    """
    small = angle_squared < _SERIES_LIMIT
    near = jnp.where(small, angle_squared, 0)
    angle = jnp.sqrt(jnp.where(small, 1, angle_squared))
    half = jnp.sin(0.5 * angle) / angle
    return (
        jnp.where(small, _polynomial(near, _SINC), jnp.sin(angle) / angle),
        jnp.where(small, _polynomial(near, _COSC), 2 * half * half),
    )


def axis_angle_to_quaternion(
    axis_angle: Float[Array, "*batch 3"],
) -> Float[Array, "*batch 4"]:
    """Unit quaternions (w, x, y, z) of axis-angle vectors.

    Args:
        axis_angle: axis times angle, radians.

    Returns:
        ``(cos(t/2), sin(t/2) axis)``; ``w < 0`` where the angle exceeds pi.
    """
    quarter = 0.25 * jnp.sum(axis_angle * axis_angle, -1, keepdims=True)
    half_sinc, half_cosc = sinc_terms(quarter)
    w = 1 - quarter * half_cosc
    return jnp.concatenate([w, 0.5 * half_sinc * axis_angle], -1)


def quaternion_to_axis_angle(
    quaternion: Float[Array, "*batch 4"],
) -> Float[Array, "*batch 3"]:
    """Shortest axis-angle vectors of quaternions of any length.

    Args:
        quaternion: (w, x, y, z).

    Returns:
        Axis times angle, radians, angle in [0, pi]; 0 for the zero quaternion. At a
        half turn, where both axes are right, that of the quaternion with ``w >= 0``.
    """
    q = safe.normalize(quaternion)
    q = jnp.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    # Decided by the numbers themselves: next to a half turn w is all but zero, and a
    # guarded v / w would look like that of the identity.
    small = jnp.sum(v * v, -1, keepdims=True) < 1e-3 * (w * w)
    ratio = jnp.where(small, v, 0) / jnp.where(small, w, 1)
    ratio_squared = jnp.sum(ratio * ratio, -1, keepdims=True)
    series = 2 * _polynomial(ratio_squared, _ATAN) * ratio
    sine = safe.norm(v, keepdims=True)
    return jnp.where(small, series, 2 * safe.divide(safe.atan2(sine, w), sine) * v)


def quaternion_to_matrix(
    quaternion: Float[Array, "*batch 4"],
) -> Float[Array, "*batch 3 3"]:
    """Rotation matrices of quaternions of any length.

    Args:
        quaternion: (w, x, y, z); normalised here.

    Returns:
        Rotation matrices; the identity for the zero quaternion.
    """
    q = safe.normalize(quaternion)
    rows = matrix_entries([q[..., i] for i in range(4)])
    return jnp.stack(sum(rows, []), -1).reshape(*q.shape[:-1], 3, 3)


def matrix_entries(
    quaternion: Sequence[Array], two: Array | float = 2.0, one: Array | float = 1.0
) -> list[list[Array]]:
    """The rows of ``one + two (w [v]x + [v]x [v]x)``, with v = (x, y, z).

    Args:
        quaternion: its entries w, x, y, z, arrays of one shape.
        two: 2 for a unit quaternion, 2 / |q|^2 for one of any other length, which
            leaves half the rounding of normalising it.
        one: 1, or |q|^2 with 2 for |q|^2 times the rotation.

    Returns:
        Three rows of three entries.
    """
    w, x, y, z = quaternion
    return [
        [one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)],
        [two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)],
        [two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)],
    ]


def matrix_to_quaternion(
    rotmat: Float[Array, "*batch 3 3"], canonical: bool = True
) -> Float[Array, "*batch 4"]:
    """Unit quaternions (w, x, y, z) of rotation matrices.

    Args:
        rotmat: rotation matrices.
        canonical: return the sign with ``w >= 0``. False gives the sign of the
            published four-branch conversion (w may be negative), which IKOL, INT and
            I2L-MeshNet share.

    Returns:
        Quaternions; each branch divides by at least 2, so gradients are finite.

    Source: specs/ikol.md section 5; specs/int_hmr.md section 5.2.
    """
    q = safe.normalize(quaternion_branch(rotmat)[0])
    return jnp.where(q[..., :1] < 0, -q, q) if canonical else q


def quaternion_branch(
    rotmat: Float[Array, "*batch 3 3"],
) -> tuple[Float[Array, "*batch 4"], Float[Array, "*batch"]]:
    """The published four-branch conversion, before it divides.

    Args:
        rotmat: rotation matrices, or nearly.

    Returns:
        The quaternion (w, x, y, z) times 2 sqrt(t), and t: four times the square of
        one of its entries, at least 1 for a rotation.
    """
    r = [[rotmat[..., i, j] for j in range(3)] for i in range(3)]
    d0, d1, d2 = r[0][0], r[1][1], r[2][2]
    low = d2 < 1e-6
    is_x, is_y = low & (d0 > d1), low & (d0 <= d1)
    is_z = ~low & (d0 < -d1)
    t = [1 + d0 - d1 - d2, 1 - d0 + d1 - d2, 1 - d0 - d1 + d2, 1 + d0 + d1 + d2]
    a, b, c = r[2][1] - r[1][2], r[0][2] - r[2][0], r[1][0] - r[0][1]
    e, f, g = r[1][0] + r[0][1], r[0][2] + r[2][0], r[2][1] + r[1][2]
    branches = [(a, t[0], e, f), (b, e, t[1], g), (c, f, g, t[2]), (t[3], a, b, c)]
    stacked = [jnp.stack(branch, -1) for branch in branches]
    chosen = [is_x, is_y, is_z]
    q = jnp.select([c[..., None] for c in chosen], stacked[:3], stacked[3])
    return q, jnp.select(chosen, t[:3], t[3])


def quaternion_multiply(
    a: Float[Array, "*batch 4"], b: Float[Array, "*batch 4"]
) -> Float[Array, "*batch 4"]:
    """Hamilton product: the rotation ``b`` followed by ``a``.

    Args:
        a: left quaternions (w, x, y, z).
        b: right quaternions.

    Returns:
        ``a b``.
    """
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    w = aw * bw - jnp.sum(av * bv, -1, keepdims=True)
    return jnp.concatenate([w, aw * bv + bw * av + jnp.cross(av, bv)], -1)


def quaternion_conjugate(q: Float[Array, "*batch 4"]) -> Float[Array, "*batch 4"]:
    """Conjugates: the inverse rotations of unit quaternions.

    Args:
        q: quaternions (w, x, y, z).

    Returns:
        ``(w, -x, -y, -z)``.
    """
    return jnp.concatenate([q[..., :1], -q[..., 1:]], -1)
