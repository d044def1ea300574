"""Rotations and similarities that best align point sets, with finite gradients.

The rotation is the leading eigenvector of Davenport's 4x4 matrix, found by squaring the
shifted matrix repeatedly, which is elementwise work for a whole batch (several times
faster than a batched SVD on a CPU). Its derivative is closed-form: a symmetric 3x3
solve with a floor, finite where an SVD's derivative is not, at repeated singular
values.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from hmr_jax.geometry import safe
from hmr_jax.geometry.quaternions import matrix_entries
from hmr_jax.geometry.rotations import matmul3, matvec3

_SHIFT = 1.0001
"""Times the matrix's norm: makes every eigenvalue positive, the largest stays so."""
_FLOOR_EPS = 16
"""Damping of the 3x3 solve, in units of the rounding error of its trace."""


class Similarity(NamedTuple):
    """The map ``x -> scale * rotation @ x + translation``.

    Attributes:
        rotation: [..., 3, 3].
        scale: [...], 1 where none was asked for.
        translation: [..., 3], in the unit of the points.
    """

    rotation: Array
    scale: Array
    translation: Array


# Below, matrices are [3, 3, ...] and vectors [3, ...]: with the batch last, every
# operation runs along it (twice as fast at 10,000 matrices as with the batch first).


def _product(a: Array, b: Array) -> Array:
    return (
        a[:, 0, None] * b[None, 0]
        + a[:, 1, None] * b[None, 1]
        + (a[:, 2, None] * b[None, 2])
    )


def _transposed(a: Array) -> Array:
    return jnp.swapaxes(a, 0, 1)


def _times(a: Array, v: Array) -> Array:
    return a[:, 0] * v[:1] + a[:, 1] * v[1:2] + a[:, 2] * v[2:]


def _vee(m: Array) -> Array:
    """The vector of ``m - m^T``."""
    return jnp.stack([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])


def _skew(v: Array) -> Array:
    x, y, z = v
    o = jnp.zeros_like(x)
    return jnp.stack(
        [jnp.stack([o, -z, y]), jnp.stack([z, o, -x]), jnp.stack([-y, x, o])]
    )


def _davenport(c: Array) -> list[list[Array]]:
    """Davenport's symmetric matrix of tr(R^T C), quaternion order (w, x, y, z)."""
    trace, z = c[0, 0] + c[1, 1] + c[2, 2], _vee(c)
    k = [
        [trace, *z],
        *[[z[i]] + [c[i, j] + c[j, i] for j in range(3)] for i in range(3)],
    ]
    for i in range(3):
        k[i + 1][i + 1] = k[i + 1][i + 1] - trace
    return k


def _leading_quaternion(c: Array) -> list[Array]:
    """An eigenvector of the largest eigenvalue, of length 0.5 to 1.

    Args:
        c: its largest entries of order one, or all zero.

    Returns:
        Its four entries.
    """
    k = _davenport(c)
    size = jnp.sqrt(sum(x * x for row in k for x in row))
    k[0][0] = k[0][0] + jnp.where(size > 0, 0, 1)  # the identity for a zero matrix
    shift = _SHIFT * jnp.where(size > 0, size, 1)
    pairs = [(i, j) for i in range(4) for j in range(i, 4)]
    where = {p: n for n, (i, j) in enumerate(pairs) for p in ((i, j), (j, i))}
    start = tuple((k[i][j] + (shift if i == j else 0)) / (4 * shift) for i, j in pairs)
    eps = float(jnp.finfo(c.dtype).eps)
    # The largest eigenvalue's lead doubles with each squaring. The first one rounds it
    # by eps: eigenvalues that this number does not part are equally good.
    most = 4 - round(math.log2(eps))

    def unfinished(state):
        count, mixed, _ = state
        return (count < most) & mixed

    def squared(state):
        count, _, m = state
        new = [sum(m[where[i, k]] * m[where[k, j]] for k in range(4)) for i, j in pairs]
        # 1 - 2 x, x the share of the other eigenvectors in m, whose trace is 1.
        trace = sum(new[where[i, i]] for i in range(4))
        mixed = jnp.any(trace < 1 - eps**0.5)
        return count + 1, mixed, tuple(x / trace for x in new)

    _, _, m = jax.lax.while_loop(unfinished, squared, (0, True, start))
    return _largest_column(lambda i, j: m[where[i, j]])


