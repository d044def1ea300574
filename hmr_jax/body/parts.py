"""Body parts in pictures, and the joints that they show or hide.

The 24 parts are DensePose's: 1, 2 torso; 3, 4 right and left hand; 5, 6 left and right
foot; 7, 9 right and 8, 10 left thigh; 11, 13 right and 12, 14 left calf; 15, 17 left
and 16, 18 right upper arm; 19, 21 left and 20, 22 right forearm; 23, 24 head. Label 0
is the background, and a negative one lies outside the picture.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

PART14_OF_24 = (
    *(0, 1, 1, 11, 12, 14, 13, 8, 6, 8, 6, 9, 7),
    *(9, 7, 2, 4, 2, 4, 3, 5, 3, 5, 10, 10),
)
"""The coarse part of each of the 24 parts, background first."""

PART14_OF_JOINT = {7: 3, 8: 5, 9: 12, 10: 11, 13: 7, 14: 9, 15: 14, 16: 13}
"""Joint of ``coco_17`` to the coarse part that shows it; others are not checked."""

MIN_PIXELS = 50


def coarse_parts(labels: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """The 14 parts of the 24.

    Args:
        labels: whole numbers of any type; what is no part becomes 0.

    Source: specs/hierprob.md section 11.6.
    """
    known = (labels >= 0) & (labels < len(PART14_OF_24))
    table = jnp.array(PART14_OF_24, labels.dtype)
    return table[jnp.where(known, labels, 0).astype(jnp.int32)]


def joints_in_frame(
    joints_px: Float[Array, "*batch joints 2"], height: int, width: int
) -> Bool[Array, "*batch joints"]:
    """Whether joints lie in the picture, its far edges included.

    Args:
        joints_px: (x, y).
        height: of the picture.
        width: of the picture.

    Returns:
        True where ``0 <= x <= width`` and ``0 <= y <= height``; false for NaN.

    Source: specs/hierprob.md sections 11.2 and 11.5.
    """
    x, y = joints_px[..., 0], joints_px[..., 1]
    return (x >= 0) & (x <= width) & (y >= 0) & (y <= height)


def joints_on_visible_parts(
    labels: Shaped[Array, "*batch height width"], min_pixels: int = MIN_PIXELS
) -> Bool[Array, "*batch 17"]:
    """Whether enough of each joint's body part is seen.

    Args:
        labels: 24 parts per pixel.
        min_pixels: the part must have more pixels.

    Returns:
        For the joints of ``coco_17``; true for those that are not checked.

    Source: specs/hierprob.md section 11.6.
    """
    coarse = coarse_parts(labels)
    seen = [
        (coarse == PART14_OF_JOINT[joint]).sum((-2, -1)) > min_pixels
        if joint in PART14_OF_JOINT
        else jnp.ones(labels.shape[:-2], bool)
        for joint in range(17)
    ]
    return jnp.stack(seen, -1)
