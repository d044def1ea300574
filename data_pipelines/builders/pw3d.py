"""3DPW from its own sequence files: gendered SMPL in the world, moving cameras."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import MIN_CONFIDENCE, box_of_points, smooth_boxes
from data_pipelines.builders.cameras import (
    moved_points,
    moved_translation,
    project,
    rotated_root,
)
from data_pipelines.builders.label_values import gender_of, with_validity
from data_pipelines.builders.mpii_joints import detections_in_mpii_order
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import FieldSpec, Record
from hmr_jax.errors import UserError

_SPLITS = ("train", "validation", "test")
_BOXES = ("joints", "smooth", "smooth_published", "smooth_int")
_KEYS = (
    *("sequence", "betas", "poses", "trans", "jointPositions", "genders"),
    *("campose_valid", "cam_poses", "cam_intrinsics", "poses2d"),
)
_MIN_VISIBLE = 6
_BODY = slice(0, 14)
"""Of the 18 detections those that are no eyes and ears."""
_LIMBS = slice(2, 14)
"""Of the 18 detections those of arms and legs."""
_DETECTIONS = FieldSpec(
    "detections_px",
    "float32",
    (18, 3),
    "px",
    "image",
    "OpenPose's 18 points (joint set pw3d_18) and their confidence",
)


class Pw3d(PublishedDataset):
    """3DPW as its owners publish it.

    Joints are SMPL's 24 and keypoints their projections; the 2D detections of the
    release are an extra field. Records of a person follow each other in time. The
    body's root and translation are moved into the camera frame, exactly: the shaped
    rest root follows from the published joint positions.

    Args:
        raw: folder with ``sequenceFiles`` and ``imageFiles``.
        boxes: ``joints``: the tight box, times 1.2, of the projected joints inside the
            image; frames without any are left out. ``smooth``: boxes of the 2D
            detections (without eyes and ears) smoothed over time; frames with six or
            fewer confident ones are left out. ``smooth_published``: pose_hg's, of the
            16 joints that it derives from the detections (``mpii_joints.
            detections_in_mpii_order``), with a zero-padded filter. ``smooth_int``:
            INT's, of the twelve detections of arms and legs, with the same filter.

    Source: specs/i2l_meshnet.md 12.1; specs/int_hmr.md 15; specs/pose_hg.md 8.8.
    """

    name = "pw3d"
    description = "3DPW: videos outdoors with gendered SMPL parameters from IMUs."
    citation = (
        "von Marcard et al., Recovering accurate 3D human pose in the wild, ECCV 2018"
    )
    needs = (
        "sequenceFiles/{train,validation,test}/*.pkl",
        "imageFiles/<sequence>/image_%05d.jpg",
    )
    origin = "virtualhumans.mpi-inf.mpg.de/3DPW"
    licence = "3DPW: non-commercial research"
    counts = {"test": 35515}
    traits = {"crop_padding": 1.25}
    spec = schema.RecordSpec("smpl_24", 24, extras=(_DETECTIONS,))

    def __init__(self, raw: str, *, boxes: str = "joints"):
        if boxes not in _BOXES:
            raise UserError(f"boxes: expected one of {_BOXES}, got {boxes!r}")
        super().__init__(raw)
        self._boxes = boxes
        self._held: tuple[str, dict[str, Any]] = ("", {})

    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return _SPLITS

    def _sequence(self, path: str) -> dict[str, Any]:
        """A sequence file; the last one is held."""
        if self._held[0] != path:
            content = self.read_pickle(path)
            self.require(path, content, _KEYS)
            self._held = (path, content)
        return self._held[1]

    def entries(self, split: str) -> Iterator[Entry]:
        """Sequences by name, their people, and the frames of each."""
        paths = self.glob(split, "sequenceFiles", split, "*.pkl")
        if not paths:
            path = self.path("sequenceFiles", split)
            raise self.wrong(path, "sequence files (*.pkl)", "none")
        for path in paths:
            content = self._sequence(path)
            name = str(content["sequence"])
            size = self.image_size(self._image(name, 0))
            for person in range(len(content["poses"])):
                for frame, box in self._frames(split, path, content, person, size):
                    key = f"{name}_{person}_{frame:05d}"
                    yield Entry(key, (path, person, frame, box))

    def _image(self, sequence: str, frame: int) -> str:
        return self.path("imageFiles", sequence, f"image_{frame:05d}.jpg")

    def _frames(
        self, split: str, path: str, content: dict, person: int, size: tuple[int, int]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Frames of a person that become records, and their boxes."""
        number = len(content["poses"][person])
        valid = np.asarray(content["campose_valid"][person]).reshape(-1) != 0
        detections = _detections(content, person)
        if not number == len(valid) == len(detections) == len(content["cam_poses"]):
            found = (len(valid), len(detections), len(content["cam_poses"]))
            where = f"{path}: person {person}: campose_valid, poses2d, cam_poses"
            raise self.wrong(where, f"{number} frames as in poses", found)
        points = self._box_points(detections)
        smooth = None
        if self._boxes != "joints":
            zero_ends = self._boxes != "smooth"
            smooth = smooth_boxes(points, zero_ends)
        self.drop(split, "no valid camera", int((~valid).sum()))
        for frame in np.flatnonzero(valid).tolist():
            if smooth is None:
                box = self._joint_box(split, content, person, frame, size)
            else:
                box = self._smooth_box(split, smooth[frame], points[frame])
            if box is not None:
                yield frame, box

    def _box_points(self, detections: np.ndarray) -> np.ndarray:
        """The points [F, J, 3] that make the smooth boxes and that are counted."""
        if self._boxes == "smooth_published":
            return detections_in_mpii_order(detections)
        return detections[:, _LIMBS if self._boxes == "smooth_int" else _BODY]

    def _smooth_box(
        self, split: str, box: np.ndarray, points: np.ndarray
    ) -> np.ndarray | None:
        visible = (points[:, 2] > MIN_CONFIDENCE).sum()
        if visible <= _MIN_VISIBLE:
            self.drop(split, f"{_MIN_VISIBLE} or fewer confident 2D detections")
        elif np.isnan(box).any():
            self.drop(split, "no box")
        else:
            return box
        return None

    def _joint_box(
        self, split: str, content: dict, person: int, frame: int, size: tuple[int, int]
    ) -> np.ndarray | None:
        joints = _joints_cam(content, person, frame)
        pixels = project(content["cam_intrinsics"], joints)
        inside = (joints[:, 2] > 0) & np.all((pixels >= 0) & (pixels < size), axis=1)
        if not inside.any():
            self.drop(split, "no joint inside the image")
            return None
        box = box_of_points(pixels[inside], 1.2)
        if box[2:].min() <= 0:
            self.drop(split, "a single joint inside the image")
            return None
        return box

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one frame."""
        path, person, frame, box = data
        content = self._sequence(path)
        name = str(content["sequence"])
        extrinsics = np.asarray(content["cam_poses"][frame], np.float64)
        intrinsics = np.asarray(content["cam_intrinsics"], np.float64)
        joints = _joints_cam(content, person, frame)
        before = joints[:, 2] > 0
        pixels = project(intrinsics, np.where(before[:, None], joints, [0.0, 0.0, 1.0]))
        pose = np.asarray(content["poses"][person][frame], np.float64)
        translation = np.asarray(content["trans"][person][frame], np.float64)
        rest = _joints_world(content, person, frame)[0] - translation
        where = f"{path}: genders[{person}]"
        return {
            **self.read_image(self._image(name, frame)),
            "sequence_id": name,
            "frame_id": frame,
            "person_id": person,
            "bbox_xywh_px": box,
            "keypoints_px": with_validity(pixels * before[:, None], before),
            "joints_cam_m": with_validity(joints),
            "intrinsics": intrinsics,
            "extrinsics": extrinsics,
            "pose_aa": rotated_root(pose, extrinsics[:3, :3]),
            "betas": np.asarray(content["betas"][person], np.float64).ravel()[:10],
            "translation_m": moved_translation(translation, extrinsics, rest),
            "gender": gender_of(self, where, content["genders"][person]),
            "detections_px": _detections(content, person)[frame],
        }


def _joints_world(content: dict, person: int, frame: int) -> np.ndarray:
    joints = np.asarray(content["jointPositions"][person][frame], np.float64)
    return joints.reshape(24, 3)


def _joints_cam(content: dict, person: int, frame: int) -> np.ndarray:
    extrinsics = np.asarray(content["cam_poses"][frame], np.float64)
    return moved_points(extrinsics, _joints_world(content, person, frame))


def _detections(content: dict, person: int) -> np.ndarray:
    """[F, 18, 3]: published as [F, 3, 18]."""
    return np.swapaxes(np.asarray(content["poses2d"][person], np.float64), 1, 2)