def _largest_column(at: Callable[[int, int], Array]) -> list[Array]:
    """The column of a projection with the largest diagonal entry."""
    best, column = at(0, 0), [at(i, 0) for i in range(4)]
    for j in range(1, 4):
        larger = at(j, j) > best
        best = jnp.where(larger, at(j, j), best)
        column = [jnp.where(larger, at(i, j), column[i]) for i in range(4)]
    return column


def _matrix(q: list[Array]) -> Array:
    """Rotation [3, 3, ...] of a quaternion of length 1 or so; the identity of zero."""
    square = q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]
    rows = matrix_entries(q, safe.divide(jnp.full_like(q[0], 2), square))
    return jnp.stack([jnp.stack(row) for row in rows])


def _polish(rotation: Array, correlation: Array) -> Array:
    """The best rotation on the great circle along Newton's step.

    It is as good as the given one or better, however long the step is: near the
    optimum it is Newton's, and where the step cannot be trusted only its axis counts.
    """
    s = _product(_transposed(rotation), correlation)
    v = _vee(s)
    axis = safe.normalize(_solve_polar(s, v), axis=0)
    # tr(R(angle)^T S) is a constant + cos(angle) along + sin(angle) across.
    across = jnp.sum(axis * v, 0)
    along = s[0, 0] + s[1, 1] + s[2, 2] - jnp.sum(axis * _times(s, axis), 0)
    total = safe.norm(jnp.stack([along, across]), axis=0)
    w = jnp.where(along < 0, jnp.abs(across), total + along)
    back = jnp.where(across < 0, along - total, total - along)
    sine = jnp.where(along < 0, back, across)
    w, sine = safe.normalize(jnp.stack([w, sine]), axis=0)
    return _product(rotation, _matrix([w, *(sine * x for x in axis)]))


def _orthonormalised(rotation: Array) -> Array:
    """One Newton-Schulz step, which squares what the products left of rounding."""
    gram = _product(_transposed(rotation), rotation)
    eye = jnp.eye(3, dtype=rotation.dtype).reshape(3, 3, *[1] * (rotation.ndim - 2))
    return rotation - 0.5 * _product(rotation, gram - eye)


def _solve_polar(s: Array, v: Array) -> Array:
    """Solve ``(tr(S) I - S) x = v`` for the symmetric part of S, slightly damped.

    The matrix is positive semidefinite at the optimum, with eigenvalues s_i + s_j. The
    solution is 0 where S is so small that it would overflow.
    """
    # Exact powers of two; bounded, so that v does not overflow.
    factor = safe.rescaling(s, (0, 1))
    factor = jnp.minimum(factor, float(jnp.finfo(s.dtype).tiny) ** -0.75)
    s = (0.5 * factor) * (s + _transposed(s))
    v = factor[0] * v
    trace = s[0, 0] + s[1, 1] + s[2, 2]
    lifted = trace + _FLOOR_EPS * float(jnp.finfo(s.dtype).eps) * jnp.abs(trace)
    a, b, c = lifted - s[0, 0], lifted - s[1, 1], lifted - s[2, 2]
    f, g, h = -s[1, 2], -s[0, 2], -s[0, 1]
    row0 = (b * c - f * f, f * g - c * h, f * h - b * g)
    row1 = (row0[1], a * c - g * g, g * h - a * f)
    row2 = (row0[2], row1[2], a * b - h * h)
    determinant = a * row0[0] + h * row0[1] + g * row0[2]
    solved = [r[0] * v[0] + r[1] * v[1] + r[2] * v[2] for r in (row0, row1, row2)]
    return safe.divide(jnp.stack(solved), determinant[None])


@jax.custom_jvp
def _fit(correlation: Array) -> Array:
    m = correlation * safe.rescaling(correlation, (0, 1))
    return _orthonormalised(_polish(_matrix(_leading_quaternion(m)), m))


@_fit.defjvp
def _fit_jvp(primals, tangents):
    (correlation,), (tangent,) = primals, tangents
    rotation = _fit(correlation)
    omega = turn_of_fit(rotation, correlation, tangent)
    return rotation, _product(rotation, _skew(omega))


def turn_of_fit(rotation: Array, correlation: Array, change: Array) -> Array:
    """The turn of a fit, in its own frame, that follows a change of the correlation.

    Args:
        rotation: the fit [3, 3, ...], the batch last.
        correlation: what it is fitted to.
        change: of the correlation.

    Returns:
        Axis times angle [3, ...].
    """
    inverse = _transposed(rotation)
    moved = _vee(_product(inverse, change))
    return _solve_polar(_product(inverse, correlation), moved)


