"""The singular vectors LAPACK would return for 3x3 matrices, batched and elementwise.

LAPACK's path for this size (Householder bidiagonalisation, implicit QR sweeps, closed
form for the last 2x2 block) is followed step by step, because the signs of the vectors
depend on the steps and on nothing else. Every entry of every matrix is an array over
the batch, so that one loop serves all matrices; a matrix that has converged waits.

A sweep that chases the bulge upwards is the downward sweep of the matrix reflected
about its antidiagonal, with the two sides exchanged: one sweep is written.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_MAX_SWEEPS = 40
"""LAPACK allows 54; more than 8 were not seen on matrices of any kind."""

Columns = list[Array]
"""Three columns, each [3, *batch]."""
Rows = list[Array]
"""Three rows of V^T and of U^T, each [2, 3, *batch]: fewer results to compute."""


class _Constants(NamedTuple):
    eps: float
    tiny: float
    tol: float


def _constants(dtype) -> _Constants:
    info = jnp.finfo(dtype)
    eps = float(info.eps) / 2
    return _Constants(eps, float(info.tiny), max(10.0, min(100.0, eps**-0.125)) * eps)


def _sign(x: Array) -> Array:
    return jnp.copysign(jnp.ones_like(x), x)


def _over(a: Array, b: Array) -> Array:
    """Quotient that is 0 where the divisor is 0."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


def _hypot(a: Array, b: Array) -> Array:
    a, b = jnp.abs(a), jnp.abs(b)
    large, small = jnp.maximum(a, b), jnp.minimum(a, b)
    ratio = _over(small, large)
    return large * jnp.sqrt(1 + ratio * ratio)


def _householder(alpha: Array, tail: Sequence[Array]):
    """Reflector ``I - tau (1, v)(1, v)^T`` that maps (alpha, tail) to (beta, 0)."""
    length = jnp.abs(tail[0]) if len(tail) == 1 else _hypot(tail[0], tail[1])
    beta = -jnp.copysign(_hypot(alpha, length), alpha)
    still = length == 0
    safe_beta = jnp.where(still, 1, beta)
    scale = jnp.where(still, 1, alpha - beta)
    v = [jnp.where(still, 0, x / scale) for x in tail]
    tau = jnp.where(still, 0, (beta - alpha) / safe_beta)
    return jnp.where(still, alpha, beta), v, tau


def _reflected_columns(columns: Columns, v: Sequence[Array], tau: Array) -> Columns:
    """The last columns of ``m`` in ``m H``, for a reflector on as many coordinates."""
    w = [x[None] for x in (jnp.ones_like(tau), *v)]
    tau, first = tau[None], 3 - len(w)
    dot = sum(w[k] * columns[first + k] for k in range(len(w)))
    return [
        *columns[:first],
        *(columns[first + k] - tau * w[k] * dot for k in range(len(w))),
    ]


def _unit_columns(like: Array) -> Columns:
    eye = jnp.eye(3, dtype=like.dtype)
    shape = (3, *(1,) * like.ndim)
    return [jnp.broadcast_to(c.reshape(shape), (3, *like.shape)) for c in eye]


def _bidiagonalise(matrix: Array):
    """``A = Q B P^T`` with B upper bidiagonal: its diagonals, columns of Q and of P."""
    a = [[matrix[i, j] for j in range(3)] for i in range(3)]
    q = p = _unit_columns(a[0][0])
    d0, v, tau = _householder(a[0][0], [a[1][0], a[2][0]])
    w = [jnp.ones_like(tau), *v]
    for j in (1, 2):
        dot = a[0][j] + v[0] * a[1][j] + v[1] * a[2][j]
        for i in range(3):
            a[i][j] = a[i][j] - tau * w[i] * dot
    q = _reflected_columns(q, v, tau)
    e0, v, tau = _householder(a[0][1], [a[0][2]])
    p = _reflected_columns(p, v, tau)
    for i in (1, 2):
        dot = a[i][1] + v[0] * a[i][2]
        a[i][1] = a[i][1] - tau * dot
        a[i][2] = a[i][2] - tau * v[0] * dot
    d1, v, tau = _householder(a[1][1], [a[2][1]])
    q = _reflected_columns(q, v, tau)
    dot = a[1][2] + v[0] * a[2][2]
    e1 = a[1][2] - tau * dot
    d2 = a[2][2] - tau * v[0] * dot
    return [d0, d1, d2], [e0, e1], q, p


