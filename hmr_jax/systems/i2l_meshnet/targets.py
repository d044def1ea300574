"""I2L-MeshNet's targets that need the body model, made on the accelerator.

``data_pipelines.transforms.i2l`` cuts the crop and moves the labels; here the labelled
body is posed, mirrored with its picture, projected into the heatmap's cells and
compared with the dataset's own joints.

Source: specs/i2l_meshnet.md, sections 10.6 to 10.9 and 11.
"""

import functools
from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from hmr_jax.body.forward import (
    add_hand_mean,
    body_forward,
    regress_joints,
    rest_joints,
    with_fingertips,
)
from hmr_jax.body.joint_sets import SMPL_VERTEX_JOINTS, map_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry import safe
from hmr_jax.geometry.cameras import apply_affine, perspective_project
from hmr_jax.geometry.matrices import matmul3, matvec3
from hmr_jax.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle

MAX_ERROR_MM = 25.0
"""A fit to 3D joints that is worse is not used."""
MAX_ERROR_CELLS = 3.0
"""A fit to 2D keypoints that is worse is not used."""
MAX_BETA = 3.0
"""A shape coefficient beyond makes the whole shape target zero."""
_COCO_SLOTS = (24, 25, 26, 27, 28, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8, 0)
_LEFT_HIP, _RIGHT_HIP = 11, 12
_H36M = "h36m_right_first_17"


def camera_translation(batch: Mapping[str, Array], rest_root_m: Array) -> Array:
    """Translation of the body in the camera frame.

    Args:
        batch: ``translation_m`` [B, 3] and, where that follows only with the body,
            ``translation_world_m`` [B, 3] and ``extrinsics`` [B, 4, 4].
        rest_root_m: [B, 3], shaped rest root joint.

    Returns:
        [B, 3] metres: R (J0 + t) + T - J0 where only the world's is given.

    Source: specs/i2l_meshnet.md, section 11.1.
    """
    given, world = batch["translation_m"], batch["translation_world_m"]
    rotation, shift = batch["extrinsics"][:, :3, :3], batch["extrinsics"][:, :3, 3]
    moved = matvec3(rotation, rest_root_m + world) + shift - rest_root_m
    follows = jnp.all(given == 0, -1, keepdims=True)
    follows &= jnp.any(world != 0, -1, keepdims=True)
    return jnp.where(follows, moved, given)


def _mirror_shift(batch: Mapping[str, Array], root_m: Array) -> Array:
    """Metres [B] along x that put the mirrored root where its picture has it.

    The camera stays as it is, as published; the middle of the old and new root pixel is
    the picture's middle column.
    """
    camera = batch["intrinsics"]
    middle = (batch["image_width_px"] - 1) / 2 - camera[:, 0, 2]
    x = safe.divide(middle, camera[:, 0, 0]) * root_m[:, 2]
    return batch["flipped"] * 2 * (x - root_m[:, 0])


def posed_fit(
    body: BodyModel,
    batch: Mapping[str, Array],
    *,
    hand: bool = False,
    joint_vertices: tuple[int, ...] | None = None,
) -> tuple[Array, Array]:
    """Mesh and joints of the labelled body before the (mirrored) picture's camera.

    Args:
        body: neutral SMPL, or a right hand.
        batch: from ``I2lTransform``.
        hand: the body is a hand; its pose is measured from the mean hand.
        joint_vertices: vertices that are the joints after the kinematic ones: nose,
            eyes and ears, or fingertips from the thumb on. None takes SMPL's or MANO's
            (whose middle fingertip is vertex 444, as in the published layer).

    Returns:
        Vertices [B, V, 3] and joints [B, 29 or 21, 3], metres.

    Source: specs/i2l_meshnet.md, sections 3, 10.7, 11.1, 11.5.
    """
    betas, pose = batch["betas"], batch["pose_aa"]
    if hand:
        out = body_forward(
            body, betas, add_hand_mean(body, pose), batch["translation_m"]
        )
        return out.vertices_m, with_fingertips(
            out.joints_m, out.vertices_m, joint_vertices
        )
    root = rest_joints(body, betas)[:, 0]
    translation = camera_translation(batch, root)
    shift = _mirror_shift(batch, root + translation)
    translation = translation.at[:, 0].add(shift)
    out = body_forward(body, betas, pose, translation)
    face = joint_vertices or SMPL_VERTEX_JOINTS["i2l_smpl_29"]
    ends = out.vertices_m[:, jnp.array(face)]
    return out.vertices_m, jnp.concatenate([out.joints_m, ends], 1)


def _cells_xy(
    points_m: Array, batch: Mapping[str, Array], cells_per_px: float
) -> Array:
    pixels = perspective_project(points_m, batch["intrinsics"])
    return apply_affine(batch["image_to_crop"], pixels) * cells_per_px


