"""Rotations of a tree's joints from its bones, twists and leaf rotations.

A joint with one child turns its rest bone onto its bone by the smallest rotation in its
parent's frame, after the given twist about the rest bone: ``R = Swing Twist``. A joint
with several children has the one rotation that its rigid fork of bones took, as far as
bones with weighted targets beyond them show it: with bones on one line it is that
rotation nearest its parent's which turns the line, with no bone its parent's. A leaf
has the rotation given. All go parents first.

With a and d the rest bone as the parent turns it and the bone, both unit and in the
world frame, the joint's world turn is
``theta = d ((a + d) . theta_parent) / (1 + a . d) + (a + d) x d' / (1 + a . d) + ...``
so that backwards only the part along d goes on to the parent, one vector per joint.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hmr_jax.solvers.tree import ops, rank
from hmr_jax.solvers.tree.layout import WIDTH, TreeLayout
from hmr_jax.solvers.tree.sweep import FIRM_SHARE


class Shown(NamedTuple):
    """What the bones show of each joint's rotation; no gradient.

    Attributes:
        swings: 1 where the joint turns one line of bones onto another, else 0
            ``[slots, 1, batch]``.
        rigid: 1 where bones in several directions show its rotation, else 0.
        line: for joints with several children, the direction at rest of their bones
            where these are on one line ``[slots, 3, batch]``; not unit.
        accidental: 1 where several bones lie on one line, or nearly so
            ``[slots, 1, batch]``.
    """

    swings: Array
    rigid: Array
    line: Array
    accidental: Array


def shown_by(layout: TreeLayout, rest: Array, seen: Array) -> Shown:
    """What rest bones show where weighted targets lie beyond them.

    A bone of no length, or with no weighted target beyond it, shows nothing.

    Args:
        layout: the tree.
        rest: rest bones ``[slots, 3, batch]``.
        seen: sums of weights from the end of each bone on ``[slots, batch]``.
    """
    square = ops.dot(rest, rest)
    known = (square > ops.tiny_square(rest.dtype)) & (seen[:, None] > 0)
    single = jnp.asarray(ops.mask(layout.single_edge, 3))
    swings = (single & known).astype(rest.dtype)
    swings = ops.take(swings, layout.child_slot)
    swings = jnp.where(jnp.asarray(ops.mask(layout.single_node, 3)), swings, 0)
    none = jnp.zeros_like(swings)
    if not layout.num_multi:
        return Shown(swings, none, jnp.zeros_like(rest), none)
    edges = ops.take(jnp.where(known, rest, 0), layout.multi_edges)
    scatter = ops.combine(layout.multi_sum, ops.outer(edges, edges))
    count = ops.take(known.astype(rest.dtype), layout.multi_edges)
    count = ops.combine(layout.multi_sum, count)
    size = scatter[:, 0, :1] + scatter[:, 1, 1:2] + scatter[:, 2, 2:]
    one = ops.opaque_one(rest)
    factors = rank.factor(scatter, 30 * float(jnp.finfo(rest.dtype).eps) * size, one)
    rigid = factors.usable[1]
    near = factors.pivots[1] <= FIRM_SHARE * size
    flags = [
        factors.usable[0] & ~rigid,
        rigid,
        (count > 1) & factors.usable[0] & near,
    ]
    first = factors.first
    line = jnp.where(first == 0, scatter[:, 0], scatter[:, 1])
    line = jnp.where(first == 2, scatter[:, 2], line)
    multi = jnp.asarray(ops.mask(layout.multi_node, 3))
    on_line, rigid, accidental = (
        jnp.where(multi, _of_forks(layout, f.astype(rest.dtype)), 0) for f in flags
    )
    line = jnp.where(multi, _of_forks(layout, line), 0)
    return Shown(swings + on_line, rigid, line, accidental)


def _of_forks(layout: TreeLayout, values: Array) -> Array:
    """``[multi, ...]`` to ``[slots, ...]``; other slots hold any of them."""
    own = np.searchsorted(layout.multi_slots, np.arange(layout.num_slots))
    return ops.take(values, own.clip(0, layout.num_multi - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def orient(
    layout: TreeLayout,
    rest: Array,
    bones: Array,
    twists: Array,
    leaves: Array,
    rotmats: Array,
    shown: Shown,
) -> Array:
    """Global rotation of every joint.

    Args:
        layout: the tree.
        rest: rest bones ``[slots, 3, batch]``.
        bones: world bones of the same lengths, rigid where several leave one joint.
        twists: unnormalised (cos, sin) ``[slots, 2, batch]``; no twist at zero.
        leaves: local rotations, read at leaves, ``[slots, 3, 3, batch]``.
        rotmats: rotations of joints with several children ``[multi, 3, 3, batch]``.
        shown: from ``shown_by``.

    Returns:
        ``[slots, 3, 3, batch]``.
    """
    inputs = (rest, bones, twists, leaves, rotmats, *shown)
    return ops.in_chunks(functools.partial(_orient, layout), *inputs)


def _orient(
    layout: TreeLayout,
    rest: Array,
    bones: Array,
    twists: Array,
    leaves: Array,
    rotmats: Array,
    *shown: Array,
) -> Array:
    """Root to leaf over the steps of the layout."""
    one = ops.opaque_one(rest)
    base, axis, aim, aside, swings, rigid = _joint_terms(
        layout, Shown(*shown), rest, bones, twists, leaves, rotmats
    )
    columns = [axis[:, :, None], aim[:, :, None], aside[:, :, None]]
    flags = jnp.concatenate([swings, rigid, rigid], axis=1)[:, :, None]
    packed = jnp.concatenate([base, *columns, flags], axis=2)
    parents = jnp.asarray(layout.parent_slot.reshape(-1, WIDTH), jnp.int32)
    starts = jnp.arange(0, layout.num_slots, WIDTH, dtype=jnp.int32)

    def rotate(above: Array, own: Array) -> Array:
        base, axis, aim, aside = own[:, :, :3], own[:, :, 3], own[:, :, 4], own[:, :, 5]
        swings, rigid = own[:, :1, 6:] > 0, own[:, 1:2, 6:] > 0
        local = _local_rotation(above, base, axis, aim, aside, swings, one)
        return jnp.where(rigid, base, ops.matmul(above, local))

    def step(frames: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
        start, parent = inputs
        own = jax.lax.dynamic_slice_in_dim(packed, start, WIDTH, 0)
        out = ops.apart(rotate, one, ops.take(frames, parent), own)
        return jax.lax.dynamic_update_slice_in_dim(frames, out, start, 0), None

    shape = (layout.num_slots + 1, 3, 3, rest.shape[-1])
    frames = jnp.broadcast_to(ops.eye(rest.dtype), shape)
    frames, _ = jax.lax.scan(step, frames, (starts, parents), reverse=True)
    return frames[: layout.num_slots]


def _joint_terms(
    layout: TreeLayout,
    shown: Shown,
    rest: Array,
    bones: Array,
    twists: Array,
    leaves: Array,
    rotmats: Array,
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Per joint: its twist, leaf or fork rotation, unit rest bone, unit bone, a side
    axis, whether it swings, and whether the first is its world rotation.
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
    if layout.num_multi:
        forks = _of_forks(layout, rotmats)
        multi = jnp.asarray(ops.mask(layout.multi_node, 3))
        axis = jnp.where(multi, ops.unit_or(shown.line, any_axis, 0.0), axis)
        aim = jnp.where(multi, ops.matvec(forks, axis), aim)
        base = jnp.where(shown.rigid[:, None] > 0, forks, base)
    aside = jax.lax.stop_gradient(ops.perpendicular(axis))
    return base, axis, aim, aside, shown.swings, shown.rigid


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


def sets_bones(layout: TreeLayout, shown: Shown) -> Array:
    """Whether each bone keeps its direction; others follow their joint's rotation."""
    flags = shown.rigid + jnp.where(
        jnp.asarray(ops.mask(layout.single_node, 3)), shown.swings, 0
    )
    padded = jnp.concatenate([flags, jnp.zeros_like(flags[:1])])
    return ops.take(padded, layout.parent_slot) > 0


