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


def colour_and_normalize(image, gain, clip: bool, normalization: str):
    """Change the colour, subtract the mean and divide by the standard deviation.

    Args:
        image: float32 [S, S, 3] in [0, 255].
        gain: float32 [3], factor of each channel; None leaves the colour.
        clip: keep the coloured image in [0, 255].
        normalization: key of ``NORMALIZATIONS``.

    Returns:
        float32 [S, S, 3].
    """
    shape = image.shape

    def tiled(values):
        return tf.tile(tf.convert_to_tensor(values, tf.float32), [shape[1]])

    # Rows of numbers: broadcasting along three channels takes four times as long.
    rows = tf.reshape(image, [shape[0], shape[1] * 3])
    if gain is not None:
        rows *= tiled(gain)
    if gain is not None and clip:
        rows = tf.clip_by_value(rows, 0.0, 255.0)
    mean, deviation = NORMALIZATIONS[normalization]
    rows = (rows - tiled([255 * v for v in mean])) * tiled(
        [1 / (255 * v) for v in deviation]
    )
    return tf.reshape(rows, shape)
