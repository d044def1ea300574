"""The analytic inverse kinematics of HybrIK: swings in closed form, parent by parent.

Source: HybrIK (CVPR 2021), sections 3.2 and 3.3; specs/ikol.md section 10.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hmr_jax.geometry import rotations, safe
from hmr_jax.solvers import hybrik_frames, swing_chain, swing_frames
from hmr_jax.solvers.types import LEAF_JOINTS, IkResult, SolveInfo

PUBLISHED_ADAPTIVE_LEAF_JOINTS = (15, 22, 23, 10, 11)
"""Joints to which the published adaptive solver gives the five leaf rotations."""

PUBLISHED_EPS = 1e-8
"""The original's guard of every division, for parity."""

TRUSTED_STRETCH_M = 0.015
"""A bone that is off by more than this is replaced by one of rest length."""

_SPINE3 = swing_chain.INNER_JOINTS.index(9)


def hybrik_naive(
    target_joints_m: Float[Array, "*batch 24 3"],
    rest_joints_m: Float[Array, "*batch 24 3"],
    twist_cos_sin: Float[Array, "*batch 23 2"],
    leaf_quaternions: Float[Array, "*batch 5 4"],
    *,
    mode: str = "train",
    detach_root_target: bool = True,
    eps: float | None = None,
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
        eps: None for exact rotations, or the original's guard of every division
            (``PUBLISHED_EPS``), with which rotations near half turns are no rotations:
            joints were seen 33 cm off.

    Returns:
        The pose; ``info.gradient_norm`` is infinite, as nothing is minimised.
        ``info.failed`` is True where something looked at is not finite, or where a
        rotation is undetermined and one choice was made: a swing between opposite
        vectors or from or to one of no length, the root where the middle of the hips
        lies on the spine's line ('train'), a fit to bones on one line ('eval'). It is
        judged to the rounding error of a joint, 16 eps of the type times the largest
        coordinate.

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
        frames=_frames(eps, eps if mode == "train" else 0.0),
        detach_root_target=detach_root_target,
        leaf_joints=LEAF_JOINTS,
    )
    return swing_chain.over_batch(
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
    eps: float | None = None,
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
        eps: None for exact rotations, or the original's guard of every division
            (``PUBLISHED_EPS``), with which rotations near half turns are no rotations:
            joints were seen 33 cm off.

    Returns:
        The pose; ``info.gradient_norm`` is infinite, as nothing is minimised.
        ``info.failed`` is that of ``hybrik_naive``, with the root of its 'train' and
        the fit of spine3 of its 'eval'.

    Note:
        An aim that is more than 15 mm off the target bone at rest length is dropped
        for that bone, a jump in value and gradient; not where the target bone has no
        length and so no direction.
    """
    solve = functools.partial(
        _closed_form,
        aim=_aim_adaptive,
        fitted_root=False,
        fitted_spine3=True,
        frames=_frames(eps, 0.0),
        detach_root_target=detach_root_target,
        leaf_joints=leaf_joints,
    )
    return swing_chain.over_batch(
        solve, target_joints_m, rest_joints_m, twist_cos_sin, leaf_quaternions
    )


def _frames(eps, axis_eps):
    """Exact or guarded pieces."""
    if eps is None:
        return hybrik_frames.EXACT
    return hybrik_frames.guarded(eps, axis_eps)


def _closed_form(
    target_m,
    rest_m,
    twist_cos_sin,
    leaf_quaternions,
    *,
    aim,
    fitted_root,
    fitted_spine3,
    frames,
    detach_root_target,
    leaf_joints,
):
    """One sample of either solver."""
    rounding = hybrik_frames.rounding_m(target_m, rest_m)
    bones = swing_chain.ordered_bones(rest_m)
    aims = swing_chain.ordered_bones(target_m)
    root_aims = jax.lax.stop_gradient(aims) if detach_root_target else aims
    if fitted_root:
        root, open_root = hybrik_frames.fit(bones[:3], root_aims[:3], rounding)
    else:
        root = frames.root(bones, root_aims)
        open_root = hybrik_frames.root_undetermined(bones, root_aims, rounding)
    inner_twists = swing_chain.inner_twists(twist_cos_sin)
    twists = frames.twists(bones[3:21], inner_twists)
    problem = swing_chain.Problem(target_m, bones, root, None, aims[3:21], twists)
    swing = functools.partial(_swing_along, aim, frames.swings, rounding)
    fixed, spine3 = np.zeros(swing_chain.NUM_ANGLES, bool), None
    open_spine3 = jnp.asarray(False)
    if fitted_spine3:
        fixed[_SPINE3] = True
        start_at_target = aim is not _aim_adaptive
        *spine3, open_spine3 = _fit_spine3(problem, swing, rounding, start_at_target)
    local, world, open_swings = _chain(problem, swing, spine3)
    leaves = frames.leaves(leaf_quaternions)
    all_local, all_world = swing_chain.assemble_rotmats(
        root, local, world, leaves, leaf_joints
    )
    joints = swing_chain.joints_from_rotmats(world, problem)
    cost = 0.5 * ((joints - target_m) ** 2).sum()
    used_twists = jnp.where(fixed[:, None], 1.0, inner_twists)
    finite = [jnp.isfinite(x).all() for x in (cost, used_twists, leaf_quaternions)]
    undetermined = open_root | open_spine3 | (open_swings & ~fixed).any()
    info = SolveInfo(
        iterations=jnp.asarray(0, jnp.int32),
        cost=cost,
        gradient_norm=jnp.full_like(cost, jnp.inf),
        converged=jnp.asarray(False),
        failed=undetermined | ~jnp.stack(finite).all(),
    )
    return IkResult(all_local, all_world, joints, jax.lax.stop_gradient(info))


def _aim_along_target(target_bones, targets, positions, bones, rounding):
    """Turn bones along their target bones."""
    del targets, positions, bones, rounding
    return target_bones


def _trusted(wanted, target_bones, bones, rounding):
    """``wanted``, or the target bone at rest length where it is too far from that."""
    scaled = safe.normalize(target_bones) * safe.norm(bones, keepdims=True)
    near = safe.norm(wanted - scaled, keepdims=True) <= TRUSTED_STRETCH_M
    # A target bone of no length has no direction to prefer.
    no_direction = safe.norm(target_bones, keepdims=True) <= rounding
    return jnp.where(near | no_direction, wanted, scaled)


def _aim_naive(target_bones, targets, positions, bones, rounding):
    """Turn bones along their target bones, of rest length if far from it."""
    del targets, positions
    return _trusted(target_bones, target_bones, bones, rounding)


def _aim_adaptive(target_bones, targets, positions, bones, rounding):
    """Turn bones from where their joints are to where the targets are."""
    return _trusted(targets - positions, target_bones, bones, rounding)


def _swing_along(
    aim, swings, rounding, parent, position, bones, target_bones, targets, twists
):
    """Local rotations that turn bones along aims, after their twist, and their flags.

    The first three arguments are the solver's; the others are of some joints.
    """
    aims = aim(target_bones, targets, position, bones, rounding)
    in_parent = rotations.matvec3(rotations.transpose(parent), aims)
    local = rotations.matmul3(swings(bones, in_parent), twists)
    return local, hybrik_frames.swing_undetermined(bones, in_parent, rounding)


def _fit_spine3(problem, swing, rounding, start_at_target):
    """Rotation of joint 9 in its parent and in the world, fitted to its bones."""
    position = rotations.matvec3(problem.root_rotmat[None], problem.bones_m[2:3])
    above = problem.root_rotmat[None]
    for k, child in ((2, 6), (5, 9)):  # joints 3 and 6
        bone = problem.bones_m[3 + k : 4 + k]
        target_bone, twist = problem.aim_m[k : k + 1], problem.twists[k : k + 1]
        target = problem.target_m[child][None]
        local, _ = swing(above, position, bone, target_bone, target, twist)
        above = rotations.matmul3(above, local)
        position = position + rotations.matvec3(above, bone)
    sources = swing_chain.spine3_bones(problem.bones_m)
    start = problem.target_m[9:10] if start_at_target else position
    in_parent = swing_frames.turned(above[0].T, problem.target_m[12:15] - start)
    local, undetermined = hybrik_frames.fit(sources, in_parent, rounding)
    return local, rotations.matmul3(above[0], local), undetermined


def _chain(problem, swing, spine3):
    """Local and world rotations of the inner joints, level by level, and flags."""
    own_bones = swing_chain.inner_bones(problem.bones_m)
    child_targets = swing_chain.inner_targets(problem.target_m)

    def level(above, inputs):
        one_hot, bones, aims, twists, own, targets, fixed = inputs
        parent = swing_chain.of_parents(one_hot, above[0])
        position = swing_chain.of_parents(one_hot, above[1])
        position = position + rotations.matvec3(parent, own)
        local, undetermined = swing(parent, position, bones, aims, targets, twists)
        here = rotations.matmul3(parent, local)
        if spine3 is not None:
            local = swing_chain.override(local, fixed, spine3[0])
            here = swing_chain.override(here, fixed, spine3[1])
        return (here, position), (local, here, undetermined)

    root = jnp.broadcast_to(problem.root_rotmat, (3, 3, 3))
    start = root, jnp.zeros_like(root[0])
    slots = map(swing_chain.to_slots, (own_bones, child_targets))
    mask = np.array(swing_chain.spine3_mask())
    inputs = (*swing_chain.level_inputs(problem), *slots, mask)
    outputs = jax.lax.scan(level, start, inputs)[1]
    return tuple(map(swing_chain.from_slots, outputs))
