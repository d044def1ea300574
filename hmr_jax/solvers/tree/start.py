"""Closed-form start of the tree solver: fit where bones fork, aim along each chain.

A joint with several children takes the rotation that best maps its rest bones onto the
target bones (Procrustes, by Davenport's quaternion matrix). Every other bone then
points from where its joint came to lie towards its target ("adaptive" in HybrIK).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hmr_jax.solvers.tree import ops
from hmr_jax.solvers.tree.layout import WIDTH, TreeLayout

_SQUARINGS = 14
_BEND = 0.3
"""How far a bone whose own end is unobserved leans aside, so that chains can bend."""


def closed_form(
    layout: TreeLayout, rest: Array, targets: Array, weights: Array
) -> tuple[Array, Array]:
    """Bones that nearly fit the targets.

    Args:
        layout: the tree.
        rest: rest bones ``[slots, 3, batch]``.
        targets: target positions ``[slots, 3, batch]``.
        weights: ``[slots, batch]``; where 0 the target is not looked at, and a bone
            aims at the nearest weighted joints below it, or follows the torso.

    Returns:
        World bones ``[slots, 3, batch]``, and the rotations of the joints with several
        children ``[multi, 3, 3, batch]``.
    """
    seen = (weights > 0).astype(rest.dtype)[:, None]
    reach = ops.combine(layout.nearest_descendant, seen)
    below = ops.combine(layout.nearest_descendant, seen * targets)
    known = reach > 0
    goals = jnp.where(seen > 0, targets, below / jnp.where(known, reach, 1))
    rotmats = _fork_rotations(layout, rest, goals, seen, known)
    held = rest  # bones carried rigidly by the nearest fork above
    aside = ops.perpendicular(rest)
    if layout.num_multi:
        identity = jnp.broadcast_to(ops.eye(rest.dtype), (1, *rotmats.shape[1:]))
        frames = ops.take(jnp.concatenate([rotmats, identity]), layout.anchor)
        held, aside = ops.matvec(frames, rest), ops.matvec(frames, aside)
    lean = jnp.where(seen > 0, 0, _BEND * aside)
    aims = known & jnp.asarray(ops.mask(layout.single_edge, 3))
    return _aim(layout, rest, held, goals, lean, aims), rotmats


def _fork_rotations(
    layout: TreeLayout, rest: Array, goals: Array, seen: Array, known: Array
) -> Array:
    """Procrustes rotations of the joints with several children."""
    edges = layout.multi_edges
    targets = ops.take(goals, edges) - ops.take(goals, layout.parent_slot[edges])
    guess = 0.1 * ops.take(known, edges).astype(rest.dtype)
    share = jnp.where(ops.take(seen, edges) > 0, 1, guess)
    products = ops.outer(ops.take(rest, edges), share * targets)
    correlation = ops.combine(layout.multi_sum, products)
    return rotation_from_correlation(correlation)


def _davenport_table() -> np.ndarray:
    """``[4, 4, 3, 3]`` constants that make Davenport's matrix from a correlation."""
    table = np.zeros((4, 4, 3, 3))
    table[0, 0] = np.eye(3)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        table[0, i + 1, j, k] = table[i + 1, 0, j, k] = 1.0
        table[0, i + 1, k, j] = table[i + 1, 0, k, j] = -1.0
        table[i + 1, i + 1] = -np.eye(3)
        table[i + 1, i + 1, i, i] = 1.0
        table[i + 1, j + 1, i, j] = table[i + 1, j + 1, j, i] = 1.0
        table[j + 1, i + 1, i, j] = table[j + 1, i + 1, j, i] = 1.0
    return table


def rotation_from_correlation(correlation: Array) -> Array:
    """Rotations R that maximise ``sum_ij correlation_ij R_ji``, not differentiable.

    Args:
        correlation: sums of ``source_i target_j``, ``[n, 3, 3, batch]``.

    Returns:
        ``[n, 3, 3, batch]``, each taking source to target as well as a rotation can;
        one of the best ones where several are equally good.
    """
    count, batch = correlation.shape[0], correlation.shape[-1]
    flat = jnp.moveaxis(correlation.reshape(count, 9, batch), 1, 0)
    matrix = ops.combine(_davenport_table().reshape(16, 9), flat)
    matrix = jnp.moveaxis(matrix, 0, 1).reshape(count, 4, 4, batch)
    size = jnp.sqrt(3 * jnp.sum(correlation * correlation, axis=(1, 2), keepdims=True))
    floor = float(jnp.finfo(matrix.dtype).tiny) * 1e4
    identity = jnp.eye(4, dtype=matrix.dtype)[None, :, :, None]
    matrix = (matrix + identity * size) / (4 * size + floor) + identity * floor

    def square(_: Array, m: Array) -> Array:
        m = ops.matmul(m, m)
        trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2] + m[:, 3, 3]
        return m / (trace[:, None, None] + floor)

    matrix = jax.lax.fori_loop(0, _SQUARINGS, square, matrix)
    best, quaternion = matrix[:, :1, 0], matrix[:, :, 0]
    for i in (1, 2, 3):
        better = matrix[:, i : i + 1, i] > best
        quaternion = jnp.where(better, matrix[:, :, i], quaternion)
        best = jnp.where(better, matrix[:, i : i + 1, i], best)
    return _quaternion_rotation(quaternion)


def _quaternion_rotation(q: Array) -> Array:
    """Rotation matrices of unnormalised (w, x, y, z); the identity at zero."""
    square = jnp.sum(q * q, axis=1)[:, None, None]
    usable = square > 0
    w, vector = q[:, :1][:, None], q[:, 1:]
    eye = ops.eye(q.dtype)
    xv = ops.skew(vector)
    change = 2 * (w * xv + ops.matmul(xv, xv)) / jnp.where(usable, square, 1)
    return jnp.where(usable, eye + change, eye)


def _aim(
    layout: TreeLayout, rest: Array, held: Array, goals: Array, lean: Array, aims: Array
) -> Array:
    """Point single bones from their reached joint to their goal, parents first."""
    length = jnp.sqrt(ops.dot(rest, rest))
    smallest = ops.tiny_square(rest.dtype)
    one = ops.opaque_one(rest)
    known = jnp.concatenate([held, goals, lean, length], axis=1)
    known = jnp.concatenate([known, aims.astype(rest.dtype)], axis=1)
    parents = layout.parent_slot.reshape(-1, WIDTH)

    def point(above: Array, own: Array) -> Array:
        held, length = own[:, :3], own[:, 9:10]
        way = own[:, 3:6] - above
        distance = jnp.sqrt(ops.dot(way, way))
        way = ops.materialise(way + own[:, 6:9] * distance, one)
        square = ops.dot(way, way)
        use = (own[:, 10:] > 0) & (square > smallest)
        size = jnp.sqrt(jnp.where(use, square, 1))
        return jnp.where(use, way * (length / size), held)

    def step(places: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        start, parent = inputs
        own = jax.lax.dynamic_slice_in_dim(known, start, WIDTH, 0)
        above = ops.take(places, parent)
        bone = ops.apart(point, one, above, own)
        places = jax.lax.dynamic_update_slice_in_dim(places, above + bone, start, 0)
        return places, bone

    places = jnp.zeros((rest.shape[0] + 1, 3, rest.shape[2]), rest.dtype)
    starts = jnp.arange(0, rest.shape[0], WIDTH, dtype=jnp.int32)
    inputs = (starts, jnp.asarray(parents, jnp.int32))
    _, bones = jax.lax.scan(step, places, inputs, reverse=True)
    return bones.reshape(rest.shape)
