"""Changes of colour as the Python Imaging Library makes them on 8-bit pictures.

Pictures are float32 that hold whole numbers of 0 to 255; so do the results, rounded as
the library rounds.

Source: specs/int_hmr.md, section 13; Pillow's ``ImageEnhance`` and HSV conversion.
"""

import tensorflow as tf


def _blend(plain, pixels, factor):
    """Between a plain picture and this one, or beyond; cut off to whole numbers."""
    return tf.clip_by_value(tf.floor(plain + factor * (pixels - plain)), 0.0, 255.0)


def grey(pixels):
    """Luma [..., 1] of RGB pixels [..., 3], a whole number."""
    r, g, b = (tf.cast(pixels[..., i : i + 1], tf.int32) for i in range(3))
    luma = 19595 * r + 38470 * g + 7471 * b + 32768
    return tf.cast(tf.bitwise.right_shift(luma, tf.constant(16)), tf.float32)


def brightness(pixels, factor):
    """Towards black (factor below 1) or away from it."""
    return _blend(tf.zeros_like(pixels), pixels, factor)


def contrast(pixels, factor):
    """Towards the mean grey of the whole picture [H, W, 3]."""
    mean = tf.floor(tf.reduce_mean(grey(pixels)) + 0.5)
    return _blend(tf.zeros_like(pixels) + mean, pixels, factor)


def saturation(pixels, factor):
    """Towards the picture's own grey."""
    return _blend(tf.zeros_like(pixels) + grey(pixels), pixels, factor)


def _to_hsv(pixels) -> tuple:
    r, g, b = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    high = tf.maximum(tf.maximum(r, g), b)
    span = high - tf.minimum(tf.minimum(r, g), b)
    flat = span == 0
    safe = tf.where(flat, tf.ones_like(span), span)
    rc, gc, bc = (high - r) / safe, (high - g) / safe, (high - b) / safe
    hue = tf.where(r == high, bc - gc, tf.where(g == high, 2 + rc - bc, 4 + gc - rc))
    hue = tf.math.floormod(hue / 6 + 1, 1.0)
    zero = tf.zeros_like(span)
    hue = tf.where(flat, zero, tf.floor(hue * 255))
    share = tf.where(flat, zero, tf.floor(safe / tf.maximum(high, 1.0) * 255))
    return hue, share, high


def _from_hsv(hue, share, value):
    place = hue * 6 / 255
    sector = tf.floor(place)
    part, share = place - sector, share / 255
    p = tf.floor(value * (1 - share) + 0.5)
    q = tf.floor(value * (1 - share * part) + 0.5)
    t = tf.floor(value * (1 - share * (1 - part)) + 0.5)
    sector = tf.math.floormod(sector, 6.0)

    def choose(*values):
        result = values[5]
        for number in range(4, -1, -1):
            result = tf.where(sector == number, values[number], result)
        return result

    return tf.stack(
        [
            choose(value, q, p, p, t, value),
            choose(t, value, value, q, p, p),
            choose(p, p, t, value, value, q),
        ],
        axis=-1,
    )


def shift_hue(pixels, share):
    """Turn the hue by a share of the circle, -0.5 to 0.5."""
    hue, saturation_, value = _to_hsv(pixels)
    # Towards zero, then modulo 256, as the library's bytes wrap around.
    step = tf.cast(tf.cast(share * 255, tf.int32), tf.float32)
    return _from_hsv(tf.math.floormod(hue + step, 256.0), saturation_, value)


# Each change is a program of its own: one program of all four would be compiled anew
# for every order.
_COMPILED = tuple(
    tf.function(change, jit_compile=True, autograph=False, reduce_retracing=True)
    for change in (brightness, contrast, saturation, shift_hue)
)


def jitter(pixels, amounts, order):
    """Brightness, contrast, saturation and hue changed in any order.

    Args:
        pixels: float32 [H, W, 3], whole numbers.
        amounts: float32 [4]: three factors, and the shift of the hue.
        order: int32 [4], a permutation: which of the four is first, second, ...

    Returns:
        float32 [H, W, 3], whole numbers.
    """
    for place in range(4):
        number = order[place]
        amount = amounts[number]
        branches = [
            lambda change=change, before=pixels, amount=amount: change(before, amount)
            for change in _COMPILED
        ]
        pixels = tf.ensure_shape(tf.switch_case(number, branches), pixels.shape)
    return pixels
