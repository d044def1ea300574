"""I2L-MeshNet's training and test transforms, for bodies and for hands.

Targets that need the body model (mesh, fitted joints, whether a fit is good enough)
cannot be made here: the batch carries the mirrored pose, the shape, the translation,
the camera and the affine map, from which ``hmr_jax.systems.i2l_meshnet.targets`` makes
them on the accelerator.

Source: specs/i2l_meshnet.md, sections 8, 10 and 11.
"""

import tensorflow as tf

from data_pipelines import record_fields
from data_pipelines.transforms import crop_labels, geometry, image, window
from data_pipelines.transforms.i2l_options import I2lOptions, i2l_options
from data_pipelines.transforms.random_slots import Slots, between, scale_and_rotation
from hmr_jax.body.joint_set import JointSet
from hmr_jax.body.joint_sets import JOINT_SETS

__all__ = ["I2lOptions", "I2lTransform", "i2l_options", "process_box"]


def _sides(*names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names for side in ("left", "right"))


_NAMES = (
    *("pelvis_extra", *_sides("hip_extra"), "spine_extra", *_sides("knee"), "spine2"),
    *(*_sides("ankle"), "spine3", *_sides("toe_3dhp"), "neck_extra"),
    *(*_sides("collar"), "head", *_sides("shoulder", "elbow", "wrist", "hand_3dhp")),
    *("nose", *_sides("eye", "ear"), "head_extra", "headtop"),
)
BODY_LABELS = JointSet("i2l_labels_31", _NAMES, (-1,) * len(_NAMES))
"""The network's 29 joints under the names that Human3.6M, MuCo and COCO have for them,
and two that stand for one joint or another (``_arranged``)."""
_SPINE, _SPINE2, _LEFT_TOE, _HEAD, _NOSE, _HEAD_EXTRA = 3, 6, 10, 15, 24, 29
H36M_SLOTS = (0, 2, 5, 8, 1, 4, 7, 3, 12, 24, 30, 16, 18, 20, 17, 19, 21)
"""Of the arranged joints those of ``h36m_right_first_17``."""
SLOTS = Slots(
    {"scale": 1, "rotate": 1, "rotation": 1, "colour": 3, "flip": 1},
)


def process_box(box_xywh, width, height, padding: float):
    """The square around a box that is cut out.

    Args:
        box_xywh: [..., 4] px, left, top, width, height.
        width: [...] px, of the image.
        height: [...] px.
        padding: side of the square over the longer side of the box in the image.

    Returns:
        Centre [..., 2] px and side [...] px. A box that starts left of the image or
        above it is shifted into it, not cut, as published.

    Source: specs/i2l_meshnet.md, section 10.2.
    """
    x, y, w, h = tf.unstack(box_xywh, axis=-1)
    zero = tf.zeros_like(x)
    left, top = tf.maximum(x, zero), tf.maximum(y, zero)
    right = tf.minimum(width - 1, left + tf.maximum(w - 1, zero))
    bottom = tf.minimum(height - 1, top + tf.maximum(h - 1, zero))
    centre = tf.stack([left + right, top + bottom], axis=-1) / 2
    side = tf.maximum(right - left, bottom - top) * padding
    return centre, tf.maximum(side, tf.ones_like(side))


