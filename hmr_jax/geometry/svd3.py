"""Singular value decomposition of 3x3 matrices with chosen signs and finite gradients.

``F = U diag(s) V^T`` leaves the common sign of each pair of columns (u_i, v_i) open. A
network that is fed U learns the habits of the library it was trained with, so the
signs are an option here, the same on every device.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from hmr_jax.geometry._svd3_lapack import svd_batch_last
from hmr_jax.geometry.matrices import matmul3, transpose

SvdSigns = Literal["lapack_old", "lapack_new", "backend"]

MIN_GAP = 1e-4
"""Default ``min_gap``: closer float32 values leave their directions 3 digits."""


class Svd3(NamedTuple):
    """The factors of ``U diag(s) V^T``.

    Attributes:
        u: [..., 3, 3], orthogonal.
        s: [..., 3], descending.
        v: [..., 3, 3], orthogonal, not transposed.
    """

    u: Array
    s: Array
    v: Array


def svd3(
    matrix: Float[Array, "*batch 3 3"],
    signs: SvdSigns = "lapack_old",
    min_gap: float = MIN_GAP,
) -> Svd3:
    """Singular value decomposition of 3x3 matrices.

    Args:
        matrix: any finite matrices.
        signs: whose choice of signs to follow: ``lapack_old``, LAPACK before 3.10 in
            the type of the matrix; ``lapack_new``, LAPACK since 3.10; ``backend``,
            whatever the device's own routine returns.
        min_gap: smallest difference (or sum) of two singular values, relative to the
            largest, whose inverse the derivative of U and V takes; see Note.

    Returns:
        Factors with ``s >= 0``; U and V may be reflections. NaN where the matrix is
        not finite.

    Raises:
        ValueError: unknown ``signs``.

    Note: the derivative of s is exact everywhere. That of U and V holds
        ``1 / (s_i - s_j)`` and ``1 / (s_i + s_j)``: it does not exist where one of
        them is zero. ``x / max(x^2, (min_gap s_1)^2)`` stands for ``1 / x``: exact
        beyond the gap, and going to 0 at 0. The derivative of ``U V^T`` does not
        contain the differences and stays exact at repeated values. With ``min_gap=0``
        the derivative is exact wherever it exists and 0 takes the place of 1/0.

    Source: specs/hierprob.md section 5.
    """
    if signs not in ("lapack_old", "lapack_new", "backend"):
        raise ValueError(
            f"signs: expected lapack_old, lapack_new or backend, got {signs!r}"
        )
    return _svd3(matrix, signs, min_gap)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _svd3(matrix: Array, signs: SvdSigns, min_gap: float) -> Svd3:
    if signs == "backend":
        u, s, vt = jnp.linalg.svd(matrix)
        return Svd3(u, s, transpose(vt))
    batch_last = jnp.moveaxis(matrix, (-2, -1), (0, 1))
    u, s, v = svd_batch_last(batch_last, modern=signs == "lapack_new")
    u, v = (jnp.moveaxis(x, (0, 1), (-2, -1)) for x in (u, v))
    return Svd3(u, jnp.moveaxis(s, 0, -1), v)


def _bounded_inverse(x: Array, floor: Array) -> Array:
    square = jnp.maximum(x * x, floor * floor)
    regular = square > jnp.finfo(x.dtype).tiny
    return jnp.where(regular, x / jnp.where(regular, square, 1), 0)


@_svd3.defjvp
def _svd3_jvp(signs, min_gap, primals, tangents):
    (matrix,), (tangent,) = primals, tangents
    u, s, v = _svd3(matrix, signs, min_gap)
    inner = matmul3(matmul3(transpose(u), tangent), v)
    # Where an inverse below would overflow, the values count as equal.
    floor = (min_gap * s[..., :1])[..., None]
    difference = s[..., None, :] - s[..., :, None]
    total = s[..., None, :] + s[..., :, None]
    even = (inner + transpose(inner)) * _bounded_inverse(difference, floor)
    odd = (inner - transpose(inner)) * _bounded_inverse(total, floor)
    ds = jnp.diagonal(inner, axis1=-2, axis2=-1)
    du = matmul3(u, 0.5 * (even + odd))
    dv = matmul3(v, 0.5 * (even - odd))
    return Svd3(u, s, v), Svd3(du, ds, dv)


def determinant3(matrix: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch"]:
    """Determinants of 3x3 matrices.

    Args:
        matrix: any matrices.
    """
    a, b, c = (matrix[..., i, :] for i in range(3))
    return jnp.sum(a * jnp.cross(b, c), -1)


def proper_svd(
    matrix: Float[Array, "*batch 3 3"],
    signs: SvdSigns = "lapack_old",
    min_gap: float = MIN_GAP,
) -> Svd3:
    """Decomposition whose U and V are rotations, with the signs in the last value.

    Args:
        matrix: any finite matrices.
        signs: see ``svd3``.
        min_gap: see ``svd3``.

    Returns:
        Rotations U and V, and ``s1 >= s2 >= |s3|``; s3 has the determinant's sign.
        ``U V^T`` is the rotation nearest to the matrix.

    Source: specs/hierprob.md section 4.3.
    """
    return make_proper(svd3(matrix, signs, min_gap))


def make_proper(factors: Svd3) -> Svd3:
    """Turn reflections among U and V into rotations, in the last column.

    Args:
        factors: of ``svd3`` or any other decomposition.

    Returns:
        The same product with rotations U and V; no gradient flows through the signs.
    """
    u, s, v = factors
    sign_u, sign_v = (
        jnp.where(jax.lax.stop_gradient(determinant3(x)) < 0, -1, 1).astype(x.dtype)
        for x in (u, v)
    )

    def last(sign):
        ones = jnp.ones_like(sign)
        return jnp.stack([ones, ones, sign], -1)

    return Svd3(
        u * last(sign_u)[..., None, :],
        s * last(sign_u * sign_v),
        v * last(sign_v)[..., None, :],
    )
