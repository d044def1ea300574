"""Projection of target joints onto a kinematic tree with known rest bones.

Given target joints and a skeleton at rest, find the pose of the skeleton whose joints
are nearest to the targets: the least-squares problem behind inverse kinematics, without
its unobservable twists. One Newton step costs O(joints) by two sweeps over the tree
(``_tree_sweep``), and so does the exact implicit gradient. The batch is the minor axis
of every array inside. Call it with batched arrays rather than under ``vmap``.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from hmr_jax.solvers import _tree_ops as ops
from hmr_jax.solvers._tree_layout import TreeLayout, tree_layout
from hmr_jax.solvers._tree_start import closed_form
from hmr_jax.solvers._tree_sweep import sweep
from hmr_jax.solvers.types import SolveInfo

NUM_STEPS = 20
_FIRST_DAMPING = 1e-2


class Stats(NamedTuple):
    """How the solve of each lane went, in units of the scaled problem."""

    iterations: Array
    cost: Array
    gradient_norm: Array
    converged: Array


class _State(NamedTuple):
    """The Newton iteration; bones and rotmats are the best so far of each lane."""

    bones: Array
    rotmats: Array
    cost: Array
    damping: Array
    done: Array
    iterations: Array


def fit_bones(
    target_joints_m: Float[Array, "*batch joints 3"],
    rest_joints_m: Float[Array, "*#batch joints 3"],
    parents: tuple[int, ...],
    weights: Float[Array, "*#batch joints"] | None = None,
    *,
    num_steps: int = NUM_STEPS,
    tolerance: float | None = None,
) -> tuple[Float[Array, "*batch joints 3"], SolveInfo]:
    """Joints of the posed skeleton nearest to target joints.

    Minimises ``sum_j w_j |x_j - t_j|^2 / 2`` over rotations of all joints, where bones
    leaving one joint turn together and every bone keeps its rest length. Starts from a
    closed form, takes one Gauss-Newton and then Newton steps, and repeats a step that
    raises the cost with damping, for each batch element by itself.

    Args:
        target_joints_m: targets relative to the root, metres. The root's own entry is
            not looked at: the root stays at the origin. A target that is not finite
            counts as missing.
        rest_joints_m: skeleton at rest, metres, any origin.
        parents: parent of each joint, -1 at the root; parents come before children.
        weights: not negative; 0 for a missing joint, whose target may be NaN.
        num_steps: most steps to take.
        tolerance: a batch element stops once no joint moves by more than this multiple
            of the typical bone length in a step; 0 takes ``num_steps`` steps. The
            default, 0.3 sqrt(eps), leaves an error near rounding, because the steps
            converge quadratically.

    Returns:
        Joints with the root at the origin, metres, and how the solve went. Its cost is
        in metres^2 and its gradient in metres^2 per radian. ``failed`` marks elements
        with a positive weight on a target that is not finite, or not converged.

    Raises:
        ValueError: if shapes and ``parents`` disagree.

    Note:
        The gradient with respect to targets, rest joints and weights is that of the
        stationary point (implicit function theorem, with second-order terms). It is
        exact to the extent that ``info.converged`` holds, and finite everywhere: where
        the solution is not unique (a target on top of its joint's parent, say) the
        undetermined part is taken as 0.

    Source:
        See ``_tree_sweep``. Accuracy and speed are measured by
        ``benchmarks/ik_layer.py``.
    """
    problem = make_problem(target_joints_m, rest_joints_m, parents, weights)
    bones, _, stats = solve(
        problem.layout, num_steps, tolerance, problem.targets, problem.rest,
        problem.weights,
    )  # fmt: skip
    joints = ops.combine(problem.layout.ancestors, bones)
    return problem.joints_out(joints), problem.info(stats)


class Problem(NamedTuple):
    """Inputs in the solver's layout, scaled to bones and weights of order one."""

    layout: TreeLayout
    targets: Array
    rest: Array
    weights: Array
    scale: Array
    weight_scale: Array
    bad: Array
    batch_shape: tuple[int, ...]

    def joints_out(self, slots: Array) -> Array:
        """``[slots, 3, batch]`` scaled positions to ``[*batch, joints, 3]`` metres."""
        joints = ops.take(slots * self.scale, self.layout.slot_of_node)
        joints = jnp.transpose(joints, (2, 0, 1))
        return joints.reshape(*self.batch_shape, *joints.shape[1:])

    def info(self, stats: Stats) -> SolveInfo:
        """Statistics in metres, with the caller's batch axes."""
        unit = jax.lax.stop_gradient(self.weight_scale * self.scale**2)[0, 0]
        back = functools.partial(jnp.reshape, shape=self.batch_shape)
        return SolveInfo(
            iterations=back(stats.iterations),
            cost=back(stats.cost * unit),
            gradient_norm=back(stats.gradient_norm * unit),
            converged=back(stats.converged & ~self.bad),
            failed=back(self.bad | ~jnp.isfinite(stats.cost)),
        )


def to_slots(layout: TreeLayout, values: Array) -> Array:
    """``[batch, joints, ...]`` to ``[slots, ..., batch]``; dummies repeat the root."""
    return ops.take(jnp.moveaxis(values, 0, -1), layout.node_of_slot)


def make_problem(
    target_joints_m: Array,
    rest_joints_m: Array,
    parents: tuple[int, ...],
    weights: Array | None,
) -> Problem:
    """Check, lay out and scale the inputs of ``fit_bones``."""
    layout = tree_layout(tuple(parents))
    count, batch_shape = len(parents), target_joints_m.shape[:-2]
    for name, array in (("target", target_joints_m), ("rest", rest_joints_m)):
        if array.shape[-2:] != (count, 3):
            raise ValueError(
                f"{name}_joints_m must end in ({count}, 3), the length of parents by "
                f"3, got shape {array.shape}"
            )
    dtype = target_joints_m.dtype
    if weights is None:
        weights = jnp.ones((count,), dtype)
    shape = (*batch_shape, count)
    flat = lambda x, s: jnp.broadcast_to(x, s).reshape(-1, *s[len(batch_shape) :])  # noqa: E731
    targets = flat(target_joints_m, (*shape, 3))
    rest_joints = flat(rest_joints_m, (*shape, 3))
    weights = flat(weights, shape)
    present = jnp.all(jnp.isfinite(targets), axis=-1)
    is_root = jnp.arange(count) == 0
    bad = jnp.any(~present & (weights > 0) & ~is_root[None], axis=-1)
    bad = bad | ~jnp.all(jnp.isfinite(rest_joints), axis=(-1, -2))
    targets = jnp.where(present[..., None], targets, 0)
    weights = jnp.where(present & (weights > 0) & ~is_root[None], weights, 0)
    parent_of = jnp.asarray([max(p, 0) for p in parents])
    rest = rest_joints - rest_joints[:, parent_of]
    rest = jnp.where(jnp.isfinite(rest), rest, 0)
    square = jnp.sum(rest * rest, axis=(1, 2)) / max(count - 1, 1)
    scale = jax.lax.stop_gradient(jnp.sqrt(jnp.where(square > 0, square, 1)))
    top = jax.lax.stop_gradient(jnp.max(weights, axis=-1))
    top = jnp.where(top > 0, top, 1)
    real = jnp.asarray(ops.mask(layout.is_node, 2))
    weights_in = jnp.where(real, to_slots(layout, weights / top[:, None]), 0)
    return Problem(
        layout=layout,
        targets=to_slots(layout, targets / scale[:, None, None]),
        rest=to_slots(layout, rest / scale[:, None, None]),
        weights=weights_in,
        scale=scale[None, None],
        weight_scale=top[None, None],
        bad=bad,
        batch_shape=batch_shape,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def solve(
    layout: TreeLayout,
    num_steps: int,
    tolerance: float | None,
    targets: Array,
    rest: Array,
    weights: Array,
) -> tuple[Array, Array, Stats]:
    """Bones, fork rotations and statistics of the nearest pose, in slots.

    Only the bones carry gradients.
    """
    if tolerance is None:
        tolerance = 0.3 * float(jnp.finfo(rest.dtype).eps) ** 0.5

    def lanes(targets: Array, rest: Array, weights: Array) -> tuple:
        bones, rotmats = closed_form(layout, rest, targets, weights)
        state = _iterate(layout, num_steps, tolerance, targets, weights, bones, rotmats)
        bones, rotmats = _clean(layout, rest, state.bones, state.rotmats)
        residuals = ops.combine(layout.ancestors, bones) - targets
        stats = Stats(
            iterations=state.iterations,
            cost=_cost(residuals, weights),
            gradient_norm=_gradient_norm(layout, bones, residuals, weights),
            converged=state.done,
        )
        return bones, rotmats, stats

    return ops.in_chunks(lanes, targets, rest, weights)


def _cost(residuals: Array, weights: Array) -> Array:
    return ops.total(weights[:, None] * residuals * residuals) / 2


def _gradient_norm(
    layout: TreeLayout, bones: Array, residuals: Array, weights: Array
) -> Array:
    """Largest component of the torque at any joint."""
    force = ops.combine(layout.ancestors.T, weights[:, None] * residuals)
    torque = ops.combine(layout.children, ops.cross(bones, force))
    return ops.largest(torque)


def _curvature(
    layout: TreeLayout,
    bones: Array,
    force: Array,
    share: Array,
    exact: Array,
) -> Array:
    """Per bone its part of Q, and stiffness about the bone where twist is unseen.

    Args:
        layout: the tree.
        bones: world bones.
        force: sum of weighted residuals beyond each bone.
        share: sum of weights beyond each bone ``[slots, 1, batch]``.
        exact: all second-order terms; else Gauss-Newton with the stiffness of
            stretched bones alone, which keeps every H positive. One for all or one
            per lane, ``[1, 1, batch]``.
    """
    along = ops.dot(force, bones)
    square = ops.dot(bones, bones)
    single = jnp.asarray(ops.mask(layout.single_edge, 3))
    press = jnp.where(exact, along, jnp.where(single, jnp.minimum(along, 0), 0))
    # One child: the Hessian on the sphere is -(f.b) off the bone's own axis.
    ratio = press / (square + ops.tiny_square(bones.dtype))
    fork_force = jnp.where(exact, force, 0)
    side = jnp.where(single, (ratio + share) / 2 * bones, fork_force / 2)
    both = ops.outer(side, bones)
    both = both + jnp.swapaxes(both, 1, 2)
    return both - ops.eye(bones.dtype) * press[:, None]


def _turn(turns: Array, vectors: Array) -> Array:
    """Rotate vectors by Cayley's map, exp(turn) to second order and exact in length."""
    first = ops.cross(turns, vectors)
    second = ops.cross(turns, first)
    return vectors + (first + second / 2) / (1 + ops.dot(turns, turns) / 4)


def _turn_frames(turns: Array, frames: Array) -> Array:
    """Rotate the columns of ``[multi, 3, 3, batch]``."""
    x = ops.skew(turns)
    step = x + ops.matmul(x, x) / 2
    return frames + ops.matmul(
        step / (1 + ops.dot(turns, turns) / 4)[:, :, None], frames
    )


def _iterate(
    layout: TreeLayout,
    num_steps: int,
    tolerance: float,
    targets: Array,
    weights: Array,
    bones: Array,
    rotmats: Array,
) -> _State:
    """Safeguarded Newton steps until every lane has converged."""
    share = ops.combine(layout.ancestors.T, weights[:, None])
    eps = float(jnp.finfo(bones.dtype).eps)
    span = ops.total(weights[:, None] * targets * targets)
    one = ops.opaque_one(weights)

    def cost_of(bones: Array) -> tuple[Array, Array]:
        residuals = ops.combine(layout.ancestors, bones) - targets
        return residuals, _cost(residuals, weights)

    def step(carry: tuple[Array, _State]) -> tuple[Array, _State]:
        count, state = carry
        residuals, _ = cost_of(state.bones)
        pull = weights[:, None] * residuals
        force = ops.combine(layout.ancestors.T, pull)
        curvature = _curvature(layout, state.bones, force, share, count > 0)
        turns, moves = sweep(
            layout, state.bones, curvature, weights, pull, state.damping
        )
        padded = jnp.concatenate([turns, jnp.zeros_like(turns[:1])])
        above = ops.materialise(ops.take(padded, layout.parent_slot), one)
        trial = _turn(above, state.bones)
        trial_rotmats = _turn_frames(ops.take(turns, layout.multi_slots), state.rotmats)
        _, cost = cost_of(trial)
        rounding = 4 * eps * (state.cost + jnp.sqrt(state.cost * span) + eps * span)
        better = (cost <= state.cost + rounding) & ~state.done
        size = ops.largest(jnp.where((weights > 0)[:, None], moves, 0))
        small = (size <= tolerance) & (state.damping == 0)
        worse = ~better & ~state.done
        raised = jnp.maximum(10 * state.damping, _FIRST_DAMPING)
        lowered = jnp.where(state.damping > _FIRST_DAMPING, state.damping / 10, 0)
        return count + 1, _State(
            bones=jnp.where(better[None, None], trial, state.bones),
            rotmats=jnp.where(better[None, None, None], trial_rotmats, state.rotmats),
            cost=jnp.where(better, cost, state.cost),
            damping=jnp.where(worse, raised, lowered),
            done=state.done | small,
            iterations=state.iterations + (~state.done).astype(jnp.int32),
        )

    def running(carry: tuple[Array, _State]) -> Array:
        count, state = carry
        return (count < num_steps) & ~jnp.all(state.done)

    _, cost = cost_of(bones)
    off = jnp.zeros(cost.shape, bool)
    zero = jnp.zeros_like(cost)
    start = _State(bones, rotmats, cost, zero, off, off.astype(jnp.int32))
    return jax.lax.while_loop(running, step, (jnp.int32(0), start))[1]


def _clean(
    layout: TreeLayout, rest: Array, bones: Array, rotmats: Array
) -> tuple[Array, Array]:
    """Remove rounding drift: exact lengths, orthonormal frames, rigid forks."""
    stretch = ops.matmul_at(rotmats, rotmats)
    rotmats = ops.matmul(rotmats, (3 * ops.eye(rest.dtype) - stretch) / 2)
    square, wanted = ops.dot(bones, bones), ops.dot(rest, rest)
    usable = square > 0
    factor = jnp.sqrt(jnp.where(usable, wanted / jnp.where(usable, square, 1), 0))
    bones = bones * factor
    if layout.num_multi:
        rigid = ops.matvec(_frames_of_edges(layout, rotmats), rest)
        bones = jnp.where(jnp.asarray(ops.mask(layout.multi_edge, 3)), rigid, bones)
    return bones, rotmats


def _frames_of_edges(layout: TreeLayout, rotmats: Array) -> Array:
    """Rotation of each bone's parent where that has several children."""
    return ops.take(rotmats, layout.anchor.clip(0, layout.num_multi - 1))


def _solve_fwd(
    layout: TreeLayout,
    num_steps: int,
    tolerance: float | None,
    targets: Array,
    rest: Array,
    weights: Array,
) -> tuple:
    out = solve(layout, num_steps, tolerance, targets, rest, weights)
    bones, rotmats, stats = out
    converged = stats.converged.astype(bones.dtype)[None, None]
    return out, (targets, rest, weights, bones, rotmats, converged)


def _solve_bwd(
    layout: TreeLayout,
    num_steps: int,
    tolerance: float | None,
    saved: tuple,
    cotangents: tuple,
) -> tuple[Array, Array, Array]:
    """The vjp of the stationarity condition.

    With v = -H^-1 J^T xbar from one more sweep, whose displacements are d = J v: the
    targets get -w d, the weights d . (x - t), and the bones the derivative of
    ``xbar . x + sum_j w_j d_j . (x_j - t_j)`` with the rotations held.

    Where the steps did not converge there is no stationary point to differentiate, and
    the full Hessian may be indefinite, so that its inverses grow along the tree without
    bound. Such elements use the Gauss-Newton Hessian, which is never negative. So do
    those (1 in 10,000 with all targets in a heap) whose inverses overflow all the same
    because they stopped at a saddle.
    """
    del num_steps, tolerance
    return ops.in_chunks(
        functools.partial(_finite_pull_back, layout), *saved, cotangents[0]
    )


def _finite_pull_back(layout: TreeLayout, *saved: Array) -> tuple[Array, Array, Array]:
    *saved, converged, on_bones = saved
    pulled = _pull_back(layout, *saved, converged, on_bones)
    finite = functools.reduce(
        jnp.logical_and,
        [jnp.isfinite(x).all(tuple(range(x.ndim - 1))) for x in pulled],
    )
    exact = converged * finite[None, None].astype(converged.dtype)
    return jax.lax.cond(
        finite.all(),
        lambda: pulled,
        lambda: _pull_back(layout, *saved, exact, on_bones),
    )


def _pull_back(
    layout: TreeLayout,
    targets: Array,
    rest: Array,
    weights: Array,
    bones: Array,
    rotmats: Array,
    converged: Array,
    on_bones: Array,
) -> tuple[Array, Array, Array]:
    on_joints = on_bones - ops.combine(layout.children, on_bones)
    residuals = ops.combine(layout.ancestors, bones) - targets
    force = ops.combine(layout.ancestors.T, weights[:, None] * residuals)
    share = ops.combine(layout.ancestors.T, weights[:, None])
    curvature = _curvature(layout, bones, force, share, converged > 0)
    turns, moves = sweep(layout, bones, curvature, weights, on_joints, None)
    pulled = weights[:, None] * moves
    padded = jnp.concatenate([turns, jnp.zeros_like(turns[:1])])
    above = ops.take(padded, layout.parent_slot)
    on_bones = on_bones + ops.combine(layout.ancestors.T, pulled)
    on_bones = on_bones + ops.cross(force, above)
    square = ops.dot(rest, rest)
    usable = square > ops.tiny_square(rest.dtype)
    per_length = ops.dot(bones, on_bones) / jnp.where(usable, square, 1)
    on_rest = jnp.where(usable, per_length * rest, 0)
    if layout.num_multi:
        rigid = ops.matvec_t(_frames_of_edges(layout, rotmats), on_bones)
        multi = jnp.asarray(ops.mask(layout.multi_edge, 3))
        on_rest = jnp.where(multi, rigid, on_rest)
    return -pulled, on_rest, ops.dot(moves, residuals)[:, 0]


solve.defvjp(_solve_fwd, _solve_bwd)
