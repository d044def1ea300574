"""Small vector and matrix products with the components before a minor batch axis.

Arrays are ``[slots, 3, batch]`` and ``[slots, 3, n, batch]``. Products are written as
broadcast multiplies over slices, which XLA runs as vector loops along the batch; dots
of 3x3 matrices would each be a call.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

HIGHEST = jax.lax.Precision.HIGHEST


def matmul(a: Array, b: Array) -> Array:
    """``a @ b`` of ``[slots, m, 3, batch]`` and ``[slots, 3, n, batch]``."""
    parts = [a[:, :, k : k + 1] * b[:, k : k + 1] for k in range(a.shape[2])]
    return sum(parts[1:], parts[0])


def matmul_bt(a: Array, b: Array) -> Array:
    """``a @ b^T`` of ``[slots, m, 3, batch]`` and ``[slots, n, 3, batch]``."""
    parts = [a[:, :, k][:, :, None] * b[:, :, k][:, None] for k in range(3)]
    return parts[0] + parts[1] + parts[2]


def matmul_at(a: Array, b: Array) -> Array:
    """``a^T @ b`` of ``[slots, 3, m, batch]`` and ``[slots, 3, n, batch]``."""
    parts = [a[:, k][:, :, None] * b[:, k][:, None] for k in range(3)]
    return parts[0] + parts[1] + parts[2]


def matvec(a: Array, v: Array) -> Array:
    """``a v`` of ``[slots, m, 3, batch]`` and ``[slots, 3, batch]``."""
    return sum((a[:, :, k] * v[:, k : k + 1] for k in (1, 2)), a[:, :, 0] * v[:, :1])


def matvec_t(a: Array, v: Array) -> Array:
    """``a^T v`` of ``[slots, 3, m, batch]`` and ``[slots, 3, batch]``."""
    return sum((a[:, k] * v[:, k : k + 1] for k in (1, 2)), a[:, 0] * v[:, :1])


def outer(a: Array, b: Array) -> Array:
    """``a b^T`` of two ``[slots, 3, batch]``."""
    return a[:, :, None] * b[:, None]


def dot(a: Array, b: Array) -> Array:
    """Inner products of two ``[slots, 3, batch]``, as ``[slots, 1, batch]``."""
    return a[:, :1] * b[:, :1] + a[:, 1:2] * b[:, 1:2] + a[:, 2:] * b[:, 2:]


def cross(a: Array, b: Array) -> Array:
    """Cross products of two ``[slots, 3, batch]``."""
    a0, a1, a2 = a[:, :1], a[:, 1:2], a[:, 2:]
    b0, b1, b2 = b[:, :1], b[:, 1:2], b[:, 2:]
    return jnp.concatenate([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], 1)


def cross_columns(v: Array, m: Array) -> Array:
    """``v x column`` for every column of ``[slots, 3, n, batch]``."""
    a0, a1, a2 = v[:, :1, None], v[:, 1:2, None], v[:, 2:, None]
    b0, b1, b2 = m[:, :1], m[:, 1:2], m[:, 2:]
    return jnp.concatenate([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], 1)


def cross_rows(v: Array, m: Array) -> Array:
    """``v x row`` for every row, of the first three columns of ``m``."""
    a0, a1, a2 = v[:, None, :1], v[:, None, 1:2], v[:, None, 2:]
    b0, b1, b2 = m[:, :, :1], m[:, :, 1:2], m[:, :, 2:3]
    return jnp.concatenate([a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0], 2)


def skew(v: Array) -> Array:
    """``[v]x`` as ``[slots, 3, 3, batch]``."""
    x, y, z = v[:, 0], v[:, 1], v[:, 2]
    zero = jnp.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return jnp.stack([jnp.stack(row, axis=1) for row in rows], axis=1)


def spin(on_frames: Array, frames: Array) -> Array:
    """Cotangent of the world turn w in ``frames' = (1 + [w]x) frames``.

    Args:
        on_frames: cotangent of ``frames`` ``[slots, 3, 3, batch]``.
        frames: rotations ``[slots, 3, 3, batch]``.

    Returns:
        ``[slots, 3, batch]``.
    """
    s = matmul_bt(on_frames, frames)
    parts = [s[:, 2, 1] - s[:, 1, 2], s[:, 0, 2] - s[:, 2, 0], s[:, 1, 0] - s[:, 0, 1]]
    return jnp.stack(parts, axis=1)


def eye(dtype: np.dtype) -> Array:
    """The identity as ``[1, 3, 3, 1]``."""
    return jnp.eye(3, dtype=dtype)[None, :, :, None]


def combine(matrix: np.ndarray, values: Array) -> Array:
    """A constant matrix applied to the leading axis of ``values``."""
    constant = jnp.asarray(matrix, values.dtype)
    flat = values.reshape(values.shape[0], math.prod(values.shape[1:]))
    return jnp.matmul(constant, flat, precision=HIGHEST).reshape(
        (matrix.shape[0], *values.shape[1:])
    )


def take(values: Array, index: np.ndarray | Array) -> Array:
    """Rows of the leading axis; every index must lie inside it."""
    index = jnp.asarray(index, jnp.int32)
    return values.at[index].get(mode="promise_in_bounds")


def mask(flags: np.ndarray, ndim: int) -> np.ndarray:
    """Flags of the leading axis, shaped to select among arrays of ``ndim`` axes."""
    return flags.reshape(flags.shape + (1,) * (ndim - 1))


def unit_or(v: Array, fallback: Array, smallest: float) -> Array:
    """``v / |v|`` of ``[slots, 3, batch]``, or ``fallback`` where ``|v|^2`` is tiny."""
    square = dot(v, v)
    usable = square > smallest
    root = jnp.sqrt(jnp.where(usable, square, 1))
    return jnp.where(usable, v / root, fallback)


def perpendicular(v: Array) -> Array:
    """A unit vector at right angles to each ``[slots, 3, batch]``; any one at zero."""
    x, y, z = jnp.abs(v[:, :1]), jnp.abs(v[:, 1:2]), jnp.abs(v[:, 2:])
    least_x = (x <= y) & (x <= z)
    least_y = ~least_x & (y <= z)
    axis = jnp.concatenate([least_x, least_y, ~least_x & ~least_y], 1).astype(v.dtype)
    first = jnp.concatenate([jnp.ones_like(x), jnp.zeros_like(v[:, 1:])], 1)
    return unit_or(cross(v, axis), first, tiny_square(v.dtype))


def tiny_square(dtype: np.dtype) -> float:
    """Squared lengths below this, in units of the typical bone, count as zero."""
    return float(jnp.finfo(dtype).eps) ** 2 * 100.0


def cofactors(h: Array) -> Array:
    """Matrix of cofactors of symmetric ``[slots, 3, 3, batch]``."""
    rows = [h[:, i] for i in range(3)]
    crossed = [cross(rows[i - 2], rows[i - 1])[:, None] for i in range(3)]
    return jnp.concatenate(crossed, axis=1)


def total(x: Array) -> Array:
    """Sum over all axes but the minor one; a dot is far faster than XLA's reduce."""
    flat = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    return jnp.matmul(jnp.ones(flat.shape[:1], x.dtype), flat, precision=HIGHEST)


