"""IKOL's training and test transforms: records to the batches its network learns.

The geometry and the labels of a whole batch are made at once (``labels``); the pixels
of each record follow its plan (``image``). Both are pure functions of the records and
of numbers drawn uniformly from (0, 1), so that they are repeatable and testable.

Source: specs/ikol.md, sections 3, 12 and 14.
"""

import tensorflow as tf

from data_pipelines.transforms import crop_labels, geometry, image
from data_pipelines.transforms import ikol_crop as crops
from data_pipelines.transforms.ikol_options import IkolOptions, ikol_options
from hmr_jax.body.joint_sets import JOINT_SETS

__all__ = ["IkolOptions", "IkolTransform", "ikol_options"]

SMPL_FLIP = JOINT_SETS["smpl_24"].flip_permutation
H36M_FLIP = JOINT_SETS["h36m_17"].flip_permutation


class IkolTransform:
    """Records of any dataset to IKOL's batches.

    Args:
        options: from ``ikol_options``.
    """

    joint_set = "smpl_24"
    fields = (
        *("image", "image_height", "image_width", "bbox_xywh_px", "keypoints_px"),
        *("joints_cam_m", "joints_h36m_cam_m", "intrinsics", "pose_aa", "betas"),
        *("twist_cos_sin", "twist_weight", "has_smpl", "has_keypoints"),
        *("has_joints_3d", "has_camera", "has_root", "has_twist"),
    )
    weights = (
        *("target_uvd_weight", "target_quat_weight", "target_shape_weight"),
        *("target_twist_weight", "has_smpl", "joints_cam_m", "joints_h36m_cam_m"),
    )
    num_uniforms = crops.SLOTS.num_uniforms
    num_clip_uniforms = crops.SLOTS.num_clip_uniforms

    def __init__(self, options: IkolOptions):
        self.options = options
        size = options.image_size_px
        self._sample = image.Sampler((size, size), self._finish)

    def _finish(self, pixels, plan: dict):
        """Colour and normalisation of a crop [S, S, 3]."""
        if self.options.colour > 0:
            pixels *= plan["gain"]
            if self.options.colour_clip:
                pixels = tf.clip_by_value(pixels, 0.0, 255.0)
        return image.normalize(pixels, self.options.normalization)

    def labels(self, records: dict, uniforms) -> tuple[dict, dict]:
        """Labels and the plan of the pixels of a batch.

        Args:
            records: ``fields`` as tensors [B, ...], joints in ``joint_set``; and the
                traits ``crop_padding`` [B] and ``occlude`` [B].
            uniforms: float32 [B, num_uniforms] in (0, 1).

        Returns:
            The batch without its image, and the plan for ``image``.
        """
        r = _floats(records)
        draws = crops.SLOTS.split(uniforms)
        crop = crops.square(r, draws, self.options)
        labels = _labels(r, crop, self.options)
        return labels, crops.pixel_plan(r, records["image"], crop, draws, self.options)

    def image(self, plan: dict):
        """The pixels of one record.

        Args:
            plan: one record's part of what ``labels`` returned.

        Returns:
            float32 [S, S, 3], normalised RGB.
        """
        pixels = image.decode_window(plan["image"], plan["window"], plan["halvings"])
        if self.options.occlusion > 0:
            pixels = image.paint_noise(pixels, plan["rectangle"], plan["noise_seed"])
        return self._sample(pixels, {"warp": plan["warp"], "gain": plan["gain"]})


def _floats(records: dict) -> dict:
    return {
        name: tf.cast(value, tf.float32)
        for name, value in records.items()
        if name != "image"
    }


def _camera(r: dict, crop: dict) -> tuple:
    """Intrinsics and root of each record, made up where they are not known.

    The made-up camera is centred and sees the crop's side as two metres, so that what
    the network's unsupervised depth does there stays in human proportions.
    """
    known = r["has_camera"] > 0
    diagonal = tf.sqrt(r["image_width"] ** 2 + r["image_height"] ** 2)
    zero, one = tf.zeros_like(diagonal), tf.ones_like(diagonal)
    rows = [
        [diagonal, zero, (r["image_width"] - 1) / 2],
        [zero, diagonal, (r["image_height"] - 1) / 2],
        [zero, zero, one],
    ]
    made_up = tf.stack([tf.stack(row, axis=-1) for row in rows], axis=-2)
    intrinsics = tf.where(known[..., None, None], r["intrinsics"], made_up)
    has_root = known & (r["has_root"] > 0) & (r["has_joints_3d"] > 0)
    has_root &= r["joints_cam_m"][:, 0, 3] > 0
    focal = intrinsics[..., 0, 0]
    depth = 2 * focal / crop["side"]
    middle = tf.concat([crop["centre"], tf.ones_like(crop["centre"][..., :1])], axis=-1)
    ray = tf.linalg.matvec(geometry.invert_intrinsics(intrinsics), middle)
    root = tf.where(
        has_root[..., None], r["joints_cam_m"][:, 0, :3], ray * depth[..., None]
    )
    return intrinsics, root


