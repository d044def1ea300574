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
from hmr_jax.geometry.matrices import (
    identity_like,
    matmul3,
    matvec3,
    outer,
    rodrigues,
    skew,
    transpose,
)
from hmr_jax.geometry.quaternions import (
    axis_angle_to_quaternion,
    matrix_to_quaternion,
    quaternion_conjugate,
    quaternion_multiply,
    quaternion_to_axis_angle,
    quaternion_to_matrix,
    sinc_terms,
)
from hmr_jax.geometry.swings import (
    rotation_between,
    swing_twist,
    twist_cos_sin,
    twist_matrix,
)

__all__ = [
    "axis_angle_to_matrix",
    "axis_angle_to_quaternion",
    "geodesic_distance",
    "matmul3",
    "matrix_to_axis_angle",
    "matrix_to_quaternion",
    "matrix_to_rot6d_columns",
    "matrix_to_rot6d_rows",
    "matvec3",
    "quaternion_conjugate",
    "quaternion_multiply",
    "quaternion_to_axis_angle",
    "quaternion_to_matrix",
    "random_rotation",
    "rodrigues",
    "rot6d_columns_to_matrix",
    "rot6d_rows_to_matrix",
    "rotation_between",
    "skew",
    "swing_twist",
    "transpose",
    "twist_cos_sin",
    "twist_matrix",
]


def axis_angle_to_matrix(
    axis_angle: Float[Array, "*batch 3"],
) -> Float[Array, "*batch 3 3"]:
    """Rotation matrices of axis-angle vectors (exponential map).

    Args:
        axis_angle: axis times angle, radians.

    Returns:
        Rotation matrices; exact and smooth at the zero vector.
    """
    square = jnp.sum(axis_angle * axis_angle, -1)
    first, second = (x[..., None, None] for x in sinc_terms(square))
    eye = identity_like(axis_angle)
    squared = outer(axis_angle, axis_angle) - square[..., None, None] * eye
    return eye + first * skew(axis_angle) + second * squared


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
