"""3DPW in I2L-MeshNet's layout: SMPL parameters in the camera frame."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import record_fields, schema
from data_pipelines.builders import annotation_lists
from data_pipelines.builders.cameras import pinhole
from data_pipelines.builders.label_values import numbers, smpl_fields, with_validity
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import Record

_SPLITS = ("train", "validation", "test")


class Pw3dI2l(PublishedDataset):
    """3DPW as published with I2L-MeshNet: those splits whose file is there.

    The tool that made the files moved the translation into the camera frame with the
    neutral body's rest root although the genders are male and female: absolute
    positions are off by a few centimetres; the raw builder ``pw3d`` is exact.

    Args:
        raw: folder ``PW3D`` with ``data`` and the pictures in ``data/imageFiles`` (as
            its code reads them) or ``imageFiles`` (as its README says).
        rootnet: boxes and root depths of the test split from
            ``rootnet_output/bbox_root_pw3d_output.json``.

    Source: specs/i2l_meshnet.md, sections 11.4, 12.1 and 17.10, 17.11.
    """

    name = "pw3d_i2l"
    description = "3DPW: gendered SMPL parameters in the camera frame, SMPL joints."
    citation = (
        "von Marcard et al., Recovering accurate 3D human pose in the wild, ECCV 2018; "
        "annotations: Moon and Lee, I2L-MeshNet, ECCV 2020"
    )
    needs = (
        "data/3DPW_{train,validation,test}.json (those that are wanted)",
        "data/imageFiles/<sequence>/image_%05d.jpg, or imageFiles/...",
        "rootnet_output/bbox_root_pw3d_output.json (option rootnet)",
    )
    origin = "virtualhumans.mpi-inf.mpg.de/3DPW; files from the I2L-MeshNet repository"
    licence = "3DPW: non-commercial research"
    counts = {"test": 35515}
    traits = {"crop_padding": 1.25}
    spec = schema.RecordSpec(
        "smpl_24", 24, extras=(record_fields.ROOT_DEPTH, record_fields.BOX_IS_CROP)
    )

    def __init__(self, raw: str, *, rootnet: bool = False):
        super().__init__(raw)
        self._rootnet = rootnet

    def _file(self, split: str) -> str:
        return self.path("data", f"3DPW_{split}.json")

    def splits(self) -> Sequence[str]:
        """Those of train, validation and test whose file is there."""
        found = tuple(s for s in _SPLITS if self.exists(self._file(s)))
        if not found:
            expected = "one or more of " + ", ".join(f"3DPW_{s}.json" for s in _SPLITS)
            raise self.wrong(self.path("data"), expected, "none")
        return found

    def entries(self, split: str) -> Iterator[Entry]:
        """People in the order of the annotations."""
        images, annotations = annotation_lists.coco_lists(
            self,
            split,
            self._file(split),
            ("file_name", "sequence", "width", "height", "cam_param"),
            ("id",),
            ("bbox", "smpl_param"),
        )
        boxes = None
        if self._rootnet and split == "test":
            path = self.path("rootnet_output", "bbox_root_pw3d_output.json")
            found = annotation_lists.detections(self, path, "ann_id", 1.0)
            boxes = {item["ann_id"]: item for item in found}
        orders = annotation_lists.orders_in_images(annotations)
        for annotation, order in zip(annotations, orders, strict=True):
            image = images[annotation["image_id"]]
            box = None
            if boxes is not None:
                box = boxes.get(annotation["id"])
                if box is None:
                    self.drop(split, "no box in the detector's file")
                    continue
            elif not annotation_lists.usable_box(self, split, annotation, image):
                continue
            person = annotation.get("person_id", order)
            yield Entry(f"{annotation['id']:08d}", (image, annotation, person, box))

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one frame."""
        image, annotation, person, detection = data
        where = f"{self._file(split)}: annotation {annotation['id']}"
        camera = image["cam_param"]
        self.require(f"{where}: cam_param", camera, ("focal", "princpt"))
        folder = self.folder_of("data/imageFiles", "imageFiles")
        name = f"{image['sequence']}/{image['file_name']}"
        stem = image["file_name"].rpartition(".")[0]
        frame = image.get("frame_idx", stem.rpartition("_")[2])
        record = {
            **self.sized_image(folder, name, image),
            "sequence_id": image["sequence"],
            "frame_id": int(frame),
            "person_id": int(person),
            "bbox_xywh_px": np.asarray(annotation["bbox"], np.float64),
            "intrinsics": pinhole(camera["focal"], camera["princpt"]),
            **smpl_fields(self, where, annotation["smpl_param"]),
            **self._joints(where, annotation),
        }
        if detection is not None:
            record |= annotation_lists.detected_fields(detection)
        elif "joints_cam_m" in record:
            record["root_depth_m"] = record["joints_cam_m"][0, 2]
        return record

    def _joints(self, where: str, annotation: dict) -> Record:
        """The 24 joints that the conversion tool wrote; its own loader skips them."""
        fields: Record = {}
        if "joint_cam" in annotation:
            joints = annotation["joint_cam"]
            joints = numbers(self, f"{where}: joint_cam", joints, (24, 3))
            fields["joints_cam_m"] = with_validity(joints)
        if "joint_img" in annotation:
            pixels = np.asarray(annotation["joint_img"], np.float64).reshape(24, -1)
            fields["keypoints_px"] = with_validity(pixels[:, :2])
        return fields
