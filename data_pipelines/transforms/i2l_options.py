"""Options of I2L-MeshNet's transforms for bodies and hands.

Source: specs/i2l_meshnet.md, sections 2, 10 and 11.
"""

import dataclasses
from typing import Any

from data_pipelines.transforms import image
from hmr_jax.errors import UserError

MODES = ("body", "hand")


@dataclasses.dataclass(frozen=True)
class I2lOptions:
    """What the transform does; ``i2l_options`` has the published choices.

    Attributes:
        mode: ``body`` (29 joints) or ``hand`` (21 joints of a right hand).
        image_size_px: side of the square crop.
        heatmap_size: cells of each axis of the heatmaps.
        depth_range_m: metres over which z goes through the heatmap, the root in the
            middle.
        normalization: ``unit``: values in [0, 1], as the published weights expect.
        padding: side of the crop over the longer side of the box.
        scale_deviation: of the crop's scale, normal around 1, cut off at this distance.
        rotation_deg: standard deviation; cut off at twice this.
        rotation_probability: else no rotation.
        flip: probability of the mirror image.
        colour: factor on each channel is uniform in 1 -+ this; cut off at [0, 255].
        original_joints: targets from the dataset's own joints; a hand has none.
        reduce_jpeg: decode JPEG files finer than the crop at 1/2, 1/4 or 1/8 of their
            size; False as published.
    """

    mode: str = "body"
    image_size_px: int = 256
    heatmap_size: int = 64
    depth_range_m: float = 2.0
    normalization: str = "unit"
    padding: float = 1.25
    scale_deviation: float = 0.0
    rotation_deg: float = 0.0
    rotation_probability: float = 0.6
    flip: float = 0.0
    colour: float = 0.0
    original_joints: bool = True
    reduce_jpeg: bool = True

    def __post_init__(self):
        if self.mode not in MODES:
            raise UserError(f"mode: expected one of {MODES}, found {self.mode!r}")
        if self.mode == "hand" and self.flip > 0:
            raise UserError(
                f"flip: expected 0, because a mirrored right hand is a left one, "
                f"found {self.flip}"
            )
        if self.normalization not in image.NORMALIZATIONS:
            raise UserError(
                f"normalization: expected one of {tuple(image.NORMALIZATIONS)}, "
                f"found {self.normalization!r}"
            )


_MODES: dict[str, dict[str, Any]] = {
    "body": {"depth_range_m": 2.0},
    "hand": {"depth_range_m": 0.3, "original_joints": False},
}
_TRAIN: dict[str, Any] = {
    "scale_deviation": 0.25,
    "rotation_deg": 30.0,
    "rotation_probability": 0.6,
    "colour": 0.2,
}


def i2l_options(
    mode: str = "body", *, train: bool, published: bool = False, **overrides
) -> I2lOptions:
    """The published options of a mode.

    Args:
        mode: ``body`` or ``hand``.
        train: with augmentation; the test transform has none.
        published: decode every picture at its full size.
        **overrides: any field of ``I2lOptions``.

    Returns:
        The options.

    Raises:
        UserError: unknown mode or value.
        TypeError: unknown option.
    """
    if mode not in MODES:
        raise UserError(f"mode: expected one of {MODES}, found {mode!r}")
    options = dict(_MODES[mode])
    if train:
        options |= _TRAIN | {"flip": 0.5 if mode == "body" else 0.0}
    if published:
        options["reduce_jpeg"] = False
    return I2lOptions(mode=mode, **(options | overrides))