def to_heatmap(
    points_m: Array,
    root_m: Array,
    batch: Mapping[str, Array],
    *,
    image_size_px: int = 256,
    heatmap_size: int = 64,
    depth_range_m: float = 2.0,
) -> tuple[Array, Array]:
    """Points in the heatmap's cells.

    Args:
        points_m: [B, N, 3] metres, camera frame.
        root_m: [B, 3].
        batch: ``intrinsics`` and ``image_to_crop``.
        image_size_px: side of the crop.
        heatmap_size: cells of each axis.
        depth_range_m: metres over which z goes through the heatmap.

    Returns:
        [B, N, 3] cells, and [B, N, 1], 1 where they lie in the heatmap and before the
        camera.

    Source: specs/i2l_meshnet.md, section 10.6.
    """
    xy = _cells_xy(points_m, batch, heatmap_size / image_size_px)
    z = points_m[..., 2:] - root_m[:, None, 2:]
    z = (z / (depth_range_m / 2) + 1) / 2 * heatmap_size
    cells = jnp.concatenate([xy, z], -1)
    inside = jnp.all((cells >= 0) & (cells < heatmap_size), -1, keepdims=True)
    # Points in the camera's plane have no pixel, and those behind it another's.
    inside &= points_m[..., 2:] > 0
    return cells, inside.astype(points_m.dtype)


def _masked_mean(values: Array, weight: Array) -> Array:
    """Mean of [B, N, ...] over N by weights [B, N, 1...]."""
    return safe.divide(jnp.sum(values * weight, 1), jnp.sum(weight, 1))


def fit_error_mm(body: BodyModel, vertices_m: Array, target_cam_m: Array) -> Array:
    """Mean distance of a fit's joints from the dataset's, about their common centre.

    Args:
        body: with the regressor ``h36m_right_first_17``, or ``h36m_17``.
        vertices_m: [B, V, 3].
        target_cam_m: [B, 17, 4] of ``h36m_right_first_17``, metres and validity.

    Returns:
        [B] millimetres.

    Raises:
        ValueError: the body has neither regressor.

    Source: specs/i2l_meshnet.md, sections 11.1 and 11.2.
    """
    if _H36M in body.extra_joint_regressors:
        joints = regress_joints(body, vertices_m, _H36M)
    else:
        index, _ = map_joints("h36m_17", _H36M)
        joints = regress_joints(body, vertices_m, "h36m_17")[:, index]
    target, valid = target_cam_m[..., :3], target_cam_m[..., 3:]
    joints = joints - _masked_mean(joints, valid)[:, None]
    target = target - _masked_mean(target, valid)[:, None]
    return _masked_mean(safe.norm(joints - target, axis=-1), valid[..., 0]) * 1000


def fit_error_cells(
    body: BodyModel,
    vertices_m: Array,
    batch: Mapping[str, Array],
    *,
    cells_per_px: float,
    published_pelvis: bool = False,
) -> Array:
    """Mean distance of a fit's projected COCO joints from the labelled keypoints.

    Args:
        body: with the regressor ``coco_17``.
        vertices_m: [B, V, 3].
        batch: from ``I2lTransform``.
        cells_per_px: cells of the heatmap per pixel of the crop.
        published_pelvis: give the pelvis the product of the hips' depths as its depth,
            as the original does by mistake, which rejects good fits off the middle.

    Returns:
        [B] cells.

    Raises:
        ValueError: the body has no such regressor.

    Source: specs/i2l_meshnet.md, sections 11.3 and 17.1.
    """
    joints = regress_joints(body, vertices_m, "coco_17")
    hips = joints[:, _LEFT_HIP], joints[:, _RIGHT_HIP]
    pelvis = (hips[0] + hips[1]) / 2
    if published_pelvis:
        pelvis = pelvis.at[:, 2].set(hips[0][:, 2] * hips[1][:, 2])
    joints = jnp.concatenate([joints, pelvis[:, None]], 1)
    found = _cells_xy(joints, batch, cells_per_px)
    slots = jnp.array(_COCO_SLOTS)
    distance = safe.norm(found - batch["orig_joint_img"][:, slots, :2], axis=-1)
    return _masked_mean(distance, batch["orig_joint_valid"][:, slots, 0])


def _turned(rotation: Array, points: Array) -> Array:
    """Rotations [B, 3, 3] of points [B, N, 3]."""
    return jnp.swapaxes(matmul3(rotation, jnp.swapaxes(points, 1, 2)), 1, 2)


def _turned_pose(batch: Mapping[str, Array]) -> tuple[Array, Array]:
    """Rotation [B, 3, 3] of the crop's content, and the pose turned by it."""
    pose = batch["pose_aa"]
    axis = jnp.zeros_like(pose[:, 0]).at[:, 2].set(batch["turn_rad"])
    turn = axis_angle_to_matrix(axis)
    root = matmul3(turn, axis_angle_to_matrix(pose[:, 0]))
    return turn, pose.at[:, 0].set(matrix_to_axis_angle(root))


