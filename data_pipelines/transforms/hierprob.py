"""The evaluation crops of hierarchical probability distributions over 3D pose.

Its training data are rendered on the accelerator; here are the crops of its two test
sets and of its predictions. Edges and heatmaps of the joints are made on the
accelerator too.

Source: specs/hierprob.md, sections 14 and 15.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from data_pipelines.transforms import crop_labels, geometry, image, window
from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.errors import UserError

__all__ = ["HierprobOptions", "HierprobTransform", "hierprob_options"]

CROPS = ("whole", "box")
ROUNDINGS = ("none", "nearest", "down")
COCO_FLIP = JOINT_SETS["coco_17"].flip_permutation
_OFTEN_WRONG = (7, 8, 9, 10, 13, 14, 15, 16)
"""Elbows, wrists, knees and ankles, which are dropped where they are not certain."""
GENDERS = ("neutral", "male", "female")


@dataclasses.dataclass(frozen=True)
class HierprobOptions:
    """What the transform does; ``hierprob_options`` has the published choices.

    Attributes:
        image_size_px: side of the square crop.
        crop: ``whole``: the picture is the crop and must be square; ``box``: a square
            about the box.
        padding: side of the square over the longer side of the box.
        half_pixel: pixels are sampled as squares about their centres; else as points.
        rounding: of the joints to whole pixels: ``none``, ``nearest`` or ``down``.
        min_confidence: elbows, wrists, knees and ankles that are not more certain are
            not visible; None keeps them all.
        mask: a fourth channel with the person's pixels, 0 or 1.
    """

    image_size_px: int = 256
    crop: str = "box"
    padding: float = 1.2
    half_pixel: bool = False
    rounding: str = "none"
    min_confidence: float | None = None
    mask: bool = False

    def __post_init__(self):
        for name, allowed in (("crop", CROPS), ("rounding", ROUNDINGS)):
            value = getattr(self, name)
            if value not in allowed:
                raise UserError(f"{name}: expected one of {allowed}, found {value!r}")


_PUBLISHED: dict[str, dict[str, Any]] = {
    "pw3d": {
        "crop": "whole",
        "padding": 1.0,
        "half_pixel": True,
        "rounding": "nearest",
        "min_confidence": 0.6,
    },
    "ssp_3d": {"rounding": "down", "mask": True},
    "predict": {"half_pixel": True, "min_confidence": 0.75},
}


def hierprob_options(dataset: str, **overrides) -> HierprobOptions:
    """The published crop of a test set.

    Args:
        dataset: ``pw3d`` (cropped frames), ``ssp_3d``, or ``predict`` (own pictures).
        **overrides: any field of ``HierprobOptions``.

    Returns:
        The options.

    Raises:
        UserError: unknown dataset or value.
        TypeError: unknown option.
    """
    if dataset not in _PUBLISHED:
        known = tuple(_PUBLISHED)
        raise UserError(f"dataset: expected one of {known}, found {dataset!r}")
    return HierprobOptions(**(_PUBLISHED[dataset] | overrides))


class HierprobTransform:
    """Records of a test set to evaluation batches; nothing is random.

    Args:
        options: from ``hierprob_options``.
    """

    joint_set = "coco_17"
    extras = ()
    weights = ("has_smpl", "keypoints_px", "keypoints_exact_px")
    num_uniforms = 1
    num_clip_uniforms = 0

    def __init__(self, options: HierprobOptions):
        self.options = options
        self.fields = (
            *("image", "image_height", "image_width", "bbox_xywh_px", "keypoints_px"),
            *("pose_aa", "betas", "gender", "has_smpl", "has_keypoints"),
            *(("mask", "has_mask") if options.mask else ()),
        )
        size = options.image_size_px
        self._sample = image.Sampler((size, size), lambda pixels, plan: pixels / 255)

    def labels(self, records: dict, uniforms) -> tuple[dict, dict]:
        """Labels and the plan of the pixels of a batch.

        Args:
            records: ``fields`` as tensors [B, ...], joints in ``joint_set``.
            uniforms: not used.

        Returns:
            The batch without its image, and the plan for ``image``. ``keypoints_px``
            [B, 17, 3] are those that make the input's heatmaps, in the crop;
            ``keypoints_exact_px`` are unrounded and none is dropped.
        """
        o, strings = self.options, ("image", "mask", "gender")
        r = {k: tf.cast(v, tf.float32) for k, v in records.items() if k not in strings}
        centre, side = _square(r, o)
        still = tf.zeros_like(side)
        cut = crop_labels.place(
            centre,
            side,
            rotation_rad=still,
            flip=still > 0,
            width=r["image_width"],
            size_px=o.image_size_px,
        )
        keypoints = crop_labels.points_px(r["keypoints_px"], cut, COCO_FLIP)
        seen = keypoints[..., 2:] * r["has_keypoints"][..., None, None]
        exact = tf.concat([keypoints[..., :2], seen], axis=-1)
        plan = window.pixel_plan(
            records["image"],
            (r["image_height"], r["image_width"]),
            _of_squares(cut) if o.half_pixel else cut,
            o.image_size_px,
            reduce_jpeg=False,
        )
        if o.mask:
            plan |= {"mask": records["mask"], "has_mask": records["has_mask"]}
        gender = tf.stack([tf.equal(records["gender"], g) for g in GENDERS], axis=-1)
        labels = {
            "keypoints_px": _for_heatmaps(exact, o),
            "keypoints_exact_px": exact,
            "pose_aa": r["pose_aa"],
            "betas": r["betas"],
            "gender": tf.argmax(tf.cast(gender, tf.int32), axis=-1),
            "has_smpl": r["has_smpl"][..., None],
            "crop_to_image": geometry.invert_affine(cut.to_crop),
        }
        return labels, plan

    def image(self, plan: dict):
        """The pixels of one record.

        Args:
            plan: one record's part of what ``labels`` returned.

        Returns:
            float32 [S, S, 3] RGB in [0, 1], or [S, S, 4] with the mask.
        """
        pixels = image.decode_window(plan["image"], plan["window"], plan["halvings"])
        crop = self._sample(pixels, {"warp": plan["warp"]})
        if not self.options.mask:
            return crop
        size = self.options.image_size_px

        def masked():
            whole = tf.io.decode_png(plan["mask"], channels=1)
            top, left, height, width = tf.unstack(plan["window"])
            part = whole[top : top + height, left : left + width]
            return tf.cast(image.nearest(part, plan["warp"], size) > 0, tf.float32)

        empty = tf.zeros([size, size, 1])
        mask = tf.cond(plan["has_mask"] > 0, masked, lambda: empty)
        return tf.concat([crop, mask], axis=-1)


def _square(r: dict, options: HierprobOptions) -> tuple:
    if options.crop == "whole":
        sizes = tf.stack([r["image_width"], r["image_height"]], axis=-1)
        return sizes / 2, tf.reduce_max(sizes, axis=-1)
    box = r["bbox_xywh_px"]
    side = tf.reduce_max(box[..., 2:], axis=-1) * options.padding
    return box[..., :2] + box[..., 2:] / 2, side


def _of_squares(cut: crop_labels.Placement) -> crop_labels.Placement:
    """The same crop, pixels being squares whose centres lie at halves."""
    linear = cut.to_crop[..., :2]
    shift = cut.to_crop[..., 2] + tf.reduce_sum(linear, axis=-1) / 2 - 0.5
    return cut._replace(to_crop=tf.concat([linear, shift[..., None]], axis=-1))


def _for_heatmaps(keypoints, options: HierprobOptions):
    places, seen = keypoints[..., :2], keypoints[..., 2:]
    if options.rounding == "nearest":
        places = tf.round(places)
    elif options.rounding == "down":
        places = tf.cast(tf.cast(places, tf.int32), tf.float32)
    if options.min_confidence is not None:
        unsure = [joint in _OFTEN_WRONG for joint in range(len(COCO_FLIP))]
        certain = (seen > options.min_confidence) | ~tf.constant(unsure)[:, None]
        seen = tf.where(certain, seen, tf.zeros_like(seen))
    return tf.concat([places, seen], axis=-1)