class I2lTransform:
    """Records of any dataset to I2L-MeshNet's batches.

    Args:
        options: from ``i2l_options``.
    """

    fields = (
        *("image", "image_height", "image_width", "bbox_xywh_px", "keypoints_px"),
        *("joints_cam_m", "intrinsics", "extrinsics", "pose_aa", "betas"),
        *("translation_m", "has_smpl", "has_keypoints", "has_joints_3d", "has_camera"),
        *("has_root", "translation_world_m", "box_is_crop", "root_depth_m"),
    )
    weights = ("has_smpl", "is_3d", "orig_joint_valid", "orig_joint_trunc")
    extras = (
        record_fields.WORLD_TRANSLATION,
        record_fields.BOX_IS_CROP,
        record_fields.ROOT_DEPTH,
    )
    num_uniforms = SLOTS.num_uniforms
    num_clip_uniforms = SLOTS.num_clip_uniforms

    def __init__(self, options: I2lOptions):
        self.options = options
        body = options.mode == "body"
        self.joint_set = BODY_LABELS if body else JOINT_SETS["mano_21"]
        rotations = JOINT_SETS["smpl_24" if body else "mano_16"]
        self._pose_flip = rotations.flip_permutation
        size = options.image_size_px
        self._sample = image.Sampler((size, size), self._finish)

    def _finish(self, pixels, plan: dict):
        if self.options.colour > 0:
            pixels = tf.clip_by_value(pixels * plan["gain"], 0.0, 255.0)
        return image.normalize(pixels, self.options.normalization)

    def labels(self, records: dict, uniforms) -> tuple[dict, dict]:
        """Labels and the plan of the pixels of a batch.

        Args:
            records: ``fields`` as tensors [B, ...], joints in ``joint_set``.
            uniforms: float32 [B, num_uniforms] in (0, 1).

        Returns:
            The batch without its image, and the plan for ``image``. Joints are in
            the cells of the heatmap (``..._img``) or metres from the root
            (``..._cam_m``), turned with the crop; pose, translation and cameras are
            those of the mirrored, unturned world and of the file's image.
        """
        o = self.options
        r = {k: tf.cast(v, tf.float32) for k, v in records.items() if k != "image"}
        draws = SLOTS.split(uniforms)
        placement = _placement(r, draws, o)
        plan = window.pixel_plan(
            records["image"],
            (r["image_height"], r["image_width"]),
            placement,
            o.image_size_px,
            reduce_jpeg=o.reduce_jpeg,
        )
        plan["gain"] = between(draws["colour"], 1 - o.colour, 1 + o.colour)
        labels = _body_labels(r, placement, self._pose_flip)
        joints = _original_joints if o.original_joints else _no_joints
        return labels | joints(r, placement, o), plan

    def image(self, plan: dict):
        """The pixels of one record.

        Args:
            plan: one record's part of what ``labels`` returned.

        Returns:
            float32 [S, S, 3], normalised RGB.
        """
        pixels = image.decode_window(plan["image"], plan["window"], plan["halvings"])
        return self._sample(pixels, {"warp": plan["warp"], "gain": plan["gain"]})


def _placement(r: dict, draws: dict, options: I2lOptions) -> crop_labels.Placement:
    box, width = r["bbox_xywh_px"], r["image_width"]
    centre, side = process_box(box, width, r["image_height"], options.padding)
    side = tf.stack([side, side], axis=-1)
    ready = r["box_is_crop"][..., None] > 0
    centre = tf.where(ready, box[..., :2] + box[..., 2:] / 2, centre)
    side = tf.where(ready, box[..., 2:], side)
    scale, rotation = scale_and_rotation(
        draws,
        scale_deviation=options.scale_deviation,
        rotation_deg=options.rotation_deg,
        rotation_probability=options.rotation_probability,
    )
    return crop_labels.place(
        centre,
        side * scale[..., None],
        rotation_rad=rotation,
        flip=draws["flip"] < options.flip,
        width=width,
        size_px=options.image_size_px,
    )


def _body_labels(r: dict, placement: crop_labels.Placement, pose_flip) -> dict:
    """What ``hmr_jax.systems.i2l_meshnet.targets`` needs of the body and the camera."""
    image_to_crop = placement.mirrored_to_crop
    return {
        "image_to_crop": image_to_crop,
        "crop_to_image": geometry.invert_affine(image_to_crop),
        "flipped": tf.cast(placement.flip, tf.float32),
        "turn_rad": placement.turn_rad,
        "image_width_px": r["image_width"],
        "intrinsics": r["intrinsics"],
        "crop_intrinsics": crop_labels.crop_camera(
            r["intrinsics"], placement, turn=True
        ),
        "extrinsics": r["extrinsics"],
        "pose_aa": crop_labels.pose(r["pose_aa"], placement, pose_flip),
        "betas": r["betas"],
        "translation_m": r["translation_m"],
        "translation_world_m": r["translation_world_m"],
        "has_smpl": r["has_smpl"][..., None],
        "is_3d": r["has_joints_3d"][..., None],
        "root_depth_m": r["root_depth_m"],
        "bbox_xywh_px": crop_labels.box_xywh(r["bbox_xywh_px"], placement),
    }


def _arranged(values, is_muco):
    """Joints [B, 31, C] at the places that their dataset's names give them.

    MuCo's ``Spine`` and ``Head`` are the network's second spine joint and its head,
    Human3.6M's ``Torso`` and ``Nose``, the same points of the body, its first spine
    joint and its nose.
    """
    rows = tf.unstack(values, axis=1)
    muco = is_muco[:, None]
    zero = tf.zeros_like(rows[0])
    both = rows[_HEAD_EXTRA]
    known = both[:, -1:] > 0
    rows[_SPINE2] = tf.where(muco, rows[_SPINE], rows[_SPINE2])
    rows[_SPINE] = tf.where(muco, zero, rows[_SPINE])
    rows[_HEAD] = tf.where(muco & known, both, rows[_HEAD])
    rows[_NOSE] = tf.where(~muco & known, both, rows[_NOSE])
    return tf.stack(rows, axis=1)


