"""Any dataset in mmhuman3d's HumanData format; HybrIK's datasets converted to it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import record_fields, schema
from data_pipelines.builders import annotation_lists, human_data_file
from data_pipelines.builders.cameras import pinhole
from data_pipelines.builders.human_data_file import HumanDataFile
from data_pipelines.builders.label_values import gender_of, with_validity
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import Record
from hmr_jax.body.joint_sets import get_joint_set
from hmr_jax.errors import UserError
from hmr_jax.pictures.names import canonical

_MILLIMETRE_FACTOR = 2000


class HumanData(PublishedDataset):
    """HumanData .npz files: one for each split.

    Files with a ``depth_factor`` are read as IKOL's ``hybrik_*.npz`` (29 and 17 joints
    in 190 columns, absolute), all others as generic HumanData, whose keypoints are
    found by the names of their convention. In files named ``hybrik_*`` the boxes are
    corners.

    Args:
        raw: folder that the other paths begin in.
        train: file of the split ``train``, such as
            ``preprocessed_datasets/hybrik_h36m_train.npz``.
        test: file of the split ``test``.
        images: folder that ``image_path`` begins in, such as ``datasets/h36m``.
        joint_set: of the records.
        absolute: 3D keypoints of a generic file are in camera coordinates; otherwise
            they are relative to a root.
        millimetres: unit of a generic file's 3D keypoints; otherwise metres.

    Source: specs/ikol.md, sections 14.3, 15.2 and 15.3.
    """

    name = "human_data"
    description = "A dataset in mmhuman3d's HumanData format."
    citation = "MMHuman3D contributors, OpenMMLab 3D human toolbox, 2021"
    needs = (
        "the .npz files of the options train and test",
        "the pictures, below the folder of the option images",
    )
    origin = "github.com/open-mmlab/mmhuman3d and its converters"
    licence = "that of the dataset inside"
    traits = {"crop_padding": 1.25}

    def __init__(
        self,
        raw: str,
        *,
        train: str = "",
        test: str = "",
        images: str = "",
        joint_set: str = "smpl_29",
        absolute: bool = False,
        millimetres: bool = False,
    ):
        super().__init__(raw)
        if not train and not test:
            raise UserError("human_data: expected a file as train or test, got none")
        self._paths = {k: v for k, v in (("train", train), ("test", test)) if v}
        self._images = images
        self._absolute, self._unit = absolute, 1e-3 if millimetres else 1.0
        self._files: dict[str, HumanDataFile] = {}
        number = len(get_joint_set(joint_set))
        self.spec = schema.RecordSpec(
            joint_set, number, extras=(record_fields.TRANSLATION_KNOWN,)
        )

    def splits(self) -> Sequence[str]:
        """Those that have a file."""
        return tuple(self._paths)

    def _file(self, split: str) -> HumanDataFile:
        if split not in self._files:
            path = self.path(self._paths[split])
            self._files[split] = HumanDataFile(self, path)
        return self._files[split]

    def entries(self, split: str) -> Iterator[Entry]:
        """Records in the order of the file; those without a box are left out."""
        file = self._file(split)
        boxes = file.rows("bbox_xywh")
        if boxes is None:
            raise self.wrong(file.path, "an entry named 'bbox_xywh'", "none")
        corners = _has_corners(file)
        for number, box in enumerate(np.asarray(boxes, np.float64)[:, :4]):
            if corners:
                box = np.concatenate([box[:2], box[2:] - box[:2] + 1])
            if box[2:].min() <= 0:
                self.drop(split, "box without width or height")
                continue
            yield Entry(f"{number:08d}", (number, box))

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one picture."""
        number, box = data
        file = self._file(split)
        name = canonical(str(file.get("image_path")[number]))
        record = {
            **self.read_named(self.path(self._images), name),
            "sequence_id": name.rpartition("/")[0],
            "frame_id": annotation_lists.frame_number(name),
            "bbox_xywh_px": box,
            **_camera(file, number),
        }
        if _is_hybrik(file):
            return record | self._hybrik(file, number)
        return record | self._keypoints(file, number) | _body(self, file, number)

    # --- generic files

    def _points(self, file: HumanDataFile, name: str, number: int, size: int) -> Any:
        """Keypoints [J, size] of a record in the records' joint set, or None."""
        rows = file.rows(name)
        if rows is None:
            return None
        convention = str(file.get(f"{name}_convention") or "human_data")
        where = human_data_file.columns(
            self, file.path, convention, rows.shape[1], self.spec.joint_set
        )
        points = np.asarray(rows[number], np.float64)
        if points.shape[1] != size:
            place = f"{file.path}: {name}"
            raise self.wrong(place, f"{size} numbers per keypoint", points.shape[1])
        mask = file.get(f"{name}_mask")
        if mask is not None:
            points = points * (np.asarray(mask) != 0)[:, None]
        return human_data_file.take(points, where)

    def _keypoints(self, file: HumanDataFile, number: int) -> Record:
        fields: Record = {}
        pixels = self._points(file, "keypoints2d", number, 3)
        if pixels is not None:
            fields["keypoints_px"] = pixels
        joints = self._points(file, "keypoints3d", number, 4)
        if joints is not None:
            joints = joints * [self._unit, self._unit, self._unit, 1]
            joints[:, 3] = joints[:, 3] > 0
            fields |= {"joints_cam_m": joints, "has_root": int(self._absolute)}
        return fields

    # --- files made from HybrIK's annotations

    def _hybrik(self, file: HumanDataFile, number: int) -> Record:
        tables = human_data_file.HYBRIK_TABLES
        fields: Record = {}
        factors = file.rows("depth_factor")
        factor = 1.0 if factors is None else float(np.ravel(factors)[number])
        unit = 1e-3 if factor == _MILLIMETRE_FACTOR else 1.0
        wanted = get_joint_set(self.spec.joint_set).joints
        body = tables["smpl_29"]
        if file.get("smpl") is None:  # MPI-INF-3DHP and COCO hold no fits
            body = human_data_file.HUMAN_DATA
        index = np.array([body.get(name, -1) for name in wanted])
        pixels = file.rows("keypoints3d")
        if pixels is None:  # COCO's; both end with the confidence
            pixels = file.rows("keypoints2d")
        if pixels is not None:
            points = human_data_file.take(np.asarray(pixels[number], float), index)
            fields["keypoints_px"] = points[:, [0, 1, -1]] * (points[:, -1:] > 0)
        joints = file.rows("keypoints3d_cam")
        if joints is not None:
            points = human_data_file.take(np.asarray(joints[number], float), index)
            fields["joints_cam_m"] = _in_metres(points, unit)
        mocap = file.rows("keypoints3d17_cam")
        if mocap is not None:
            columns = np.array(list(tables["h36m_17"].values()))
            points = human_data_file.take(np.asarray(mocap[number], float), columns)
            fields["joints_h36m_cam_m"] = _in_metres(points, unit)
        poses, betas = file.rows("smpl", "thetas"), file.rows("smpl", "betas")
        if poses is not None and betas is not None:
            fields |= {
                "pose_aa": np.reshape(poses[number], (24, 3)),
                "betas": np.ravel(betas[number])[:10],
                "translation_m": np.zeros(3),
            }
        return fields | _twist(file, number)


