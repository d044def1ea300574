"""Which part of a file's image a crop needs, and how it is sampled from that part.

Only the window that the crop covers is decoded, of a JPEG file that is finer than the
crop at a half, a quarter or an eighth of its size; then it is sampled once.
"""

import tensorflow as tf

from data_pipelines.transforms import geometry, image
from data_pipelines.transforms.crop_labels import Placement


def size_wh(size_px) -> tuple[int, int]:
    """Width and height of a crop whose side or (width, height) is given."""
    return size_px if isinstance(size_px, tuple) else (size_px, size_px)


def _halvings(encoded, to_source):
    """How often to halve a JPEG file that is finer than the crop: int32 [B]."""
    a, b, c, d = (to_source[..., i, j] for i in (0, 1) for j in (0, 1))
    finer = tf.sqrt(tf.abs(a * d - b * c))
    power = tf.floor(tf.math.log(tf.maximum(finer, 1.0)) / tf.math.log(2.0))
    power = tf.clip_by_value(tf.cast(power, tf.int32), 0, image.MAX_HALVINGS)
    return tf.where(image.is_jpeg(encoded), power, 0)


def _bounds(to_reduced, limits, size_px) -> tuple:
    """First and last pixel [B, 2] (x, y) that a crop touches, and one around them."""
    width, height = size_wh(size_px)
    last_x, last_y = float(width - 1), float(height - 1)
    corners = tf.constant([[0.0, 0.0], [last_x, 0.0], [0.0, last_y], [last_x, last_y]])
    corners = tf.broadcast_to(corners, [tf.shape(to_reduced)[0], 4, 2])
    corners = geometry.apply_affine(to_reduced, corners)
    low = tf.floor(tf.reduce_min(corners, axis=-2)) - 1
    low = tf.clip_by_value(low, tf.zeros_like(limits), limits)
    high = tf.math.ceil(tf.reduce_max(corners, axis=-2)) + 1
    return low, tf.clip_by_value(high, low, limits)


def pixel_plan(
    encoded, size_hw, placement: Placement, size_px, *, reduce_jpeg: bool
) -> dict:
    """What ``image.decode_window`` and ``image.Sampler`` need of each record.

    Args:
        encoded: string [B], the files.
        size_hw: height and width [B] px of their images.
        placement: of the images in the crops.
        size_px: side of the crop, or its width and height.
        reduce_jpeg: decode JPEG files finer than the crop at a part of their size.

    Returns:
        ``image`` string, ``halvings`` int32, ``window`` int32 [B, 4] and ``warp``
        [B, 2, 3], from crop pixels to those of the window.
    """
    to_source = geometry.invert_affine(placement.to_crop)
    halvings = tf.zeros_like(to_source[..., 0, 0], tf.int32)
    if reduce_jpeg:
        halvings = _halvings(encoded, to_source)
    factor = tf.cast(2**halvings, tf.float32)[..., None]
    # Pixel p of a reduced image stands for the place factor (p + 1/2) - 1/2.
    shift = (factor - 1) / 2 * tf.constant([0.0, 0.0, 1.0])
    to_reduced = (to_source - shift[..., None, :]) / factor[..., None]
    height, width = size_hw
    limits = tf.math.ceil(tf.stack([width, height], axis=-1) / factor) - 1
    low, high = _bounds(to_reduced, limits, size_px)
    window = tf.concat([low[..., ::-1], (high - low + 1)[..., ::-1]], axis=-1)
    to_window = tf.concat(
        [to_reduced[..., :2], (to_reduced[..., 2] - low)[..., None]], axis=-1
    )
    return {
        "image": encoded,
        "halvings": halvings,
        "window": tf.cast(window, tf.int32),
        "warp": to_window,
    }


def rectangle_in_window(rectangle, plan: dict):
    """Rectangles of the image as those of the decoded windows.

    Args:
        rectangle: [B, 4] px of the file's image: top, left, height, width.
        plan: from ``pixel_plan``.

    Returns:
        int32 [B, 4].
    """
    factor = tf.cast(2 ** plan["halvings"], tf.float32)[..., None]
    reduced = tf.cast(rectangle / factor, tf.int32)
    corner = plan["window"][..., :2]
    return reduced - tf.concat([corner, tf.zeros_like(corner)], axis=-1)
