"""Kinematics of the published IKOL layer: one sample, 24 joints, 18 swing angles.

The inner joints form seven levels of at most three joints, and the parent of a joint of
one level is in the level before it. So the chain is a ``lax.scan`` over seven levels
of three slots: an eighth of the program that 23 unrolled joints would need.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.geometry import rotations, safe
from hmr_jax.solvers import swing_frames
from hmr_jax.solvers.types import LEAF_JOINTS

NUM_ANGLES = 18
SPINE3_SLOT = (2, 2)
"""Level and place of joint 9, the joint with three children."""

INNER_JOINTS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
"""Joints that own a swing angle, in the order of the angles."""

_AIMED = (4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 18, 19, 20, 21, 22, 23)
"""Designated child of each inner joint."""

_BONE_ORDER = (1, 2, 3, *_AIMED, 13, 14)
"""Every bone once: those of the root, of the inner joints, the rest of spine3."""

_PARENT_PLACES = (
    *((0, 1, 2), (0, 1, 2), (0, 1, 2), (2, 2, 2)),
    *((1, 2, 0), (0, 1, 0), (0, 1, 0)),
)
"""Per level and slot, the slot of the parent in the level before."""

_HIGHEST = jax.lax.Precision.HIGHEST


def _path_matrix() -> np.ndarray:
    """Joint positions from world bones in ``_BONE_ORDER``: 0/1, [24, 23]."""
    paths = np.zeros((24, 23))
    for joint in range(1, 24):
        ancestor = joint
        while ancestor > 0:
            paths[joint, _BONE_ORDER.index(ancestor)] = 1.0
            ancestor = SMPL_PARENTS[ancestor]
    return paths


_PATHS = _path_matrix()
_PARENT_ONE_HOT = np.eye(3)[np.array(_PARENT_PLACES)]


class Problem(NamedTuple):
    """What the angles are solved against, for one sample.

    Attributes:
        target_m: joints the residual compares with, root-relative.
        bones_m: rest bones in ``_BONE_ORDER``.
        root_rotmat: rotation of joint 0.
        spine3: for a spine3 (joint 9) that does not swing, the sum over its bones of
            target times rest bone transposed, and the world rotation fitted to it;
            else None.
        aim_m: target bone of each inner joint.
        twists: twist matrix of each inner joint.
    """

    target_m: Float[Array, "24 3"]
    bones_m: Float[Array, "23 3"]
    root_rotmat: Float[Array, "3 3"]
    spine3: tuple[Float[Array, "3 3"], Float[Array, "3 3"]] | None
    aim_m: Float[Array, "18 3"]
    twists: Float[Array, "18 3 3"]


def ordered_bones(joints: Float[Array, "24 3"]) -> Float[Array, "23 3"]:
    """Vectors from parent to child, in ``_BONE_ORDER``."""
    children = np.array(_BONE_ORDER)
    parents = np.array([SMPL_PARENTS[j] for j in _BONE_ORDER])
    return joints[children] - joints[parents]


def inner_bones(bones: Float[Array, "23 3"]) -> Float[Array, "18 3"]:
    """Out of all bones, the one that ends at each inner joint."""
    return bones[np.array([_BONE_ORDER.index(j) for j in INNER_JOINTS])]


def inner_targets(joints: Float[Array, "24 3"]) -> Float[Array, "18 3"]:
    """Out of all joints, the designated child of each inner joint."""
    return joints[np.array(_AIMED)]


def inner_twists(twists: Float[Array, "23 2"]) -> Float[Array, "18 2"]:
    """Out of the twists of joints 1 to 23, those of the inner joints."""
    return twists[np.array(INNER_JOINTS) - 1]


def to_slots(per_joint: Float[Array, "18 *rest"]) -> Float[Array, "7 3 *rest"]:
    """Values of the inner joints by level; the unused slots of levels 4 to 6 get 0."""
    rest = per_joint.shape[1:]
    full = per_joint[:12].reshape(4, 3, *rest)
    pairs = per_joint[12:].reshape(3, 2, *rest)
    padded = jnp.concatenate([pairs, jnp.zeros((3, 1, *rest), pairs.dtype)], axis=1)
    return jnp.concatenate([full, padded])


def from_slots(per_slot: Shaped[Array, "7 3 *rest"]) -> Shaped[Array, "18 *rest"]:
    """Inverse of ``to_slots``."""
    rest = per_slot.shape[2:]
    full = per_slot[:4].reshape(12, *rest)
    return jnp.concatenate([full, per_slot[4:, :2].reshape(6, *rest)])


def _rows_times(
    rows: Float[Array, "... n 3"], matrix: Float[Array, "... 3 3"]
) -> Array:
    """Row vectors times a matrix, as multiply and sum."""
    return (rows[..., :, :, None] * matrix[..., None, :, :]).sum(-2)


def spine3_bones(bones: Float[Array, "23 3"]) -> Float[Array, "3 3"]:
    """Bones of joint 9 (to 12, 13, 14) out of all in bone order."""
    return jnp.concatenate([bones[11:12], bones[21:]])


def of_parents(one_hot: Float[Array, "3 3"], values: Float[Array, "3 *rest"]) -> Array:
    """The value of each slot's parent, by a 0/1 matrix (its gradient is no scatter)."""
    rest = values.shape[1:]
    flat = values.reshape(3, -1)
    return (one_hot[:, :, None] * flat[None]).sum(1).reshape(3, *rest)


