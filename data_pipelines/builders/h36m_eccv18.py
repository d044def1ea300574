"""Human3.6M of the ECCV 2018 challenge, from the cached list of its labels."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.label_values import with_validity
from data_pipelines.builders.mpii_joints import H36M_TO_MPII
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
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

    def splits(self) -> Sequence[str]:
        """The two parts with labels."""
        return tuple(_FOLDERS)

    def _cache(self, split: str) -> str:
        name = f"HM36_eccv_challenge_{_FOLDERS[split]}"
        file = f"{name}_w288xh384_keypoint_jnt_bbox_db.pkl"
        return self.path("msra_cache", f"{name}_cache", file)

    def entries(self, split: str) -> Iterator[Entry]:
        """Images by number from 1; the labels follow in the same order."""
        path, needed = self._cache(split), {*_LABELS, *_BOX}
        frames = self.read_pickle(path)
        if not isinstance(frames, list):
            raise self.wrong(path, "a list of frames", type(frames).__name__)
        for i, frame in enumerate(frames):
            self.require(f"{path}: frame {i}", frame, ())
            if needed <= frame.keys():
                yield Entry(i + 1, {name: frame[name] for name in needed})
            else:
                self.drop(split, "frame without labels")
        if frames and self.dropped[split, "frame without labels"] == len(frames):
            missing = ", ".join(sorted(needed - frames[0].keys()))
            raise self.wrong(path, f"frames with {missing}", "none")

    def record(self, split: str, key: Any, data: Any) -> schema.Record:
        """One frame."""
        joints = {}
        for name in _LABELS:
            array = np.asarray(data[name], np.float64)
            if array.ndim != 2 or len(array) < 17 or array.shape[1] != 3:
                where = f"{self._cache(split)}: frame {key - 1}"
                expected = f"{name} of shape [17 or more, 3]"
                raise self.wrong(where, expected, list(array.shape))
            joints[name] = array[:17]
        image_px, relative = (joints[name] for name in _LABELS)
        camera = with_validity(relative / 1000)
        left_first, _ = map_joints(_SET, "h36m_17")
        centre = data["center_x"], data["center_y"]
        box = box_of_centre(centre, (data["width"], data["height"]))
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
