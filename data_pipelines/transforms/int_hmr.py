"""INT's training and test transforms, for single images and for clips.

Everything geometric, the colours and the erased side are drawn once for a clip: those
random numbers come first, and reading gives all frames of a clip the same.

Source: specs/int_hmr.md, sections 12 and 13.
"""

import math
from typing import ClassVar

import tensorflow as tf

from data_pipelines.transforms import colour, crop_labels, geometry, image, window
from data_pipelines.transforms.int_options import IntOptions, int_options
from data_pipelines.transforms.random_slots import Slots, between
from hmr_jax.body.joint_sets import JOINT_SETS

__all__ = ["IntOptions", "IntTransform", "int_options"]

SPIN_FLIP = JOINT_SETS["spin_49"].flip_permutation
SMPL_FLIP = JOINT_SETS["smpl_24"].flip_permutation
H36M_FLIP = JOINT_SETS["h36m_17"].flip_permutation
_HIPS = (27, 28)
_RIGHT_HAND = 23
LEFT, RIGHT, TOP, BOTTOM = range(4)
SLOTS = Slots(
    {"erase": 1, "erase_ratio": 1},
    clip={
        "scale": 1,
        "rotation": 1,
        "random_crop": 1,
        "crop_scale": 1,
        "shift": 2,
        "colour": 4,
        "order": 4,
        "side": 1,
        "flip": 1,
    },
)


