"""From an encoded image to the crop a network sees; one record at a time.

A window of the file is decoded, then one compiled program (``Sampler``) samples it and
does all that follows to the pixels, in one pass over memory.
"""

from collections.abc import Callable

import tensorflow as tf

NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # specs/ikol.md, section 14.1: means in BGR order though the image is RGB.
    "hybrik": ((0.406, 0.457, 0.480), (0.225, 0.224, 0.229)),
    "mm": (
        (123.675 / 255, 116.28 / 255, 103.53 / 255),
        (58.395 / 255, 57.12 / 255, 57.375 / 255),
    ),
    # specs/i2l_meshnet.md, section 4: values in [0, 1].
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of red, green and blue in [0, 1]."""
MAX_HALVINGS = 3
"""JPEG files can be decoded at 1/2, 1/4 and 1/8 of their size."""


def is_jpeg(data):
    """Whether encoded images, a string tensor of any shape, are JPEG files."""
    return tf.equal(tf.strings.substr(data, 0, 2), b"\xff\xd8")


def decode_window(data, window, halvings):
    """A part of an encoded image; of a JPEG no more than that is decoded.

    Args:
        data: string, JPEG or PNG.
        window: int32 [4]: top, left, height, width, inside the (reduced) image.
        halvings: int32 scalar in 0..3: a JPEG is decoded at 1/2**halvings of its size;
            0 for a PNG.

    Returns:
        uint8 [height, width, 3].
    """

    def reduced(power):
        return lambda: tf.raw_ops.DecodeAndCropJpeg(
            contents=data, crop_window=window, ratio=2**power, channels=3
        )

    def from_png():
        image = tf.io.decode_png(data, channels=3)
        top, left, height, width = tf.unstack(window)
        return image[top : top + height, left : left + width]

    branch = tf.where(is_jpeg(data), halvings + 1, 0)
    jpegs = [reduced(power) for power in range(MAX_HALVINGS + 1)]
    return tf.switch_case(branch, [from_png, *jpegs])


def paint_noise(image, rectangle, seed):
    """Cover a rectangle with uniform noise.

    Args:
        image: uint8 [H, W, 3].
        rectangle: int32 [4]: top, left, height, width; may reach out of the image,
            and covers nothing where its height is 0.
        seed: int32 [2].

    Returns:
        uint8 [H, W, 3].
    """
    shape = tf.shape(image)
    low = tf.clip_by_value(rectangle[:2], 0, shape[:2])
    high = tf.clip_by_value(rectangle[:2] + rectangle[2:], low, shape[:2])

    def paint():
        height, width = tf.unstack(high - low)
        count = height * width * 3
        # Four bytes from each random number: a quarter of the time.
        numbers = tf.random.stateless_uniform(
            [(count + 3) // 4], seed, minval=None, maxval=None, dtype=tf.int32
        )
        noise = tf.reshape(tf.bitcast(numbers, tf.uint8), [-1])[:count]
        noise = tf.reshape(noise, [height, width, 3])
        rows = image[low[0] : high[0]]
        rows = tf.concat([rows[:, : low[1]], noise, rows[:, high[1] :]], axis=1)
        return tf.concat([image[: low[0]], rows, image[high[0] :]], axis=0)

    return tf.cond(tf.reduce_all(high > low), paint, lambda: image)


def bilinear(flat, height, width, crop_to_window, size_wh: tuple[int, int], kept=None):
    """Sample an image bilinearly; outside it everything is black.

    Args:
        flat: [N, C] pixels row by row, N >= height * width; the rest is not looked at.
        height: int32 scalar, of the image.
        width: int32 scalar.
        crop_to_window: float32 [2, 3], from crop pixels to pixels of the image.
        size_wh: width and height of the crop.
        kept: int32 [4]: first column, end of the columns, first row and end of the rows
            of the part of the crop that is sampled; the rest is black. None for all.

    Returns:
        float32 [size_wh[1], size_wh[0], C], in the range of the image's values.
    """
    columns, rows = size_wh
    place = tf.range(columns * rows)
    column_, row_ = place % columns, place // columns
    u, v = tf.cast(column_, tf.float32), tf.cast(row_, tf.float32)
    seen = tf.constant(True) if kept is None else within(column_, row_, kept)
    x, y = (
        crop_to_window[i, 0] * u + crop_to_window[i, 1] * v + crop_to_window[i, 2]
        for i in range(2)
    )
    left, top = tf.floor(x), tf.floor(y)
    # Far outside, whole numbers would overflow.
    limit = tf.cast(tf.maximum(width, height), tf.float32) + 2
    left_index = tf.cast(tf.clip_by_value(left, -2.0, limit), tf.int32)
    top_index = tf.cast(tf.clip_by_value(top, -2.0, limit), tf.int32)
    result = tf.zeros([columns * rows, flat.shape[1]])
    for down in (0, 1):
        for right in (0, 1):
            column, row = left_index + right, top_index + down
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            inside &= seen
            weight = (x - left) if right else (left + 1 - x)
            weight *= (y - top) if down else (top + 1 - y)
            weight = tf.where(inside, weight, tf.zeros_like(weight))
            values = tf.gather(flat, tf.where(inside, row * width + column, 0))
            result += tf.cast(values, tf.float32) * weight[:, None]
    return tf.reshape(result, [rows, columns, flat.shape[1]])


def within(columns, rows, bounds):
    """Whether pixels lie in a rectangle of columns and rows, ends excluded."""
    inside = (columns >= bounds[0]) & (columns < bounds[1])
    return inside & (rows >= bounds[2]) & (rows < bounds[3])


class Sampler:
    """A compiled program from a decoded window to the finished crop.

    Windows are filled up to a power of two of pixels, so that few programs are made.

    Args:
        size_wh: width and height of the crop.
        finish: from float32 pixels [height, width, C] in [0, 255] and the plan's
            numbers to the finished crop; is compiled together with the sampling.
    """

    def __init__(self, size_wh: tuple[int, int], finish: Callable):
        def sample(flat, height, width, plan: dict):
            kept = plan.get("kept")
            pixels = bilinear(flat, height, width, plan["warp"], size_wh, kept)
            return finish(pixels, plan)

        # reduce_retracing: in eager mode one trace, not one per size of window.
        self._sample = tf.function(
            sample, jit_compile=True, autograph=False, reduce_retracing=True
        )

    def __call__(self, window, plan: dict):
        """The finished crop.

        Args:
            window: uint8 [H, W, C], as decoded.
            plan: the record's numbers: ``warp``, ``kept`` where a part of the crop is
                black, and what ``finish`` uses.

        Returns:
            What ``finish`` returns.
        """
        height, width = tf.shape(window)[0], tf.shape(window)[1]
        count = height * width
        power = tf.math.ceil(tf.math.log(tf.cast(count, tf.float32)) / tf.math.log(2.0))
        capacity = tf.maximum(2 ** tf.cast(power, tf.int32), count)
        # One row of bytes is joined much quicker than a table of pixels is padded.
        channels = window.shape[2]
        filler = tf.zeros([(capacity - count) * channels], window.dtype)
        flat = tf.concat([tf.reshape(window, [-1]), filler], axis=0)
        flat = tf.reshape(flat, [capacity, channels])
        return self._sample(flat, height, width, plan)


def normalize(pixels, normalization: str):
    """Subtract the mean and divide by the standard deviation.

    Args:
        pixels: float32 [..., 3] in [0, 255], RGB.
        normalization: key of ``NORMALIZATIONS``.

    Returns:
        float32 [..., 3].
    """
    mean, deviation = NORMALIZATIONS[normalization]
    shift = tf.constant([255 * value for value in mean])
    return (pixels - shift) * tf.constant([1 / (255 * value) for value in deviation])


def nearest(pixels, crop_to_window, size_px: int):
    """Sample an image at the nearest pixel; outside it everything is 0.

    Args:
        pixels: [H, W, C].
        crop_to_window: float32 [2, 3], from crop pixels to pixels of the image.
        size_px: side of the crop.

    Returns:
        [size_px, size_px, C] of the same type.
    """
    v, u = tf.meshgrid(tf.range(size_px), tf.range(size_px), indexing="ij")
    grid = tf.cast(tf.stack([u, v, tf.ones_like(u)], axis=-1), tf.float32)
    place = tf.linalg.matvec(crop_to_window, grid)
    column, row = tf.unstack(tf.cast(tf.floor(place + 0.5), tf.int32), axis=-1)
    height, width = tf.shape(pixels)[0], tf.shape(pixels)[1]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    flat = tf.reshape(pixels, [height * width, pixels.shape[2]])
    values = tf.gather(flat, tf.where(inside, row * width + column, 0))
    return tf.where(inside[..., None], values, tf.zeros_like(values))
