"""Shape, kinematics and skinning of an SMPL-like body: pose in, mesh and joints out."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from hmr_jax.body.joint_sets import MANO_21_FROM_16_AND_TIPS, MANO_TIP_VERTICES
from hmr_jax.body.model import BodyModel
from hmr_jax.body.skinning import skin
from hmr_jax.geometry.rotations import axis_angle_to_matrix, matmul3, matvec3


class BodyOutput(NamedTuple):
    """What ``body_forward`` returns.

    Attributes:
        vertices_m: [..., V, 3] posed vertices, metres.
        joints_m: [..., J, 3] posed joints, metres.
        global_rotmats: [..., J, 3, 3] rotations of the joints in the body's frame.
        rest_joints_m: [..., J, 3] joints of the shaped body before posing, metres.
    """

    vertices_m: Array
    joints_m: Array
    global_rotmats: Array
    rest_joints_m: Array


def rest_joints(
    body: BodyModel, betas: Float[Array, "*batch betas"]
) -> Float[Array, "*batch joints 3"]:
    """Joints of the shaped body in its rest pose.

    Args:
        body: the body.
        betas: shape coefficients, one for each of the body's shape directions.

    Returns:
        Metres.

    Raises:
        ValueError: the number of coefficients is not the body's.
    """
    if betas.shape[-1] != body.num_betas:
        raise ValueError(
            f"betas: expected {body.num_betas} coefficients for body {body.name!r}, "
            f"got {betas.shape[-1]}"
        )
    directions = body.joint_basis_m[1:].reshape(body.num_betas, -1)
    moved = jnp.matmul(betas, directions, precision=lax.Precision.HIGHEST)
    shape = (*betas.shape[:-1], body.num_joints, 3)
    return jnp.broadcast_to(body.joint_basis_m[0], shape) + moved.reshape(shape)


def forward_kinematics(
    local_rotmats: Float[Array, "*batch joints 3 3"],
    rest_joints_m: Float[Array, "*batch joints 3"],
    parents: tuple[int, ...],
) -> tuple[Float[Array, "*batch joints 3 3"], Float[Array, "*batch joints 3"]]:
    """Joint rotations and positions of a kinematic tree.

    Every joint's transform is chained to its ancestor's, all joints at once, which
    doubles the length of the chains: SMPL's tree, 8 bones deep, takes four steps.

    Args:
        local_rotmats: rotation of each joint relative to its parent.
        rest_joints_m: joints in the rest pose, metres; the root stays at its place.
        parents: parent of each joint, -1 first; parents come before their children.

    Returns:
        Rotations in the root's frame of reference, and positions, metres.
    """
    joints = len(parents)
    rotations = jnp.moveaxis(local_rotmats, -3, 0)
    rest = jnp.moveaxis(rest_joints_m, -2, 0)
    offsets = rest[1:] - rest[np.array(parents[1:], int)]
    # One more joint that stays where it is stands above the root.
    still = jnp.broadcast_to(jnp.eye(3, dtype=rotations.dtype), rotations[:1].shape)
    rotations = jnp.concatenate([rotations, still])
    positions = jnp.concatenate([rest[:1], offsets, jnp.zeros_like(rest[:1])])
    ancestors = np.array([joints, *parents[1:], joints])
    while (ancestors != joints).any():
        above = rotations[ancestors]
        positions = positions[ancestors] + matvec3(above, positions)
        rotations = matmul3(above, rotations)
        ancestors = ancestors[ancestors]
    return jnp.moveaxis(rotations[:-1], 0, -3), jnp.moveaxis(positions[:-1], 0, -2)


def _pose_to_matrices(body: BodyModel, pose: Array) -> Array:
    """Local rotations [..., J, 3, 3] of axis-angle vectors or matrices."""
    joints = body.num_joints
    if pose.ndim >= 3 and pose.shape[-3:] == (joints, 3, 3):
        return pose
    if pose.ndim >= 2 and pose.shape[-2:] == (joints, 3):
        return axis_angle_to_matrix(pose)
    raise ValueError(
        f"pose: expected [..., {joints}, 3] (axis-angle) or [..., {joints}, 3, 3] "
        f"(matrices) for body {body.name!r}, got {pose.shape}"
    )


def posed_joints(
    body: BodyModel,
    betas: Float[Array, "... betas"],
    pose: Float[Array, "..."],
    translation_m: Float[Array, "... 3"] | None = None,
) -> tuple[Array, Array, Array, Array]:
    """Shape and kinematics without the mesh.

    Args:
        body: the body.
        betas: shape coefficients.
        pose: axis-angle [..., J, 3], radians, or matrices [..., J, 3, 3], each relative
            to the parent. Batch axes are broadcast against those of ``betas``.
        translation_m: added to every joint, metres.

    Returns:
        Local rotations, global rotations, posed joints and rest joints.

    Raises:
        ValueError: a shape is not the body's.
    """
    local = _pose_to_matrices(body, pose)
    shapes = [betas.shape[:-1], local.shape[:-3]]
    if translation_m is not None:
        shapes.append(translation_m.shape[:-1])
    batch = jnp.broadcast_shapes(*shapes)
    local = jnp.broadcast_to(local, (*batch, *local.shape[-3:]))
    rest = rest_joints(body, betas)
    rest = jnp.broadcast_to(rest, (*batch, *rest.shape[-2:]))
    rotations, joints = forward_kinematics(local, rest, body.parents)
    if translation_m is not None:
        joints = joints + jnp.broadcast_to(translation_m[..., None, :], joints.shape)
    return local, rotations, joints, rest


def body_forward(
    body: BodyModel,
    betas: Float[Array, "... betas"],
    pose: Float[Array, "..."],
    translation_m: Float[Array, "... 3"] | None = None,
    *,
    forward_mode: bool = False,
) -> BodyOutput:
    """Mesh and joints of a shaped and posed body.

    Args:
        body: the body.
        betas: shape coefficients.
        pose: axis-angle [..., J, 3], radians, or matrices [..., J, 3, 3], each relative
            to the parent. Batch axes are broadcast against those of ``betas``.
        translation_m: added to vertices and joints, metres.
        forward_mode: also allow ``jax.jvp`` and ``jax.jacfwd`` through the vertices, at
            the price of a slower gradient.

    Returns:
        Vertices, joints, global rotations and rest joints. Without ``translation_m``
        the root joint stays at its rest place. Gradients reach pose, betas,
        translation, and the arrays of the body that the forward reads.

    Raises:
        ValueError: a shape is not the body's.

    Source: SMPL (Loper et al. 2015), equations 2 to 10; IKOL specification section 5.
    """
    local, rotations, joints, rest = posed_joints(body, betas, pose)
    batch = local.shape[:-3]
    features = [jnp.broadcast_to(betas, (*batch, body.num_betas))]
    if body.has_pose_dirs:
        eye = jnp.broadcast_to(
            jnp.eye(3, dtype=local.dtype), local[..., 1:, :, :].shape
        )
        relative = local[..., 1:, :, :] - eye
        features.append(relative.reshape(*batch, 9 * (body.num_joints - 1)))
    offsets = joints - matvec3(rotations, rest)
    transforms = jnp.concatenate([rotations, offsets[..., None]], -1)
    vertices = skin(
        body.template_planes_m,
        body.basis_m,
        body.blend_weights,
        jnp.concatenate(features, -1),
        jnp.moveaxis(transforms, -3, -1),
        forward_mode=forward_mode,
    )
    if translation_m is not None:
        shift = translation_m[..., None, :]
        shape = jnp.broadcast_shapes(batch, translation_m.shape[:-1])
        vertices = jnp.broadcast_to(vertices, (*shape, *vertices.shape[-2:]))
        vertices = vertices + jnp.broadcast_to(shift, vertices.shape)
        joints = jnp.broadcast_to(joints, (*shape, *joints.shape[-2:]))
        joints = joints + jnp.broadcast_to(shift, joints.shape)
    return BodyOutput(vertices, joints, rotations, rest)


def regress_joints(
    body: BodyModel, vertices_m: Float[Array, "*batch verts 3"], name: str
) -> Float[Array, "*batch joints 3"]:
    """Joints of another set from the posed vertices.

    Args:
        body: the body.
        vertices_m: posed vertices, metres.
        name: key of ``body.extra_joint_regressors``, for example "h36m_17".

    Returns:
        Joints, metres.

    Raises:
        ValueError: the body has no such regressor.
    """
    if name not in body.extra_joint_regressors:
        known = ", ".join(sorted(body.extra_joint_regressors)) or "none"
        raise ValueError(
            f"body {body.name!r} has no extra joint regressor {name!r}; it has {known}"
        )
    return jnp.einsum(
        "kv,...vc->...kc",
        body.extra_joint_regressors[name],
        vertices_m,
        precision=lax.Precision.HIGHEST,
    )


def hand_pose_axis_angle(
    body: BodyModel,
    coefficients: Float[Array, "*batch components"],
    flat_hand_mean: bool = False,
) -> Float[Array, "*batch fingers 3"]:
    """Finger rotations from the hand's principal components.

    Args:
        body: a hand with ``hand_components`` and ``hand_mean``.
        coefficients: weights of the first components; up to all 45 of them.
        flat_hand_mean: measure from the flat hand instead of from the mean hand.

    Returns:
        Axis-angle of joints 1..J-1, radians.

    Raises:
        ValueError: the body is no such hand, or there are too many coefficients.
    """
    components = body.hand_components
    if components is None or body.hand_mean is None:
        raise ValueError(f"body {body.name!r} has no hand_components and hand_mean")
    count = coefficients.shape[-1]
    if count > components.shape[0]:
        raise ValueError(
            f"coefficients: expected at most {components.shape[0]}, got {count}"
        )
    pose = jnp.matmul(coefficients, components[:count], precision=lax.Precision.HIGHEST)
    if not flat_hand_mean:
        pose = pose + jnp.broadcast_to(body.hand_mean, pose.shape)
    return pose.reshape(*pose.shape[:-1], -1, 3)


def add_hand_mean(
    body: BodyModel, pose: Float[Array, "*batch joints 3"]
) -> Float[Array, "*batch joints 3"]:
    """Turn a pose measured from the mean hand into one measured from the flat hand.

    Args:
        body: a hand with ``hand_mean``.
        pose: axis-angle of the root and the finger joints, radians.

    Returns:
        The pose that ``body_forward`` expects.

    Raises:
        ValueError: the body has no mean hand.
    """
    if body.hand_mean is None:
        raise ValueError(f"body {body.name!r} has no hand_mean")
    mean = jnp.pad(body.hand_mean, (3, 0)).reshape(-1, 3)
    return pose + jnp.broadcast_to(mean, pose.shape)


def with_fingertips(
    joints_m: Float[Array, "*batch 16 3"],
    vertices_m: Float[Array, "*batch verts 3"],
    tip_vertices: tuple[int, ...] | None = None,
) -> Float[Array, "*batch 21 3"]:
    """The 21 joints of the ``mano_21`` set: kinematic joints and five fingertips.

    Args:
        joints_m: posed joints of a hand in ``mano_16`` order, metres.
        vertices_m: posed vertices, metres.
        tip_vertices: vertices of thumb, index, middle, ring and little finger tip;
            None takes MANO's.

    Returns:
        Joints in ``mano_21`` order, metres.
    """
    tips = vertices_m[..., jnp.array(tip_vertices or MANO_TIP_VERTICES), :]
    order = jnp.array(MANO_21_FROM_16_AND_TIPS)
    return jnp.concatenate([joints_m, tips], -2)[..., order, :]
