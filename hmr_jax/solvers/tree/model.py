"""The cost of a posed tree, its forces and curvature, and how rotations change it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from hmr_jax.solvers.tree import ops
from hmr_jax.solvers.tree.layout import TreeLayout


class Forces(NamedTuple):
    """What the residuals of a pose exert on it.

    Attributes:
        residuals: places minus targets ``[slots, 3, batch]``.
        pull: weighted residuals, the gradient with respect to each place.
        beyond: sum of ``pull`` from the end of each bone on.
    """

    residuals: Array
    pull: Array
    beyond: Array


def forces_of(layout: TreeLayout, residuals: Array, weights: Array) -> Forces:
    """Forces of residuals ``[slots, 3, batch]`` with weights ``[slots, batch]``."""
    pull = weights[:, None] * residuals
    return Forces(residuals, pull, ops.combine(layout.ancestors.T, pull))


def weight_beyond(layout: TreeLayout, weights: Array) -> Array:
    """Sum of weights from the end of each bone on ``[slots, 1, batch]``."""
    return ops.combine(layout.ancestors.T, weights[:, None])


def residuals_of(layout: TreeLayout, bones: Array, targets: Array) -> Array:
    """Places minus targets ``[slots, 3, batch]``."""
    return ops.combine(layout.ancestors, bones) - targets


def cost_of(residuals: Array, weights: Array) -> Array:
    """Half the weighted sum of squares ``[batch]``."""
    return ops.total(weights[:, None] * residuals * residuals) / 2


def gradient_norm(layout: TreeLayout, bones: Array, beyond: Array) -> Array:
    """Largest component of the torque at any joint ``[batch]``."""
    return ops.largest(ops.combine(layout.children, ops.cross(bones, beyond)))


def curvature(
    layout: TreeLayout, bones: Array, beyond: Array, share: Array, exact: Array
) -> Array:
    """Per bone its part of Q, and stiffness about the bone where twist is unseen.

    Args:
        layout: the tree.
        bones: world bones.
        beyond: sum of weighted residuals beyond each bone.
        share: sum of weights beyond each bone ``[slots, 1, batch]``.
        exact: all second-order terms; else Gauss-Newton with the stiffness of
            stretched bones alone, which keeps every H positive. One for all or one
            per lane, ``[1, 1, batch]``.
    """
    along = ops.dot(beyond, bones)
    square = ops.dot(bones, bones)
    single = jnp.asarray(ops.mask(layout.single_edge, 3))
    press = jnp.where(exact, along, jnp.where(single, jnp.minimum(along, 0), 0))
    # One child: the Hessian on the sphere is -(f.b) off the bone's own axis.
    ratio = press / (square + ops.tiny_square(bones.dtype))
    fork_force = jnp.where(exact, beyond, 0)
    side = jnp.where(single, (ratio + share) / 2 * bones, fork_force / 2)
    both = ops.outer(side, bones)
    both = both + jnp.swapaxes(both, 1, 2)
    return both - ops.eye(bones.dtype) * press[:, None]


def stiffness_scale(
    layout: TreeLayout, bones: Array, beyond: Array, share: Array
) -> Array:
    """Per joint the size of the terms that its block H is summed from.

    ``sum_c share_c |beta_c|^2 + |f_c| |beta_c|`` over its children, to which rounding
    in H is relative, ``[slots, 1, batch]``. No gradient.
    """
    bones, beyond, share = jax.lax.stop_gradient((bones, beyond, share))
    square = ops.dot(bones, bones)
    pressed = jnp.sqrt(ops.dot(beyond, beyond) * square)
    return ops.combine(layout.children, share * square + pressed)


def turn(turns: Array, vectors: Array) -> Array:
    """Rotate vectors by Cayley's map, exp(turn) to second order and exact in length."""
    first = ops.cross(turns, vectors)
    second = ops.cross(turns, first)
    return vectors + (first + second / 2) / (1 + ops.dot(turns, turns) / 4)


def turn_frames(turns: Array, frames: Array) -> Array:
    """Rotate the columns of ``[multi, 3, 3, batch]``."""
    x = ops.skew(turns)
    step = x + ops.matmul(x, x) / 2
    size = (1 + ops.dot(turns, turns) / 4)[:, :, None]
    return frames + ops.matmul(step / size, frames)


def of_parents(layout: TreeLayout, turns: Array) -> Array:
    """Each slot's parent's entry of ``[slots, 3, batch]``, 0 at the root."""
    padded = jnp.concatenate([turns, jnp.zeros_like(turns[:1])])
    return ops.take(padded, layout.parent_slot)


def frames_of_edges(layout: TreeLayout, rotmats: Array) -> Array:
    """Rotation of each bone's parent where that has several children."""
    return ops.take(rotmats, layout.anchor.clip(0, layout.num_multi - 1))
