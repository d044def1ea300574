"""Rotations as matrices, axis-angle vectors, quaternions and 6D vectors.

Conventions: matrices act on column vectors; quaternions are (w, x, y, z); angles are
radians; every function takes leading batch axes, and every one is finite with finite
gradients at the identity, at half turns and at zero input.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from hmr_jax.geometry import safe

_SERIES_LIMIT = 0.25
"""Below this squared angle the power series (7 terms, exact in float64) is used."""


def matmul3(
    a: Float[Array, "*batch 3 3"], b: Float[Array, "*batch 3 n"]
) -> Float[Array, "*batch 3 n"]:
    """Product of 3x3 matrices (or 3x3 by 3xN) written out as multiply-adds.

    Batches of 3x3 ``dot``s are slow on the CPU and lose digits on accelerators (TF32);
    nine fused multiply-adds per entry do neither.

    Args:
        a: left factors.
        b: right factors, same batch axes.

    Returns:
        ``a @ b`` in full precision.
    """
    return (
        a[..., :, 0:1] * b[..., 0:1, :]
        + a[..., :, 1:2] * b[..., 1:2, :]
        + a[..., :, 2:3] * b[..., 2:3, :]
    )


def matvec3(
    a: Float[Array, "*batch 3 3"], v: Float[Array, "*batch 3"]
) -> Float[Array, "*batch 3"]:
    """Product of 3x3 matrices and vectors in full precision.

    Args:
        a: matrices.
        v: vectors, same batch axes.

    Returns:
        ``a @ v``.
    """
    return matmul3(a, v[..., None])[..., 0]


def transpose(a: Float[Array, "*batch n m"]) -> Float[Array, "*batch m n"]:
    """Swap the last two axes: the inverse of a rotation matrix.

    Args:
        a: matrices.

    Returns:
        Their transposes.
    """
    return jnp.swapaxes(a, -1, -2)


def _identity_like(x: Array) -> Array:
    """Identity matrices [..., 3, 3] for vectors [..., n] or their batch axes."""
    return jnp.broadcast_to(jnp.eye(3, dtype=x.dtype), (*x.shape[:-1], 3, 3))


def skew(v: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Cross-product matrices: ``skew(v) @ u`` is ``v x u``.

    Args:
        v: vectors.

    Returns:
        Antisymmetric matrices.
    """
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    o = jnp.zeros_like(x)
    rows = jnp.stack([o, -z, y, z, o, -x, -y, x, o], axis=-1)
    return rows.reshape(*v.shape[:-1], 3, 3)


def _outer(a: Array, b: Array) -> Array:
    return a[..., :, None] * b[..., None, :]


def rodrigues(
    n: Float[Array, "*batch 3"],
    cos: Float[Array, "*batch"],
    sin: Float[Array, "*batch"],
) -> Float[Array, "*batch 3 3"]:
    """``I + sin [n]x + (1 - cos) [n]x [n]x`` without normalising anything.

    Args:
        n: axes, used as they are.
        cos: numbers used as cosines.
        sin: numbers used as sines.

    Returns:
        Matrices; rotations where ``|n| = 1`` and ``cos^2 + sin^2 = 1``.
    """
    eye = _identity_like(n)
    squared = _outer(n, n) - jnp.sum(n * n, -1)[..., None, None] * eye
    return eye + sin[..., None, None] * skew(n) + (1 - cos)[..., None, None] * squared


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


def _sinc_terms(angle_squared: Array) -> tuple[Array, Array]:
    """``sin(t) / t`` and ``(1 - cos t) / t^2`` as smooth functions of ``t^2``."""
    small = angle_squared < _SERIES_LIMIT
    near = jnp.where(small, angle_squared, 0)
    angle = jnp.sqrt(jnp.where(small, 1, angle_squared))
    half = jnp.sin(0.5 * angle) / angle
    return (
        jnp.where(small, _polynomial(near, _SINC), jnp.sin(angle) / angle),
        jnp.where(small, _polynomial(near, _COSC), 2 * half * half),
    )


def axis_angle_to_matrix(
    axis_angle: Float[Array, "*batch 3"],
) -> Float[Array, "*batch 3 3"]:
    """Rotation matrices of axis-angle vectors (exponential map).

    Args:
        axis_angle: axis times angle, radians.

    Returns:
        Rotation matrices; exact and smooth at the zero vector.
    """
    a, b = _sinc_terms(jnp.sum(axis_angle * axis_angle, -1))
    eye = _identity_like(axis_angle)
    outer = _outer(axis_angle, axis_angle)
    squared = jnp.sum(axis_angle * axis_angle, -1)[..., None, None] * eye
    a, b = a[..., None, None], b[..., None, None]
    return eye + a * skew(axis_angle) + b * (outer - squared)


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
    half_sinc, half_cosc = _sinc_terms(quarter)
    w = 1 - quarter * half_cosc
    return jnp.concatenate([w, 0.5 * half_sinc * axis_angle], -1)