def _givens(f: Array, g: Array, modern: bool) -> tuple[Array, Array, Array]:
    """Cosine, sine and r of the rotation that maps (f, g) to (r, 0)."""
    r = jnp.sqrt(f * f + g * g)
    divisor = jnp.where(r == 0, 1, r)
    if modern:
        c, s, r = jnp.abs(f) / divisor, g * _sign(f) / divisor, jnp.copysign(r, f)
        at_zero = (jnp.zeros_like(f), _sign(g), jnp.abs(g))
    else:
        c, s = f / divisor, g / divisor
        turn = jnp.where((jnp.abs(f) > jnp.abs(g)) & (c < 0), -1, 1).astype(f.dtype)
        c, s, r = turn * c, turn * s, turn * r
        at_zero = (jnp.zeros_like(f), jnp.ones_like(f), g)
    zero_g = (jnp.ones_like(f), jnp.zeros_like(f), f)
    return tuple(
        jnp.where(g == 0, n, jnp.where(f == 0, z, x))
        for n, z, x in zip(zero_g, at_zero, (c, s, r), strict=True)
    )  # type: ignore[return-value]


def _smallest_singular(f: Array, g: Array, h: Array) -> Array:
    """Smaller singular value of [[f, g], [0, h]] (xLAS2)."""
    f, g, h = jnp.abs(f), jnp.abs(g), jnp.abs(h)
    low, high = jnp.minimum(f, h), jnp.maximum(f, h)
    plus = 1 + _over(low, high)
    minus = _over(high - low, high)
    wide = _over(g, high)
    wide = wide * wide
    near = low * (2 / (jnp.sqrt(plus * plus + wide) + jnp.sqrt(minus * minus + wide)))
    tall = _over(high, g)
    root = jnp.sqrt(1 + (plus * tall) ** 2) + jnp.sqrt(1 + (minus * tall) ** 2)
    far = 2 * ((low / root) * tall)
    far = jnp.where(tall == 0, _over(low * high, g), far)
    return jnp.where(low == 0, 0, jnp.where(g < high, near, far))


def _svd2(f: Array, g: Array, h: Array, eps: float):
    """Singular values and rotations of [[f, g], [0, h]] (xLASV2).

    Returns:
        Smaller and larger singular value (signed), sine and cosine of the right and of
        the left rotation.
    """
    swap = jnp.abs(h) > jnp.abs(f)
    ft, ht = jnp.where(swap, h, f), jnp.where(swap, f, h)
    fa, ha, ga = jnp.abs(ft), jnp.abs(ht), jnp.abs(g)
    huge = (ga > fa) & (_over(fa, ga) < eps)
    gaps = fa - ha
    l = jnp.where(gaps == fa, 1, _over(gaps, fa))  # noqa: E741 (LAPACK's name)
    m = _over(g, ft)
    t = 2 - l
    mm = m * m
    s = jnp.sqrt(t * t + mm)
    r = jnp.where(l == 0, jnp.abs(m), jnp.sqrt(l * l + mm))
    a = 0.5 * (s + r)
    flat = jnp.where(
        l == 0,
        2 * _sign(ft) * _sign(g),
        _over(g, jnp.copysign(gaps, ft)) + _over(m, t),
    )
    tt = jnp.where(mm == 0, flat, (_over(m, s + t) + _over(m, r + l)) * (1 + a))
    root = jnp.sqrt(tt * tt + 4)
    crt, srt = 2 / root, tt / root
    clt, slt = _over(crt + srt * m, a), _over(_over(ht, ft) * srt, a)
    small, large = _over(ha, a), fa * a
    # g so large that the products above lose everything.
    small_huge = jnp.where(ha > 1, _over(fa, _over(ga, ha)), _over(fa, ga) * ha)
    small, large = jnp.where(huge, small_huge, small), jnp.where(huge, ga, large)
    clt, slt = jnp.where(huge, 1, clt), jnp.where(huge, _over(ht, g), slt)
    srt, crt = jnp.where(huge, 1, srt), jnp.where(huge, _over(ft, g), crt)
    diagonal = ga == 0
    small, large = jnp.where(diagonal, ha, small), jnp.where(diagonal, fa, large)
    clt, crt = jnp.where(diagonal, 1, clt), jnp.where(diagonal, 1, crt)
    slt, srt = jnp.where(diagonal, 0, slt), jnp.where(diagonal, 0, srt)
    csl, snl = jnp.where(swap, srt, clt), jnp.where(swap, crt, slt)
    csr, snr = jnp.where(swap, slt, crt), jnp.where(swap, clt, srt)
    sign = jnp.where(
        ga > fa,
        _sign(snr) * _sign(csl) * _sign(g),
        jnp.where(
            swap,
            _sign(snr) * _sign(snl) * _sign(h),
            _sign(csr) * _sign(csl) * _sign(f),
        ),
    )
    small = jnp.copysign(small, sign * _sign(f) * _sign(h))
    return small, jnp.copysign(large, sign), snr, csr, snl, csl


