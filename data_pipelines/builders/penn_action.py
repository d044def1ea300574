"""Penn Action: videos of sports from the label files."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre, box_of_points
from data_pipelines.builders.published_dataset import PublishedDataset
from hmr_jax.body.joint_sets import get_joint_set
from hmr_jax.errors import UserError

_VARIABLES = ("x", "y", "visibility", "bbox", "train")
_READ_AS = (
    *("right_ankle", "right_knee", "right_hip_extra"),
    *("left_hip_extra", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder"),
    *("left_shoulder", "left_elbow", "left_wrist", "headtop"),
)
"""The joint that each of the file's rows becomes in the published script."""


class PennAction(PublishedDataset):
    """One person of one frame, 13 joints.

    Args:
        raw: folder with ``labels`` and ``frames``.
        box: ``joints``, INT's tight square about the visible joints, or ``annotated``,
            the released box.
        published_order: the published script's joints: its names are of another order
            than the files', and it converts twice, so that a row's joint becomes
            another joint's (the first, the head, the right ankle's, and so on).

    Source: specs/int_hmr.md, sections 15 and 20 (D10).
    """

    name = "penn_action"
    spec = schema.RecordSpec(joint_set="penn_action_13", num_joints=13)
    description = "Penn Action: 2D joints of people in videos of sports."
    citation = (
        "Zhang et al., From Actemes to Action: A Strongly-Supervised Representation "
        "for Detailed Action Understanding, ICCV 2013"
    )
    needs = (
        "labels/0001.mat, ...: x, y, visibility [F, 13], bbox [F, 4], train",
        "frames/0001/000001.jpg, ...",
    )
    origin = "http://dreamdragon.github.io/PennAction"
    licence = "research"

    def __init__(self, raw: str, *, box: str = "joints", published_order: bool = False):
        super().__init__(raw)
        if box not in ("joints", "annotated"):
            raise UserError(f"box: expected joints or annotated, got {box!r}")
        self.box = box
        self.published_order = published_order
        self._videos: dict[str, dict[str, np.ndarray]] = {}

    def splits(self) -> Sequence[str]:
        """The videos marked for training, and the others."""
        return ("train", "test")

    def _video(self, name: str) -> dict[str, np.ndarray]:
        """Labels of a video over its frames."""
        if name not in self._videos:
            path = self.path("labels", f"{name}.mat")
            content = self.read_mat(path, *_VARIABLES)
            video = {}
            for field, size in (("x", 13), ("y", 13), ("visibility", 13), ("bbox", 4)):
                array = np.atleast_2d(np.asarray(content[field], np.float64))
                if array.ndim != 2 or array.shape[1] != size:
                    expected = f"{field} of shape [F, {size}]"
                    raise self.wrong(path, expected, list(array.shape))
                video[field] = array
            video["train"] = np.ravel(content["train"])[:1]
            # Some videos have fewer boxes than frames with joints.
            video["frames"] = np.array(len(video["x"]))
            self._videos = {name: video}  # videos are read one after the other
        return self._videos[name]

    def keys(self, split: str) -> Sequence[str]:
        """Video and frame number from 1."""
        pattern = re.compile(r"/(\d+)\.mat$")
        files = self.glob(split, "labels", "*.mat")
        names = [m[1] for m in map(pattern.search, files) if m]
        if not names:
            path = self.path("labels")
            raise self.wrong(path, "label files 0001.mat, ...", f"{len(files)} files")
        keys = []
        self.dropped.pop((split, "no box"), None)
        for name in names:
            video = self._video(name)
            if (float(video["train"][0]) > 0) != (split == "train"):
                continue
            frames = range(int(video["frames"]))
            good = [i for i in frames if self._box(video, i) is not None]
            if len(good) < len(frames):
                self.drop(split, "no box", len(frames) - len(good))
            keys += [f"{name}/{i + 1:06d}" for i in good]
        return keys

    def _box(self, video: dict[str, np.ndarray], i: int) -> np.ndarray | None:
        """Left, top, width, height of a frame, where it has any."""
        if self.box == "annotated":
            if i >= len(video["bbox"]):
                return None
            left, top, right, bottom = video["bbox"][i]
            box = np.array([left, top, right - left, bottom - top])
            return box if np.isfinite(box).all() and (box[2:] > 0).all() else None
        seen = video["visibility"][i] > 0
        if not seen.any():
            return None
        x, y, width, height = box_of_points(
            np.stack([video["x"][i], video["y"][i]], -1)[seen]
        )
        side = max(width, height)
        if side <= 0:
            return None
        return box_of_centre((x + width / 2, y + height / 2), side)

    def example(self, split: str, key: Any) -> schema.Record:
        """One frame."""
        name, _, frame = str(key).partition("/")
        video, i = self._video(name), int(frame) - 1
        seen = video["visibility"][i] > 0
        keypoints = np.stack([video["x"][i], video["y"][i], 2.0 * seen], -1)
        if self.published_order:
            joints = get_joint_set("penn_action_13").joints
            keypoints = keypoints[[_READ_AS.index(joint) for joint in joints]]
        return {
            **self.read_image(self.path("frames", f"{key}.jpg")),
            "sample_id": str(key),
            "sequence_id": name,
            "frame_id": int(frame),
            "bbox_xywh_px": self._box(video, i),
            "keypoints_px": keypoints,
        }
