"""Whether the implicit gradient can be trusted at a solution.

Missing targets leave directions without stiffness: an elbow between a seen shoulder and
a seen wrist may turn about the line between them. All of these solutions are equally
good and form a smooth manifold, on which the Hessian has constant rank; the gradient of
everything that the targets determine is then that of the pseudo-inverse. Where a limb
is stretched to just reach its target, or where a target lies on its joint's parent, the
rank falls below that of poses nearby, and there is no derivative.
So a solution is regular if none of its blocks has fewer pivots that stand out from
rounding than at a pose nearby, nor a negative one.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from hmr_jax.solvers.tree import model, ops
from hmr_jax.solvers.tree import sweep as sweeps
from hmr_jax.solvers.tree.layout import TreeLayout

_BEND_RAD = 0.5
"""How far joints are turned to reach a pose nearby without its accidents."""


def firm(
    layout: TreeLayout, bones: Array, weights: Array, forces: model.Forces
) -> Array:
    """Whether lanes are surely ``Trust.firm``, cheaply, if no target is missing.

    The displacement of a joint is resisted by its own weight at least. So the block of
    a joint with one child is no softer than ``w |beta|^2 - f . beta``, off the bone's
    own axis, and that of a fork no softer than the inertia of its children's own
    weights less twice the force on their bones.
    """
    share = model.weight_beyond(layout, weights)
    scale = model.stiffness_scale(layout, bones, forces.beyond, share)
    least = sweeps.FIRM_SHARE * scale
    own = weights[:, None] * ops.dot(bones, bones)
    single = jnp.asarray(ops.mask(layout.single_edge, 3))
    stiff = own - jnp.maximum(ops.dot(forces.beyond, bones), 0)
    of_child = jnp.where(single, stiff, 0)
    soft = ops.take(of_child, layout.child_slot) <= least
    soft = soft & jnp.asarray(ops.mask(layout.single_node, 3)) & (scale > 0)
    weak = ops.total(soft.astype(bones.dtype)) > 0
    if layout.num_multi:
        edges = ops.take(bones, layout.multi_edges)
        weight = ops.take(weights, layout.multi_edges)[:, None]
        around = ops.dot(edges, edges)[:, None] * ops.eye(bones.dtype)
        inertia = weight[:, None] * (around - ops.outer(edges, edges))
        inertia = ops.combine(layout.multi_sum, inertia)
        det = ops.dot(inertia[:, 0], ops.cofactors(inertia)[:, 0])
        trace = inertia[:, 0, :1] + inertia[:, 1, 1:2] + inertia[:, 2, 2:]
        # The least eigenvalue is at least 4 det / trace^2.
        pressed = 2 * ops.take(scale, layout.multi_slots)
        pressed = pressed - 2 * _weight_part(layout, bones, share)
        limit = (ops.take(least, layout.multi_slots) + pressed) * trace * trace
        soft = (4 * det <= limit) & (ops.take(scale, layout.multi_slots) > 0)
        weak = weak | (ops.total(soft.astype(bones.dtype)) > 0)
    return ~weak


def _weight_part(layout: TreeLayout, bones: Array, share: Array) -> Array:
    still = jnp.zeros_like(bones)
    scale = model.stiffness_scale(layout, bones, still, share)
    return ops.take(scale, layout.multi_slots)


class Trust(NamedTuple):
    """What is known of each lane's solution ``[batch]``.

    Attributes:
        regular: no block has a negative pivot or fewer pivots than nearby.
        firm: besides, no pivot is soft (``FIRM_SHARE``).
    """

    regular: Array
    firm: Array


def trust(
    layout: TreeLayout, bones: Array, weights: Array, forces: model.Forces
) -> Trust:
    """Whether each lane's solution has a gradient, and one to be trusted."""
    share = model.weight_beyond(layout, weights)
    away = np.random.default_rng(0).uniform(-1, 1, (layout.num_slots, 3, 1))
    turns = jnp.asarray(_BEND_RAD * away, bones.dtype)
    nearby = model.turn(model.of_parents(layout, turns), bones)
    both = functools.partial(jnp.concatenate, axis=-1)
    bones = both([bones, nearby])
    beyond = both([forces.beyond, jnp.zeros_like(forces.beyond)])
    share, weights = both([share, share]), both([weights, weights])
    everywhere = jnp.ones((1, 1, 1), bool)
    _, notes = sweeps.eliminate(
        layout,
        bones,
        model.curvature(layout, bones, beyond, share, everywhere),
        weights,
        jnp.zeros_like(bones),
        model.stiffness_scale(layout, bones, beyond, share),
        sweeps.null_space_solve,
    )
    here, there = jnp.split(notes, 2, axis=-1)
    broken = (here[:, 0] < there[:, 0]) | (here[:, 2] > 0)
    return Trust(regular=_none(broken), firm=_none(broken | (here[:, 1] > 0)))


def _none(flags: Array) -> Array:
    """Whether no slot of a lane is flagged."""
    return ops.total(flags.astype(jnp.float32)) == 0
