"""Options of pose_hg's transforms.

Source: specs/pose_hg.md, sections 5, 6 and 9.
"""

import dataclasses
from typing import Any

from hmr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class PoseHgOptions:
    """What the transform does; ``pose_hg_options`` has the published choices.

    Attributes:
        image_size_px: side of the crop, or its width and height.
        stride: pixels of the crop per pixel of the heatmaps.
        sigma: of the heatmaps' Gaussians, pixels of the heatmap.
        padding: side of the crop over the longer side of the box, which the published
            loaders give with its margin.
        scale_deviation: of the crop's scale, normal around 1, cut off at this distance.
        rotation_deg: standard deviation, cut off at twice this; of records without 3D
            joints, because depths would not follow.
        rotation_probability: else no rotation.
        flip: probability of the mirror image.
        limit_side: no crop is larger than the longer side of its image.
        fit_short_side: of a crop that is not square, fit the box's shorter side.
        published_channels: blue, green, red by the statistics of red, green, blue, and
            divided by 256, as the published weights expect.
        published_joints: a 2D joint counts where one of its coordinates is positive, so
            that missing ones come back at the border of a mirrored image, and count as
            seen in the heatmap's corner.
        published_thorax: the thorax of datasets that have none is their spine; else the
            middle of the shoulders.
        reduce_jpeg: decode JPEG files finer than the crop at 1/2, 1/4 or 1/8 of their
            size; False as published.
    """

    image_size_px: int | tuple[int, int] = 256
    stride: int = 4
    sigma: float = 2.0
    padding: float = 1.0
    scale_deviation: float = 0.0
    rotation_deg: float = 0.0
    rotation_probability: float = 0.6
    flip: float = 0.0
    limit_side: bool = True
    fit_short_side: bool = False
    published_channels: bool = False
    published_joints: bool = False
    published_thorax: bool = False
    reduce_jpeg: bool = True

    def __post_init__(self):
        size = self.image_size_px
        sides = size if isinstance(size, tuple) else (size, size)
        if len(sides) != 2 or any(side % self.stride or side < 8 for side in sides):
            raise UserError(
                f"image_size_px: expected multiples of the stride {self.stride} of 8 "
                f"or more, found {size}"
            )
        if self.sigma <= 0:
            raise UserError(f"sigma: expected a positive number, found {self.sigma}")


_TRAIN: dict[str, Any] = {
    "scale_deviation": 0.25,
    "rotation_deg": 30.0,
    "rotation_probability": 0.6,
    "flip": 0.5,
}
_PUBLISHED: dict[str, Any] = {
    "published_channels": True,
    "published_joints": True,
    "published_thorax": True,
    "reduce_jpeg": False,
}


def pose_hg_options(
    *, train: bool, published: bool = False, **overrides
) -> PoseHgOptions:
    """The published options.

    Args:
        train: with augmentation; the test transform has none.
        published: with the loaders' errors (channels, missing joints, the thorax).
        **overrides: any field of ``PoseHgOptions``.

    Returns:
        The options.

    Raises:
        UserError: a wrong value.
        TypeError: unknown option.
    """
    options = dict(_TRAIN) if train else {}
    if published:
        options |= _PUBLISHED
    return PoseHgOptions(**(options | overrides))
