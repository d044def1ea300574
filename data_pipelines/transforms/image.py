"""From an encoded image to the crop a network sees; one record at a time."""

import tensorflow as tf

NORMALIZATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    # specs/ikol.md, section 14.1: means in BGR order though the image is RGB.
    "hybrik": ((0.406, 0.457, 0.480), (0.225, 0.224, 0.229)),
    "mm": (
        (123.675 / 255, 116.28 / 255, 103.53 / 255),
        (58.395 / 255, 57.12 / 255, 57.375 / 255),
    ),
}
"""Mean and standard deviation of red, green and blue in [0, 1]."""


def decode_window(data, window):
    """A part of an encoded image; of a JPEG no more than that is decoded.

    Args:
        data: string, JPEG or PNG.
        window: int32 [4]: top, left, height, width, inside the image.

    Returns:
        uint8 [height, width, 3].
    """

    def from_jpeg():
        return tf.io.decode_and_crop_jpeg(data, window, channels=3)

    def from_png():
        image = tf.io.decode_png(data, channels=3)
        top, left, height, width = tf.unstack(window)
        return image[top : top + height, left : left + width]

    is_jpeg = tf.equal(tf.strings.substr(data, 0, 2), b"\xff\xd8")
    return tf.cond(is_jpeg, from_jpeg, from_png)


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
        after = shape[:2] - high
        pads = tf.stack([low, after], axis=1)
        noise = tf.pad(noise, tf.concat([pads, [[0, 0]]], axis=0))
        rows, columns = tf.range(shape[0]), tf.range(shape[1])
        inside_rows = (rows >= low[0]) & (rows < high[0])
        inside_columns = (columns >= low[1]) & (columns < high[1])
        inside = inside_rows[:, None] & inside_columns[None, :]
        return tf.where(inside[..., None], noise, image)

    return tf.cond(tf.reduce_all(high > low), paint, lambda: image)


def warp(image, crop_to_window, size_px):
    """Sample an image bilinearly; outside it everything is black.

    Args:
        image: uint8 [H, W, 3].
        crop_to_window: float32 [2, 3], from crop pixels to pixels of ``image``.
        size_px: side of the crop.

    Returns:
        float32 [size_px, size_px, 3] in [0, 255].
    """
    flat = tf.reshape(crop_to_window, [1, 6])
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.concat([flat, tf.zeros([1, 2])], axis=1),
        output_shape=[size_px, size_px],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
    return tf.ensure_shape(warped[0], [size_px, size_px, 3])


def normalize(image, normalization):
    """Subtract the mean and divide by the standard deviation.

    Args:
        image: float32 [..., 3] in [0, 255].
        normalization: key of ``NORMALIZATIONS``.

    Returns:
        float32 [..., 3].
    """
    mean, deviation = (tf.constant(v) * 255.0 for v in NORMALIZATIONS[normalization])
    return (image - mean) / deviation
