"""One exact solve of the tree's normal equations by two sweeps over the joints.

The unknowns are one world-frame rotation vector ``u_k`` per joint, which turns every
bone that leaves joint k, so that child c moves by ``d_c = d_k + u_k x beta_c``. The
model to minimise is ``sum_c (q_c . d_c + w_c |d_c|^2 / 2) + sum_k u_k^T Q_k u_k / 2``.
The cost of each subtree is a quadratic in its root's displacement, with Hessian P and
gradient q; both are kept as one 3x4 block ``[P | q]``, and so are ``[N | h]`` below.
With ``X = H^-1 [N | h]`` the joint's increment is ``u = -(X_N d + X_h)``.
Source: the tree-structured normal equations of Featherstone's articulated-body method,
with the second-order term of the rotations in Q.
"""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from hmr_jax.solvers.tree import ops, rank
from hmr_jax.solvers.tree.layout import WIDTH, TreeLayout

BlockSolve = Callable[[Array, Array, Array, Array], tuple[Array, Array]]
"""``(H, [N | h], scale, one) -> (H^-1 [N | h], notes)``, per block of a step.

The arrays are ``[WIDTH, 3, 3, batch]``, ``[WIDTH, 3, 4, batch]``, ``[WIDTH, 1, batch]``
and, for any number of notes about the block, ``[WIDTH, notes, batch]``.
"""


def sweep(
    layout: TreeLayout,
    bones: Array,
    curvature: Array,
    weights: Array,
    forces: Array,
    scale: Array,
    solve_block: BlockSolve,
) -> tuple[Array, Array, Array]:
    """Minimise the quadratic model above.

    Args:
        layout: the tree.
        bones: world bone vectors beta ``[slots, 3, batch]``, zero in root and dummies.
        curvature: per bone its part of Q, ``[slots, 3, 3, batch]``.
        weights: w ``[slots, batch]``.
        forces: q ``[slots, 3, batch]``.
        scale: per joint the size of what H is summed from, ``[slots, 1, batch]``.
        solve_block: ``step_solve`` or ``null_space_solve``.

    Returns:
        Rotation increments u and displacements d, both ``[slots, 3, batch]``, and the
        notes of the solves.
    """
    one = ops.opaque_one(weights)
    gain, notes = eliminate(
        layout, bones, curvature, weights, forces, scale, solve_block
    )
    return *_root_to_leaf(layout, bones, gain, one), notes


def step_solve(
    h: Array, n: Array, scale: Array, one: Array, *, damping: Array, free: Array
) -> tuple[Array, Array]:
    """``H^-1 n``, by cofactors or, in the lanes that are ``free``, by rank.

    Each lane's solution is the same whatever the others hold.

    Args:
        h: symmetric ``[blocks, 3, 3, batch]``, not of rank 1 unless ``free``.
        n: right sides ``[blocks, 3, m, batch]``.
        scale: ``[blocks, 1, batch]``.
        one: see ``_tree_ops.materialise``.
        damping: multiple of the trace added to the diagonal, ``[batch]``.
        free: which lanes have directions that nothing holds, ``[batch]``.

    Returns:
        The solution, and 1 where H of a free lane curves downwards, else 0
        ``[blocks, 1, batch]``.
    """
    plain = _cofactor_solve(h, n, one, damping), jnp.zeros_like(scale)
    x, turned = jax.lax.cond(
        free.any(), lambda: _rank_solve(h, n, scale, one, damping), lambda: plain
    )
    return jnp.where(free, x, plain[0]), jnp.where(free, turned, plain[1])


def _cofactor_solve(h: Array, n: Array, one: Array, damping: Array) -> Array:
    """``H^-1 n`` with a raised diagonal; 0 where H is singular to rounding even so.

    At rank 1 the cofactors, and so the solution, are rounding.
    """
    eps = float(jnp.finfo(h.dtype).eps)
    trace = jnp.abs(h[:, 0, 0] + h[:, 1, 1] + h[:, 2, 2])[:, None, None]
    h = h + ops.eye(h.dtype) * (trace * (30 * eps + damping[None, None, None]))
    cof = ops.materialise(ops.cofactors(h), one)
    det = ops.matmul(h[:, :1], cof[:, :, :1])  # first row by first column
    floor = eps * (trace / 3) ** 3 + eps**2 * 1e-2
    factor = ops.materialise(det / (det * det + floor * floor), one)
    return ops.materialise(ops.matmul(cof, n) * factor, one)


def _rank_solve(
    h: Array, n: Array, scale: Array, one: Array, damping: Array
) -> tuple[Array, Array]:
    """``step_solve`` for H of any rank and sign.

    Free directions do not move, and the step goes down where H curves downwards.
    """
    trace = jnp.abs(h[:, 0, 0] + h[:, 1, 1] + h[:, 2, 2])[:, None, None]
    h = h + ops.eye(h.dtype) * (trace * damping[None, None, None])
    floor = 30 * float(jnp.finfo(h.dtype).eps) * scale
    factors = rank.factor(h, floor, one, rounding_share(h.dtype) * scale)
    return rank.pseudo_solve(factors, n, one), factors.flipped.astype(h.dtype)


