"""SSP-3D: sports people of many shapes, with silhouettes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.label_values import gender_of, mask_png
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from hmr_jax.pictures.names import canonical

_FIELDS = (
    *("fnames", "shapes", "poses", "joints2D", "bbox_centres", "bbox_whs", "genders"),
)


class Ssp3d(PublishedDataset):
    """One person of one image, with SMPL's pose and shape of the person's gender.

    The pose's root is in the camera frame; the translation is not read, so that
    ``translation_m`` is zero and ``has_root`` 0. Keypoints keep their confidence.

    Args:
        raw: folder with ``labels.npz``, ``images`` and ``silhouettes``.

    Source: specs/hierprob.md, section 14.
    """

    name = "ssp_3d"
    spec = schema.RecordSpec(joint_set="coco_17", num_joints=17)
    description = "SSP-3D: images of sports people with body shapes and silhouettes."
    citation = (
        "Sengupta et al., Synthetic Training for Accurate 3D Human Pose and Shape "
        "Estimation in the Wild, BMVC 2020"
    )
    needs = (
        "labels.npz: fnames, shapes, poses, joints2D, bbox_centres, bbox_whs, genders",
        "images/*.png and silhouettes/*.png of the same names",
    )
    origin = "https://github.com/akashsengupta1997/SSP-3D"
    licence = "images of Sports-1M's videos, research"
    counts = {"test": 311}

    def splits(self) -> Sequence[str]:
        """All of it is for testing."""
        return ("test",)

    def entries(self, split: str) -> Iterator[Entry]:
        """People by their row of the labels."""
        path = self.path("labels.npz")
        labels = self.read_npz(path)
        self.require(path, labels, _FIELDS)
        number = len(labels["fnames"])
        shapes = {
            "shapes": (number, 10),
            "poses": (number, 72),
            "joints2D": (number, 17, 3),
            "bbox_centres": (number, 2),
            "bbox_whs": (number,),
            "genders": (number,),
        }
        for name, shape in shapes.items():
            if labels[name].shape != shape:
                found = list(labels[name].shape)
                raise self.wrong(path, f"{name} of shape {list(shape)}", found)
        for i in range(number):
            yield Entry(i, {name: labels[name][i] for name in ("fnames", *shapes)})

    def record(self, split: str, key: Any, data: Any) -> schema.Record:
        """One person."""
        name = str(data["fnames"])
        where = f"{self.path('labels.npz')}: genders: row {key}"
        vertical, horizontal = data["bbox_centres"]
        silhouette = self.path("silhouettes", canonical(name))
        return {
            **self.read_named(self.path("images"), name),
            "has_root": 0,
            "mask": mask_png(self.read_pixels(silhouette).max(-1) > 0),
            "sample_id": f"{key:04d}",
            "sequence_id": name,
            "bbox_xywh_px": box_of_centre((horizontal, vertical), data["bbox_whs"]),
            "keypoints_px": data["joints2D"],
            "pose_aa": data["poses"].reshape(24, 3),
            "betas": data["shapes"],
            "translation_m": np.zeros(3),
            "gender": gender_of(self, where, data["genders"]),
        }