def fit_rotation(correlation: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """Rotations R with the largest ``tr(R^T C)``; determinant +1 always.

    Args:
        correlation: for point pairs, the sum of ``weight * target source^T``.

    Returns:
        Rotation matrices, orthonormal to rounding; the identity for zero matrices.
        With s1 >= s2 >= |s3| the singular values, s3 negative for a reflection, and
        eps the type's (1.2e-7 in float32): ``tr(R^T C)`` is within 8 eps s1 of the
        largest possible for every input of any scale, and the angle to the one best
        rotation is below 8 eps s1 / (s2 + s3) radians. Where that leaves it open
        (points on a line, s2 = -s3), one of the best rotations is returned.

    Note: derivatives are closed-form and finite everywhere. They are those of the best
        rotation, the second ones too, within a relative 64 eps s1 / (s2 + s3): a
        damping keeps them finite where the best rotation is not unique.

    Source: Davenport's q-method; derivative of the orthogonal Procrustes problem.
    """
    return jnp.moveaxis(
        _fit(jnp.moveaxis(correlation, (-2, -1), (0, 1))), (0, 1), (-2, -1)
    )


def _centred(points: Array, weights: Array) -> tuple[Array, Array]:
    total = jnp.sum(weights, -1)[..., None, None]
    mean = safe.divide(jnp.sum(weights[..., None] * points, -2, keepdims=True), total)
    return points - mean, mean[..., 0, :]


def procrustes(
    source: Float[Array, "*batch points 3"],
    target: Float[Array, "*batch points 3"],
    weights: Float[Array, "*batch points"] | None = None,
    with_scale: bool = True,
) -> Similarity:
    """The similarity that takes ``source`` closest to ``target`` in least squares.

    Args:
        source: points, any unit.
        target: their counterparts, same unit.
        weights: non-negative weight of each pair; None weighs all alike. Scaling all
            weights changes nothing, nor does the unit of the points.
        with_scale: also fit the scale; otherwise it is 1.

    Returns:
        Rotation (never a reflection), scale and translation. Where all points of the
        source coincide the rotation is the identity and the scale 0; where all weights
        are zero the translation is 0 too.

    Source: Umeyama 1991, with weights.
    """
    if weights is None:
        weights = jnp.ones(source.shape[:-1], source.dtype)
    weights = weights * safe.rescaling(weights)
    a, mean_a = _centred(source, weights)
    b, mean_b = _centred(target, weights)
    # Products of what is very small or large in its unit shall not under- or overflow.
    factor_a, factor_b = safe.rescaling(a, (-2, -1)), safe.rescaling(b, (-2, -1))
    a, b = a * factor_a, b * factor_b
    weighted = weights[..., None] * a
    # Component by component: a batched einsum here took 3/4 of the time of PA-MPJPE.
    rows = [jnp.sum(b[..., i, None] * weighted, -2) for i in range(3)]
    correlation = jnp.stack(rows, -2)
    rotation = fit_rotation(correlation)
    if with_scale:
        along = jnp.sum(rotation * correlation, (-2, -1))
        scale = safe.divide(along, jnp.sum(weighted * a, (-2, -1)))
        scale = scale * (factor_a / factor_b)[..., 0, 0]
    else:
        scale = jnp.ones(source.shape[:-2], source.dtype)
    translation = mean_b - scale[..., None] * matvec3(rotation, mean_a)
    return Similarity(rotation, scale, translation)


def apply_similarity(
    similarity: Similarity, points: Float[Array, "*batch points 3"]
) -> Float[Array, "*batch points 3"]:
    """Map points by a similarity.

    Args:
        similarity: one per batch element.
        points: points, in the unit the similarity was fitted in.

    Returns:
        ``scale * rotation @ x + translation``.
    """
    linear = similarity.scale[..., None, None] * similarity.rotation
    moved = jnp.swapaxes(matmul3(linear, jnp.swapaxes(points, -1, -2)), -1, -2)
    return moved + similarity.translation[..., None, :]


def align(
    source: Float[Array, "*batch points 3"],
    target: Float[Array, "*batch points 3"],
    weights: Float[Array, "*batch points"] | None = None,
    with_scale: bool = True,
) -> Float[Array, "*batch points 3"]:
    """The source moved onto the target by ``procrustes``.

    Args:
        source: points, any unit.
        target: their counterparts, same unit.
        weights: non-negative weight of each pair.
        with_scale: also fit the scale.

    Returns:
        Aligned source.
    """
    return apply_similarity(procrustes(source, target, weights, with_scale), source)
