"""pose_hg's training and test transforms: crops, heatmaps and depths.

2D and 3D datasets give the same batch. A record without 3D joints has no depths: its
``reg_mask`` is 0 and its ``reg_target`` says which joints are seen.

Source: specs/pose_hg.md, sections 3.2, 6, 8.0 and 9.
"""

import tensorflow as tf

from data_pipelines import record_fields
from data_pipelines.transforms import crop_labels, geometry, image, window
from data_pipelines.transforms.pose_hg_options import PoseHgOptions, pose_hg_options
from data_pipelines.transforms.random_slots import Slots, scale_and_rotation
from hmr_jax.body.joint_set import JointSet
from hmr_jax.body.joint_sets import JOINT_SETS, map_joints

__all__ = ["PoseHgOptions", "PoseHgTransform", "pose_hg_options"]

_MPII = JOINT_SETS["mpii_16"]
MPII_FLIP = _MPII.flip_permutation
H36M_FLIP = JOINT_SETS["h36m_17"].flip_permutation
LABELS = JointSet("pose_hg_labels_17", (*_MPII.joints, "spine_extra"), (-1,) * 17)
"""MPII's 16 joints, and the spine, which is the thorax of published labels."""
_HIPS, _PELVIS, _THORAX, _SHOULDERS, _SPINE = (2, 3), 6, 7, (12, 13), 16
_H36M_FROM_MPII = (6, 2, 1, 0, 3, 4, 5, 7, 8, 9, 9, 13, 14, 15, 12, 11, 10)
_TIE = 1e-4
SLOTS = Slots({"scale": 1, "rotate": 1, "rotation": 1, "flip": 1})