def swing_axis(
    parent: Float[Array, "n 3 3"],
    bones: Float[Array, "n 3"],
    aims: Float[Array, "n 3"],
    eps: float,
    published: bool = False,
) -> tuple[Float[Array, "n 3"], Float[Array, "n 3"], Float[Array, "n 3"]]:
    """Unnormalised and normalised swing axis, and the aim in the parent frame."""
    aims_in_parent = rotations.matvec3(rotations.transpose(parent), aims)
    axis = jnp.cross(bones, aims_in_parent)
    length = safe.norm(axis, keepdims=True)
    if published:  # the original differentiates |w| as w . dw / (|w| + eps)
        still, length = jax.lax.stop_gradient((axis, length))
        change = ((axis - still) * still).sum(-1, keepdims=True)
        length = length + change / (length + eps)
    return axis, axis / (length + eps), aims_in_parent


def level_inputs(problem: Problem) -> tuple[Array, Array, Array, Array]:
    """Per level: parents, aimed rest bones, target bones and twists of the slots."""
    bones = to_slots(problem.bones_m[3:21])
    one_hot = jnp.asarray(_PARENT_ONE_HOT, bones.dtype)
    return one_hot, bones, to_slots(problem.aim_m), to_slots(problem.twists)


def _swing_twist(parent, bones, aims, twists, cos, sin, eps, published=False):
    """Local rotations (swing times twist) of joints with given parents."""
    _, axis, _ = swing_axis(parent, bones, aims, eps, published)
    return rotations.matmul3(rotations.rodrigues(axis, cos, sin), twists)


def _fixed_spine3(angles_rad, problem: Problem, eps, published=False):
    """Rotation of a given spine3 in its parent and in the world, or None."""
    if problem.spine3 is None:
        return None
    above = problem.root_rotmat[None]
    for k in (2, 5):  # joints 3 and 6
        own = slice(k, k + 1)
        angle = angles_rad[own]
        local = _swing_twist(
            above,
            problem.bones_m[3 + k : 4 + k],
            problem.aim_m[own],
            problem.twists[own],
            jnp.cos(angle),
            jnp.sin(angle),
            eps,
            published,
        )
        above = rotations.matmul3(above, local)
    local = swing_frames.fit_in_frame(*problem.spine3, above[0])
    if published:
        local = jax.lax.stop_gradient(local)
    return local, rotations.matmul3(above[0], local)


def override(values: Array, fixed: Array, given: Array) -> Array:
    """``given`` in the slot where ``fixed`` says so."""
    return jnp.where(fixed.reshape(3, *[1] * given.ndim), given[None], values)


def spine3_mask() -> np.ndarray:
    """Where spine3 is among the slots, [7, 3]."""
    mask = np.zeros((7, 3), bool)
    mask[SPINE3_SLOT] = True
    return mask