def largest(x: Array) -> Array:
    """Largest magnitude over all axes but the minor one, by halving."""
    flat = jnp.abs(x.reshape(-1, x.shape[-1]))
    while flat.shape[0] > 1:
        half = (flat.shape[0] + 1) // 2
        flat = jnp.maximum(flat[:half], flat[flat.shape[0] - half :])
    return flat[0]


def opaque_one(values: Array) -> Array:
    """A one that the compiler for CPUs cannot know to be one; see ``materialise``."""
    first = values.reshape(-1)[0]

    def opaque(first: Array) -> Array:
        above = 1 + float(jnp.finfo(first.dtype).eps)
        return jnp.where(jnp.isfinite(first), 1, above).astype(first.dtype)

    return jax.lax.platform_dependent(first, cpu=opaque, default=jnp.ones_like)


def materialise(x: Array, one: Array) -> Array:
    """``x``, written to memory once instead of being recomputed by every reader.

    On other platforms ``one`` is a constant, and this does nothing. XLA's CPU backend
    fuses a chain of small products into each output that reads it and so multiplies the
    work (measured: 14 us instead of 1 us per pose and sweep), and drops
    ``optimization_barrier`` before it fuses. It does not duplicate divisions.
    """
    return x / one


def apart(fn: Callable[..., Any], one: Array, *arrays: Array) -> Any:
    """``fn(*arrays)``, compiled apart from what makes its inputs and reads its outputs.

    Inside a scan XLA's CPU backend otherwise fuses the slicing of inputs and the
    storing of outputs into the arithmetic, and such loops do not vectorise (measured: 8
    times slower). A branch on a condition that always holds keeps them apart.
    """
    shapes = jax.eval_shape(fn, *arrays)

    def never(*_: Array) -> Any:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    return jax.lax.cond(one > 0, fn, never, *arrays)


def add_rows(sums: Array, rows: Array, at: Array) -> Array:
    """Add each row at its place, one by one: in place, unlike a scatter."""
    for lane in range(rows.shape[0]):
        row = jax.lax.dynamic_slice_in_dim(sums, at[lane], 1, 0)
        row = row + rows[lane : lane + 1]
        sums = jax.lax.dynamic_update_slice_in_dim(sums, row, at[lane], 0)
    return sums


CHUNK = 512
"""Lanes solved together on a CPU, so that the arrays (10 kB a lane) stay in cache."""


def in_chunks(fn: Callable[..., Any], *arrays: Array) -> Any:
    """``fn(*arrays)``, on a CPU over chunks of the minor axis one after the other.

    Args:
        fn: maps arrays to a pytree of arrays, lane by lane along the minor axis.
        arrays: share their minor axis. Lanes added to fill a chunk are zero.
    """
    if arrays[0].shape[-1] <= CHUNK:
        return fn(*arrays)
    chunked = functools.partial(_in_turn, fn)
    return jax.lax.platform_dependent(*arrays, cpu=chunked, default=fn)


def _in_turn(fn: Callable[..., Any], *arrays: Array) -> Any:
    """``fn`` over chunks of the minor axis, one after the other."""
    batch = arrays[0].shape[-1]
    chunks = -(-batch // CHUNK)

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, chunks * CHUNK - batch)])
        return jnp.moveaxis(x.reshape(*x.shape[:-1], chunks, CHUNK), -2, 0)

    def merge(x: Array) -> Array:
        x = jnp.moveaxis(x, 0, -2)
        return x.reshape(*x.shape[:-2], chunks * CHUNK)[..., :batch]

    out = jax.lax.map(lambda parts: fn(*parts), tuple(split(x) for x in arrays))
    return jax.tree.map(merge, out)