def _uvd(r: dict, crop: dict, intrinsics, options: IkolOptions) -> tuple:
    """Crop coordinates and relative depth of the joints, and their weights.

    Only absolute joints before a known camera are projected; depths are those below
    the record's own root and count where that is labelled.
    """
    placement = crop["placement"]
    points, valid = r["joints_cam_m"][..., :3], r["joints_cam_m"][..., 3]
    valid *= r["has_joints_3d"][..., None]
    in_front = tf.cast(points[..., 2] > 0.01, tf.float32)
    absolute = r["has_camera"] * r["has_root"]
    projects = valid * in_front * absolute[..., None]
    seen = tf.cast(r["keypoints_px"][..., 2] > 0, tf.float32)
    seen *= r["has_keypoints"][..., None]
    pixels = tf.where(
        projects[..., None] > 0,
        geometry.project(points, intrinsics),
        r["keypoints_px"][..., :2],
    )
    weight_uv = tf.maximum(projects, seen)
    valid *= valid[:, :1]
    depth = (points[..., 2] - points[:, :1, 2]) / options.depth_range_m * valid
    pixels *= tf.cast(weight_uv > 0, pixels.dtype)[..., None]

    def swap(values):
        return crop_labels.swap_sides(values, placement, SMPL_FLIP)

    weight_uv, valid, depth = swap(weight_uv), swap(valid), swap(depth)
    uv = crop_labels.points_px(pixels, placement, SMPL_FLIP)
    uv = uv / options.image_size_px - 0.5
    uvd = tf.concat([uv, depth[..., None]], axis=-1)
    inside = tf.reduce_all(tf.abs(uvd) <= 0.5, axis=-1)
    if options.keep_outside_2d:
        inside |= r["has_joints_3d"][..., None] == 0
    keep = tf.cast(inside, tf.float32)
    weight = tf.stack([weight_uv, weight_uv, valid * weight_uv], axis=-1)
    weight *= keep[..., None]
    any_weight = weight_uv[..., None] > 0
    return tf.where(any_weight, uvd, tf.zeros_like(uvd)), weight


def _rotations(r: dict, crop: dict, options: IkolOptions) -> tuple:
    """Rotation labels as axis-angle vectors and as quaternions."""
    pose_aa = crop_labels.pose(
        r["pose_aa"], crop["placement"], SMPL_FLIP, turn=options.rotate_root_label
    )
    if options.quaternion_form == "rotmat":
        return pose_aa, geometry.quaternion_by_trace(pose_aa)
    quaternion = geometry.axis_angle_to_quaternion(pose_aa)
    if options.quaternion_form == "positive":
        quaternion = geometry.positive_quaternion(quaternion)
    return pose_aa, quaternion


def _labels(r: dict, crop: dict, options: IkolOptions) -> dict:
    """The batch without its image."""
    placement = crop["placement"]
    intrinsics, root = _camera(r, crop)
    uvd, uvd_weight = _uvd(r, crop, intrinsics, options)
    if options.flip_camera:
        intrinsics = crop_labels.camera(intrinsics, placement)
        root = crop_labels.point_cam(root, placement)
    pose, quaternion = _rotations(r, crop, options)
    twist, twist_weight = crop_labels.twist(
        r["twist_cos_sin"],
        r["twist_weight"] * r["has_twist"][..., None],
        placement,
        SMPL_FLIP,
    )
    has_smpl = r["has_smpl"][..., None]
    return {
        "crop_to_image": geometry.invert_affine(placement.mirrored_to_crop),
        "intrinsics_inv": geometry.invert_intrinsics(intrinsics),
        "root_cam_m": root,
        "target_uvd": uvd,
        "target_uvd_weight": uvd_weight,
        "target_quat": quaternion,
        "target_quat_weight": tf.ones_like(quaternion[..., :1]) * has_smpl[..., None],
        "target_shape": r["betas"],
        "target_shape_weight": has_smpl,
        "target_twist": twist,
        "target_twist_weight": tf.repeat(twist_weight[..., None], 2, axis=-1),
        "has_smpl": has_smpl,
        "joints_cam_m": crop_labels.points_cam(
            r["joints_cam_m"] * r["has_joints_3d"][..., None, None],
            placement,
            SMPL_FLIP,
        ),
        "joints_h36m_cam_m": crop_labels.points_cam(
            r["joints_h36m_cam_m"], placement, H36M_FLIP
        ),
        "pose_aa": pose,
        "betas": r["betas"],
        "bbox_xywh_px": crop_labels.box_xywh(r["bbox_xywh_px"], placement),
    }
