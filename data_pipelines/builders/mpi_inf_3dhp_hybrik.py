"""MPI-INF-3DHP in HybrIK's layout: 28 (training) and 17 (test) joints."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders import annotation_lists
from data_pipelines.builders.cameras import project
from data_pipelines.builders.label_values import numbers, select_joints, with_validity
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import FieldSpec, Record

_PARTS = {
    "train": ("annotation_mpi_inf_3dhp_train_v2.json", "mpi_inf_3dhp_train_set", 28),
    "test": ("annotation_mpi_inf_3dhp_test.json", "mpi_inf_3dhp_test_set", 17),
}
_SAME = {"pelvis": "pelvis_extra", "neck": "neck_extra"}
_ACTIVITY = FieldSpec(
    "activity_id", "int64", (), doc="activity of the test set's frame, 0 where unknown"
)


class MpiInf3dhpHybrik(PublishedDataset):
    """MPI-INF-3DHP as published with HybrIK and used by IKOL.

    The test set's 17 joints stand at the places of their names among the 28.

    Args:
        raw: folder with the two annotation files and the two folders of pictures.

    Source: specs/ikol.md, section 15.1.
    """

    name = "mpi_inf_3dhp_hybrik"
    description = "MPI-INF-3DHP: markerless 3D joints and cameras."
    citation = (
        "Mehta et al., Monocular 3D human pose estimation in the wild, 3DV 2017; "
        "annotations: Li et al., HybrIK, CVPR 2021"
    )
    needs = tuple(
        line for file, folder, _ in _PARTS.values() for line in (file, f"{folder}/")
    )
    origin = "vcai.mpi-inf.mpg.de/3dhp-dataset; annotations of HybrIK"
    licence = "MPI-INF-3DHP: non-commercial research"
    traits = {"crop_padding": 1.25, "occlude": 0.0}
    spec = schema.RecordSpec("hybrik_3dhp_28", 28, extras=(_ACTIVITY,))

    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return tuple(_PARTS)

    def entries(self, split: str) -> Iterator[Entry]:
        """Frames in the order of the file."""
        pairs = annotation_lists.paired_lists(
            self,
            split,
            self.path(_PARTS[split][0]),
            ("file_name", "width", "height", "cam_param"),
            ("bbox", "keypoints_cam"),
        )
        for image, annotation in pairs:
            if min(annotation["bbox"][2:]) <= 0:
                self.drop(split, "box without width or height")
                continue
            yield Entry(image["file_name"].rpartition(".")[0], (image, annotation))

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one frame."""
        image, annotation = data
        file, folder, number = _PARTS[split]
        where = f"{self.path(file)}: {key}"
        camera = image["cam_param"]
        self.require(f"{where}: cam_param", camera, ("intrinsic_param",))
        intrinsics = np.asarray(camera["intrinsic_param"], np.float64)
        if intrinsics.shape not in ((3, 3), (3, 4)):
            found = f"shape {list(intrinsics.shape)}"
            raise self.wrong(
                f"{where}: intrinsic_param", "a 3 x 3 or 3 x 4 matrix", found
            )
        points = annotation["keypoints_cam"]
        points = numbers(self, f"{where}: keypoints_cam", points, (number, 3))
        joints = with_validity(points / 1000)
        pixels = with_validity(project(intrinsics[:, :3], joints[:, :3]))
        scored = {}
        if split == "test":
            # The 17 joints that the test protocol scores, in Human3.6M's order.
            scored["joints_h36m_cam_m"] = select_joints(
                joints, "mpi_inf_3dhp_test_17", "h36m_17"
            )
            joints, pixels = (
                select_joints(p, "mpi_inf_3dhp_test_17", "hybrik_3dhp_28", _SAME)
                for p in (joints, pixels)
            )
        return {
            **self.sized_image(self.path(folder), image["file_name"], image),
            "sequence_id": key.rpartition("/")[0] or key.rpartition("_")[0],
            "frame_id": annotation_lists.frame_number(key),
            "bbox_xywh_px": np.asarray(annotation["bbox"], np.float64),
            "keypoints_px": pixels,
            "joints_cam_m": joints,
            **scored,
            "intrinsics": intrinsics[:, :3],
            "activity_id": int(annotation.get("activity_id", 0)),
        }