def _both(right: Array, left: Array) -> Array:
    """Numbers for both sides, ready to multiply rows."""
    return jnp.stack([right, left])[:, None]


def _rotate(rows: Rows, i: int, right, left) -> Rows:
    """Rotate rows i and i + 1 by (cosine, sine) of each side."""
    c, s = _both(right[0], left[0]), _both(right[1], left[1])
    rows = list(rows)
    rows[i], rows[i + 1] = (
        c * rows[i] + s * rows[i + 1],
        c * rows[i + 1] - s * rows[i],
    )
    return rows


def _shift(d, e, smallest: Array, largest: Array, k: _Constants) -> Array:
    """LAPACK's choice of the shift; zero asks for the sweep without one."""
    shift = _smallest_singular(d[1], e[1], d[2])
    ratio = _over(shift, jnp.abs(d[0]))
    shift = jnp.where((d[0] != 0) & (ratio * ratio < k.eps), 0, shift)
    hopeless = 3 * k.tol * _over(smallest, largest) <= max(k.eps, 0.01 * k.tol)
    return jnp.where(hopeless, 0, shift)


def _sweep_unshifted(d, e, modern: bool):
    """Implicit QR with zero shift: new diagonals, right and left rotations."""
    c1, s1, r = _givens(d[0], e[0], modern)
    o1, p1, d0 = _givens(r, d[1] * s1, modern)
    c2, s2, r = _givens(d[1] * c1, e[1], modern)
    e0 = p1 * r
    o2, p2, d1 = _givens(o1 * r, d[2] * s2, modern)
    h = d[2] * c2
    return [d0, d1, h * o2], [e0, h * p2], [(c1, s1), (c2, s2)], [(o1, p1), (o2, p2)]


def _sweep_shifted(d, e, shift: Array, modern: bool):
    """Implicit QR with a shift: new diagonals, right and left rotations."""
    f = (jnp.abs(d[0]) - shift) * (_sign(d[0]) + _over(shift, d[0]))
    c1, s1, _ = _givens(f, e[0], modern)
    f, e0 = c1 * d[0] + s1 * e[0], c1 * e[0] - s1 * d[0]
    g, d1 = s1 * d[1], c1 * d[1]
    o1, p1, d0 = _givens(f, g, modern)
    f, d1 = o1 * e0 + p1 * d1, o1 * d1 - p1 * e0
    g, e1 = p1 * e[1], o1 * e[1]
    c2, s2, e0 = _givens(f, g, modern)
    f, e1 = c2 * d1 + s2 * e1, c2 * e1 - s2 * d1
    g, d2 = s2 * d[2], c2 * d[2]
    o2, p2, d1 = _givens(f, g, modern)
    f, d2 = o2 * e1 + p2 * d2, o2 * d2 - p2 * e1
    return [d0, d1, d2], [e0, f], [(c1, s1), (c2, s2)], [(o1, p1), (o2, p2)]


