"""Random numbers of a transform: named slots of uniforms, and what is made of them.

The numbers of a record come from seed, epoch and place alone, so an augmentation is a
pure function of them. In a clip the first slots are the same in all frames.
"""

import math

import tensorflow as tf


class Slots:
    """Named places in a row of uniform numbers.

    Args:
        own: name to count, drawn for each record.
        clip: name to count, shared by the frames of a clip; they come first.
    """

    def __init__(self, own: dict[str, int], clip: dict[str, int] | None = None):
        self._counts = {**(clip or {}), **own}
        self.num_clip_uniforms = sum((clip or {}).values())
        self.num_uniforms = sum(self._counts.values())

    def split(self, uniforms) -> dict:
        """The slots by name.

        Args:
            uniforms: float32 [B, num_uniforms] in (0, 1).

        Returns:
            Name to [B], or [B, count] where the count is above 1.
        """
        parts = tf.split(uniforms, list(self._counts.values()), axis=-1)
        return {
            name: part[..., 0] if count == 1 else part
            for (name, count), part in zip(self._counts.items(), parts, strict=True)
        }


def between(uniform, low, high):
    """Uniform in [low, high]."""
    return low + uniform * (high - low)


def clipped_normal(uniform, limit: float):
    """A standard normal whose tails are moved to -+limit."""
    return tf.clip_by_value(tf.math.ndtri(uniform), -limit, limit)


def scale_and_rotation(
    draws: dict,
    *,
    scale_deviation: float,
    rotation_deg: float,
    rotation_probability: float,
) -> tuple:
    """Scale and rotation as three of the systems draw them.

    Args:
        draws: ``scale``, ``rotation`` and ``rotate``, uniforms [B].
        scale_deviation: of a normal around 1, cut off at this distance.
        rotation_deg: of a normal around 0, cut off at twice this.
        rotation_probability: else no rotation.

    Returns:
        Scale [B] and rotation [B] in radians.

    Source: specs/ikol.md, section 14; specs/i2l_meshnet.md, section 10.4;
        specs/pose_hg.md, section 6.1.
    """
    scale = 1 + scale_deviation * clipped_normal(draws["scale"], 1.0)
    angle = math.radians(rotation_deg) * clipped_normal(draws["rotation"], 2.0)
    turned = draws["rotate"] < rotation_probability
    return scale, tf.where(turned, angle, tf.zeros_like(angle))