def null_space_solve(
    h: Array, n: Array, scale: Array, one: Array
) -> tuple[Array, Array]:
    """``H^+ n``: directions without stiffness do not move.

    Args:
        h: symmetric positive semidefinite ``[blocks, 3, 3, batch]``.
        n: right sides ``[blocks, 3, m, batch]``.
        scale: ``[blocks, 1, batch]``.
        one: see ``_tree_ops.materialise``.

    Returns:
        The solution, and per block how many pivots are not rounding, how many of those
        are soft, and how many of that size are negative ``[blocks, 3, batch]``.
    """
    floor = rounding_share(h.dtype) * scale
    factors = rank.factor(h, floor, one)
    stiff = _count(factors.usable, h.dtype)
    firm = _count([p > FIRM_SHARE * scale for p in factors.pivots], h.dtype)
    negative = _count([p < -floor for p in factors.pivots], h.dtype)
    notes = [stiff, jnp.maximum(stiff - firm, 0), negative]
    return rank.pseudo_solve(factors, n, one), jnp.concatenate(notes, axis=1)


def _count(flags: Iterable[Array], dtype: Any) -> Array:
    """How many of the flags hold."""
    return functools.reduce(operator.add, (flag.astype(dtype) for flag in flags))


FIRM_SHARE = 1e-3
"""Pivots of H above this share of its scale are firm.

Below, a limb is within some degrees of being stretched, or a target within a fraction
of a millimetre of where its joint cannot tell which way to turn. The derivative changes
by itself over moves of that share, which float32's rounding of the targets comes near.
"""


def rounding_share(dtype: Any) -> float:
    """Pivots of H up to this share of its scale are taken for rounding.

    A pivot of share r puts rounding of size eps / r into the blocks above. Where r is
    above sqrt(eps), that stays below the same share there, and so is never taken for
    stiffness.
    """
    return float(jnp.finfo(dtype).eps) ** 0.5


def eliminate(
    layout: TreeLayout,
    bones: Array,
    curvature: Array,
    weights: Array,
    forces: Array,
    scale: Array,
    solve_block: BlockSolve,
) -> tuple[Array, Array]:
    """Eliminate the joints, children first; arguments as those of ``sweep``.

    Returns:
        X ``[slots, 3, 4, batch]`` and the notes ``[slots, notes, batch]``.
    """
    one = ops.opaque_one(weights)
    slots, batch = bones.shape[0], bones.shape[-1]
    parts = [curvature.reshape(slots, 9, batch), bones, forces, weights[:, None], scale]
    packed = jnp.concatenate(parts, axis=1)
    parents = layout.parent_slot.reshape(-1, WIDTH)
    eye = ops.eye(packed.dtype)

    def eliminate_row(n: Array, h: Array, p: Array, own: Array) -> tuple[Array, ...]:
        curvature = own[:, :9].reshape(WIDTH, 3, 3, batch)
        bone, force, weight, scale = jnp.split(own[:, 9:], (3, 6, 7), axis=1)
        x, notes = solve_block(h, n, scale, one)
        drive = jnp.concatenate([eye * weight[:, None], force[:, :, None]], axis=2)
        p = ops.materialise(p - ops.matmul_at(n[:, :, :3], x) + drive, one)
        n = ops.materialise(ops.cross_columns(bone, p), one)
        h = ops.cross_rows(bone, n) + curvature
        return x, notes, n, h, p

    def step(
        sums: tuple[Array, ...], inputs: tuple[Array, Array]
    ) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        start, parent = inputs
        rows = [
            jax.lax.dynamic_slice_in_dim(values, start, WIDTH, 0)
            for values in (*sums, packed)
        ]
        x, notes, *parts = ops.apart(eliminate_row, one, *rows)
        pairs = zip(sums, parts, strict=True)
        sums = tuple(ops.add_rows(total, part, parent) for total, part in pairs)
        return sums, (x, notes)

    sums = tuple(jnp.zeros((slots + 1, 3, n, batch), packed.dtype) for n in (4, 3, 4))
    starts = jnp.arange(0, slots, WIDTH, dtype=jnp.int32)
    inputs = (starts, jnp.asarray(parents, jnp.int32))
    _, (gain, notes) = jax.lax.scan(step, sums, inputs)
    return gain.reshape(slots, 3, 4, batch), notes.reshape(slots, -1, batch)


def _root_to_leaf(
    layout: TreeLayout, bones: Array, gain: Array, one: Array
) -> tuple[Array, Array]:
    """Substitute back, parents first; returns u and d."""
    slots, batch = gain.shape[0], gain.shape[-1]
    parents = layout.parent_slot.reshape(-1, WIDTH)

    def substitute(above: Array, bone: Array, x: Array) -> Array:
        d = above[:, :3] + ops.cross(above[:, 3:], bone)
        d = ops.materialise(d, one)
        u = ops.matvec(x[:, :, :3], d) + x[:, :, 3]
        return jnp.concatenate([d, -u], axis=1)

    def step(moves: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        start, parent = inputs
        above = ops.take(moves, parent)
        bone = jax.lax.dynamic_slice_in_dim(bones, start, WIDTH, 0)
        x = jax.lax.dynamic_slice_in_dim(gain, start, WIDTH, 0)
        out = ops.apart(substitute, one, above, bone, x)
        return jax.lax.dynamic_update_slice_in_dim(moves, out, start, 0), None

    moves = jnp.zeros((slots + 1, 6, batch), gain.dtype)
    starts = jnp.arange(0, slots, WIDTH, dtype=jnp.int32)
    inputs = (starts, jnp.asarray(parents, jnp.int32))
    moves, _ = jax.lax.scan(step, moves, inputs, reverse=True)
    return moves[:slots, 3:], moves[:slots, :3]
