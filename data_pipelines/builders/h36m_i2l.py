"""Human3.6M in I2L-MeshNet's layout: cameras, 3D joints and SMPL fits per subject."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import record_fields, schema
from data_pipelines.builders import annotation_lists
from data_pipelines.builders.cameras import (
    moved_points,
    moved_translation,
    pinhole,
    project,
    rigid_motion,
    rotated_root,
)
from data_pipelines.builders.label_values import (
    compact,
    numbers,
    select_joints,
    smpl_fields,
    with_validity,
)
from data_pipelines.builders.numpy_body import NumpyBody
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import Record

_SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
_KINDS = ("camera", "joint_3d", "smpl_param")
_FRAME = ("action_idx", "subaction_idx", "frame_idx")
_IMAGE_KEYS = (
    *("file_name", "width", "height"),
    *("subject", "action_idx", "subaction_idx", "cam_idx", "frame_idx"),
)


class H36mI2l(PublishedDataset):
    """Human3.6M as published with I2L-MeshNet.

    Joints are the mocap's 17, without occlusion; fits are SMPL in the world frame, and
    missing for some frames. A body's translation in the camera frame needs its rest
    root joint: give ``smpl_model``, or use the fields of the world frame.

    Args:
        raw: folder ``Human36M`` with ``annotations`` and ``images``.
        rootnet: boxes and root depths of the test split from
            ``rootnet_output/bbox_root_human36m_output.json``.
        train_stride: keep every so many frames of the training subjects.
        test_stride: the same of the test subjects.
        test_camera: camera of the test split; 0 for all four.
        smpl_model: file of the neutral SMPL body, for exact translations.

    Source: specs/i2l_meshnet.md, section 11.1.
    """

    name = "h36m_i2l"
    file_options = ("smpl_model",)
    description = (
        "Human3.6M: 17 mocap joints, cameras and SMPL fits, one person per frame, "
        "every 5th (training) and 64th (test) frame."
    )
    citation = (
        "Ionescu et al., Human3.6M, TPAMI 2014; annotations: Moon and Lee, "
        "I2L-MeshNet, ECCV 2020"
    )
    needs = (
        "annotations/Human36M_subject{1,5,6,7,8,9,11}_data.json",
        "annotations/Human36M_subject{1,5,6,7,8,9,11}_camera.json",
        "annotations/Human36M_subject{1,5,6,7,8,9,11}_joint_3d.json",
        "annotations/Human36M_subject{1,5,6,7,8,9,11}_smpl_param.json",
        "images/s_XX_act_XX_subact_XX_ca_XX/*.jpg",
        "rootnet_output/bbox_root_human36m_output.json (option rootnet)",
    )
    origin = "vision.imar.ro/human3.6m; annotations from the I2L-MeshNet repository"
    licence = "Human3.6M: research only, by registration"
    traits = {"crop_padding": 1.0}
    spec = schema.RecordSpec(
        "h36m_right_first_17",
        17,
        extras=(
            record_fields.ROOT_DEPTH,
            record_fields.BOX_IS_CROP,
            record_fields.WORLD_TRANSLATION,
            record_fields.TRANSLATION_KNOWN,
        ),
    )

    def __init__(
        self,
        raw: str,
        *,
        rootnet: bool = False,
        train_stride: int = 5,
        test_stride: int = 64,
        test_camera: int = 4,
        smpl_model: str = "",
    ):
        super().__init__(raw)
        self._strides = {"train": train_stride, "test": test_stride}
        self._test_camera = test_camera
        self._rootnet = rootnet
        self._rest = NumpyBody(self, smpl_model) if smpl_model else None

    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return tuple(_SUBJECTS)

    def _file(self, subject: int, kind: str) -> str:
        return self.path("annotations", f"Human36M_subject{subject}_{kind}.json")

    def entries(self, split: str) -> Iterator[Entry]:
        """Frames of the split's subjects in the order of their annotations."""
        boxes = self._detections() if self._rootnet and split == "test" else None
        seen: set[int] = set()
        for subject in _SUBJECTS[split]:
            files = {k: self.read_json(self._file(subject, k)) for k in _KINDS}
            path = self._file(subject, "data")
            images, annotations = annotation_lists.coco_lists(
                self, split, path, _IMAGE_KEYS, ("id",), ("bbox",)
            )
            if repeated := seen & images.keys():
                found = f"image id {min(repeated)} of another subject"
                raise self.wrong(path, "ids unique over subjects", found)
            seen |= images.keys()
            for annotation in annotations:
                image = images[annotation["image_id"]]
                if self._is_wanted(split, annotation, image, boxes):
                    box = boxes[image["id"]] if boxes is not None else None
                    key = image["file_name"].rpartition(".")[0]
                    camera = files["camera"].get(str(image["cam_idx"]))
                    joints, fit = (_of_frame(files[k], image) for k in _KINDS[1:])
                    labels = (annotation["bbox"], box, camera, joints, fit)
                    yield Entry(key, (subject, image, *labels))

    def _detections(self) -> dict[int, dict]:
        path = self.path("rootnet_output", "bbox_root_human36m_output.json")
        found = annotation_lists.detections(self, path, "image_id", 1e-3)
        return {item["image_id"]: item for item in found}

    def _is_wanted(
        self, split: str, annotation: dict, image: dict, boxes: dict | None
    ) -> bool:
        stride = self._strides[split]
        if image["frame_idx"] % stride:
            self.drop(split, f"frame is no multiple of {stride}")
        elif split == "test" and self._test_camera not in (0, image["cam_idx"]):
            self.drop(split, f"not camera {self._test_camera}")
        elif boxes is not None and image["id"] not in boxes:
            self.drop(split, "no box in the detector's file")
        else:
            return boxes is not None or annotation_lists.usable_box(
                self, split, annotation, image
            )
        return False

    def _camera(
        self, subject: int, camera: int, content: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Intrinsics [3, 3] and extrinsics [4, 4] (metres)."""
        path = self._file(subject, "camera")
        found = {} if content is None else {str(camera): content}
        self.require(path, found, (str(camera),))
        self.require(f"{path}: {camera}", content, ("R", "t", "f", "c"))
        rotation = numbers(self, f"{path}: R", content["R"], (3, 3))
        offset_m = numbers(self, f"{path}: t", content["t"], (3,)) / 1000
        intrinsics = pinhole(content["f"], content["c"])
        return intrinsics, rigid_motion(rotation, offset_m)

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one frame."""
        subject, image, box, detection, camera, joints, fit = data
        intrinsics, extrinsics = self._camera(subject, image["cam_idx"], camera)
        path = self._file(subject, "joint_3d")
        if joints is None:
            wanted = ", ".join(f"{name} {image[name]}" for name in _FRAME)
            raise self.wrong(path, f"an entry for {wanted}", "none")
        where = f"{path}: {key}"
        joints_m = numbers(self, where, joints, (17, 3)) / 1000
        joints_m = moved_points(extrinsics, joints_m)
        joints_cam = with_validity(joints_m)
        record = {
            **self.sized_image(self.path("images"), image["file_name"], image),
            "sequence_id": key.rpartition("/")[0],
            "frame_id": image["frame_idx"],
            "bbox_xywh_px": box,
            "keypoints_px": with_validity(project(intrinsics, joints_m)),
            "joints_cam_m": joints_cam,
            "joints_h36m_cam_m": select_joints(
                joints_cam, "h36m_right_first_17", "h36m_17"
            ),
            "intrinsics": intrinsics,
            "extrinsics": extrinsics,
        }
        if detection is not None:
            record |= annotation_lists.detected_fields(detection)
        elif split == "test":
            record["root_depth_m"] = joints_m[0, 2]
        if fit is None:
            return record
        where = f"{self._file(subject, 'smpl_param')}: {key}"
        return record | self._fit(where, fit, extrinsics)

    def _fit(self, where: str, fit: dict, extrinsics: np.ndarray) -> Record:
        """A fit of the world frame as fields of the camera frame."""
        world = smpl_fields(self, where, fit)
        translation = world["translation_m"]
        fields = world | {
            "pose_aa": rotated_root(world["pose_aa"], extrinsics[:3, :3]),
            "translation_world_m": translation,
            "translation_m": np.zeros(3),
        }
        if self._rest is not None:
            root = self._rest.rest_joints(world["betas"])[0]
            moved = moved_translation(translation, extrinsics, root)
            fields |= {"translation_m": moved, "translation_known": 1}
        return fields


def _of_frame(content: Any, image: dict) -> Any:
    """The entry [action][subaction][frame] of a subject's file, or None."""
    for name in _FRAME:
        content = content.get(str(image[name]))
        if content is None:
            return None
    return compact(content)
