"""Options of INT's transforms for images and for clips, by training phase.

Source: specs/int_hmr.md, sections 10 and 13.
"""

import dataclasses
from typing import Any

from data_pipelines.transforms import image
from hmr_jax.errors import UserError

PHASES = (1, 2, 3)
BOX_SCALE = 1.3
"""Side of a training crop over the side of the box."""


@dataclasses.dataclass(frozen=True)
class IntOptions:
    """What the transform does; ``int_options`` has the published choices.

    Attributes:
        image_size_px: side of the square crop.
        normalization: of the image.
        box_scale: side of the crop over the side of the box.
        stretch_box: a box that is not square is stretched to the crop, as published,
            where all boxes are square; else the crop is a square of its longer side.
        size_jitter: the scale is uniform in ``box_scale`` -+ this.
        rotation_deg: uniform in -+ this.
        random_crop: probability of a part of the person instead.
        random_crop_size: its scale is uniform between ``box_scale`` less this and
            ``box_scale``; it is moved by up to half of what it is smaller, in boxes.
        flip: probability of the mirror image.
        colour_jitter: of brightness, contrast, saturation (factors in 1 -+ this) and
            hue (a shift in -+ this); of records with 3D joints.
        colour_jitter_2d: the same for records without.
        erase: probability that a part of a frame is erased, at a side that is the same
            in all frames of a clip.
        erase_part: its share of the side is uniform up to this.
        published_erase: left erases the top and right the bottom, as published.
        turn_labels: turn 3D joints and the root's rotation with the crop; False as
            published, where crops are not rotated in any experiment.
        mirror_about_hips: mirror 3D joints about the middle of the hips; else about
            the camera, whose picture is mirrored. Root-relative joints are the same.
        mirror_hand: mirror the rotation of joint 23; False as published.
        reduce_jpeg: decode JPEG files finer than the crop at 1/2, 1/4 or 1/8 of their
            size; False as published.
    """

    image_size_px: int = 224
    normalization: str = "imagenet"
    box_scale: float = BOX_SCALE
    stretch_box: bool = False
    size_jitter: float = 0.0
    rotation_deg: float = 0.0
    random_crop: float = 0.0
    random_crop_size: float = 0.6
    flip: float = 0.0
    colour_jitter: float = 0.0
    colour_jitter_2d: float = 0.0
    erase: float = 0.0
    erase_part: float = 0.7
    published_erase: bool = False
    turn_labels: bool = True
    mirror_about_hips: bool = False
    mirror_hand: bool = True
    reduce_jpeg: bool = True

    def __post_init__(self):
        if self.normalization not in image.NORMALIZATIONS:
            raise UserError(
                f"normalization: expected one of {tuple(image.NORMALIZATIONS)}, "
                f"found {self.normalization!r}"
            )
        if not 0 <= self.random_crop_size < self.box_scale:
            raise UserError(
                f"random_crop_size: expected 0 to less than box_scale "
                f"({self.box_scale}), found {self.random_crop_size}"
            )
        if not 0 <= self.erase_part <= 1:
            raise UserError(f"erase_part: expected 0 to 1, found {self.erase_part}")


_TRAIN: dict[str, Any] = {"flip": 0.5, "random_crop": 0.2}
_ERASED: dict[str, Any] = {"erase": 0.3}
_PUBLISHED: dict[str, Any] = {
    "stretch_box": True,
    "published_erase": True,
    "turn_labels": False,
    "mirror_about_hips": True,
    "mirror_hand": False,
    "reduce_jpeg": False,
}
EVAL_BOX_SCALE = 1.1


def int_options(
    phase: int = 3,
    *,
    clips: bool,
    train: bool,
    published: bool = False,
    **overrides,
) -> IntOptions:
    """The options of one phase of the published training.

    Args:
        phase: 1 (images), 2 (images and clips) or 3 (clips).
        clips: of the clips; single images have no colour jitter.
        train: with augmentation; the test transform has none.
        published: with the loader's errors (erased sides, the hand's rotation) and
            boxes that are stretched.
        **overrides: any field of ``IntOptions``.

    Returns:
        The options.

    Raises:
        UserError: unknown phase or value.
        TypeError: unknown option.
    """
    if phase not in PHASES:
        raise UserError(f"phase: expected one of {PHASES}, found {phase!r}")
    options = dict(_PUBLISHED) if published else {}
    if not train:
        return IntOptions(**(options | {"box_scale": EVAL_BOX_SCALE} | overrides))
    options |= _TRAIN
    if phase > 1:
        options |= _ERASED
        if clips:
            options["colour_jitter"] = 0.3
    return IntOptions(**(options | overrides))
