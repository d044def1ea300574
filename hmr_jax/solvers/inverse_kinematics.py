"""Inverse kinematics: target joints and twists to the rotations of a body.

``inverse_kinematics`` first moves the targets onto the skeleton (``fit_bones``: the
nearest joints that its bones can reach), then reads the rotations off in closed form.
Both parts have exact gradients.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.solvers.fit_bones import (
    NUM_STEPS,
    Problem,
    make_problem,
    to_slots,
)
from hmr_jax.solvers.tree import ops
from hmr_jax.solvers.tree.newton import solve
from hmr_jax.solvers.tree.orientation import (
    frames_of_parents,
    half_turns,
    orient,
    sets_bones,
    shown_by,
)
from hmr_jax.solvers.types import IkResult, leaf_joints

_PARENTS = tuple(int(p) for p in SMPL_PARENTS)


def inverse_kinematics(
    target_joints_m: Float[Array, "*batch joints 3"],
    rest_joints_m: Float[Array, "*#batch joints 3"],
    twist_cos_sin: Float[Array, "*#batch bones 2"] | None = None,
    leaf_rotmats: Float[Array, "*#batch leaves 3 3"] | None = None,
    *,
    parents: tuple[int, ...] = _PARENTS,
    weights: Float[Array, "*#batch joints"] | None = None,
    num_steps: int = NUM_STEPS,
    tolerance: float | None = None,
) -> IkResult:
    """Rotations that bring a skeleton's joints nearest to target joints.

    The joints are those of ``fit_bones``. A joint with several children (the root and
    joint 9 of the 24-joint body) has the one rotation of its bones. A joint k with one
    child has ``R_k = Swing_k Twist_k`` in its parent's frame, as in HybrIK and IKOL:
    the twist given, about the rest bone to its child, then the smallest rotation onto
    the bone.

    Args:
        target_joints_m: targets relative to the root, metres. The root's own entry is
            not looked at.
        rest_joints_m: skeleton at rest, metres, any origin.
        twist_cos_sin: raw (cos, sin) of the twist of joints 1, 2, ...; normalised here,
            (0, 0) and None mean no twist. Entries of leaves and of joints with several
            children (joint 9) are not looked at.
        leaf_rotmats: local rotations of the joints without children, in increasing
            order of joint (10, 11, 15, 22, 23 in the body); None is the identity.
        parents: parent of each joint, -1 at the root; parents come before children.
        weights: weight of each target, 0 for a missing joint, whose target may be NaN.
            A joint with nothing weighted beyond it follows its parent, and one with
            several children of which weighted targets lie beyond one alone (or beyond
            several on one line) takes the rotation nearest its parent's.
        num_steps: most Newton steps.
        tolerance: see ``fit_bones``.

    Returns:
        Local and global rotations, the joints that forward kinematics gives with them,
        and how the solve went; ``failed`` also where a twist or a leaf rotation that is
        looked at is not finite.

    Raises:
        ValueError: if shapes and ``parents`` disagree.

    Note:
        Everything is differentiable with respect to every array, with finite gradients
        everywhere, as exact as those of ``fit_bones`` where ``info.converged`` holds.
        Where a rotation is undetermined (the swing across 180 degrees, the turn about
        several children all on one line, a bone of no length) one value is chosen and
        the undetermined part of the gradient is 0; at the first two ``converged`` is
        False. The gradient in a twist of (0, 0) is 0.

    Source:
        The rotations: HybrIK (CVPR 2021), section 3.2. The joints: ``fit_bones``.

    Example:
        A pose from predicted joints and twists, for a body with betas::

            rest_m = rest_joints(body, betas)                       # [batch, 24, 3]
            pose = inverse_kinematics(joints_m, rest_m, twist_cos_sin)
            output = body_forward(body, betas, pose.local_rotmats)
    """
    problem = make_problem(target_joints_m, rest_joints_m, parents, weights)
    layout = problem.layout
    twists = _joint_twists(problem, twist_cos_sin, target_joints_m.dtype)
    leaves = _joint_leaves(problem, leaf_rotmats, target_joints_m.dtype)
    bones, rotmats, stats = solve(
        layout, num_steps, tolerance, problem.targets, problem.rest, problem.weights
    )
    seen = ops.combine(layout.ancestors.T, problem.weights)
    shown = jax.lax.stop_gradient(shown_by(layout, problem.rest, seen))
    frames = orient(layout, problem.rest, bones, twists, leaves, rotmats, shown)
    above = frames_of_parents(layout, frames)
    bones = jnp.where(sets_bones(layout, shown), bones, ops.matvec(above, problem.rest))
    joints = ops.combine(layout.ancestors, bones)
    doubt = ops.total(shown.accidental) > 0
    doubt = doubt | half_turns(layout, problem.rest, bones, frames, rotmats, shown)
    info = problem.info(stats._replace(converged=stats.converged & ~doubt))
    usable_turns = _finite_turns(parents, twist_cos_sin, leaf_rotmats)
    info = info._replace(
        converged=info.converged & usable_turns, failed=info.failed | ~usable_turns
    )
    return IkResult(
        local_rotmats=_rotmats_out(problem, ops.matmul_at(above, frames)),
        global_rotmats=_rotmats_out(problem, frames),
        joints_m=problem.joints_out(joints),
        info=info,
    )


def _finite_turns(parents, twist_cos_sin, leaf_rotmats) -> Array:
    """Whether the twists and leaf rotations that are looked at are finite."""
    finite = jnp.array(True)
    children = np.bincount([p for p in parents if p >= 0], minlength=len(parents))
    if twist_cos_sin is not None:
        looked_at = np.flatnonzero(children[1:] == 1)
        twists = twist_cos_sin[..., looked_at, :]
        finite = finite & jnp.all(jnp.isfinite(twists), axis=(-1, -2))
    if leaf_rotmats is not None:
        finite = finite & jnp.all(jnp.isfinite(leaf_rotmats), axis=(-1, -2, -3))
    return finite


def _joint_twists(problem: Problem, twist_cos_sin: Array | None, dtype: Any) -> Array:
    """``[slots, 2, batch]``, no twist at the root."""
    count = len(problem.layout.parents)
    none = jnp.asarray([1, 0], dtype)
    if twist_cos_sin is None:
        twist_cos_sin = jnp.broadcast_to(none, (count - 1, 2))
    elif twist_cos_sin.shape[-2:] != (count - 1, 2):
        raise ValueError(
            f"twist_cos_sin must end in ({count - 1}, 2), one row per joint but the "
            f"root, got shape {twist_cos_sin.shape}"
        )
    shape = (*problem.batch_shape, count - 1, 2)
    rows = jnp.broadcast_to(twist_cos_sin, shape).reshape(-1, count - 1, 2)
    root = jnp.broadcast_to(none, (rows.shape[0], 1, 2))
    return to_slots(problem.layout, jnp.concatenate([root, rows], axis=1))


def _joint_leaves(problem: Problem, leaf_rotmats: Array | None, dtype: Any) -> Array:
    """``[slots, 3, 3, batch]``, the identity but at leaves."""
    parents = problem.layout.parents
    leaves = leaf_joints(parents)
    eye = jnp.eye(3, dtype=dtype)
    if leaf_rotmats is None:
        leaf_rotmats = jnp.broadcast_to(eye, (len(leaves), 3, 3))
    elif leaf_rotmats.shape[-3:] != (len(leaves), 3, 3):
        raise ValueError(
            f"leaf_rotmats must end in ({len(leaves)}, 3, 3), one matrix for each of "
            f"joints {leaves}, got shape {leaf_rotmats.shape}"
        )
    shape = (*problem.batch_shape, len(leaves), 3, 3)
    rows = jnp.broadcast_to(leaf_rotmats, shape).reshape(-1, *shape[-3:])
    rows = jnp.concatenate([jnp.broadcast_to(eye, (rows.shape[0], 1, 3, 3)), rows], 1)
    place = np.zeros(len(parents), int)
    place[list(leaves)] = np.arange(1, len(leaves) + 1)
    per_slot = place[problem.layout.node_of_slot]
    return ops.take(jnp.moveaxis(rows, 0, -1), per_slot)


def _rotmats_out(problem: Problem, slots: Array) -> Array:
    """``[slots, 3, 3, batch]`` to ``[*batch, joints, 3, 3]``."""
    rotmats = jnp.moveaxis(ops.take(slots, problem.layout.slot_of_node), -1, 0)
    return rotmats.reshape(*problem.batch_shape, *rotmats.shape[1:])
