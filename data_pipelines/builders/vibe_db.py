"""The databases of 16 joints that 2D pre-training for 3D pose makes (pose_hg)."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.frame_tables import FrameTables, text
from data_pipelines.builders.label_values import with_validity
from data_pipelines.builders.mpii_joints import pixel_depth
from data_pipelines.record_fields import DEPTH_PX
from hmr_jax.errors import UserError

_FIELDS = ("img_name", "joints3D", "joints3D_image", "joints2D", "bbox")
_OPTIONAL = ("vid_name", "frame_id", "pose", "shape")


class VibeDatabase(FrameTables):
    """One person of one frame, 16 joints below the pelvis.

    The box is the database's own; pose_hg crops a square of its longer side. The pose
    has its root in the camera frame, but no translation is stored, so that
    ``translation_m`` is zero and ``has_root`` 0.

    Args:
        raw: the folder with ``vibe_db`` and the images.
        dataset: ``mpii3d`` or ``3dpw``.
        images: folder of the images instead.
        published_pairing: pose_hg's validation without its full test: the first tenth
            of the images, image k with the labels of frame 10 k.
        published_boxes: accept more boxes than frames, as the published script makes
            where a person is unseen at first, and pair them by position.

    Source: specs/pose_hg.md, sections 8.0, 8.7, 8.8 and 9.
    """

    name = "vibe_db"
    file_options = ("images",)
    kept = (*_FIELDS, *_OPTIONAL)
    spec = schema.RecordSpec(joint_set="mpii_16", num_joints=16, extras=(DEPTH_PX,))
    description = "MPI-INF-3DHP or 3DPW as pose_hg's database of 16 joints."
    citation = (
        "Mehta et al., Monocular 3D Human Pose Estimation In The Wild, 3DV 2017; von "
        "Marcard et al., Recovering Accurate 3D Human Pose in The Wild, ECCV 2018"
    )
    needs = (
        "vibe_db/{mpii3d,3dpw}_{train,val}_db.pt: joblib, arrays over frames",
        "the images it names: mpi_inf_3dhp/S1/Seq1/... or 3dpw/imageFiles/...",
    )
    origin = "made by pose_hg's scripts from the datasets' own files"
    licence = "those of MPI-INF-3DHP and 3DPW: research, no redistribution"

    def __init__(
        self,
        raw: str,
        *,
        dataset: str = "mpii3d",
        images: str | None = None,
        published_pairing: bool = False,
        published_boxes: bool = False,
    ):
        super().__init__(raw, images=images)
        if dataset not in ("mpii3d", "3dpw"):
            raise UserError(f"dataset: expected mpii3d or 3dpw, got {dataset!r}")
        self.name = f"vibe_db_{dataset}"
        self.dataset = dataset
        self.published_pairing = published_pairing
        self.published_boxes = published_boxes

    def splits(self) -> Sequence[str]:
        """The two files of a dataset."""
        return ("train", "val")

    def database_path(self, split: str) -> str:
        """The file of a split."""
        return self.path("vibe_db", f"{self.dataset}_{split}_db.pt")

    def keys(self, split: str) -> Sequence[int]:
        """Rows with a box; of the pairing, positions of images."""
        arrays = self.load(split, _FIELDS)
        longer = ("bbox",) if self.published_boxes else ()
        number = self.check_lengths(split, (*_FIELDS, *_OPTIONAL), longer)
        good = self.usable(split, np.asarray(arrays["bbox"], np.float64)[:number])
        if self.published_pairing and split == "val":
            good = good[::10]
        return [int(k) for k in np.flatnonzero(good)]

    def rows_of(self, split: str, key: int) -> Sequence[int]:
        """Those of the image and of its labels."""
        pairing = self.published_pairing and split == "val"
        return (key, 10 * key) if pairing else (key,)

    def example(self, split: str, key: Any) -> schema.Record:
        """One frame."""
        arrays = self.load(split, _FIELDS)
        index = self.rows_of(split, key)[-1]
        image_px = self.row(split, "joints3D_image", index, (16, 3))[:, :2]
        confidence = self.row(split, "joints2D", index, (16, 3))[:, 2]
        joints = self.row(split, "joints3D", index, (16, 3)) / 1000
        box = self.row(split, "bbox", index, (4,))
        record = {
            **self.read_row_image(text(arrays["img_name"][key])),
            **self.frame_labels(split, index),
            "sample_id": f"{split}_{key:07d}",
            "has_root": 0,
            "bbox_xywh_px": box_of_centre(box[:2], box[2:]),
            "keypoints_px": with_validity(image_px, 2 * (confidence > 0)),
            "joints_cam_m": with_validity(joints),
            "depth_px": pixel_depth(image_px, joints),
        }
        if "pose" in arrays and "shape" in arrays:
            record |= {
                "pose_aa": self.row(split, "pose", index, (72,)).reshape(24, 3),
                "betas": self.row(split, "shape", index, (10,)),
                "translation_m": np.zeros(3),
            }
        return record
