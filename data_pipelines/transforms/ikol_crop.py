"""Where IKOL's transforms cut a record's image, and what they do to its pixels.

Numbers drawn uniformly from (0, 1) come in named slots, so that a record's augmentation
is a pure function of them.

Source: specs/ikol.md, sections 14.1 to 14.3.
"""

import tensorflow as tf

from data_pipelines.transforms import geometry, image
from data_pipelines.transforms.ikol_options import IkolOptions

_CORNER_MEAN = (-0.0142, 0.0043, 0.0154, -0.0013)
_CORNER_DEVIATION = (0.1158, 0.068, 0.1337, 0.0711)
_ATTEMPTS = 8
_SLOTS = {
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
NUM_UNIFORMS = sum(_SLOTS.values())


def split_uniforms(uniforms) -> dict:
    """The named slots of the numbers [B, NUM_UNIFORMS] of each record."""
    parts = tf.split(uniforms, list(_SLOTS.values()), axis=-1)
    return {
        name: part[..., 0] if _SLOTS[name] == 1 else part
        for name, part in zip(_SLOTS, parts, strict=True)
    }


def _between(uniform, low, high):
    return low + uniform * (high - low)


def _jittered(box, r: dict, draws: dict):
    """A random part of the box, or the box with its corners moved."""
    limits = tf.stack([r["image_width"] - 3, r["image_height"] - 3], axis=-1)
    low, sides = box[..., :2], box[..., 2:] - box[..., :2]
    share = _between(draws["jitter_patch"][..., :1], 0.85, 1.0)
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
    deviation = options.scale_deviation
    scale = tf.clip_by_value(
        1 + deviation * tf.math.ndtri(draws["scale"]), 1 - deviation, 1 + deviation
    )
    limit = 2 * options.rotation_deg
    rotation = options.rotation_deg * tf.math.ndtri(draws["rotation"])
    rotation = tf.clip_by_value(rotation, -limit, limit) * (3.141592653589793 / 180)
    turned = draws["rotate"] < options.rotation_probability
    flip = draws["flip"] < options.flip
    mirrored_x = r["image_width"] - 1 - centre[..., 0]
    x = tf.where(flip, mirrored_x, centre[..., 0])
    return {
        "box": box,
        "centre": centre,
        "side": side,
        "flip": flip,
        "rotation_rad": tf.where(turned, rotation, tf.zeros_like(rotation)),
        "final_centre": tf.stack([x, centre[..., 1]], axis=-1),
        "final_side": side * scale,
    }


def image_to_crop(crop: dict, options: IkolOptions):
    """Affine maps [B, 2, 3] from the (mirrored) image's pixels to the crop's."""
    return geometry.crop_affine(
        crop["final_centre"],
        crop["final_side"],
        crop["rotation_rad"],
        options.image_size_px,
    )


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
    area = _between(numbers[..., 0], area_range[..., :1], area_range[..., 1:])
    area *= sides[..., 0] * sides[..., 1]
    aspect = _between(numbers[..., 1], aspect_range[..., :1], aspect_range[..., 1:])
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


def _crop_to_source(r: dict, crop: dict, options: IkolOptions):
    """Affine maps [B, 2, 3] from the crop's pixels to those of the file's image."""
    to_image = geometry.invert_affine(image_to_crop(crop, options))
    sign = tf.where(crop["flip"], -1.0, 1.0)
    offset = tf.where(crop["flip"], r["image_width"] - 1, tf.zeros_like(sign))
    first = to_image[..., 0, :] * sign[..., None]
    first += offset[..., None] * tf.constant([0.0, 0.0, 1.0])
    return tf.stack([first, to_image[..., 1, :]], axis=-2)


def _halvings(encoded, crop: dict, options: IkolOptions):
    """How often to halve a JPEG that is finer than the crop: int32 [B]."""
    if not options.reduce_jpeg:
        return tf.zeros_like(crop["final_side"], tf.int32)
    finer = crop["final_side"] / options.image_size_px
    power = tf.floor(tf.math.log(tf.maximum(finer, 1.0)) / tf.math.log(2.0))
    power = tf.clip_by_value(tf.cast(power, tf.int32), 0, image.MAX_HALVINGS)
    return tf.where(image.is_jpeg(encoded), power, 0)


def pixel_plan(r: dict, encoded, crop: dict, draws: dict, options: IkolOptions) -> dict:
    """What ``IkolTransform.image`` needs, [B, ...]."""
    halvings = _halvings(encoded, crop, options)
    factor = tf.cast(2**halvings, tf.float32)[..., None]
    # Pixel p of a reduced image stands for the place factor (p + 1/2) - 1/2.
    to_reduced = _crop_to_source(r, crop, options)
    shift = (factor - 1) / 2 * tf.constant([0.0, 0.0, 1.0])
    to_reduced = (to_reduced - shift[..., None, :]) / factor[..., None]
    last = float(options.image_size_px - 1)
    corners = tf.constant([[0.0, 0.0], [last, 0.0], [0.0, last], [last, last]])
    corners = tf.broadcast_to(corners, [tf.shape(to_reduced)[0], 4, 2])
    corners = geometry.apply_affine(to_reduced, corners)
    limits = tf.stack([r["image_width"], r["image_height"]], axis=-1)
    limits = tf.math.ceil(limits / factor) - 1
    low = tf.floor(tf.reduce_min(corners, axis=-2)) - 1
    low = tf.clip_by_value(low, tf.zeros_like(limits), limits)
    high = tf.math.ceil(tf.reduce_max(corners, axis=-2)) + 1
    high = tf.clip_by_value(high, low, limits)
    window = tf.concat([low[..., ::-1], (high - low + 1)[..., ::-1]], axis=-1)
    window = tf.cast(window, tf.int32)
    to_window = tf.concat(
        [to_reduced[..., :2], (to_reduced[..., 2] - low)[..., None]], axis=-1
    )
    rectangle = tf.cast(_rectangle(r, crop, draws, options) / factor, tf.int32)
    rectangle -= tf.concat([window[..., :2], tf.zeros_like(window[..., :2])], axis=-1)
    return {
        "image": encoded,
        "halvings": halvings,
        "window": window,
        "warp": to_window,
        "rectangle": rectangle,
        "noise_seed": tf.cast(draws["noise"] * 2.0**23, tf.int32),
        "gain": _between(draws["colour"], 1 - options.colour, 1 + options.colour),
    }