def swing_rotmats(
    angles_rad: Float[Array, "18"],
    problem: Problem,
    eps: float,
    *,
    published: bool = False,
) -> tuple[Float[Array, "18 3 3"], Float[Array, "18 3 3"]]:
    """Rotations of the inner joints at the given swing angles.

    Args:
        angles_rad: one angle per inner joint.
        problem: the sample.
        eps: added to the length of the swing axis.
        published: give the derivative the original's hand-written form, which treats
            a given spine3 rotation as fixed in its parent instead of in the world.

    Returns:
        Rotation of each inner joint in its parent, and in the target's frame.
    """
    angles = to_slots(angles_rad)
    spine3 = _fixed_spine3(angles_rad, problem, eps, published)

    def level(above, inputs):
        one_hot, bones, aims, twists, cos, sin, fixed = inputs
        parent = of_parents(one_hot, above)
        local = _swing_twist(parent, bones, aims, twists, cos, sin, eps, published)
        here = rotations.matmul3(parent, local)
        if spine3 is not None:
            local = override(local, fixed, spine3[0])
            here = override(here, fixed, spine3[1])
        return here, (local, here)

    start = jnp.broadcast_to(problem.root_rotmat, (3, 3, 3))
    inputs = (*level_inputs(problem), jnp.cos(angles), jnp.sin(angles), spine3_mask())
    local, world = jax.lax.scan(level, start, inputs)[1]
    return from_slots(local), from_slots(world)


def closed_form_angles(problem: Problem, eps: float) -> Float[Array, "18"]:
    """Swing angles that carry each bone onto its target bone, parent by parent.

    Args:
        problem: the sample.
        eps: added to the length of the swing axis.

    Returns:
        Angles in [0, pi]; 0 for spine3 where its rotation is given.
    """

    def level(above, inputs):
        one_hot, bones, aims, twists, fixed = inputs
        parent = of_parents(one_hot, above)
        raw, axis, aims_in_parent = swing_axis(parent, bones, aims, eps)
        angles = safe.atan2(safe.norm(raw), (bones * aims_in_parent).sum(-1))
        swing = rotations.rodrigues(axis, jnp.cos(angles), jnp.sin(angles))
        here = rotations.matmul3(parent, rotations.matmul3(swing, twists))
        if problem.spine3 is not None:
            angles = override(angles, fixed, jnp.zeros_like(angles[0]))
            here = override(here, fixed, problem.spine3[1])
        return here, angles

    start = jnp.broadcast_to(problem.root_rotmat, (3, 3, 3))
    inputs = (*level_inputs(problem), spine3_mask())
    return from_slots(jax.lax.scan(level, start, inputs)[1])


def _world_bones(rotmats: Float[Array, "18 3 3"], problem: Problem) -> Array:
    bones = problem.bones_m
    of_root = swing_frames.turned(problem.root_rotmat, bones[:3])
    of_inner = rotations.matvec3(rotmats, bones[3:21])
    of_spine3 = swing_frames.turned(rotmats[8], bones[21:])
    return jnp.concatenate([of_root, of_inner, of_spine3])


def joints_from_rotmats(
    rotmats: Float[Array, "18 3 3"], problem: Problem
) -> Float[Array, "24 3"]:
    """Joint positions with joint 0 at the origin."""
    bones = _world_bones(rotmats, problem)
    paths = jnp.asarray(_PATHS, bones.dtype)
    return jnp.matmul(paths, bones, precision=_HIGHEST)


def residual(
    angles_rad: Float[Array, "18"],
    problem: Problem,
    eps: float,
    *,
    published: bool = False,
) -> Float[Array, "72"]:
    """Posed joints minus targets, metres, flattened joint by joint."""
    _, rotmats = swing_rotmats(angles_rad, problem, eps, published=published)
    joints = joints_from_rotmats(rotmats, problem)
    return (joints - problem.target_m).reshape(-1)


def jacobian_autodiff(
    angles_rad: Float[Array, "18"],
    problem: Problem,
    eps: float,
    *,
    published: bool = False,
) -> Float[Array, "72 18"]:
    """Jacobian of ``residual`` by forward-mode differentiation of the same program."""
    basis = jnp.eye(NUM_ANGLES, dtype=angles_rad.dtype)

    def column(tangent):
        def at(angles):
            return residual(angles, problem, eps, published=published)

        return jax.jvp(at, (angles_rad,), (tangent,))[1]

    return jax.vmap(column, out_axes=1)(basis)