def quaternion_to_axis_angle(
    quaternion: Float[Array, "*batch 4"],
) -> Float[Array, "*batch 3"]:
    """Shortest axis-angle vectors of quaternions of any length.

    Args:
        quaternion: (w, x, y, z).

    Returns:
        Axis times angle, radians, angle in [0, pi]; 0 for the zero quaternion.
    """
    q = jnp.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w, v = q[..., :1], q[..., 1:]
    ratio = safe.divide(v, w)
    ratio_squared = jnp.sum(ratio * ratio, -1, keepdims=True)
    small = (ratio_squared < 1e-3) & (w > 0)
    series = 2 * _polynomial(jnp.where(small, ratio_squared, 0), _ATAN)
    sine = safe.norm(v, keepdims=True)
    large = 2 * safe.divide(safe.atan2(sine, w), sine) * v
    return jnp.where(small, series * jnp.where(small, ratio, 0), large)


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
    w, x, y, z = (q[..., i] for i in range(4))
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return jnp.stack(entries, -1).reshape(*q.shape[:-1], 3, 3)


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

    Source: IKOL specification section 5; INT specification section 5.2.
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
    x, y, z = is_x[..., None], is_y[..., None], is_z[..., None]
    q = jnp.where(
        x, stacked[0], jnp.where(y, stacked[1], jnp.where(z, stacked[2], stacked[3]))
    )
    q = safe.normalize(q)
    return jnp.where(q[..., :1] < 0, -q, q) if canonical else q


def matrix_to_axis_angle(
    rotmat: Float[Array, "*batch 3 3"],
) -> Float[Array, "*batch 3"]:
    """Axis-angle vectors of rotation matrices (logarithmic map).

    Args:
        rotmat: rotation matrices.

    Returns:
        Axis times angle, radians, angle in [0, pi].
    """
    return quaternion_to_axis_angle(matrix_to_quaternion(rotmat))


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


def _gram_schmidt(a: Array, b: Array, floor: float) -> tuple[Array, Array, Array]:
    x = safe.normalize(a, floor=floor)
    y = safe.normalize(b - jnp.sum(x * b, -1, keepdims=True) * x, floor=floor)
    return x, y, jnp.cross(x, y)


def rot6d_columns_to_matrix(
    rot6d: Float[Array, "*batch 6"], floor: float = 1e-12
) -> Float[Array, "*batch 3 3"]:
    """Rotations from two columns stored interleaved: a 3x2 matrix in row-major order.

    Args:
        rot6d: entries (0, 2, 4) are the first column, (1, 3, 5) the second.
        floor: shortest length divided by.

    Returns:
        Gram-Schmidt frames as columns; columns of zeros where the input is zero.

    Source: SPIN, I2L-MeshNet, INT (floor 1e-6) and the hierarchical distributions.
    """
    frame = _gram_schmidt(rot6d[..., 0::2], rot6d[..., 1::2], floor)
    return jnp.stack(frame, -1)


def matrix_to_rot6d_columns(
    rotmat: Float[Array, "*batch 3 3"],
) -> Float[Array, "*batch 6"]:
    """The first two columns, interleaved; inverse of ``rot6d_columns_to_matrix``.

    Args:
        rotmat: rotation matrices.

    Returns:
        The 3x2 left block in row-major order.
    """
    return rotmat[..., :, :2].reshape(*rotmat.shape[:-2], 6)


def rot6d_rows_to_matrix(
    rot6d: Float[Array, "*batch 6"], floor: float = 1e-12
) -> Float[Array, "*batch 3 3"]:
    """Rotations from two rows stored one after the other.

    Args:
        rot6d: entries 0..2 are the first row, 3..5 the second.
        floor: shortest length divided by.

    Returns:
        Gram-Schmidt frames as rows; rows of zeros where the input is zero.

    Source: the layout of PyTorch3D.
    """
    frame = _gram_schmidt(rot6d[..., :3], rot6d[..., 3:], floor)
    return jnp.stack(frame, -2)


def matrix_to_rot6d_rows(
    rotmat: Float[Array, "*batch 3 3"],
) -> Float[Array, "*batch 6"]:
    """The first two rows, one after the other; inverse of ``rot6d_rows_to_matrix``.

    Args:
        rotmat: rotation matrices.

    Returns:
        The upper 2x3 block in row-major order.
    """
    return rotmat[..., :2, :].reshape(*rotmat.shape[:-2], 6)


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
    turned = along * _outer(half, a) - 2 * _outer(a, a) - 2 * _outer(half, half)
    defined = (jnp.sum(a * a, -1) > 0.5) & (jnp.sum(b * b, -1) > 0.5)
    return _identity_like(a) + jnp.where(defined[..., None, None], turned, 0)


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
        Unit (cos, sin) pairs; (1, 0) where the swing is a half turn, which leaves the
        twist undefined, and where the axis is zero.
    """
    q = matrix_to_quaternion(rotmat)
    along = jnp.sum(q[..., 1:] * safe.normalize(axis), -1)
    half = _unit_cos_sin(jnp.stack([q[..., 0], along], -1))
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


def geodesic_distance(
    a: Float[Array, "*batch 3 3"], b: Float[Array, "*batch 3 3"]
) -> Float[Array, "*batch"]:
    """Angles of the rotations that take ``a`` to ``b``.

    Args:
        a: rotation matrices.
        b: rotation matrices.

    Returns:
        Radians in [0, pi], accurate at both ends; derivative 0 at the ends.
    """
    r = matmul3(transpose(a), b)
    vee = jnp.stack(
        [
            r[..., 2, 1] - r[..., 1, 2],
            r[..., 0, 2] - r[..., 2, 0],
            r[..., 1, 0] - r[..., 0, 1],
        ],
        -1,
    )
    trace = r[..., 0, 0] + r[..., 1, 1] + r[..., 2, 2]
    return safe.atan2(safe.norm(vee), trace - 1)


def random_rotation(key: Array, shape: tuple[int, ...] = ()) -> Float[Array, "..."]:
    """Rotations drawn uniformly.

    Args:
        key: a JAX random key.
        shape: batch axes.

    Returns:
        Rotation matrices [*shape, 3, 3].
    """
    return quaternion_to_matrix(jax.random.normal(key, (*shape, 4)))
