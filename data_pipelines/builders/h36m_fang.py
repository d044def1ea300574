"""Human3.6M as single persons' crops of 224 pixels (the ICCV-protocol cache)."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.label_values import with_validity
from data_pipelines.builders.mpii_joints import H36M_TO_MPII, MPII
from data_pipelines.builders.published_dataset import PublishedDataset
from data_pipelines.record_fields import DEPTH_PX
from hmr_jax.body.joint_sets import map_joints

_SET = "h36m_right_first_17"
_SUBJECTS = {"train": (1, 5, 6, 7, 8), "val": (9, 11)}
_VARIABLES = ("Y2d", "Y3d_mono", "num_images")
_EDGES = (
    *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (10, 11), (11, 12)),
    *((12, 8), (8, 13), (13, 14), (14, 15), (6, 8), (8, 9)),
)
SIZE_PX = 224


class H36mFang(PublishedDataset):
    """One frame of one camera, 17 joints below the pelvis, cropped to 224 pixels.

    The extra ``depth_px`` has the published cache's scale: the lengths of the edges in
    the image, over those of the camera's x and y.

    Args:
        raw: folder with ``images``.
        every_train: take every n-th frame for training, 5 as published.
        every_val: the same for validation, 200 as published.

    Source: specs/pose_hg.md, section 8.9.
    """

    name = "h36m_fang"
    spec = schema.RecordSpec(joint_set=_SET, num_joints=17, extras=(DEPTH_PX,))
    description = "Human3.6M's frames cropped to one person, subjects 9 and 11 to test."
    citation = (
        "Ionescu et al., Human3.6M: Large Scale Datasets and Predictive Methods for 3D "
        "Human Sensing in Natural Environments, PAMI 2014; crops as in Fang et al., "
        "AAAI 2018, and Zhou et al., ICCV 2017"
    )
    needs = (
        "images/s_01_act_02_subact_01_ca_01/matlab_meta.mat, ...: Y2d, Y3d_mono, "
        "num_images",
        "images/s_01_act_02_subact_01_ca_01/"
        "s_01_act_02_subact_01_ca_01_000001.jpg, ...: 224 x 224",
    )
    origin = "http://vision.imar.ro/human3.6m, cropped by the papers' authors"
    licence = "Human3.6M's: registered academic use, no redistribution"

    def __init__(self, raw: str, *, every_train: int = 5, every_val: int = 200):
        super().__init__(raw)
        self.every = {"train": every_train, "val": every_val}
        self._labels: dict[str, dict[str, np.ndarray]] = {}

    def splits(self) -> Sequence[str]:
        """Subjects 1, 5, 6, 7, 8; subjects 9 and 11."""
        return tuple(_SUBJECTS)

    def _clips(self, split: str) -> list[str]:
        """Folders of a split in the order of subject, action, part and camera."""
        numbers = itertools.product(
            _SUBJECTS[split], range(2, 17), range(1, 3), range(1, 5)
        )
        names = [
            f"s_{s:02d}_act_{a:02d}_subact_{p:02d}_ca_{c:02d}" for s, a, p, c in numbers
        ]
        found = [name for name in names if self.exists(self._meta(name))]
        if not found:
            expected = f"one of {len(names)} folders of {split}"
            raise self.wrong(self._meta(names[0]), expected, "none of them")
        if len(found) < len(names):
            self.dropped[split, "clips that are not there"] = len(names) - len(found)
        return found

    def _meta(self, clip: str) -> str:
        return self.path("images", clip, "matlab_meta.mat")

    def _clip(self, clip: str) -> dict[str, np.ndarray]:
        """Labels of a clip over its frames: pixels [N, 17, 2], millimetres [N, 17, 3].

        Frames lie along the last axis, or along the first of two.
        """
        if clip not in self._labels:
            path = self._meta(clip)
            content = self.read_mat(path, *_VARIABLES)
            number = int(np.ravel(content["num_images"])[0])
            labels = {}
            for name, size in (("Y2d", 2), ("Y3d_mono", 3)):
                array = np.asarray(content[name], np.float64)
                if array.size != 17 * size * number:
                    expected = f"{name} of 17 x {size} x {number} numbers"
                    raise self.wrong(path, expected, list(array.shape))
                if array.shape == (number, 17 * size):
                    labels[name] = array.reshape(number, 17, size)
                else:
                    labels[name] = np.moveaxis(array.reshape(17, size, number), -1, 0)
            self._labels = {clip: labels}  # clips are read one after the other
        return self._labels[clip]

    def keys(self, split: str) -> Sequence[str]:
        """Clip and frame number from 1."""
        keys = []
        for clip in self._clips(split):
            number = len(self._clip(clip)["Y2d"])
            step = self.every[split]
            keys += [f"{clip}_{i + 1:06d}" for i in range(0, number, step)]
        return keys

    def example(self, split: str, key: Any) -> schema.Record:
        """One frame."""
        clip, _, frame = str(key).rpartition("_")
        labels = self._clip(clip)
        points = labels["Y2d"][int(frame) - 1]
        joints = labels["Y3d_mono"][int(frame) - 1]
        camera = with_validity((joints - joints[:1]) / 1000)
        left_first, _ = map_joints(_SET, "h36m_17")
        middle = SIZE_PX / 2
        return {
            **self.read_image(self.path("images", clip, f"{key}.jpg")),
            "has_root": 0,
            "sample_id": str(key),
            "sequence_id": clip,
            "frame_id": int(frame),
            "bbox_xywh_px": box_of_centre((middle, middle), SIZE_PX),
            "keypoints_px": with_validity(points, 2),
            "joints_cam_m": camera,
            "joints_h36m_cam_m": camera[left_first],
            "depth_px": _depth_px(points, joints),
        }


def _depth_px(points: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Depth below the pelvis in pixels, joints of MPII [16] (pose_hg 8.9)."""
    places = [
        _with_thorax(array[list(H36M_TO_MPII)]) for array in (points, joints[:, :2])
    ]
    lengths = [
        sum(np.linalg.norm(array[a] - array[b]) for a, b in _EDGES) for array in places
    ]
    depth = _with_thorax(joints[list(H36M_TO_MPII)])[:, 2] - joints[0, 2]
    return depth * (lengths[0] / lengths[1] if lengths[1] > 0 else 0.0)


def _with_thorax(joints: np.ndarray) -> np.ndarray:
    """The joints of MPII with the thorax in the middle of the shoulders."""
    sides = [MPII.index(f"{side}_shoulder") for side in ("left", "right")]
    joints[MPII.index("thorax")] = joints[sides].mean(0)
    return joints
