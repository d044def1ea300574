"""Where IKOL's transforms cut a record's image, and what they do to its pixels.

Numbers drawn uniformly from (0, 1) come in named slots, so that a record's augmentation
is a pure function of them.

Source: specs/ikol.md, sections 14.1 to 14.3.
"""

import tensorflow as tf

from data_pipelines.transforms import crop_labels, geometry, window
from data_pipelines.transforms.ikol_options import IkolOptions
from data_pipelines.transforms.random_slots import Slots, between, scale_and_rotation

_CORNER_MEAN = (-0.0142, 0.0043, 0.0154, -0.0013)
_CORNER_DEVIATION = (0.1158, 0.068, 0.1337, 0.0711)
_ATTEMPTS = 8
SLOTS = Slots(
    {
        "jitter": 1,
        "jitter_kind": 1,
        "jitter_patch": 3,
        "jitter_corners": 4,
        "scale": 1,
        "rotate": 1,
        "rotation": 1,
        "occlude": 1,
        "rectangle": 4 * _ATTEMPTS,
        "flip": 1,
        "colour": 3,
        "noise": 2,
    }
)


def _jittered(box, r: dict, draws: dict):
    """A random part of the box, or the box with its corners moved."""
    limits = tf.stack([r["image_width"] - 3, r["image_height"] - 3], axis=-1)
    low, sides = box[..., :2], box[..., 2:] - box[..., :2]
    share = between(draws["jitter_patch"][..., :1], 0.85, 1.0)
    part_low = low + draws["jitter_patch"][..., 1:] * (1 - share) * sides
    part = tf.concat([part_low, part_low + share * sides], axis=-1)
    normals = tf.math.ndtri(draws["jitter_corners"])
    shift = tf.constant(_CORNER_MEAN) + tf.constant(_CORNER_DEVIATION) * normals
    moved = box + shift * tf.concat([sides, sides], axis=-1)
    jittered = tf.where(draws["jitter_kind"][..., None] < 0.15, part, moved)
    low = tf.clip_by_value(jittered[..., :2], 1.0, tf.maximum(limits, 1.0))
    high = tf.maximum(tf.minimum(jittered[..., 2:], limits), low + 2)
    return tf.concat([low, high], axis=-1)


def square(r: dict, draws: dict, options: IkolOptions) -> dict:
    """The square that is cut out: its place, its turn, whether mirrored."""
    box = geometry.clip_box(r["bbox_xywh_px"], r["image_width"], r["image_height"])
    padding = tf.ones_like(r["image_width"])
    padding *= r["crop_padding"] if options.padding is None else options.padding
    if options.box_jitter > 0:
        jitter = draws["jitter"] < options.box_jitter
        box = tf.where(jitter[..., None], _jittered(box, r, draws), box)
        if options.jitter_resets_padding:
            padding = tf.where(jitter, tf.ones_like(padding), padding)
    centre, side = geometry.square_crop(box, padding)
    scale, rotation = scale_and_rotation(
        draws,
        scale_deviation=options.scale_deviation,
        rotation_deg=options.rotation_deg,
        rotation_probability=options.rotation_probability,
    )
    placement = crop_labels.place(
        centre,
        side * scale,
        rotation_rad=rotation,
        flip=draws["flip"] < options.flip,
        width=r["image_width"],
        size_px=options.image_size_px,
    )
    return {"box": box, "centre": centre, "side": side, "placement": placement}


def _rectangle(r: dict, crop: dict, draws: dict, options: IkolOptions):
    """Top, left, height, width of a noise rectangle [B, 4]; zero for none."""
    has_3d = r["has_joints_3d"][..., None] > 0

    def chosen(three, two):
        return tf.where(has_3d, tf.constant(three), tf.constant(two))

    area_range = chosen(options.occlusion_area, options.occlusion_area_2d)
    aspect_range = chosen(options.occlusion_aspect, options.occlusion_aspect_2d)
    half = crop["side"][..., None] / 2
    low = tf.where(has_3d, crop["centre"] - half, crop["box"][..., :2])
    high = tf.where(has_3d, crop["centre"] + half, crop["box"][..., 2:])
    low, sides = low[..., None, :], (high - low)[..., None, :]
    numbers = tf.reshape(draws["rectangle"], [-1, _ATTEMPTS, 4])
    area = between(numbers[..., 0], area_range[..., :1], area_range[..., 1:])
    area *= sides[..., 0] * sides[..., 1]
    aspect = between(numbers[..., 1], aspect_range[..., :1], aspect_range[..., 1:])
    sizes = tf.stack([tf.sqrt(area / aspect), tf.sqrt(area * aspect)], axis=-1)
    corner = low + numbers[..., 2:] * (sides - sizes - 1)
    limits = tf.stack([r["image_width"], r["image_height"]], axis=-1)[..., None, :]
    inside = tf.reduce_all((corner >= 0) & (corner + sizes < limits), axis=-1)
    # The first that lies in the image; where none does, the last, cut at the border.
    order = tf.range(_ATTEMPTS, dtype=tf.int32)
    pick = tf.reduce_min(tf.where(inside, order, _ATTEMPTS - 1), axis=-1)
    both = tf.concat([corner[..., ::-1], sizes[..., ::-1]], axis=-1)
    rectangle = tf.gather(both, pick, axis=1, batch_dims=1)
    wanted = (draws["occlude"] < options.occlusion) & (r["occlude"] > 0)
    return tf.where(wanted[..., None], rectangle, tf.zeros_like(rectangle))


def pixel_plan(r: dict, encoded, crop: dict, draws: dict, options: IkolOptions) -> dict:
    """What ``IkolTransform.image`` needs, [B, ...]."""
    plan = window.pixel_plan(
        encoded,
        (r["image_height"], r["image_width"]),
        crop["placement"],
        options.image_size_px,
        reduce_jpeg=options.reduce_jpeg,
    )
    rectangle = _rectangle(r, crop, draws, options)
    return plan | {
        "rectangle": window.rectangle_in_window(rectangle, plan),
        "noise_seed": tf.cast(draws["noise"] * 2.0**23, tf.int32),
        "gain": between(draws["colour"], 1 - options.colour, 1 + options.colour),
    }
