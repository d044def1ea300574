"""The gradient of the solution of the tree problem, by the implicit function theorem.

At the solution ``g(u; targets, rest, weights) = 0`` for the torque g at every joint.
With ``v = -H^-1 J^T xbar`` from one more sweep, whose displacements are ``d = J v``,
the targets get ``-w d``, the weights ``d . (x - t)``, and the bones the derivative of
``xbar . x + sum_j w_j d_j . (x_j - t_j)`` with the rotations held.
"""

import jax.numpy as jnp
from jax import Array

from hmr_jax.solvers.tree import model, ops, rank
from hmr_jax.solvers.tree import sweep as sweeps
from hmr_jax.solvers.tree.layout import TreeLayout


def pull_back(
    layout: TreeLayout,
    targets: Array,
    rest: Array,
    weights: Array,
    bones: Array,
    rotmats: Array,
    regular: Array,
    on_bones: Array,
    on_rotmats: Array,
) -> tuple[Array, Array, Array]:
    """Cotangents of targets, rest bones and weights.

    Args:
        layout: the tree.
        targets: target places ``[slots, 3, batch]``.
        rest: rest bones ``[slots, 3, batch]``.
        weights: ``[slots, batch]``.
        bones: world bones of the solution ``[slots, 3, batch]``.
        rotmats: rotations of the joints with several children
            ``[multi, 3, 3, batch]``.
        regular: 1 where the solution is a minimum of full rank (``Trust``), else 0,
            ``[1, 1, batch]``. Elsewhere there is no stationary point to differentiate,
            and the full Hessian may be indefinite, so that its inverses grow along the
            tree without bound; such lanes use the Gauss-Newton Hessian, which is never
            negative.
        on_bones: cotangent of ``bones``.
        on_rotmats: cotangent of ``rotmats``.
    """
    if layout.num_multi:
        from_forks, fork_rest = _pull_forks(layout, bones, rotmats, on_rotmats)
        on_bones = on_bones + from_forks
    on_joints = on_bones - ops.combine(layout.children, on_bones)
    residuals = model.residuals_of(layout, bones, targets)
    beyond = model.forces_of(layout, residuals, weights).beyond
    share = model.weight_beyond(layout, weights)
    turns, moves, _ = sweeps.sweep(
        layout,
        bones,
        model.curvature(layout, bones, beyond, share, regular > 0),
        weights,
        on_joints,
        model.stiffness_scale(layout, bones, beyond, share),
        sweeps.null_space_solve,
    )
    pulled = weights[:, None] * moves
    on_bones = on_bones + ops.combine(layout.ancestors.T, pulled)
    on_bones = on_bones + ops.cross(beyond, model.of_parents(layout, turns))
    square = ops.dot(rest, rest)
    usable = square > ops.tiny_square(rest.dtype)
    per_length = ops.dot(bones, on_bones) / jnp.where(usable, square, 1)
    on_rest = jnp.where(usable, per_length * rest, 0)
    if layout.num_multi:
        rigid = ops.matvec_t(model.frames_of_edges(layout, rotmats), on_bones)
        multi = jnp.asarray(ops.mask(layout.multi_edge, 3))
        on_rest = jnp.where(multi, rigid, on_rest) + fork_rest
    return -pulled, on_rest, ops.dot(moves, residuals)[:, 0]


def _pull_forks(
    layout: TreeLayout, bones: Array, rotmats: Array, on_rotmats: Array
) -> tuple[Array, Array]:
    """Cotangents of bones and rest bones about joints with several children.

    The turn of a rigid fork is ``K^-1 sum_c beta_c x (beta_c' - G b_c')`` with K its
    inertia. A turn that its bones do not show (all of them on one line) gets 0.
    """
    edges = ops.take(bones, layout.multi_edges)
    square = ops.dot(edges, edges)[:, None] * ops.eye(bones.dtype)
    inertia = ops.combine(layout.multi_sum, square - ops.outer(edges, edges))
    wanted = ops.spin(on_rotmats, rotmats)[:, :, None]
    one = ops.opaque_one(bones)
    size = inertia[:, 0, :1] + inertia[:, 1, 1:2] + inertia[:, 2, 2:]
    factors = rank.factor(inertia, sweeps.rounding_share(bones.dtype) * size, one)
    turn = rank.pseudo_solve(factors, wanted, one)[:, :, 0]
    of_edge = layout.anchor.clip(0, layout.num_multi - 1)
    multi = jnp.asarray(ops.mask(layout.multi_edge, 3))
    on_bones = jnp.where(multi, ops.cross(ops.take(turn, of_edge), bones), 0)
    frames = model.frames_of_edges(layout, rotmats)
    return on_bones, -ops.matvec_t(frames, on_bones)
