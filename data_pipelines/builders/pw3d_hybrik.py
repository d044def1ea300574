"""3DPW in HybrIK's layout: SMPL parameters, SMPL joints and 17 regressed joints."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import record_fields, schema
from data_pipelines.builders import annotation_lists
from data_pipelines.builders.cameras import pinhole
from data_pipelines.builders.label_values import (
    numbers,
    smpl_fields,
    twist_fields,
    with_validity,
)
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import Record

_FILES = {
    "train": ("3DPW_train_our.json", "3DPW_train_new.json"),
    "test": ("3DPW_test_new.json",),
}
_MIN_SIDE_PX = 5


class Pw3dHybrik(PublishedDataset):
    """3DPW as published with HybrIK and used by IKOL: those splits whose file is there.

    Where the file does not number people, ``person_id`` is the order in the picture.

    Args:
        raw: folder with ``json`` and ``imageFiles``.

    Source: specs/ikol.md, section 15.1.
    """

    name = "pw3d_hybrik"
    description = "3DPW: SMPL parameters, 24 SMPL and 17 regressed joints."
    citation = (
        "von Marcard et al., Recovering accurate 3D human pose in the wild, ECCV 2018; "
        "annotations: Li et al., HybrIK, CVPR 2021"
    )
    needs = (
        "json/3DPW_train_our.json (optional; HybrIK's file with twist labels), or "
        "3DPW_train_new.json",
        "json/3DPW_test_new.json",
        "imageFiles/<sequence>/image_%05d.jpg",
    )
    origin = "virtualhumans.mpi-inf.mpg.de/3DPW; annotations of HybrIK"
    licence = "3DPW: non-commercial research"
    counts = {"test": 35515}
    traits = {"crop_padding": 1.25}
    spec = schema.RecordSpec("smpl_24", 24, extras=(record_fields.TRANSLATION_KNOWN,))

    @functools.cached_property
    def _paths(self) -> dict[str, str]:
        """The first file of each split that is there, or would be."""
        choices = {s: [self.path("json", n) for n in _FILES[s]] for s in _FILES}
        return {s: next(filter(self.exists, c), c[0]) for s, c in choices.items()}

    def _file(self, split: str) -> str:
        return self._paths[split]

    def splits(self) -> Sequence[str]:
        """Those of train and test whose file is there."""
        found = tuple(s for s in _FILES if self.exists(self._file(s)))
        if not found:
            expected = " or ".join(name for names in _FILES.values() for name in names)
            raise self.wrong(self.path("json"), expected, "none")
        return found

    def entries(self, split: str) -> Iterator[Entry]:
        """People in the order of the annotations."""
        images, annotations = annotation_lists.coco_lists(
            self,
            split,
            self._file(split),
            ("file_name", "sequence", "width", "height", "cam_param"),
            (),
            ("bbox", "smpl_param", "h36m_joints", "smpl_joint_cam", "smpl_joint_img"),
        )
        orders = annotation_lists.orders_in_images(annotations)
        for order, annotation in zip(orders, annotations, strict=True):
            if min(annotation["bbox"][2:]) < _MIN_SIDE_PX:
                self.drop(split, f"box under {_MIN_SIDE_PX} pixels")
                continue
            image = images[annotation["image_id"]]
            person = annotation.get("person_id", order)
            number = annotation["position"]
            yield Entry(f"{number:08d}", (image, annotation, person))

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one frame."""
        image, annotation, person = data
        where = f"{self._file(split)}: annotations[{int(key)}]"
        camera, fit = image["cam_param"], annotation["smpl_param"]
        self.require(f"{where}: cam_param", camera, ("focal", "princpt"))
        shapes = {"h36m_joints": 17, "smpl_joint_cam": 24, "smpl_joint_img": 24}
        points = {
            name: numbers(self, f"{where}: {name}", annotation[name], (n, 3))
            for name, n in shapes.items()
        }
        name = f"{image['sequence']}/{image['file_name']}"
        fit = {"trans": np.zeros(3)} | fit
        record = {
            **self.sized_image(self.path("imageFiles"), name, image),
            "sequence_id": image["sequence"],
            "frame_id": annotation_lists.frame_number(image["file_name"]),
            "person_id": int(person),
            "bbox_xywh_px": np.asarray(annotation["bbox"], np.float64),
            "keypoints_px": with_validity(points["smpl_joint_img"][:, :2]),
            "joints_cam_m": with_validity(points["smpl_joint_cam"]),
            "joints_h36m_cam_m": with_validity(points["h36m_joints"]),
            "intrinsics": pinhole(camera["focal"], camera["princpt"]),
            **smpl_fields(self, f"{where}: smpl_param", fit),
            "translation_known": int("trans" in annotation["smpl_param"]),
        }
        if "angle_twist" in annotation:
            twist = annotation["angle_twist"]
            record |= twist_fields(self, f"{where}: angle_twist", twist)
        return record
