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

import jax
import jax.numpy as jnp
from jax import Array

from hmr_jax.solvers import _tree_ops as ops
from hmr_jax.solvers._tree_layout import WIDTH, TreeLayout


def sweep(
    layout: TreeLayout,
    bones: Array,
    curvature: Array,
    weights: Array,
    forces: Array,
    damping: Array | None,
) -> tuple[Array, Array]:
    """Minimise the quadratic model above.

    Args:
        layout: the tree.
        bones: world bone vectors beta ``[slots, 3, batch]``, zero in root and dummies.
        curvature: per bone its part of Q, ``[slots, 3, 3, batch]``.
        weights: w ``[slots, batch]``.
        forces: q ``[slots, 3, batch]``.
        damping: multiple of each joint's trace added to H, ``[batch]``. None solves
            with a pseudo-inverse instead: directions without stiffness do not move.

    Returns:
        Rotation increments u and displacements d, both ``[slots, 3, batch]``.
    """
    one = ops.opaque_one(weights)
    parts = [curvature.reshape(bones.shape[0], 9, -1), bones, forces]
    packed = jnp.concatenate([*parts, weights[:, None]], axis=1)
    gain = _leaf_to_root(layout, packed, damping, one)
    return _root_to_leaf(layout, bones, gain, one)


def _damped_solve(h: Array, n: Array, damping: Array, one: Array) -> Array:
    """``H^-1 n`` with a raised diagonal; 0 where H is singular to rounding even so."""
    eps = float(jnp.finfo(h.dtype).eps)
    trace = jnp.abs(h[:, 0, 0] + h[:, 1, 1] + h[:, 2, 2])[:, None, None]
    h = h + ops.eye(h.dtype) * (trace * (30 * eps + damping[None, None, None]))
    cof = ops.materialise(ops.cofactors(h), one)
    det = ops.matmul(h[:, :1], cof[:, :, :1])  # first row by first column
    floor = eps * (trace / 3) ** 3 + eps**2 * 1e-2
    scale = ops.materialise(det / (det * det + floor * floor), one)
    return ops.materialise(ops.matmul(cof, n) * scale, one)


def pseudo_solve(h: Array, n: Array, one: Array) -> Array:
    """``(H^2 + delta^2)^-1 H n`` for symmetric H, the solution of least length.

    Eigenvalues below ``delta = eps^(4/7) |H|`` count as none: in float32 1e-4, where
    they are noise and their inverses would drown a gradient. Relative errors elsewhere
    are ``delta^2`` over the eigenvalue's square.
    """
    eps = float(jnp.finfo(h.dtype).eps)
    square = ops.matmul(h[:, :1], h[:, :, :1])
    square = square + ops.matmul(h[:, 1:2], h[:, :, 1:2])
    square = square + ops.matmul(h[:, 2:], h[:, :, 2:])
    size = ops.materialise(jnp.sqrt(square + eps**4), one)
    h = ops.materialise(h / size, one)
    normal = ops.matmul(h, h) + ops.eye(h.dtype) * eps ** (8 / 7)
    normal = ops.materialise(normal, one)
    cof = ops.materialise(ops.cofactors(normal), one)
    det = ops.matmul(normal[:, :1], cof[:, :, :1])
    scale = ops.materialise(1 / (det * size), one)
    right = ops.materialise(ops.matmul(h, n), one)
    return ops.materialise(ops.matmul(cof, right) * scale, one)


def _leaf_to_root(
    layout: TreeLayout, packed: Array, damping: Array | None, one: Array
) -> Array:
    """Eliminate the joints, children first; returns X ``[slots, 3, 4, batch]``."""
    slots, batch = packed.shape[0], packed.shape[-1]
    parents = layout.parent_slot.reshape(-1, WIDTH)
    eye = ops.eye(packed.dtype)

    def eliminate(n: Array, h: Array, p: Array, own: Array) -> tuple[Array, ...]:
        curvature = own[:, :9].reshape(WIDTH, 3, 3, batch)
        bone, force, weight = own[:, 9:12], own[:, 12:15], own[:, 15:]
        if damping is None:
            x = pseudo_solve(h, n, one)
        else:
            x = _damped_solve(h, n, damping, one)
        drive = jnp.concatenate([eye * weight[:, None], force[:, :, None]], axis=2)
        p = ops.materialise(p - ops.matmul_at(n[:, :, :3], x) + drive, one)
        n = ops.materialise(ops.cross_columns(bone, p), one)
        h = ops.cross_rows(bone, n) + curvature
        return x, n, h, p

    def step(
        sums: tuple[Array, ...], inputs: tuple[Array, Array]
    ) -> tuple[tuple[Array, ...], Array]:
        start, parent = inputs
        rows = [
            jax.lax.dynamic_slice_in_dim(values, start, WIDTH, 0)
            for values in (*sums, packed)
        ]
        x, *parts = ops.apart(eliminate, one, *rows)
        pairs = zip(sums, parts, strict=True)
        return tuple(ops.add_rows(total, part, parent) for total, part in pairs), x

    sums = tuple(jnp.zeros((slots + 1, 3, n, batch), packed.dtype) for n in (4, 3, 4))
    starts = jnp.arange(0, slots, WIDTH, dtype=jnp.int32)
    _, gain = jax.lax.scan(step, sums, (starts, jnp.asarray(parents, jnp.int32)))
    return gain.reshape(slots, 3, 4, batch)


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