def _is_split(e, threshold: Array) -> Array:
    return (jnp.abs(e[0]) <= threshold) | (jnp.abs(e[1]) <= threshold)


def _sweep(d, e, rows: Rows, threshold: Array, modern: bool):
    """One downward sweep, or a deflation, of every 3x3 block that is not split yet."""
    k = _constants(threshold.dtype)
    working = ~_is_split(e, threshold)
    mu0 = jnp.abs(d[0])
    mu1 = jnp.abs(d[1]) * _over(mu0, mu0 + jnp.abs(e[0]))
    mu2 = jnp.abs(d[2]) * _over(mu1, mu1 + jnp.abs(e[1]))
    last = jnp.abs(e[1]) <= k.tol * jnp.abs(d[2])
    first = ~last & (jnp.abs(e[0]) <= k.tol * mu0)
    last = last | (~first & (jnp.abs(e[1]) <= k.tol * mu1))
    smallest = jnp.minimum(mu0, jnp.minimum(mu1, mu2))
    largest = jnp.abs(d[0])
    for x in (d[1], d[2], e[0], e[1]):
        largest = jnp.maximum(largest, jnp.abs(x))
    shift = _shift(d, e, smallest, largest, k)
    new_d, new_e, right_turns, left_turns = _where(
        shift == 0,
        _sweep_unshifted(d, e, modern),
        _sweep_shifted(d, e, shift, modern),
    )
    new_rows = rows
    for i in (0, 1):
        new_rows = _rotate(new_rows, i, right_turns[i], left_turns[i])
    d, e, rows = _where(
        working & ~first & ~last, (new_d, new_e, new_rows), (d, e, rows)
    )
    e = [
        jnp.where(working & first, 0, e[0]),
        jnp.where(working & last, 0, e[1]),
    ]
    return d, e, rows


def _mirrored(d, e, rows: Rows):
    """The matrix reflected about its antidiagonal, which exchanges the sides."""
    return d[::-1], e[::-1], [row[::-1] for row in rows[::-1]]


def _where(condition: Array, a, b):
    def pick(x, y):
        axes = tuple(range(x.ndim - condition.ndim))
        return jnp.where(jnp.expand_dims(condition, axes), x, y)

    return jax.tree.map(pick, a, b)


def _last_block(d, e, rows: Rows, threshold: Array, eps: float):
    """Close the 2x2 block that is left, in the upper or the lower corner."""
    low_split = jnp.abs(e[1]) <= threshold
    finished = low_split & (jnp.abs(e[0]) <= threshold)
    f = jnp.where(low_split, d[0], d[1])
    g = jnp.where(low_split, e[0], e[1])
    h = jnp.where(low_split, d[1], d[2])
    small, large, snr, csr, snl, csl = _svd2(f, g, h, eps)
    above, below = (_rotate(rows, i, (csr, snr), (csl, snl)) for i in (0, 1))
    closed = _where(
        low_split, ([large, small, d[2]], above), ([d[0], large, small], below)
    )
    return _where(finished, (d, rows), closed)


def _sorted(d, rows: Rows):
    """Non-negative singular values in descending order."""
    signs = [jnp.where(x < 0, -1, 1).astype(x.dtype) for x in d]
    d = [jnp.abs(x) for x in d]
    rows = [
        _both(s, jnp.ones_like(s)) * row for s, row in zip(signs, rows, strict=True)
    ]
    pairs = list(zip(d, rows, strict=True))

    def swapped(pairs, i, j, condition):
        pairs = list(pairs)
        pairs[i], pairs[j] = (
            _where(condition, pairs[j], pairs[i]),
            _where(condition, pairs[i], pairs[j]),
        )
        return pairs

    one_smaller = d[1] <= d[0]
    two_smallest = d[2] <= jnp.minimum(d[0], d[1])
    pairs = swapped(pairs, 1, 2, one_smaller & ~two_smallest)
    pairs = swapped(pairs, 0, 2, ~one_smaller & ~two_smallest)
    pairs = swapped(pairs, 0, 1, pairs[1][0] > pairs[0][0])
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


