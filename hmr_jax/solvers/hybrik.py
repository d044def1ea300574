"""The analytic inverse kinematics of HybrIK: swings in closed form, parent by parent.

Source: HybrIK (CVPR 2021), sections 3.2 and 3.3; specs/ikol.md section 10.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hmr_jax.geometry import alignment, rotations, safe
from hmr_jax.solvers import _ikol_fk, _ikol_frames
from hmr_jax.solvers.ikol_published import over_batch
from hmr_jax.solvers.types import LEAF_JOINTS, IkResult, SolveInfo

PUBLISHED_ADAPTIVE_LEAF_JOINTS = (15, 22, 23, 10, 11)
"""Joints to which the published adaptive solver gives the five leaf rotations."""

TRUSTED_STRETCH_M = 0.015
"""A bone that is off by more than this is replaced by one of rest length."""


def hybrik_naive(
    target_joints_m: Float[Array, "*batch 24 3"],
    rest_joints_m: Float[Array, "*batch 24 3"],
    twist_cos_sin: Float[Array, "*batch 23 2"],
    leaf_quaternions: Float[Array, "*batch 5 4"],
    *,
    mode: str = "train",
    detach_root_target: bool = True,
    eps: float = 1e-8,
) -> IkResult:
    """Rotations that turn each bone along its target bone.

    Args:
        target_joints_m: targets, metres, with joint 0 at the origin.
        rest_joints_m: joints of the shaped body at rest, metres.
        twist_cos_sin: raw cosine and sine of the twist of joints 1 to 23.
        leaf_quaternions: raw quaternions (wxyz) of joints 10, 11, 15, 22, 23.
        mode: 'train' takes the root from the spine and the middle of the hips and
            swings spine3 like any joint; 'eval' fits rotations to the three bones of
            the root and of spine3.
        detach_root_target: block the targets' gradient through the root, as published.
        eps: the original's guard of every division.

    Returns:
        The pose; ``info.gradient_norm`` is infinite, as nothing is minimised.

    Raises:
        ValueError: for another mode.

    Note:
        Lengths are not matched, so position errors add up along a limb.
    """
    if mode not in ("train", "eval"):
        raise ValueError(f"mode must be 'train' or 'eval', got {mode!r}")
    solve = functools.partial(
        _closed_form,
        aim=_aim_along_target if mode == "train" else _aim_naive,
        fitted_root=mode == "eval",
        fitted_spine3=mode == "eval",
        axis_eps=eps if mode == "train" else 0.0,
        detach_root_target=detach_root_target,
        leaf_joints=LEAF_JOINTS,
        eps=eps,
    )
    return over_batch(
        solve, target_joints_m, rest_joints_m, twist_cos_sin, leaf_quaternions
    )


def hybrik_adaptive(
    target_joints_m: Float[Array, "*batch 24 3"],
    rest_joints_m: Float[Array, "*batch 24 3"],
    twist_cos_sin: Float[Array, "*batch 23 2"],
    leaf_quaternions: Float[Array, "*batch 5 4"],
    *,
    leaf_joints: tuple[int, ...] = LEAF_JOINTS,
    detach_root_target: bool = True,
    eps: float = 1e-8,
) -> IkResult:
    """Rotations that aim each bone from its reconstructed joint at the target.

    Args:
        target_joints_m: targets, metres, with joint 0 at the origin.
        rest_joints_m: joints of the shaped body at rest, metres.
        twist_cos_sin: raw cosine and sine of the twist of joints 1 to 23.
        leaf_quaternions: raw quaternions (wxyz) of joints 10, 11, 15, 22, 23.
        leaf_joints: joints that receive them; ``PUBLISHED_ADAPTIVE_LEAF_JOINTS``
            reproduces the original, which mixes them up.
        detach_root_target: block the targets' gradient through the root, as published.
        eps: the original's guard of every division.

    Returns:
        The pose; ``info.gradient_norm`` is infinite, as nothing is minimised.

    Note:
        An aim that is more than 15 mm off the target bone at rest length is dropped
        for that bone, a jump in value and gradient.
    """
    solve = functools.partial(
        _closed_form,
        aim=_aim_adaptive,
        fitted_root=False,
        fitted_spine3=True,
        axis_eps=0.0,
        detach_root_target=detach_root_target,
        leaf_joints=leaf_joints,
        eps=eps,
    )
    return over_batch(
        solve, target_joints_m, rest_joints_m, twist_cos_sin, leaf_quaternions
    )


def _closed_form(
    target_m,
    rest_m,
    twist_cos_sin,
    leaf_quaternions,
    *,
    aim,
    fitted_root,
    fitted_spine3,
    axis_eps,
    detach_root_target,
    leaf_joints,
    eps,
):
    """One sample of either solver."""
    bones = _ikol_fk.ordered_bones(rest_m)
    aims = _ikol_fk.ordered_bones(target_m)
    root_aims = jax.lax.stop_gradient(aims) if detach_root_target else aims
    if fitted_root:
        root = alignment.fit_rotation(
            _ikol_frames.correlation(bones[:3], root_aims[:3])
        )
    else:
        root = _ikol_frames.two_vector_root(bones, root_aims, eps)
    twists = _ikol_frames.twist_rotmats(
        bones[3:21], _ikol_fk.inner_twists(twist_cos_sin), eps, axis_eps
    )
    problem = _ikol_fk.Problem(target_m, bones, root, None, aims[3:21], twists)
    spine3 = _fit_spine3(problem, aim, eps) if fitted_spine3 else None
    local, world = _chain(problem, aim, spine3, eps)
    leaves = _ikol_frames.quaternions_to_rotmats(leaf_quaternions, eps)
    all_local, all_world = _ikol_fk.assemble_rotmats(
        root, local, world, leaves, leaf_joints
    )
    joints = _ikol_fk.joints_from_rotmats(world, problem)
    cost = 0.5 * ((joints - target_m) ** 2).sum()
    info = SolveInfo(
        iterations=jnp.asarray(0, jnp.int32),
        cost=cost,
        gradient_norm=jnp.full_like(cost, jnp.inf),
        converged=jnp.asarray(False),
        failed=~jnp.isfinite(cost),
    )
    return IkResult(all_local, all_world, joints, jax.lax.stop_gradient(info))


def _aim_along_target(target_bones, targets, positions, bones):
    """Turn bones along their target bones."""
    del targets, positions, bones
    return target_bones


def _trusted(wanted, target_bones, bones):
    """``wanted``, or the target bone at rest length where it is too far from that."""
    rest_length = safe.norm(bones, keepdims=True)
    length = safe.norm(target_bones, keepdims=True)
    scaled = target_bones * safe.divide(rest_length, length)
    off = safe.norm(wanted - scaled, keepdims=True)
    return jnp.where(off <= TRUSTED_STRETCH_M, wanted, scaled)


def _aim_naive(target_bones, targets, positions, bones):
    """Turn bones along their target bones, of rest length if far from it."""
    del targets, positions
    return _trusted(target_bones, target_bones, bones)


def _aim_adaptive(target_bones, targets, positions, bones):
    """Turn bones from where their joints are to where the targets are."""
    return _trusted(targets - positions, target_bones, bones)


def _swing_along(parent, bones, aims, twists, eps):
    """Local rotations that turn bones along aims, after their twist."""
    raw, axis, in_parent = _ikol_fk.swing_axis(parent, bones, aims, eps)
    scale = safe.norm(bones) * safe.norm(in_parent) + eps
    cos, sin = (bones * in_parent).sum(-1) / scale, safe.norm(raw) / scale
    return rotations.matmul3(rotations.rodrigues(axis, cos, sin), twists)


def _fit_spine3(problem, aim, eps):
    """Rotation of joint 9 in its parent and in the world, fitted to its bones."""
    position = rotations.matvec3(problem.root_rotmat[None], problem.bones_m[2:3])
    above = problem.root_rotmat[None]
    for k, child in ((2, 6), (5, 9)):  # joints 3 and 6
        bone = problem.bones_m[3 + k : 4 + k]
        target_bone = problem.aim_m[k : k + 1]
        aims = aim(target_bone, problem.target_m[child][None], position, bone)
        twist = problem.twists[k : k + 1]
        local = _swing_along(above, bone, aims, twist, eps)
        above = rotations.matmul3(above, local)
        position = position + rotations.matvec3(above, bone)
    sources = _ikol_fk.spine3_bones(problem.bones_m)
    targets = problem.target_m[12:15]
    start = position if aim is _aim_adaptive else problem.target_m[9:10]
    in_parent = _ikol_frames.turned(above[0].T, targets - start)
    local = alignment.fit_rotation(_ikol_frames.correlation(sources, in_parent))
    return local, rotations.matmul3(above[0], local)


def _chain(problem, aim, spine3, eps):
    """Local and world rotations of the inner joints, level by level."""
    own_bones = _ikol_fk.inner_bones(problem.bones_m)
    child_targets = _ikol_fk.inner_targets(problem.target_m)

    def level(above, inputs):
        one_hot, bones, aims, twists, own, targets, fixed = inputs
        parent = _ikol_fk.of_parents(one_hot, above[0])
        position = _ikol_fk.of_parents(one_hot, above[1])
        position = position + rotations.matvec3(parent, own)
        wanted = aim(aims, targets, position, bones)
        local = _swing_along(parent, bones, wanted, twists, eps)
        here = rotations.matmul3(parent, local)
        if spine3 is not None:
            local = _ikol_fk.override(local, fixed, spine3[0])
            here = _ikol_fk.override(here, fixed, spine3[1])
        return (here, position), (local, here)

    root = jnp.broadcast_to(problem.root_rotmat, (3, 3, 3))
    start = root, jnp.zeros_like(root[0])
    slots = map(_ikol_fk.to_slots, (own_bones, child_targets))
    mask = np.array(_ikol_fk.spine3_mask())
    inputs = (*_ikol_fk.level_inputs(problem), *slots, mask)
    local, world = jax.lax.scan(level, start, inputs)[1]
    return _ikol_fk.from_slots(local), _ikol_fk.from_slots(world)