def _checked_fit(
    body: BodyModel,
    vertices_m: Array,
    batch: Mapping[str, Array],
    cells_per_px: float,
    published_pelvis: bool,
) -> tuple[Array, Array]:
    """Error [B] of each fit, and [B, 1] whether it is there and good enough.

    Fits are compared with 3D joints where there are any, which need no root. A fit
    that nothing can be compared with has the error 0 and stands, as in the original.
    """
    has_fit = batch["has_smpl"]
    is_3d = jnp.any(batch["fit_check_cam_m"][..., 3] > 0, -1)
    cells = fit_error_cells(
        body,
        vertices_m,
        batch,
        cells_per_px=cells_per_px,
        published_pelvis=published_pelvis,
    )
    mm = fit_error_mm(body, vertices_m, batch["fit_check_cam_m"])
    error = jnp.where(is_3d, mm, cells)
    limit = jnp.where(is_3d, MAX_ERROR_MM, MAX_ERROR_CELLS)
    return error, has_fit * (error <= limit)[:, None].astype(has_fit.dtype)


def i2l_targets(
    body: BodyModel,
    batch: Mapping[str, Array],
    *,
    hand: bool = False,
    image_size_px: int = 256,
    heatmap_size: int = 64,
    depth_range_m: float = 2.0,
    joint_vertices: tuple[int, ...] | None = None,
    published_pelvis: bool = False,
    check_fits: bool = True,
) -> dict[str, Array]:
    """Targets of a batch from its fitted bodies.

    Args:
        body: neutral SMPL with the regressors of the fit checks, or a right hand.
        batch: from ``data_pipelines.transforms.i2l.I2lTransform``.
        hand: the body is a hand: no fit is rejected, no shape is dropped.
        image_size_px: side of the crop.
        heatmap_size: cells of each axis of the heatmaps.
        depth_range_m: metres over which z goes through the heatmap: 2, or 0.3 for
            hands.
        joint_vertices: as in ``posed_fit``.
        published_pelvis: as in ``fit_error_cells``.
        check_fits: reject fits that are far from the dataset's own joints; not needed
            where both come from one model, as in rendered data.

    Returns:
        ``fit_joint_img`` [B, J, 3] and ``fit_mesh_img`` [B, V, 3] cells,
        ``fit_joint_trunc`` and ``fit_mesh_trunc`` [B, N, 1], ``fit_joint_cam_m`` [B, J,
        3] from the root and turned with the crop, ``pose_param`` [B, 3 P],
        ``shape_param`` [B, 10], ``is_valid_fit`` [B, 1], and ``fitting_error`` [B] in
        millimetres (3D) or cells (2D). Targets are zero where there is no fit at all;
        a rejected fit has ``is_valid_fit`` 0.

    Raises:
        ValueError: the body lacks a regressor.

    Source: specs/i2l_meshnet.md, sections 10.6 to 10.9 and 11.
    """
    vertices, joints = posed_fit(body, batch, hand=hand, joint_vertices=joint_vertices)
    has_fit = batch["has_smpl"]
    if hand or not check_fits:
        error, good = jnp.zeros_like(has_fit[:, 0]), has_fit
    else:
        error, good = _checked_fit(
            body, vertices, batch, heatmap_size / image_size_px, published_pelvis
        )
    cells = functools.partial(
        to_heatmap,
        root_m=joints[:, 0],
        batch=batch,
        image_size_px=image_size_px,
        heatmap_size=heatmap_size,
        depth_range_m=depth_range_m,
    )
    joint_img, joint_in = cells(joints)
    mesh_img, mesh_in = cells(vertices)
    turn, pose = _turned_pose(batch)
    betas = batch["betas"]
    if not hand:
        far = jnp.any(jnp.abs(betas) > MAX_BETA, -1, keepdims=True)
        betas = jnp.where(far, jnp.zeros_like(betas), betas)
    targets = {
        "fit_joint_img": joint_img,
        "fit_mesh_img": mesh_img,
        "fit_joint_trunc": joint_in,
        "fit_mesh_trunc": mesh_in,
        "fit_joint_cam_m": _turned(turn, joints - joints[:, :1]),
        "pose_param": pose.reshape(*pose.shape[:-2], -1),
        "shape_param": betas,
    }

    def kept(value):
        mask = has_fit.reshape(-1, *[1] * (value.ndim - 1)) > 0
        return jnp.where(mask, value, jnp.zeros_like(value))

    kept_targets = {name: kept(value) for name, value in targets.items()}
    return kept_targets | {"is_valid_fit": good, "fitting_error": error}