def _is_hybrik(file: HumanDataFile) -> bool:
    return file.get("depth_factor") is not None


def _has_corners(file: HumanDataFile) -> bool:
    """Whether ``bbox_xywh`` holds x1, y1, x2, y2, as in all files named hybrik_*."""
    name = file.path.rpartition("/")[2]
    return _is_hybrik(file) or name.startswith("hybrik_")


def _in_metres(points: np.ndarray, unit: float) -> np.ndarray:
    """Joints [J, 3 or 4] with validity; without one, joints at zero are unknown."""
    valid = points[:, 3] > 0 if points.shape[1] == 4 else np.any(points != 0, axis=1)
    return with_validity(points[:, :3] * unit * valid[:, None], valid)


def _twist(file: HumanDataFile, number: int) -> Record:
    twists, weights = file.rows("phi"), file.rows("phi_weight")
    if twists is None or weights is None:
        return {}
    weight = np.asarray(weights[number], np.float64).reshape(23, -1)[:, 0]
    return {
        "twist_cos_sin": np.asarray(twists[number]) * weight[:, None],
        "twist_weight": weight,
    }


def _camera(file: HumanDataFile, number: int) -> Record:
    focal, centre = file.rows("cam_param", "f"), file.rows("cam_param", "c")
    if focal is None or centre is None:
        return {}
    return {"intrinsics": pinhole(focal[number], centre[number])}


def _body(source: PublishedDataset, file: HumanDataFile, number: int) -> Record:
    """SMPL parameters; the file's translation is taken as the camera's."""
    root, pose = file.rows("smpl", "global_orient"), file.rows("smpl", "body_pose")
    betas, moved = file.rows("smpl", "betas"), file.rows("smpl", "transl")
    if root is None or pose is None or betas is None:
        return {}
    rotations = np.concatenate([np.ravel(root[number]), np.ravel(pose[number])])
    translation = np.zeros(3) if moved is None else np.ravel(moved[number])
    fields: Record = {
        "pose_aa": rotations.reshape(24, 3),
        "betas": np.ravel(betas[number])[:10],
        "translation_m": translation,
        "translation_known": int(moved is not None),
    }
    genders = file.rows("meta", "gender")
    if genders is not None:
        where = f"{file.path}: meta.gender: row {number}"
        fields["gender"] = gender_of(source, where, genders[number])
    return fields
