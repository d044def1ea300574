"""Rotations of a tree's joints from its bones, twists and leaf rotations.

A joint with one child turns its rest bone onto its bone by the smallest rotation in its
parent's frame, after the given twist about the rest bone: ``R = Swing Twist``. A joint
with several children has the one rotation that its rigid fork of bones took. A leaf
has the rotation given. All go parents first.

With a and d the rest bone as the parent turns it and the bone, both unit and in the
world frame, the joint's world turn is
``theta = d ((a + d) . theta_parent) / (1 + a . d) + (a + d) x d' / (1 + a . d) + ...``
so that backwards only the part along d goes on to the parent, one vector per joint.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hmr_jax.solvers import _tree_ops as ops
from hmr_jax.solvers._tree_layout import WIDTH, TreeLayout
from hmr_jax.solvers._tree_sweep import pseudo_solve


def usable_bones(layout: TreeLayout, rest: Array, seen: Array) -> Array:
    """Whether each bone sets its joint's swing: ``[slots, 1, batch]``, 1 or 0.

    A bone of no length, or with no weighted target beyond it, sets none; its joint
    then swings not at all.
    """
    single = jnp.asarray(ops.mask(layout.single_edge, 3))
    long_enough = ops.dot(rest, rest) > ops.tiny_square(rest.dtype)
    return (single & long_enough & (seen[:, None] > 0)).astype(rest.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def orient(
    layout: TreeLayout,
    rest: Array,
    bones: Array,
    twists: Array,
    leaves: Array,
    usable: Array,
    rotmats: Array,
) -> Array:
    """Global rotation of every joint.

    Args:
        layout: the tree.
        rest: rest bones ``[slots, 3, batch]``.
        bones: world bones of the same lengths, rigid where several leave one joint.
        twists: unnormalised (cos, sin) ``[slots, 2, batch]``; no twist at zero.
        leaves: local rotations, read at leaves, ``[slots, 3, 3, batch]``.
        usable: from ``usable_bones``; no gradient.
        rotmats: rotations of joints with several children ``[multi, 3, 3, batch]``;
            their gradient goes to ``bones`` and ``rest``, which determine them.

    Returns:
        ``[slots, 3, 3, batch]``.
    """
    return ops.in_chunks(
        functools.partial(_orient, layout), rest, bones, twists, leaves, usable, rotmats
    )


def _orient(
    layout: TreeLayout,
    rest: Array,
    bones: Array,
    twists: Array,
    leaves: Array,
    usable: Array,
    rotmats: Array,
) -> Array:
    """Root to leaf over the steps of the layout."""
    one = ops.opaque_one(rest)
    base, axis, aim, aside, swings = _joint_terms(
        layout, rest, bones, twists, leaves, usable
    )
    if layout.num_multi:
        own = np.searchsorted(layout.multi_slots, np.arange(layout.num_slots))
        forks = ops.take(rotmats, own.clip(0, layout.num_multi - 1))
        base = jnp.where(jnp.asarray(ops.mask(layout.multi_node, 4)), forks, base)
    columns = [axis[:, :, None], aim[:, :, None], aside[:, :, None]]
    swing_column = jnp.broadcast_to(swings[:, :, None], columns[0].shape)
    packed = jnp.concatenate([base, *columns, swing_column], axis=2)
    fork = jnp.asarray(layout.multi_node.reshape(-1, WIDTH, 1, 1, 1))
    parents = jnp.asarray(layout.parent_slot.reshape(-1, WIDTH), jnp.int32)
    starts = jnp.arange(0, layout.num_slots, WIDTH, dtype=jnp.int32)

    def rotate(above: Array, own: Array, fork: Array) -> Array:
        base, axis, aim, aside = own[:, :, :3], own[:, :, 3], own[:, :, 4], own[:, :, 5]
        swings = own[:, :1, 6:] > 0
        local = _local_rotation(above, base, axis, aim, aside, swings, one)
        return jnp.where(fork, base, ops.matmul(above, local))

    def step(frames: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, None]:
        start, parent, fork = inputs
        own = jax.lax.dynamic_slice_in_dim(packed, start, WIDTH, 0)
        out = ops.apart(rotate, one, ops.take(frames, parent), own, fork)
        return jax.lax.dynamic_update_slice_in_dim(frames, out, start, 0), None

    shape = (layout.num_slots + 1, 3, 3, rest.shape[-1])
    frames = jnp.broadcast_to(ops.eye(rest.dtype), shape)
    frames, _ = jax.lax.scan(step, frames, (starts, parents, fork), reverse=True)
    return frames[: layout.num_slots]


def _joint_terms(
    layout: TreeLayout,
    rest: Array,
    bones: Array,
    twists: Array,
    leaves: Array,
    usable: Array,
) -> tuple[Array, Array, Array, Array, Array]:
    """Per joint: its twist or leaf rotation, unit rest bone, unit bone, a side axis,
    and whether it swings.
    """
    small = ops.tiny_square(rest.dtype)
    below = ops.take(rest, layout.child_slot)
    any_axis = jnp.concatenate(
        [jnp.ones_like(below[:, :1]), jnp.zeros_like(below[:, 1:])], axis=1
    )
    axis = ops.unit_or(below, any_axis, small)
    aim = ops.unit_or(ops.take(bones, layout.child_slot), axis, small)
    square = twists[:, :1] ** 2 + twists[:, 1:] ** 2
    given = square > float(jnp.finfo(rest.dtype).tiny) * 1e8
    given = given & (ops.dot(below, below) > small)
    size = jnp.sqrt(jnp.where(given, square, 1))
    cos = jnp.where(given, twists[:, :1] / size, 1)[:, None]
    sin = jnp.where(given, twists[:, 1:] / size, 0)[:, None]
    x = ops.skew(axis)
    eye = ops.eye(rest.dtype)
    twist = eye + sin * x + (1 - cos) * ops.matmul(x, x)
    single = jnp.asarray(ops.mask(layout.single_node, 4))
    leaf = jnp.asarray(ops.mask(layout.leaf_node, 4))
    base = jnp.where(single, twist, jnp.where(leaf, leaves, eye))
    swings = ops.take(usable, layout.child_slot)
    swings = jnp.where(jnp.asarray(ops.mask(layout.single_node, 3)), swings, 0)
    aside = jax.lax.stop_gradient(ops.perpendicular(axis))
    return base, axis, aim, aside, swings


def _local_rotation(
    above: Array,
    base: Array,
    axis: Array,
    aim: Array,
    aside: Array,
    swings: Array,
    one: Array,
) -> Array:
    """``Swing base``, or ``base`` where the joint does not swing.

    The smallest rotation from a to v is a half turn about a and then one about a + v:
    exactly orthonormal, also near 180 degrees. There ``aside`` replaces a + v.
    """
    half = ops.materialise(axis + ops.matvec_t(above, aim), one)
    half = ops.unit_or(half, aside, ops.tiny_square(half.dtype))
    half = ops.materialise(half, one)
    turned = 2 * ops.outer(axis, ops.matvec_t(base, axis)) - base
    turned = ops.materialise(turned, one)
    across = ops.materialise(ops.matvec_t(turned, half), one)
    swung = 2 * ops.outer(half, across) - turned
    return ops.materialise(jnp.where(swings, swung, base), one)


def _orient_fwd(layout: TreeLayout, *arrays: Array) -> tuple[Array, tuple]:
    frames = orient(layout, *arrays)
    return frames, (*arrays, frames)


def _orient_bwd(layout: TreeLayout, saved: tuple, on_frames: Array) -> tuple:
    pulled = ops.in_chunks(functools.partial(_pull_back, layout), *saved, on_frames)
    return (*pulled, jnp.zeros_like(saved[4]), jnp.zeros_like(saved[5]))


def _pull_back(
    layout: TreeLayout,
    rest: Array,
    bones: Array,
    twists: Array,
    leaves: Array,
    usable: Array,
    rotmats: Array,
    frames: Array,
    on_frames: Array,
) -> tuple[Array, Array, Array, Array]:
    """Cotangents of rest, bones, twists and leaves."""
    del rotmats
    padded = jnp.concatenate(
        [frames, jnp.broadcast_to(ops.eye(rest.dtype), (1, *frames.shape[1:]))]
    )
    above = ops.take(padded, layout.parent_slot)
    _, axis, aim, _, swings = _joint_terms(layout, rest, bones, twists, leaves, usable)
    spin = ops.matmul_bt(on_frames, frames)
    spin = jnp.stack(
        [
            spin[:, 2, 1] - spin[:, 1, 2],
            spin[:, 0, 2] - spin[:, 2, 0],
            spin[:, 1, 0] - spin[:, 0, 1],
        ],
        axis=1,
    )
    spin = _gather_spin(layout, spin, ops.matvec(above, axis), aim, swings)
    leaf = jnp.asarray(ops.mask(layout.leaf_node, 4))
    on_frames = jnp.where(leaf, on_frames, ops.matmul(ops.skew(spin / 2), frames))

    def own_rotation(rest: Array, bones: Array, twists: Array, leaves: Array) -> Array:
        terms = _joint_terms(layout, rest, bones, twists, leaves, usable)
        local = _local_rotation(above, *terms[:4], terms[4][:, None] > 0, one)
        return ops.matmul(above, local)

    one = ops.opaque_one(rest)
    _, pull = jax.vjp(own_rotation, rest, bones, twists, leaves)
    fork = jnp.asarray(ops.mask(layout.multi_node, 4))
    on_rest, on_bones, on_twists, on_leaves = pull(jnp.where(fork, 0, on_frames))
    if layout.num_multi:
        fork_bones, fork_rest = _pull_forks(layout, bones, spin, frames)
        on_bones, on_rest = on_bones + fork_bones, on_rest + fork_rest
    return on_rest, on_bones, on_twists, on_leaves


def _gather_spin(
    layout: TreeLayout, spin: Array, turned_axis: Array, aim: Array, swings: Array
) -> Array:
    """Cotangents of each joint's world turn, its descendants' share included."""
    one = ops.opaque_one(spin)
    half = turned_axis + aim
    square = ops.dot(half, half)
    usable = (square > ops.tiny_square(spin.dtype)) & (swings > 0)
    onward = jnp.where(usable, 2 * half / jnp.where(usable, square, 1), 0)
    fork = jnp.asarray(ops.mask(layout.multi_node, 3))
    whole = jnp.where(fork | (swings > 0), 0, jnp.ones_like(swings))
    packed = jnp.concatenate([spin, onward, aim, whole], axis=1)
    parents = jnp.asarray(layout.parent_slot.reshape(-1, WIDTH), jnp.int32)
    starts = jnp.arange(0, layout.num_slots, WIDTH, dtype=jnp.int32)

    def pass_on(row: Array, own: Array) -> tuple[Array, Array]:
        row = ops.materialise(row + own[:, :3], one)
        onward, aim, whole = own[:, 3:6], own[:, 6:9], own[:, 9:]
        return row, onward * ops.dot(row, aim) + whole * row

    def step(sums: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        start, parent = inputs
        own = jax.lax.dynamic_slice_in_dim(packed, start, WIDTH, 0)
        row = jax.lax.dynamic_slice_in_dim(sums, start, WIDTH, 0)
        row, passed = ops.apart(pass_on, one, row, own)
        sums = jax.lax.dynamic_update_slice_in_dim(sums, row, start, 0)
        return ops.add_rows(sums, passed, parent), None

    sums = jnp.zeros((spin.shape[0] + 1, *spin.shape[1:]), spin.dtype)
    sums, _ = jax.lax.scan(step, sums, (starts, parents))
    return sums[: layout.num_slots]


def _pull_forks(
    layout: TreeLayout, bones: Array, spin: Array, frames: Array
) -> tuple[Array, Array]:
    """Cotangents of bones and rest bones about joints with several children.

    The turn of a rigid fork is ``K^-1 sum_c beta_c x (beta_c' - G b_c')`` with K its
    inertia. A turn that its bones do not show (all of them on one line) gets 0.
    """
    edges = ops.take(bones, layout.multi_edges)
    square = ops.dot(edges, edges)[:, None] * ops.eye(bones.dtype)
    inertia = ops.combine(layout.multi_sum, square - ops.outer(edges, edges))
    wanted = ops.take(spin, layout.multi_slots)[:, :, None]
    turn = pseudo_solve(inertia, wanted, ops.opaque_one(spin))[:, :, 0]
    of_edge = layout.anchor.clip(0, layout.num_multi - 1)
    on_bones = ops.cross(ops.take(turn, of_edge), bones)
    own = ops.take(ops.take(frames, layout.multi_slots), of_edge)
    multi = jnp.asarray(ops.mask(layout.multi_edge, 3))
    on_bones = jnp.where(multi, on_bones, 0)
    return on_bones, -ops.matvec_t(own, on_bones)


orient.defvjp(_orient_fwd, _orient_bwd)
