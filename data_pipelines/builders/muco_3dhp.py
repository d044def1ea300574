"""MuCo-3DHP: composites of several people of MPI-INF-3DHP, with SMPL fits."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders import annotation_lists
from data_pipelines.builders.cameras import pinhole
from data_pipelines.builders.label_values import numbers, smpl_fields, with_validity
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import Record
from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.errors import UserError

_PEOPLE = ("nearest", "all")
_PELVIS = JOINT_SETS["muco_21"].index("pelvis_extra")


class Muco3dhp(PublishedDataset):
    """MuCo-3DHP in the layout used by I2L-MeshNet; training only.

    Args:
        raw: folder ``MuCo`` with ``data``.
        people: ``nearest`` keeps, of the people in a picture whose boxes are usable,
            the one whose pelvis is nearest to the camera; ``all`` keeps them all.

    Source: specs/i2l_meshnet.md, section 11.2.
    """

    name = "muco_3dhp"
    description = "MuCo-3DHP: composited people with 21 joints and SMPL fits."
    citation = (
        "Mehta et al., Single-shot multi-person 3D pose estimation, 3DV 2018; "
        "annotations: Moon et al., RootNet, ICCV 2019 and I2L-MeshNet, ECCV 2020"
    )
    needs = (
        "data/MuCo-3DHP.json",
        "data/smpl_param.json",
        "data/unaugmented_set/ and data/augmented_set/ (images)",
    )
    origin = "Made from MPI-INF-3DHP; annotations from the I2L-MeshNet repository"
    licence = "MPI-INF-3DHP: non-commercial research"
    traits = {"crop_padding": 1.25}
    spec = schema.RecordSpec("muco_21", 21)

    def __init__(self, raw: str, *, people: str = "nearest"):
        if people not in _PEOPLE:
            raise UserError(f"people: expected one of {_PEOPLE}, got {people!r}")
        super().__init__(raw)
        self._people = people

    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return ("train",)

    @property
    def _fits(self) -> str:
        return self.path("data", "smpl_param.json")

    def _file(self) -> str:
        return self.path("data", "MuCo-3DHP.json")

    def entries(self, split: str) -> Iterator[Entry]:
        """People in the order of the pictures."""
        images, annotations = annotation_lists.coco_lists(
            self,
            split,
            self._file(),
            ("file_name", "width", "height", "f", "c"),
            ("id",),
            ("bbox", "keypoints_img", "keypoints_cam"),
        )
        people: dict[Any, list[dict]] = {key: [] for key in images}
        for annotation in annotations:
            if annotation_lists.usable_box(
                self, split, annotation, images[annotation["image_id"]]
            ):
                people[annotation["image_id"]].append(annotation)
        fits = annotation_lists.fits_by_id(self, self._fits)
        for key, found in people.items():
            if not found:
                self.drop(split, "picture without people")
                continue
            if self._people == "nearest":
                self.drop(split, "farther than another person", len(found) - 1)
                found = [min(found, key=lambda a: a["keypoints_cam"][_PELVIS][2])]
            for number, annotation in enumerate(found):
                fit = fits.get(str(annotation["id"]))
                data = (images[key], annotation, number, fit)
                yield Entry(f"{annotation['id']:08d}", data)

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one picture."""
        image, annotation, number, fit = data
        where = f"{self._file()}: annotation {annotation['id']}"
        pixels = numbers(
            self, f"{where}: keypoints_img", annotation["keypoints_img"], (21, 2)
        )
        joints = numbers(
            self, f"{where}: keypoints_cam", annotation["keypoints_cam"], (21, 3)
        )
        record = {
            **self.sized_image(self.path("data"), image["file_name"], image),
            "sequence_id": image["file_name"].rpartition("/")[0],
            "frame_id": int(image["id"]),
            "person_id": number,
            "bbox_xywh_px": np.asarray(annotation["bbox"], np.float64),
            "keypoints_px": with_validity(pixels),
            "joints_cam_m": with_validity(joints / 1000),
            "intrinsics": pinhole(image["f"], image["c"]),
        }
        if fit is not None:
            where = f"{self._fits}: {annotation['id']}"
            record |= smpl_fields(self, where, fit)
        return record
