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

from hmr_jax.solvers.tree import ops
from hmr_jax.solvers.tree.layout import TreeLayout, tree_layout
from hmr_jax.solvers.tree.newton import Stats, solve
from hmr_jax.solvers.types import SolveInfo

NUM_STEPS = 20


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
    closed form, takes one Gauss-Newton and then Newton steps, and answers a step that
    raises the cost with a damped Gauss-Newton step, for each batch element by itself.

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
            default, sqrt(eps), leaves an error near rounding, because the steps
            converge quadratically.

    Returns:
        Joints with the root at the origin, metres, and how the solve went. Its cost is
        in metres^2 and its gradient in metres^2 per radian. ``failed`` marks elements
        with a weight that is negative or NaN, a positive weight on a target that is not
        finite, or a skeleton that is not.

    Raises:
        ValueError: if shapes and ``parents`` disagree.

    Note:
        The gradient with respect to targets, rest joints and weights is that of the
        stationary point (implicit function theorem, with second-order terms), and so
        are second derivatives. Where ``info.converged`` holds it is exact for all that
        the targets determine: within 1e-6 of finite differences in float64, and within
        5e-3 in float32 (but for about one in 500 solutions with many joints missing,
        which stopped early where the cost is flat). A joint that
        missing targets leave free, as an elbow between a shoulder and a wrist that are
        seen, moves as little as the others allow.
        ``info.converged`` is False, besides where steps ran out, where there is no
        derivative or one that rounding spoils: a limb stretched to just reach its
        target, a target on its joint's parent, a saddle. The gradient is finite
        everywhere; there it is that of the Gauss-Newton problem.

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
    bad = bad | ~jnp.all((weights >= 0) | is_root[None], axis=-1)  # or NaN
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