class _State(NamedTuple):
    stage: Array
    sweeps: Array
    d: list[Array]
    e: list[Array]
    rows: Rows
    threshold: Array
    up: Array


def _start(matrix: Array, state: _State) -> _State:
    """Bidiagonalise; turn upward sweeps into downward ones."""
    k = _constants(matrix.dtype)
    d, e, q, p = _bidiagonalise(matrix)
    rows = [jnp.stack(pair) for pair in zip(p, q, strict=True)]
    mu = smallest = jnp.abs(d[0])
    for i in (1, 2):
        mu = jnp.abs(d[i]) * _over(mu, mu + jnp.abs(e[i - 1]))
        smallest = jnp.minimum(smallest, mu)
    root3 = float(np.float32(np.sqrt(3.0)))
    threshold = jnp.maximum(k.tol * (smallest / root3), 54 * k.tiny)
    up = jnp.abs(d[0]) < jnp.abs(d[2])
    d, e, rows = _where(up, _mirrored(d, e, rows), (d, e, rows))
    return _State(state.stage + 1, state.sweeps, d, e, rows, threshold, up)


def _sweep_all(state: _State, modern: bool) -> _State:
    d, e, rows = _sweep(state.d, state.e, state.rows, state.threshold, modern)
    sweeps = state.sweeps + 1
    done = jnp.all(_is_split(e, state.threshold)) | (sweeps >= _MAX_SWEEPS)
    stage = state.stage + done.astype(jnp.int32)
    return state._replace(stage=stage, sweeps=sweeps, d=d, e=e, rows=rows)


def _close(state: _State) -> _State:
    parts = (state.d, state.e, state.rows)
    d, e, rows = _where(state.up, _mirrored(*parts), parts)
    eps = _constants(state.threshold.dtype).eps
    d, rows = _last_block(d, e, rows, state.threshold, eps)
    return state._replace(stage=state.stage + 1, d=d, rows=rows)


def _sort(state: _State) -> _State:
    d, rows = _sorted(state.d, state.rows)
    return state._replace(stage=state.stage + 1, d=d, rows=rows)


def svd_batch_last(matrix: Array, modern: bool) -> tuple[Array, Array, Array]:
    """Singular value decomposition of matrices whose batch axes come last.

    Args:
        matrix: [3, 3, ...], finite.
        modern: the Givens rotation of LAPACK 3.10 and later, else the older one.

    Returns:
        U [3, 3, ...], S [3, ...] descending, V [3, 3, ...].

    Note: the stages share one loop with a switch for XLA's sake: what crosses a loop is
        computed once, whereas fused stages are computed again for each of their
        results (50 times slower on a CPU, and 10 times longer to compile).
    """
    largest = jnp.max(jnp.abs(matrix), axis=(0, 1))
    _, exponent = jnp.frexp(jnp.where(largest > 0, largest, 1))
    # A power of two: exact, and it changes no decision of the algorithm.
    matrix = jnp.ldexp(matrix, -exponent[None, None])
    zero = jnp.zeros((), jnp.int32)
    x = jnp.zeros_like(largest)
    rows = [jnp.zeros((2, 3, *x.shape), x.dtype)] * 3
    start = _State(zero, zero, [x] * 3, [x] * 2, rows, x, x > 0)
    stages = (
        functools.partial(_start, matrix),
        functools.partial(_sweep_all, modern=modern),
        _close,
        _sort,
    )
    end = jax.lax.while_loop(
        lambda state: state.stage < len(stages),
        lambda state: jax.lax.switch(state.stage, stages, state),
        start,
    )
    s = jnp.ldexp(jnp.stack(end.d), exponent[None])
    u, v = (jnp.stack([row[side] for row in end.rows], 1) for side in (1, 0))
    return u, s, v