def half_turns(
    layout: TreeLayout, rest: Array, bones: Array, frames: Array, rotmats: Array,
    shown: Shown,
) -> Array:  # fmt: skip
    """Whether some joint swings by a half turn to rounding, ``[batch]``.

    There the axis of the swing is undetermined, and so is every derivative.
    """
    none = jnp.zeros((layout.num_slots, 2, 1), rest.dtype)
    leaves = jnp.zeros((layout.num_slots, 1, 1, 1), rest.dtype)
    _, axis, aim, _, swings, _ = _joint_terms(
        layout, shown, rest, bones, none, leaves, rotmats
    )
    half = ops.matvec(frames_of_parents(layout, frames), axis) + aim
    opposite = ops.dot(half, half) <= float(jnp.finfo(rest.dtype).eps)
    return ops.total((opposite & (swings > 0)).astype(rest.dtype)) > 0


def frames_of_parents(layout: TreeLayout, frames: Array) -> Array:
    """Rotation of each joint's parent, the identity at the root."""
    identity = jnp.broadcast_to(ops.eye(frames.dtype), (1, *frames.shape[1:]))
    return ops.take(jnp.concatenate([frames, identity]), layout.parent_slot)


def _orient_fwd(layout: TreeLayout, *arrays: Any) -> tuple[Array, tuple]:
    frames = orient(layout, *arrays)
    return frames, (*arrays, frames)