def _with_pelvis(keypoints):
    """2D joints [B, 31, 3] with the middle of the hips where the pelvis is missing."""
    hips = keypoints[:, 1:3]
    middle = tf.reduce_mean(hips[..., :2], axis=1)
    seen = tf.reduce_prod(hips[..., 2:], axis=1)
    made = tf.concat([middle, seen], axis=-1)
    pelvis = tf.where(keypoints[:, 0, 2:] > 0, keypoints[:, 0], made)
    return tf.concat([pelvis[:, None], keypoints[:, 1:]], axis=1)


def _original_joints(
    r: dict, placement: crop_labels.Placement, options: I2lOptions
) -> dict:
    """Targets from the dataset's own joints, and what fits are compared with.

    Depths and distances are those from the root: a record without it counts as one
    that has no 3D joints.
    """
    is_3d = r["has_joints_3d"][..., None]
    seen = tf.cast(r["keypoints_px"][..., 2:] > 0, tf.float32)
    seen *= r["has_keypoints"][..., None, None]
    points = r["joints_cam_m"] * is_3d[..., None]
    is_muco = tf.maximum(seen[:, _LEFT_TOE, 0], points[:, _LEFT_TOE, 3]) > 0
    pixels = tf.concat([r["keypoints_px"][..., :2], seen], axis=-1)
    pixels = _with_pelvis(_arranged(pixels, is_muco))
    points = _arranged(points, is_muco)
    flip = BODY_LABELS.flip_permutation
    h36m = tf.gather(points, H36M_SLOTS, axis=1)
    h36m = crop_labels.points_cam(
        h36m, placement, JOINT_SETS["h36m_right_first_17"].flip_permutation
    )
    is_3d *= points[:, 0, 3:]
    points *= is_3d[..., None]
    absolute = r["has_camera"] * r["has_root"]
    projects = points[..., 3:] * absolute[..., None, None]
    projected = geometry.project(points[..., :3], r["intrinsics"])
    known = pixels[..., 2:] > 0
    places = tf.where(known, pixels[..., :2], projected)
    # A 3D joint counts whether seen or not; a 2D one where it is labelled.
    valid = tf.where(is_3d[..., None] > 0, points[..., 3:], pixels[..., 2:])
    placed = known | (projects > 0)
    places = tf.where(placed, places, tf.zeros_like(places))
    columns = [places, valid, tf.cast(placed, tf.float32)]
    moved = crop_labels.points_px(tf.concat(columns, -1), placement, flip)
    relative = points[..., :3] - points[:, :1, :3]
    relative = tf.concat([relative * points[..., 3:], points[..., 3:]], axis=-1)
    relative = crop_labels.points_cam(relative, placement, flip, turn=True)[..., :3]
    return _targets(moved[:, :29], relative[:, :29], is_3d[..., None], options) | {
        "fit_check_cam_m": h36m,
        "is_3d": is_3d,
    }


def _targets(places, relative, is_3d, options: I2lOptions) -> dict:
    """Of joints with their place, validity and whether the place is known."""
    cells = options.heatmap_size
    valid, placed = places[..., 2:3], places[..., 3:]
    xy = places[..., :2] * (cells / options.image_size_px)
    z = (relative[..., 2:] / (options.depth_range_m / 2) + 1) / 2 * cells
    z *= is_3d
    heat = tf.concat([xy, z], axis=-1) * valid * placed
    inside = tf.reduce_all((heat >= 0) & (heat < cells), axis=-1, keepdims=True)
    return {
        "orig_joint_img": heat,
        "orig_joint_cam_m": relative,
        "orig_joint_valid": valid,
        "orig_joint_trunc": valid * placed * tf.cast(inside, tf.float32),
    }


def _no_joints(r: dict, placement: crop_labels.Placement, options: I2lOptions) -> dict:
    """The same keys, all zero: a hand has only its fitted model."""
    batch = tf.shape(r["image_width"])[0]
    shapes = {"orig_joint_img": 3, "orig_joint_cam_m": 3}
    shapes |= {"orig_joint_valid": 1, "orig_joint_trunc": 1}
    joints = 21 if options.mode == "hand" else 29
    zeros = {name: tf.zeros([batch, joints, n]) for name, n in shapes.items()}
    return zeros | {
        "fit_check_cam_m": tf.zeros([batch, 17, 4]),
        "is_3d": tf.ones([batch, 1]),
    }