def jacobian_recursion(
    angles_rad: Float[Array, "18"], problem: Problem, eps: float
) -> Float[Array, "72 18"]:
    """Jacobian by propagating angular velocities from parent to child.

    Args:
        angles_rad: where to evaluate.
        problem: the sample.
        eps: added to the length of the swing axis.

    Returns:
        Derivative of ``residual`` by the angles, metres per radian.
    """
    angles = to_slots(angles_rad)
    dtype = angles_rad.dtype
    own = to_slots(jnp.eye(NUM_ANGLES, dtype=dtype))
    spine3 = _fixed_spine3(angles_rad, problem, eps)

    def level(above, inputs):
        one_hot, bones, aims, twists, angle, own_column, fixed = inputs
        parent = of_parents(one_hot, above[0])
        spin_parent = of_parents(one_hot, above[1])  # [slot, angle, 3]
        raw, axis, _ = swing_axis(parent, bones, aims, eps)
        length = safe.norm(raw, keepdims=True) + eps
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        swing = rotations.rodrigues(axis, cos, sin)
        here = rotations.matmul3(parent, rotations.matmul3(swing, twists))

        d_aims = _rows_times(jnp.cross(aims[:, None, :], spin_parent), parent)
        d_raw = jnp.cross(bones[:, None, :], d_aims)
        unit = axis[:, None, :]
        along = (unit * d_raw).sum(-1, keepdims=True)
        d_axis = (d_raw - unit * along) / length[:, None, :]
        local_spin = (
            sin[:, None, None] * d_axis
            + (1.0 - cos)[:, None, None] * jnp.cross(unit, d_axis)
            + unit * own_column[:, :, None]
        )
        spin = spin_parent + _rows_times(local_spin, jnp.swapaxes(parent, -1, -2))
        if spine3 is not None:
            spin = override(spin, fixed, jnp.zeros_like(spin[0]))
            here = override(here, fixed, spine3[1])
        return (here, spin), (here, spin)

    start = (
        jnp.broadcast_to(problem.root_rotmat, (3, 3, 3)),
        jnp.zeros((3, NUM_ANGLES, 3), dtype),
    )
    inputs = (*level_inputs(problem), angles, own, spine3_mask())
    rotmats, spins = jax.lax.scan(level, start, inputs)[1]
    rotmats, spins = from_slots(rotmats), from_slots(spins)
    bones = _world_bones(rotmats, problem)[3:]
    spins = jnp.concatenate([spins, spins[8:9], spins[8:9]])
    d_bones = jnp.cross(spins, bones[:, None, :])  # [bone, angle, 3]
    paths = jnp.asarray(_PATHS[:, 3:], dtype)
    d_joints = jnp.matmul(paths, d_bones.reshape(20, -1), precision=_HIGHEST)
    return jnp.swapaxes(d_joints.reshape(24, NUM_ANGLES, 3), 1, 2).reshape(72, -1)


def assemble_rotmats(
    root: Float[Array, "3 3"],
    local: Float[Array, "18 3 3"],
    world: Float[Array, "18 3 3"],
    leaves: Float[Array, "5 3 3"],
    leaf_joints: tuple[int, ...] = LEAF_JOINTS,
) -> tuple[Float[Array, "24 3 3"], Float[Array, "24 3 3"]]:
    """Local and world rotations of all 24 joints.

    Args:
        root: rotation of joint 0.
        local: rotations of the inner joints in their parents.
        world: rotations of the inner joints in the target's frame.
        leaves: rotations of the leaves in their parents.
        leaf_joints: the joint each leaf rotation belongs to.

    Returns:
        Local rotations, world rotations.
    """
    order = np.argsort([0, *INNER_JOINTS, *leaf_joints])
    above = [INNER_JOINTS.index(SMPL_PARENTS[joint]) for joint in leaf_joints]
    ends = rotations.matmul3(jnp.stack([world[k] for k in above]), leaves)
    all_local = jnp.concatenate([root[None], local, leaves])
    all_world = jnp.concatenate([root[None], world, ends])
    return all_local[order], all_world[order]


def over_batch(function: Callable, *arrays: Array):
    """Map a single-sample function of matrices over the leading axes they share."""
    for _ in range(arrays[0].ndim - 2):
        function = jax.vmap(function)
    return function(*arrays)
