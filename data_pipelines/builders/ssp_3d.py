"""SSP-3D: sports people of many shapes, with silhouettes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.label_values import gender_of, mask_png
from data_pipelines.builders.published_dataset import PublishedDataset
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

    def __init__(self, raw: str):
        super().__init__(raw)
        self._arrays: dict[str, np.ndarray] = {}

    def splits(self) -> Sequence[str]:
        """All of it is for testing."""
        return ("test",)

    def _labels(self) -> dict[str, np.ndarray]:
        if not self._arrays:
            path = self.path("labels.npz")
            content = self.read_npz(path)
            self.require(path, content, _FIELDS)
            number = len(content["fnames"])
            shapes = {
                "shapes": (number, 10),
                "poses": (number, 72),
                "joints2D": (number, 17, 3),
                "bbox_centres": (number, 2),
                "bbox_whs": (number,),
                "genders": (number,),
            }
            for name, shape in shapes.items():
                if content[name].shape != shape:
                    found = list(content[name].shape)
                    raise self.wrong(path, f"{name} of shape {list(shape)}", found)
            self._arrays = content
        return self._arrays

    def keys(self, split: str) -> Sequence[int]:
        """Rows of the labels."""
        return range(len(self._labels()["fnames"]))

    def example(self, split: str, key: Any) -> schema.Record:
        """One person."""
        labels = self._labels()
        name = str(labels["fnames"][key])
        where = f"{self.path('labels.npz')}: genders: row {key}"
        vertical, horizontal = labels["bbox_centres"][key]
        silhouette = self.path("silhouettes", canonical(name))
        return {
            **self.read_named(self.path("images"), name),
            "has_root": 0,
            "mask": mask_png(self.read_pixels(silhouette).max(-1) > 0),
            "sample_id": f"{key:04d}",
            "sequence_id": name,
            "bbox_xywh_px": box_of_centre(
                (horizontal, vertical), labels["bbox_whs"][key]
            ),
            "keypoints_px": labels["joints2D"][key],
            "pose_aa": labels["poses"][key].reshape(24, 3),
            "betas": labels["shapes"][key],
            "translation_m": np.zeros(3),
            "gender": gender_of(self, where, labels["genders"][key]),
        }
