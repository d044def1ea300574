"""mmhuman3d's HumanData files and the conventions of their keypoints.

Source: specs/ikol.md, sections 14.3, 15.2 and 15.3.
"""

from typing import Any

import numpy as np

from data_pipelines.builders.published_dataset import PublishedDataset
from hmr_jax.body.joint_sets import JOINT_SETS, get_joint_set

CONVENTIONS = {
    "coco": "coco_17",
    "h36m": "h36m_17",
    "h36m_mmpose": "h36m_right_first_17",
    "hybrik_29": "smpl_29",
    "hybrik_hp3d": "hybrik_3dhp_28",
    "instavariety": "insta_variety_25",
    "lsp": "lsp_14",
    "mpi_inf_3dhp": "mpi_inf_3dhp_28",
    "mpi_inf_3dhp_test": "mpi_inf_3dhp_test_17",
    "mpii": "mpii_16",
    "openpose_25": "openpose_25",
    "penn_action": "penn_action_13",
    "posetrack": "posetrack_17",
    "pw3d": "pw3d_18",
    "smpl": "smpl_24",
    "smpl_24": "smpl_24",
    "smpl_49": "spin_49",
}
"""Conventions by the name that files give them, as joint sets of ours."""


def _human_data() -> dict[str, int]:
    """Columns of the 190-joint convention whose meaning is known, by our names."""
    names = dict(zip(JOINT_SETS["smpl_24"].joints[:22], range(22), strict=True))
    rows = {
        55: "nose right_eye left_eye right_ear left_ear",
        60: "left_big_toe left_small_toe left_heel",
        63: "right_big_toe right_small_toe right_heel",
        144: "right_hip_extra left_hip_extra neck_extra headtop pelvis_extra thorax "
        "spine_extra jaw_extra head_extra",
    }
    for start, text in rows.items():
        names |= {name: start + i for i, name in enumerate(text.split())}
    return names


HUMAN_DATA = _human_data()
"""Name of ours -> column of the convention ``human_data``."""
_HYBRIK_COLUMNS = (*(*range(15), 22, *range(16, 22)), *(66, 71, 15, 68, 73, 60, 63))
_H36M_COLUMNS = (
    *(148, 145, 4, 7, 144, 5, 8, 150, 146, 152, 147),
    *(16, 18, 20, 17, 19, 21),
)
HYBRIK_TABLES = {
    "smpl_29": dict(zip(JOINT_SETS["smpl_29"].joints, _HYBRIK_COLUMNS, strict=True)),
    "h36m_17": dict(zip(JOINT_SETS["h36m_17"].joints, _H36M_COLUMNS, strict=True)),
}
"""Columns of the files made from HybrIK's annotations: there SMPL's head is the
convention's jaw, and the top of the head its head."""


def columns(
    source: PublishedDataset, path: str, convention: str, number: int, joint_set: str
) -> np.ndarray:
    """Where each joint of a set is among a file's keypoints.

    Args:
        source: named in errors.
        path: of the file.
        convention: of its keypoints.
        number: of its keypoints.
        joint_set: wanted.

    Returns:
        Column per joint; -1 where there is none.

    Raises:
        RecordError: a convention that is not known, or another number of keypoints.
    """
    if convention == "human_data":
        table, expected = HUMAN_DATA, 190
    elif convention in CONVENTIONS:
        known = JOINT_SETS[CONVENTIONS[convention]].joints
        table, expected = {n: i for i, n in enumerate(known)}, len(known)
    else:
        names = ", ".join(["human_data", *CONVENTIONS])
        raise source.wrong(
            f"{path}: keypoint convention", f"one of {names}", convention
        )
    if number != expected:
        where = f"{path}: keypoints in the convention {convention}"
        raise source.wrong(where, f"{expected} of them", number)
    return np.array([table.get(n, -1) for n in get_joint_set(joint_set).joints])


def take(points: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Columns of keypoints [K, C]; zeros where the index is -1."""
    return points[where] * (where >= 0)[:, None]


class HumanDataFile:
    """The content of a HumanData file.

    Args:
        source: reads the file, and is named in errors.
        path: of the .npz file.

    Attributes:
        length: number of records.

    Raises:
        RecordError: it is no such file.
    """

    def __init__(self, source: PublishedDataset, path: str):
        self._source, self.path = source, path
        self._content = {
            key: _unwrapped(value) for key, value in source.read_npz(path).items()
        }
        source.require(path, self._content, ("image_path",))
        self.length = len(self._content["image_path"])
        self._decompress()

    def _decompress(self) -> None:
        """Put back the keypoints that the mask leaves out of a compressed file."""
        if not self._content.get("__keypoints_compressed__", False):
            return
        for key, mask in list(self._content.items()):
            name = key.removesuffix("_mask")
            if name == key or not name.startswith("keypoints"):
                continue
            kept = np.asarray(mask) != 0
            found = np.asarray(self._content[name])
            if found.shape[1] == len(kept):
                continue
            if found.shape[1] != kept.sum():
                where = f"{self.path}: {name}"
                expected = f"{kept.sum()} keypoints as in its mask"
                raise self._source.wrong(where, expected, found.shape[1])
            full = np.zeros((len(found), len(kept), found.shape[2]), found.dtype)
            full[:, kept] = found
            self._content[name] = full

    def get(self, *names: str) -> Any:
        """An entry, or one inside dictionaries; None where it is missing."""
        value: Any = self._content
        for name in names:
            if not isinstance(value, dict) or name not in value:
                return None
            value = value[name]
        return value

    def rows(self, *names: str) -> np.ndarray | None:
        """An entry with one row per record; None where it is missing.

        Raises:
            RecordError: another number of rows.
        """
        value = self.get(*names)
        if value is None:
            return None
        if len(value) != self.length:
            where = f"{self.path}: {'.'.join(names)}"
            raise self._source.wrong(where, f"{self.length} rows", len(value))
        return np.asarray(value)


def _unwrapped(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    return value
