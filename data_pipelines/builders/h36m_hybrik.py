"""Human3.6M in HybrIK's layout: SMPL joints with leaves, fits and twist labels."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import record_fields, schema
from data_pipelines.builders import annotation_lists
from data_pipelines.builders.cameras import pinhole, project, rigid_motion
from data_pipelines.builders.label_values import numbers, twist_fields, with_validity
from data_pipelines.builders.numpy_body import NumpyBody
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import Record

_FILES = {
    "train": "Sample_5_train_Human36M_smpl_leaf_twist_protocol_2.json",
    "test": "Sample_20_test_Human36M_smpl_protocol_2.json",
}
_BLOCKED = (
    "s_09_act_05_subact_02_ca",
    "s_09_act_10_subact_02_ca",
    "s_09_act_13_subact_01_ca",
)


class H36mHybrik(PublishedDataset):
    """Human3.6M, protocol 2, as published with HybrIK and used by IKOL.

    The five leaves are valid where the file has 29 SMPL joints, which its training
    part does. The fits have no translation: give
    ``smpl_model``, or place their root joint at the first of the 3D joints.

    Args:
        raw: folder with ``annotations`` and ``images``.
        blocked: also keep the three sequences of subject 9 whose labels are wrong.
        smpl_model: file of the neutral SMPL body, for exact translations.

    Source: specs/ikol.md, section 15.1.
    """

    name = "h36m_hybrik"
    file_options = ("smpl_model",)
    description = "Human3.6M: SMPL fits, SMPL joints, mocap joints and twist labels."
    citation = (
        "Ionescu et al., Human3.6M, TPAMI 2014; annotations: Li et al., HybrIK, "
        "CVPR 2021"
    )
    needs = (
        *(f"annotations/{file}" for file in _FILES.values()),
        "images/s_XX_act_XX_subact_XX_ca_XX/*.jpg",
    )
    origin = "vision.imar.ro/human3.6m; annotations from the HybrIK repository"
    licence = "Human3.6M: research only, by registration"
    traits = {"crop_padding": 1.0}
    spec = schema.RecordSpec(
        "smpl_29", 29, extras=(record_fields.ROOT_CAM, record_fields.TRANSLATION_KNOWN)
    )

    def __init__(self, raw: str, *, blocked: bool = False, smpl_model: str = ""):
        super().__init__(raw)
        self._keep_blocked = blocked
        self._rest = NumpyBody(self, smpl_model) if smpl_model else None

    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return tuple(_FILES)

    def _file(self, split: str) -> str:
        return self.path("annotations", _FILES[split])

    def entries(self, split: str) -> Iterator[Entry]:
        """Frames in the order of the file."""
        pairs = annotation_lists.paired_lists(
            self,
            split,
            self._file(split),
            ("file_name", "width", "height", "cam_param"),
            ("bbox", "h36m_joints", "smpl_joints", "betas", "thetas", "root_coord"),
        )
        for image, annotation in pairs:
            name = image["file_name"]
            if not self._keep_blocked and any(b in name for b in _BLOCKED):
                self.drop(split, "blocked sequence")
            elif min(annotation["bbox"][2:]) <= 0:
                self.drop(split, "box without width or height")
            else:
                yield Entry(name.rpartition(".")[0], (image, annotation))

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one frame."""
        image, annotation = data
        where = f"{self._file(split)}: {key}"
        camera = image["cam_param"]
        self.require(f"{where}: cam_param", camera, ("f", "c"))
        intrinsics = pinhole(camera["f"], camera["c"])
        joints = self._smpl_joints(where, annotation["smpl_joints"])
        mocap = annotation["h36m_joints"]
        mocap = numbers(self, f"{where}: h36m_joints", mocap, (17, 3)) / 1000
        root = annotation["root_coord"]
        root = numbers(self, f"{where}: root_coord", root, (3,)) / 1000
        depth = np.where(joints[:, 3] > 0, joints[:, 2], 1.0)
        before = np.concatenate([joints[:, :2], depth[:, None]], axis=-1)
        pixels = project(intrinsics, before) * joints[:, 3:]
        record = {
            **self.sized_image(self.path("images"), image["file_name"], image),
            "sequence_id": key.rpartition("/")[0] or key.rpartition("_")[0],
            "frame_id": int(image.get("frame_idx", annotation_lists.frame_number(key))),
            "bbox_xywh_px": np.asarray(annotation["bbox"], np.float64),
            "keypoints_px": with_validity(pixels, joints[:, 3]),
            "joints_cam_m": joints,
            "joints_h36m_cam_m": with_validity(mocap),
            "intrinsics": intrinsics,
            "extrinsics": _extrinsics(self, where, camera),
            "root_cam_m": root,
            "pose_aa": numbers(self, f"{where}: thetas", annotation["thetas"], (24, 3)),
            "betas": numbers(self, f"{where}: betas", annotation["betas"], (10,)),
            "translation_m": np.zeros(3),
        }
        if self._rest is not None:
            moved = joints[0, :3] - self._rest.rest_joints(record["betas"])[0]
            record |= {"translation_m": moved, "translation_known": 1}
        if "angle_twist" in annotation:
            twist = annotation["angle_twist"]
            record |= twist_fields(self, f"{where}: angle_twist", twist)
        return record

    def _smpl_joints(self, where: str, value: Any) -> np.ndarray:
        """Joints and validity [29, 4], metres; files have 24 or 29."""
        number = 29 if np.size(value) == 29 * 3 else 24
        points = numbers(self, f"{where}: smpl_joints", value, (number, 3))
        joints = np.zeros((29, 4))
        joints[:number] = with_validity(points / 1000)
        return joints


def _extrinsics(source: PublishedDataset, where: str, camera: dict) -> np.ndarray:
    """World to camera [4, 4] in metres where the file has it, else the identity."""
    if "R" not in camera or "t" not in camera:
        return np.eye(4)
    rotation = numbers(source, f"{where}: R", camera["R"], (3, 3))
    offset = numbers(source, f"{where}: t", camera["t"], (3,))
    return rigid_motion(rotation, offset / 1000)