class IntTransform:
    """Records of any dataset to INT's batches; frames of clips lie end to end.

    Args:
        options: from ``int_options``.
    """

    joint_set = "spin_49"
    fields = (
        *("image", "image_height", "image_width", "bbox_xywh_px", "keypoints_px"),
        *("joints_cam_m", "joints_h36m_cam_m", "intrinsics", "pose_aa", "betas"),
        *("has_smpl", "has_keypoints", "has_joints_3d", "has_camera"),
    )
    weights = ("has_smpl", "keypoints_norm", "joints_cam_m", "joints_h36m_cam_m")
    extras = ()
    traits: ClassVar[dict[str, float]] = {"has_box": 1.0}
    num_uniforms = SLOTS.num_uniforms
    num_clip_uniforms = SLOTS.num_clip_uniforms

    def __init__(self, options: IntOptions):
        self.options = options
        size = options.image_size_px
        self._sample = image.Sampler((size, size), self._finish)
        self._compiled_end = tf.function(self._end, jit_compile=True, autograph=False)
        self._has_jitter = max(options.colour_jitter, options.colour_jitter_2d) > 0

    def labels(self, records: dict, uniforms) -> tuple[dict, dict]:
        """Labels and the plan of the pixels of a batch.

        Args:
            records: ``fields`` as tensors [B, ...], joints in ``joint_set``; and the
                trait ``has_box`` [B], 0 where the box says nothing of the person.
            uniforms: float32 [B, num_uniforms] in (0, 1), of which the first
                ``num_clip_uniforms`` are equal in all frames of a clip.

        Returns:
            The batch without its image, and the plan for ``image``.
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
        plan |= _erased(draws, placement, o)
        plan |= _colours(r, draws, o)
        return _labels(r, placement, o), plan

    def _finish(self, pixels, plan: dict):
        """Rounding, and normalisation where no colours are changed in between."""
        # The originals' crops are 8-bit pictures.
        pixels = tf.floor(pixels + 0.5)
        if self._has_jitter:
            return pixels
        return image.normalize(pixels, self.options.normalization)

    def _end(self, pixels, kept):
        """Erasing and normalisation of a crop [S, S, 3]."""
        if self.options.erase > 0:
            pixels = erase(pixels, kept)
        return image.normalize(pixels, self.options.normalization)

    def image(self, plan: dict):
        """The pixels of one record.

        Args:
            plan: one record's part of what ``labels`` returned.

        Returns:
            float32 [S, S, 3], normalised RGB.
        """
        pixels = image.decode_window(plan["image"], plan["window"], plan["halvings"])
        if not self._has_jitter:
            names = ("warp", "kept") if self.options.erase > 0 else ("warp",)
            return self._sample(pixels, {name: plan[name] for name in names})
        pixels = self._sample(pixels, {"warp": plan["warp"]})
        pixels = tf.cond(
            plan["jittered"],
            lambda: colour.jitter(pixels, plan["amounts"], plan["order"]),
            lambda: pixels,
        )
        return self._compiled_end(pixels, plan["kept"])


def kept_part(side, lines, size: int):
    """What is left of crops of which a strip at one side is erased.

    Args:
        side: int32 [...]: 0 left, 1 right, 2 top, 3 bottom.
        lines: int32 [...], width of the strip.
        size: side of the crop.

    Returns:
        int32 [..., 4]: first column, end of the columns, first row, end of the rows.
    """
    zero = tf.zeros_like(lines)
    low = [tf.where(side == place, lines, zero) for place in (LEFT, TOP)]
    high = [size - tf.where(side == place, lines, zero) for place in (RIGHT, BOTTOM)]
    return tf.stack([low[0], high[0], low[1], high[1]], axis=-1)


def erase(pixels, kept):
    """Make all but a part of a crop black.

    Args:
        pixels: float32 [S, S, C].
        kept: int32 [4], from ``kept_part``.

    Returns:
        float32 [S, S, C].
    """
    place = tf.range(pixels.shape[0])
    seen = image.within(place[None, :], place[:, None], kept)
    return tf.where(seen[..., None], pixels, tf.zeros_like(pixels))


def _cut_side(size_wh, options: IntOptions):
    """Width and height [B, 2] px of what is cut out for a box of some size."""
    if options.stretch_box:
        return size_wh
    longest = tf.reduce_max(size_wh, axis=-1, keepdims=True)
    return tf.concat([longest, longest], axis=-1)


def _placement(r: dict, draws: dict, options: IntOptions) -> crop_labels.Placement:
    box, whole_scale = r["bbox_xywh_px"], options.box_scale
    centre, side = box[..., :2] + box[..., 2:] / 2, _cut_side(box[..., 2:], options)
    jitter = options.size_jitter
    scale = between(draws["scale"], whole_scale - jitter, whole_scale + jitter)
    low = whole_scale - options.random_crop_size
    part = between(draws["crop_scale"], low, whole_scale)
    partly = draws["random_crop"] < options.random_crop
    scale = tf.where(partly, part, scale)[..., None]
    reach = (whole_scale - scale) / 2
    shift = between(draws["shift"], -reach, reach)
    shift = tf.where(partly[..., None], shift, tf.zeros_like(shift))
    limit = math.radians(options.rotation_deg)
    rotation = between(draws["rotation"], -limit, limit)
    centre, cut = centre + side * shift, side * scale
    # Where nothing is known of the person the picture is taken as it is.
    sizes = tf.stack([r["image_width"], r["image_height"]], axis=-1)
    whole = r["has_box"] <= 0
    return crop_labels.place_then_flip(
        tf.where(whole[..., None], sizes / 2, centre),
        tf.where(whole[..., None], _cut_side(sizes, options), cut),
        rotation_rad=tf.where(whole, tf.zeros_like(rotation), rotation),
        flip=draws["flip"] < options.flip,
        width=r["image_width"],
        size_px=options.image_size_px,
    )


def _erased(draws: dict, placement: crop_labels.Placement, options: IntOptions) -> dict:
    side = tf.cast(draws["side"] * 4, tf.int32)
    if options.published_erase:
        side = tf.where(side < TOP, side + TOP, side)
    # The sides are those of the crop before it is mirrored.
    swapped = tf.where(side < TOP, 1 - side, side)
    side = tf.where(placement.flip, swapped, side)
    ratio = draws["erase_ratio"] * options.erase_part
    lines = tf.cast(tf.floor(options.image_size_px * ratio), tf.int32)
    wanted = draws["erase"] < options.erase
    lines = tf.where(wanted, lines, tf.zeros_like(lines))
    return {"kept": kept_part(side, lines, options.image_size_px)}


def _colours(r: dict, draws: dict, options: IntOptions) -> dict:
    has_3d = r["has_joints_3d"] > 0
    strength = tf.where(has_3d, options.colour_jitter, options.colour_jitter_2d)
    low = tf.maximum(1 - strength, 0.0)[..., None]
    factors = between(draws["colour"][..., :3], low, 1 + strength[..., None])
    hue = between(draws["colour"][..., 3:], -strength[..., None], strength[..., None])
    return {
        "jittered": strength > 0,
        "amounts": tf.concat([factors, hue], axis=-1),
        "order": tf.argsort(draws["order"], axis=-1),
    }


def mirrored_about_hips(joints, placement: crop_labels.Placement):
    """3D joints [B, 49, 4] mirrored about the middle of their hips, as published."""
    middle = (joints[:, _HIPS[0], :1] + joints[:, _HIPS[1], :1]) / 2
    middle = tf.pad(middle, [[0, 0], [0, 3]])[:, None]
    moved = crop_labels.points_cam(joints - middle, placement, SPIN_FLIP)
    return crop_labels.where_flipped(placement, moved + middle, joints)


def mirrored_pose(pose_aa, placement: crop_labels.Placement, options: IntOptions):
    """Rotations [B, 24, 3] of the mirrored, and perhaps turned, body."""
    pose = crop_labels.pose(pose_aa, placement, SMPL_FLIP, turn=options.turn_labels)
    if options.mirror_hand:
        return pose
    # As published: joint 22 takes the mirrored rotation of 23, which stays.
    return tf.concat([pose[:, :_RIGHT_HAND], pose_aa[:, _RIGHT_HAND:]], axis=1)


def _labels(r: dict, placement: crop_labels.Placement, options: IntOptions) -> dict:
    turn, size = options.turn_labels, options.image_size_px
    keypoints = crop_labels.points_px(r["keypoints_px"], placement, SPIN_FLIP)
    confidence = keypoints[..., 2:] * r["has_keypoints"][..., None, None]
    joints = r["joints_cam_m"] * r["has_joints_3d"][..., None, None]
    if options.mirror_about_hips:
        joints = mirrored_about_hips(joints, placement)
        if turn:
            joints = geometry.rotate_points_about_z(joints, placement.turn_rad)
    else:
        joints = crop_labels.points_cam(joints, placement, SPIN_FLIP, turn=turn)
    return {
        "keypoints_norm": tf.concat(
            [2 * keypoints[..., :2] / size - 1, confidence], -1
        ),
        "joints_cam_m": joints,
        "joints_h36m_cam_m": crop_labels.points_cam(
            r["joints_h36m_cam_m"], placement, H36M_FLIP, turn=turn
        ),
        "crop_intrinsics": crop_labels.crop_camera(
            r["intrinsics"], placement, turn=turn
        ),
        "has_camera": r["has_camera"][..., None],
        "pose_aa": mirrored_pose(r["pose_aa"], placement, options),
        "betas": r["betas"],
        "has_smpl": r["has_smpl"][..., None],
        "crop_to_image": geometry.invert_affine(placement.to_crop),
        "flipped": tf.cast(placement.flip, tf.float32),
        "bbox_xywh_px": r["bbox_xywh_px"],
    }
