"""Options of IKOL's transforms, with the choices of its two published loaders.

Source: specs/ikol.md, sections 12 to 14.
"""

import dataclasses
from typing import Any

from data_pipelines.transforms import image
from hmr_jax.errors import UserError

QUATERNION_FORMS = ("positive", "rotmat", "axis_angle")


@dataclasses.dataclass(frozen=True)
class IkolOptions:
    """What the transform does; ``ikol_options`` has the published choices.

    Attributes:
        image_size_px: side of the square crop.
        depth_range_m: metres over which the depth label d goes from -0.5 to 0.5.
        normalization: ``imagenet`` (right), ``hybrik`` or ``mm`` as published.
        quaternion_form: of the rotation labels: ``positive`` (w >= 0, right
            everywhere), ``rotmat`` (by the trace; wrong near half turns) or
            ``axis_angle`` (w < 0 beyond a half turn).
        box_jitter: probability of a jittered box.
        jitter_resets_padding: a jittered box is cropped without padding.
        padding: side of the crop over the longer side of the box; None takes each
            dataset's own (``crop_padding`` of its traits).
        scale_deviation: of the crop's scale, normal around 1, cut off at this distance.
        rotation_deg: standard deviation; cut off at twice this.
        rotation_probability: else no rotation.
        occlusion: probability of a noise rectangle.
        occlusion_area: range of its share of the crop.
        occlusion_area_2d: the same for records without 3D joints, in the person's box.
        occlusion_aspect: range of height over width.
        occlusion_aspect_2d: the same for records without 3D joints.
        flip: probability of the mirror image.
        flip_camera: mirror intrinsics and root with the image; False as published.
        rotate_root_label: turn the root's rotation label by the crop's rotation, as
            the mm loader does, against the un-rotated camera of the prediction.
        keep_outside_2d: joints out of the crop keep their weight in records without
            3D joints, as in HybrIK's loader.
        colour: factor on each channel is uniform in 1 -+ this.
        colour_clip: keep the result in [0, 255].
        reduce_jpeg: decode JPEG files finer than the crop at 1/2, 1/4 or 1/8 of their
            size, which is quicker and leaves less aliasing; False as published.
    """

    image_size_px: int = 256
    depth_range_m: float = 2.0
    normalization: str = "imagenet"
    quaternion_form: str = "positive"
    box_jitter: float = 0.0
    jitter_resets_padding: bool = False
    padding: float | None = None
    scale_deviation: float = 0.0
    rotation_deg: float = 0.0
    rotation_probability: float = 0.6
    occlusion: float = 0.0
    occlusion_area: tuple[float, float] = (0.0, 0.3)
    occlusion_area_2d: tuple[float, float] = (0.0, 0.7)
    occlusion_aspect: tuple[float, float] = (0.5, 2.0)
    occlusion_aspect_2d: tuple[float, float] = (0.3, 3.33)
    flip: float = 0.0
    flip_camera: bool = True
    rotate_root_label: bool = False
    keep_outside_2d: bool = False
    colour: float = 0.0
    colour_clip: bool = True
    reduce_jpeg: bool = True

    def __post_init__(self):
        if self.quaternion_form not in QUATERNION_FORMS:
            raise UserError(
                f"quaternion_form: expected one of {QUATERNION_FORMS}, "
                f"found {self.quaternion_form!r}"
            )
        if self.normalization not in image.NORMALIZATIONS:
            raise UserError(
                f"normalization: expected one of {tuple(image.NORMALIZATIONS)}, "
                f"found {self.normalization!r}"
            )
        if self.image_size_px < 8:
            raise UserError(
                f"image_size_px: expected 8 or more, found {self.image_size_px}"
            )


_TRAIN: dict[str, Any] = {
    "scale_deviation": 0.3,
    "rotation_deg": 30.0,
    "rotation_probability": 0.6,
    "flip": 0.5,
}
_LOADERS: dict[str, dict[str, Any]] = {
    "hybrik": _TRAIN | {"occlusion": 1.0, "colour": 0.2},
    "mm": _TRAIN
    | {
        "padding": 1.25,
        "box_jitter": 0.9,
        "jitter_resets_padding": True,
        "occlusion": 0.9,
        "occlusion_area": (0.0, 0.7),
        "occlusion_aspect": (0.3, 3.33),
        "colour": 0.4,
        "colour_clip": False,
    },
}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "hybrik": {
        "normalization": "hybrik",
        "quaternion_form": "rotmat",
        "flip_camera": False,
        "reduce_jpeg": False,
        "keep_outside_2d": True,
    },
    "mm": {
        "normalization": "mm",
        "quaternion_form": "axis_angle",
        "flip_camera": False,
        "reduce_jpeg": False,
        "rotate_root_label": True,
    },
}
TEST_KEYS = ("normalization", "quaternion_form", "padding", "reduce_jpeg")


def ikol_options(
    loader: str = "hybrik", *, train: bool, published: bool = False, **overrides
) -> IkolOptions:
    """The options of one of the two published loaders.

    Args:
        loader: ``hybrik`` or ``mm``.
        train: with augmentation; the test transform has none.
        published: with the loader's errors (normalisation, labels near half turns,
            cameras that stay behind in the mirror, rotated root labels).
        **overrides: any field of ``IkolOptions``.

    Returns:
        The options.

    Raises:
        UserError: unknown loader or value.
        TypeError: unknown option.
    """
    if loader not in _LOADERS:
        raise UserError(f"loader: expected one of {tuple(_LOADERS)}, found {loader!r}")
    options = dict(_LOADERS[loader])
    if published:
        options |= _PUBLISHED[loader]
    if not train:
        options = {k: v for k, v in options.items() if k in TEST_KEYS}
    return IkolOptions(**(options | overrides))