class PoseHgTransform:
    """Records of any dataset to pose_hg's batches.

    Args:
        options: from ``pose_hg_options``.
    """

    joint_set = LABELS
    fields = (
        *("image", "image_height", "image_width", "bbox_xywh_px", "keypoints_px"),
        *("joints_cam_m", "joints_h36m_cam_m", "has_keypoints", "has_joints_3d"),
        "depth_px",
    )
    weights = ("reg_mask", "joints_h36m_cam_m")
    extras = (record_fields.DEPTH_PX,)
    num_uniforms = SLOTS.num_uniforms
    num_clip_uniforms = SLOTS.num_clip_uniforms

    def __init__(self, options: PoseHgOptions):
        self.options = options
        self._size = window.size_wh(options.image_size_px)
        self._sample = image.Sampler(self._size, self._finish)

    def labels(self, records: dict, uniforms) -> tuple[dict, dict]:
        """Labels and the plan of the pixels of a batch.

        Args:
            records: ``fields`` as tensors [B, ...], joints in ``joint_set``.
            uniforms: float32 [B, num_uniforms] in (0, 1).

        Returns:
            The batch without its image, and the plan for ``image``. Heatmaps are
            [B, h, w, 16]; ``reg_ind`` counts in [h, w, 16].
        """
        o = self.options
        r = {k: tf.cast(v, tf.float32) for k, v in records.items() if k != "image"}
        placement, side = _placement(r, SLOTS.split(uniforms), o)
        plan = window.pixel_plan(
            records["image"],
            (r["image_height"], r["image_width"]),
            placement,
            o.image_size_px,
            reduce_jpeg=o.reduce_jpeg,
        )
        points, depth = _joints(r, o)
        heat_wh = tuple(length // o.stride for length in self._size)
        labels = _targets(r, points, depth, placement, side, heat_wh, o)
        labels |= {
            "joints_h36m_cam_m": _evaluated(r, placement),
            "is_3d": r["has_joints_3d"][..., None],
            "crop_to_image": geometry.invert_affine(placement.to_crop),
            "flipped": tf.cast(placement.flip, tf.float32),
            "side_px": side,
        }
        return labels, plan

    def _finish(self, pixels, plan: dict):
        # The originals' crops are 8-bit pictures.
        pixels = tf.floor(pixels + 0.5)
        if self.options.published_channels:
            return image.normalize(pixels[..., ::-1] * (255 / 256), "imagenet")
        return image.normalize(pixels, "imagenet")

    def image(self, plan: dict):
        """The pixels of one record.

        Args:
            plan: one record's part of what ``labels`` returned.

        Returns:
            float32 [H, W, 3], normalised.
        """
        pixels = image.decode_window(plan["image"], plan["window"], plan["halvings"])
        return self._sample(pixels, {"warp": plan["warp"]})


def fit_aspect(box_wh, aspect: float, *, short_side: bool = False):
    """Width and height of a box made to have the crop's proportions.

    Args:
        box_wh: [..., 2] px.
        aspect: width over height of the crop.
        short_side: cut the longer side instead of extending the shorter one.

    Returns:
        [..., 2] px.

    Source: specs/pose_hg.md, section 6.
    """
    w, h = box_wh[..., 0], box_wh[..., 1]
    wide = w > aspect * h
    if short_side:
        wide = ~wide
    w, h = tf.where(wide, w, aspect * h), tf.where(wide, w / aspect, h)
    return tf.stack([w, h], axis=-1)


def _placement(r: dict, draws: dict, options: PoseHgOptions) -> tuple:
    """Placement, and the width [B] px of what is cut out."""
    box = r["bbox_xywh_px"]
    crop_width, crop_height = window.size_wh(options.image_size_px)
    aspect = crop_width / crop_height
    fitted = fit_aspect(box[..., 2:], aspect, short_side=options.fit_short_side)
    scale, rotation = scale_and_rotation(
        draws,
        scale_deviation=options.scale_deviation,
        rotation_deg=options.rotation_deg,
        rotation_probability=options.rotation_probability,
    )
    side = fitted[..., 0] * options.padding * scale
    if options.limit_side:
        side = tf.minimum(side, tf.maximum(r["image_width"], r["image_height"]))
    flat = r["has_joints_3d"] == 0
    placement = crop_labels.place(
        box[..., :2] + box[..., 2:] / 2,
        tf.stack([side, side / aspect], axis=-1),
        rotation_rad=tf.where(flat, rotation, tf.zeros_like(rotation)),
        flip=draws["flip"] < options.flip,
        width=r["image_width"],
        size_px=options.image_size_px,
    )
    return placement, side


def _middle(values, pair: tuple[int, int]):
    """Middle [B, C] of two joints; its last column is positive where both are."""
    one, other = values[:, pair[0]], values[:, pair[1]]
    both = tf.minimum(one[:, -1:], other[:, -1:])
    return tf.concat([(one[:, :-1] + other[:, :-1]) / 2, both], axis=-1)


def _filled(values, options: PoseHgOptions):
    """Joints [B, 17, C] as MPII's 16, pelvis and thorax made where missing."""
    rows = tf.unstack(values, axis=1)
    spine = rows.pop(_SPINE)
    thorax = spine if options.published_thorax else _middle(values, _SHOULDERS)
    for joint, made in ((_PELVIS, _middle(values, _HIPS)), (_THORAX, thorax)):
        known = (rows[joint][:, -1:] > 0) | (made[:, -1:] <= 0)
        rows[joint] = tf.where(known, rows[joint], made)
    return tf.stack(rows, axis=1)


def _joints(r: dict, options: PoseHgOptions) -> tuple:
    """Image points [B, 16, 3] px and depths below the pelvis [B, 16, 2] px, each with
    whether it is known."""
    seen = tf.cast(r["keypoints_px"][..., 2:] > 0, tf.float32)
    seen *= r["has_keypoints"][..., None, None]
    points = tf.concat([r["keypoints_px"][..., :2], seen], axis=-1)
    points = _filled(points, options)
    is_3d = r["has_joints_3d"][..., None, None]
    camera = _filled(r["joints_cam_m"] * is_3d, options)
    both = camera[..., 3] * points[..., 2]
    scale = geometry.similarity_scale(camera[..., :2], points[..., :2], both)
    made = (camera[..., 2] - camera[:, _PELVIS : _PELVIS + 1, 2]) * scale[:, None]
    stored = r["depth_px"]
    if not options.published_thorax:
        had = r["joints_cam_m"][:, _THORAX, 3:] * is_3d[:, 0] > 0
        middle = (stored[:, _SHOULDERS[0]] + stored[:, _SHOULDERS[1]])[:, None] / 2
        thorax = tf.where(had, stored[:, _THORAX : _THORAX + 1], middle)
        stored = tf.concat([stored[:, :_THORAX], thorax, stored[:, _THORAX + 1 :]], 1)
    given = tf.reduce_any(r["depth_px"] != 0, axis=-1, keepdims=True)
    # Stored depths are already those below the pelvis.
    both *= camera[:, _PELVIS : _PELVIS + 1, 3]
    depth = tf.where(given, stored, made)
    known = tf.where(given, points[..., 2], both) * is_3d[..., 0]
    return points, tf.stack([depth, known], axis=-1)


def heatmaps(points, drawn, heat_wh: tuple[int, int], sigma: float):
    """Gaussians about whole pixels, cut off at three standard deviations.

    Args:
        points: int32 [B, J, 2], may lie outside.
        drawn: bool [B, J]; the others are empty.
        heat_wh: width and height of the maps.
        sigma: pixels.

    Returns:
        float32 [B, h, w, J], 1 at the peaks.

    Source: specs/pose_hg.md, section 6.
    """
    reach = 3 * sigma

    def profile(centre, length):
        cells = tf.cast(tf.range(length), tf.float32)
        distance = cells[None, :, None] - centre[:, None, :]
        inside = tf.abs(distance) <= reach
        value = tf.exp(-(distance**2) / (2 * sigma**2))
        return tf.where(inside, value, tf.zeros_like(value))

    # The originals add a half and cut off, which moves negative centres by one.
    centre = tf.where(points < 0, points + 1, points)
    place = tf.cast(tf.transpose(centre, [2, 0, 1]), tf.float32)
    across, down = profile(place[0], heat_wh[0]), profile(place[1], heat_wh[1])
    down *= tf.cast(drawn, tf.float32)[:, None, :]
    return down[:, :, None, :] * across[:, None, :, :]


def _targets(
    r: dict, points, depth, placement: crop_labels.Placement, side, heat_wh, options
) -> dict:
    """Heatmaps, and depths or visibilities where they are read."""
    width, height = heat_wh
    moved = crop_labels.points_px(points, placement, MPII_FLIP)
    counts = moved[..., 2] > 0
    if options.published_joints:
        x = tf.where(
            placement.flip[:, None],
            placement.width[:, None] - 1 - points[..., 0],
            points[..., 0],
        )
        counts = tf.cast((x > 0) | (points[..., 1] > 0), tf.float32)
        counts = crop_labels.swap_sides(counts, placement, MPII_FLIP) > 0
    # Towards zero, as the originals cut off; what float32 puts just below a whole
    # number counts as that number.
    place = tf.cast(moved[..., :2] / options.stride + _TIE, tf.int32)
    place = tf.where(counts[..., None], place, tf.zeros_like(place))
    inside = tf.reduce_all((place >= 0) & (place < [width, height]), axis=-1)
    is_3d = r["has_joints_3d"][:, None] > 0
    drawn = counts & (inside | ~is_3d)
    place = tf.where((drawn | ~is_3d)[..., None], place, tf.zeros_like(place))
    known = crop_labels.swap_sides(depth[..., 1], placement, MPII_FLIP) > 0
    z = crop_labels.swap_sides(depth[..., 0], placement, MPII_FLIP) / side[:, None]
    if options.published_joints:
        known = tf.ones_like(known)
    supervised = is_3d & drawn & known
    seen = ~is_3d & inside & (counts | options.published_joints)
    target = tf.where(supervised, z, tf.cast(seen, tf.float32))
    joints = tf.range(len(MPII_FLIP))
    index = (place[..., 1] * width + place[..., 0]) * len(MPII_FLIP) + joints
    index = tf.where(supervised | seen, index, tf.zeros_like(index))
    return {
        "target_heatmaps": heatmaps(place, drawn, heat_wh, options.sigma),
        "pts_crop": place,
        "reg_target": target[..., None],
        "reg_ind": index,
        "reg_mask": tf.cast(supervised, tf.float32),
    }


def _evaluated(r: dict, placement: crop_labels.Placement):
    """Joints [B, 17, 4] of ``h36m_17`` about the pelvis, metres and validity."""
    index, _ = map_joints("h36m_right_first_17", "h36m_17")
    order = [_H36M_FROM_MPII[i] for i in index]
    made = tf.gather(r["joints_cam_m"], order, axis=1)
    stored = r["joints_h36m_cam_m"]
    given = tf.reduce_any(stored[..., 3] > 0, axis=-1)[:, None, None]
    joints = tf.where(given, stored, made) * r["has_joints_3d"][:, None, None]
    joints = tf.concat([joints[..., :3], joints[..., 3:] * joints[:, :1, 3:]], axis=-1)
    about = joints[..., :3] - joints[:, :1, :3]
    joints = tf.concat([about * joints[..., 3:], joints[..., 3:]], axis=-1)
    return crop_labels.points_cam(joints, placement, H36M_FLIP)
