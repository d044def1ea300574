"""Human3.6M of the ECCV 2018 challenge, from the cached list of its labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.label_values import with_validity
from data_pipelines.builders.mpii_joints import H36M_TO_MPII
from data_pipelines.builders.published_dataset import PublishedDataset
from data_pipelines.record_fields import DEPTH_PX
from hmr_jax.body.joint_sets import map_joints

_SET = "h36m_right_first_17"
_FOLDERS = {"train": "Train", "val": "Val"}
_LABELS = ("joints_3d", "joints_3d_relative")
_BOX = ("center_x", "center_y", "width", "height")


class H36mEccv18(PublishedDataset):
    """One frame of the challenge, 17 joints below the pelvis.

    The box is the cache's own; pose_hg crops a square of its longer side.

    Args:
        raw: folder with ``msra_cache`` and ``ECCV18_Challenge``.

    Source: specs/pose_hg.md, section 8.5.
    """

    name = "h36m_eccv18"
    spec = schema.RecordSpec(joint_set=_SET, num_joints=17, extras=(DEPTH_PX,))
    description = "Human3.6M as sampled for the ECCV 2018 PoseTrack challenge."
    citation = (
        "Ionescu et al., Human3.6M: Large Scale Datasets and Predictive Methods for 3D "
        "Human Sensing in Natural Environments, PAMI 2014; labels cached by Sun et "
        "al., Integral Human Pose Regression, ECCV 2018"
    )
    needs = (
        "msra_cache/HM36_eccv_challenge_{Train,Val}_cache/"
        "HM36_eccv_challenge_{Train,Val}_w288xh384_keypoint_jnt_bbox_db.pkl",
        "ECCV18_Challenge/{Train,Val}/IMG/00001.jpg, ...",
    )
    origin = "http://vision.imar.ro/human3.6m/challenge_open.php"
    licence = "Human3.6M's: registered academic use, no redistribution"
    counts = {"train": 35832, "val": 19312}

    def __init__(self, raw: str):
        super().__init__(raw)
        self._labels: dict[str, list[dict[str, Any]]] = {}

    def splits(self) -> Sequence[str]:
        """The two parts with labels."""
        return tuple(_FOLDERS)

    def _cache(self, split: str) -> str:
        name = f"HM36_eccv_challenge_{_FOLDERS[split]}"
        file = f"{name}_w288xh384_keypoint_jnt_bbox_db.pkl"
        return self.path("msra_cache", f"{name}_cache", file)

    def _frames(self, split: str) -> list[dict[str, Any]]:
        if split not in self._labels:
            path = self._cache(split)
            frames = self.read_pickle(path)
            if not isinstance(frames, list):
                raise self.wrong(path, "a list of frames", type(frames).__name__)
            for i, frame in enumerate(frames):
                self.require(f"{path}: frame {i}", frame, ())
            self._labels[split] = frames
        return self._labels[split]

    def keys(self, split: str) -> Sequence[int]:
        """Image numbers from 1; the labels follow in the same order."""
        needed = {*_LABELS, *_BOX}
        frames = self._frames(split)
        keys = [i for i, frame in enumerate(frames, 1) if needed <= frame.keys()]
        if frames and not keys:
            missing = ", ".join(sorted(needed - frames[0].keys()))
            raise self.wrong(self._cache(split), f"frames with {missing}", "none")
        if len(keys) < len(frames):
            self.dropped[split, "frame without labels"] = len(frames) - len(keys)
        return keys

    def example(self, split: str, key: Any) -> schema.Record:
        """One frame."""
        frame = self._frames(split)[key - 1]
        joints = {}
        for name in _LABELS:
            array = np.asarray(frame[name], np.float64)
            if array.ndim != 2 or len(array) < 17 or array.shape[1] != 3:
                where = f"{self._cache(split)}: frame {key - 1}"
                expected = f"{name} of shape [17 or more, 3]"
                raise self.wrong(where, expected, list(array.shape))
            joints[name] = array[:17]
        image_px, relative = (joints[name] for name in _LABELS)
        camera = with_validity(relative / 1000)
        left_first, _ = map_joints(_SET, "h36m_17")
        centre = frame["center_x"], frame["center_y"]
        box = box_of_centre(centre, (frame["width"], frame["height"]))
        folder = _FOLDERS[split]
        path = self.path("ECCV18_Challenge", folder, "IMG", f"{key:05d}.jpg")
        return {
            **self.read_image(path),
            "has_root": 0,
            "sample_id": f"{split}_{key:05d}",
            "frame_id": key,
            "bbox_xywh_px": box,
            "keypoints_px": with_validity(image_px[:, :2], 2),
            "joints_cam_m": camera,
            "joints_h36m_cam_m": camera[left_first],
            "depth_px": image_px[list(H36M_TO_MPII), 2],
        }
