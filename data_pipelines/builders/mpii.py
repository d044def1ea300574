"""MPII Human Pose in the JSON files that the field trains from."""

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.mpii_joints import mpii_box
from data_pipelines.builders.published_dataset import Entry, PublishedDataset


class Mpii(PublishedDataset):
    """One person of one image, 16 joints.

    Args:
        raw: folder with ``annot`` and ``images``.
        published_joints: keep joints in MATLAB's 1-based pixels and missing ones where
            the file has them (at -1), as pose_hg's loader does, which moves the centre
            alone; by default joints are 0-based like the image.

    Source: specs/pose_hg.md, section 8.1.
    """

    name = "mpii"
    spec = schema.RecordSpec(joint_set="mpii_16", num_joints=16)
    description = "MPII Human Pose: 2D joints of people in everyday photographs."
    citation = (
        "Andriluka et al., 2D Human Pose Estimation: New Benchmark and State of the "
        "Art Analysis, CVPR 2014"
    )
    needs = (
        "annot/train.json, annot/valid.json (or val.json): lists of image, joints, "
        "joints_vis, center and scale, one entry a person",
        "images/*.jpg",
    )
    origin = "http://human-pose.mpi-inf.mpg.de (images; annotations as JSON)"
    licence = "simplified BSD for the annotations; images for research"
    counts = {"train": 22246, "val": 2958}

    def __init__(self, raw: str, *, published_joints: bool = False):
        super().__init__(raw)
        self.published_joints = published_joints

    def splits(self) -> Sequence[str]:
        """The two parts with labels."""
        return ("train", "val")

    def _file(self, split: str) -> str:
        names = ("valid.json", "val.json") if split == "val" else (f"{split}.json",)
        paths = [self.path("annot", name) for name in names]
        return next((path for path in paths if self.exists(path)), paths[0])

    def entries(self, split: str) -> Iterator[Entry]:
        """People by their place in the list."""
        path = self._file(split)
        people = self.read_json(path)
        if not isinstance(people, list):
            raise self.wrong(path, "a list of people", type(people).__name__)
        seen: collections.Counter[str] = collections.Counter()
        for i, person in enumerate(people):
            self.require(f"{path}: entry {i}", person, ("image", "center", "scale"))
            if not person.get("joints"):
                self.drop(split, "no joints")
            elif not person["scale"] > 0:
                self.drop(split, "no scale")
            else:
                yield Entry(i, (person, seen[person["image"]]))
            seen[person["image"]] += 1
        if people and self.dropped[split, "no joints"] == len(people):
            raise self.wrong(path, "entries with 'joints'", "none")

    def record(self, split: str, key: Any, data: Any) -> schema.Record:
        """One person."""
        person, number = data
        joints = np.asarray(person["joints"], np.float64)
        if joints.shape != (16, 2):
            where = f"{self._file(split)}: entry {key}"
            raise self.wrong(where, "joints of shape [16, 2]", list(joints.shape))
        labelled = np.asarray((joints > 0).any(-1))
        seen = np.asarray(person.get("joints_vis", np.ones(16)), np.float64) > 0
        if not self.published_joints:
            joints = np.where(labelled[:, None], joints - 1, 0)
        visibility = np.where(labelled, 1 + seen, 0)
        centre, side = mpii_box(person["center"], person["scale"])
        return {
            **self.read_named(self.path("images"), person["image"]),
            "sample_id": f"{split}_{key:06d}",
            "sequence_id": person["image"],
            "person_id": number,
            "bbox_xywh_px": box_of_centre(centre, side),
            "keypoints_px": np.column_stack([joints, visibility]),
        }