def _orient_bwd(layout: TreeLayout, saved: tuple, on_frames: Array) -> tuple:
    *arrays, shown, frames = saved
    pull = functools.partial(_pull_back, layout)
    pulled = ops.in_chunks(pull, *arrays, *shown, frames, on_frames)
    return (*pulled, jax.tree.map(jnp.zeros_like, shown))


def _pull_back(
    layout: TreeLayout,
    rest: Array,
    bones: Array,
    twists: Array,
    leaves: Array,
    rotmats: Array,
    *others: Array,
) -> tuple[Array, Array, Array, Array, Array]:
    """Cotangents of rest, bones, twists, leaves and rotmats."""
    *flags, frames, on_frames = others
    shown = Shown(*flags)
    arrays = (rest, bones, twists, leaves, rotmats)
    one = ops.opaque_one(rest)
    above = frames_of_parents(layout, frames)
    _, axis, aim, *_ = _joint_terms(layout, shown, *arrays)
    spin = ops.spin(on_frames, frames)
    spin = _gather_spin(layout, shown, spin, ops.matvec(above, axis), aim)
    leaf = jnp.asarray(ops.mask(layout.leaf_node, 4))
    on_frames = jnp.where(leaf, on_frames, ops.matmul(ops.skew(spin / 2), frames))

    def own_rotation(*arrays: Array) -> Array:
        terms = _joint_terms(layout, shown, *arrays)
        base, axis, aim, aside, swings, rigid = terms
        turns = swings[:, None] > 0
        local = _local_rotation(above, base, axis, aim, aside, turns, one)
        return jnp.where(rigid[:, None] > 0, base, ops.matmul(above, local))

    _, pull = jax.vjp(own_rotation, *arrays)
    return pull(on_frames)


def _gather_spin(
    layout: TreeLayout, shown: Shown, spin: Array, turned_axis: Array, aim: Array
) -> Array:
    """Cotangents of each joint's world turn, its descendants' share included."""
    one = ops.opaque_one(spin)
    half = turned_axis + aim
    square = ops.dot(half, half)
    usable = (square > ops.tiny_square(spin.dtype)) & (shown.swings > 0)
    onward = jnp.where(usable, 2 * half / jnp.where(usable, square, 1), 0)
    whole = jnp.where((shown.rigid > 0) | (shown.swings > 0), 0, jnp.ones_like(square))
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


orient.defvjp(_orient_fwd, _orient_bwd)
