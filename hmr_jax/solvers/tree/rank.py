"""Rank-revealing factors of symmetric 3x3 blocks, in the tree solver's layout.

``P H P^T = L D L^T`` with the largest diagonal entry left as the next pivot. For a
positive semidefinite H the pivots fall as its eigenvalues do, and what is left after
``rank`` of them is rounding, unlike H's cofactors, which lose half of the digits.
The pseudo-inverse follows without an eigendecomposition: ``H^+ = S H^- S`` for any
generalised inverse ``H^-``, here ``P^T L^-T D^+ L^-1 P``, and S the projection on H's
range. That is what is left of the null vector ``n = P^T L^-T e_3`` at rank 2, and the
first column of ``P^T L`` at rank 1.
Source: Higham, Accuracy and Stability of Numerical Algorithms, section 10.3.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from hmr_jax.solvers.tree import ops


class Factor(NamedTuple):
    """The factorisation of each block; all arrays ``[blocks, 1, batch]``.

    Attributes:
        first: which row is the first pivot's.
        swapped: whether the second pivot is that of two rows after the first one.
        below: entries (1, 0), (2, 0) and (2, 1) of L, 0 below a pivot of none.
        pivots: the three entries of D.
        usable: whether each pivot, and those before it, exceed the floor.
        flipped: whether a pivot was negative and is given as its magnitude.
    """

    first: Array
    swapped: Array
    below: tuple[Array, Array, Array]
    pivots: tuple[Array, Array, Array]
    usable: tuple[Array, Array, Array]
    flipped: Array


def factor(h: Array, floor: Array, one: Array, flip: Array | None = None) -> Factor:
    """Factor symmetric ``[blocks, 3, 3, batch]``.

    Args:
        h: the blocks; both triangles are read.
        floor: ``[blocks, 1, batch]``; pivots up to it count as none.
        one: see ``_tree_ops.materialise``.
        flip: ``[blocks, 1, batch]``; a pivot below ``-flip`` is taken as its magnitude,
            so that the solution points downhill where H curves downwards.
    """
    a, b, c = h[:, 0, :1], h[:, 1, 1:2], h[:, 2, 2:]
    first = jnp.where((a >= b) & (a >= c), 0, jnp.where(b >= c, 1, 2))
    h = _turned(_turned(h, first[:, None]).swapaxes(1, 2), first[:, None])
    h = ops.materialise(h, one)
    turns: list[Array] = []
    top = _upright(h[:, 0, :1], flip, turns)
    usable_0 = top > floor
    inverse = _inverse(top, usable_0)
    left, right = inverse * h[:, 0, 1:2], inverse * h[:, 0, 2:]
    mid = h[:, 1, 1:2] - left * h[:, 0, 1:2]
    cross = h[:, 1, 2:] - left * h[:, 0, 2:]
    last = h[:, 2, 2:] - right * h[:, 0, 2:]
    swapped = last > mid
    mid, last = jnp.maximum(mid, last), jnp.minimum(mid, last)
    mid = _upright(mid, flip, turns)
    left, right = jnp.where(swapped, right, left), jnp.where(swapped, left, right)
    usable_1 = usable_0 & (mid > floor)
    lower = cross * _inverse(mid, usable_1)
    last = _upright(last - lower * cross, flip, turns)
    usable = usable_0, usable_1, usable_1 & (last > floor)
    flipped = turns[0] | turns[1] | turns[2]
    return Factor(
        first, swapped, (left, right, lower), (top, mid, last), usable, flipped
    )


def _upright(pivot: Array, flip: Array | None, turns: list[Array]) -> Array:
    """The pivot, or its magnitude below ``-flip``, which ``turns`` is told."""
    negative = jnp.zeros_like(pivot, bool) if flip is None else pivot < -flip
    turns.append(negative)
    return jnp.where(negative, -pivot, pivot)


def pseudo_solve(f: Factor, n: Array, one: Array) -> Array:
    """``H^+ n``, the least-squares solution of least length.

    Args:
        f: factors of positive semidefinite H; directions of pivots that count as none
            do not move.
        n: right sides ``[blocks, 3, m, batch]``.
        one: see ``_tree_ops.materialise``.
    """
    left, right, lower = (ops.materialise(x, one) for x in f.below)
    top, mid, last = (ops.materialise(x, one) for x in f.pivots)
    f = f._replace(below=(left, right, lower), pivots=(top, mid, last))
    left, right, lower = (x[:, None] for x in f.below)
    span = _range_projection(f)
    right_side = span(_pivot_order(n, f))
    y0 = right_side[:, :1]
    y1 = right_side[:, 1:2] - left * y0
    y2 = right_side[:, 2:] - right * y0 - lower * y1
    solved = (
        (y * _inverse(pivot, usable)[:, None])
        for y, pivot, usable in zip((y0, y1, y2), f.pivots, f.usable, strict=True)
    )
    z0, z1, z2 = solved
    x1 = z1 - lower * z2
    x0 = z0 - left * x1 - right * z2
    x = ops.materialise(jnp.concatenate([x0, x1, z2], axis=1), one)
    return ops.materialise(_own_order(span(x), f), one)


def _inverse(pivot: Array, usable: Array) -> Array:
    return jnp.where(usable, 1 / jnp.where(usable, pivot, 1), 0)


def _range_projection(f: Factor):
    """The projection of ``[blocks, 3, m, batch]``, in pivot order, on H's range."""
    left, right, lower = f.below
    none, single, full = ~f.usable[0], f.usable[0] & ~f.usable[1], f.usable[2]
    unit = jnp.ones_like(left)
    # Rank 2: off the null vector. Rank 1: onto the first column of L.
    way = jnp.concatenate(
        [
            jnp.where(single, unit, left * lower - right),
            jnp.where(single, left, -lower),
            jnp.where(single, right, unit),
        ],
        axis=1,
    )
    way = way / jnp.sqrt(ops.dot(way, way))
    keep = jnp.where(none | single, 0, unit)[:, None]
    along = jnp.where(single, unit, jnp.where(full | none, 0, -unit))[:, None]

    def project(x: Array) -> Array:
        share = along * jnp.sum(way[:, :, None] * x, axis=1, keepdims=True)
        return keep * x + share * way[:, :, None]

    return project


def _turned(x: Array, first: Array) -> Array:
    """Rows ``first``, ``first + 1`` and ``first + 2``, modulo 3."""
    a, b, c = x[:, :1], x[:, 1:2], x[:, 2:]
    rows = [(a, b, c), (b, c, a), (c, a, b)]
    picked = [
        jnp.where(first == 0, r0, jnp.where(first == 1, r1, r2))
        for r0, r1, r2 in zip(*rows, strict=True)
    ]
    return jnp.concatenate(picked, axis=1)


def _swapped(x: Array, swapped: Array) -> Array:
    b, c = x[:, 1:2], x[:, 2:]
    pair = [jnp.where(swapped, c, b), jnp.where(swapped, b, c)]
    return jnp.concatenate([x[:, :1], *pair], axis=1)


def _pivot_order(x: Array, f: Factor) -> Array:
    """``P x`` of ``[blocks, 3, m, batch]``."""
    return _swapped(_turned(x, f.first[:, None]), f.swapped[:, None])


def _own_order(x: Array, f: Factor) -> Array:
    """``P^T x``."""
    return _turned(_swapped(x, f.swapped[:, None]), (3 - f.first[:, None]) % 3)
