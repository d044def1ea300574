"""Occlusion-Person: rendered people behind objects."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders import mpii_joints
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.label_values import with_validity
from data_pipelines.builders.mpii_joints import MPII
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.record_fields import DEPTH_PX
from hmr_jax.errors import UserError

_SET = "occlusion_person_15"
_FILES = {"train": "unrealcv_train.pkl", "val": "unrealcv_validation.pkl"}
_FIELDS = ("image", "joints_3d", "joints_2d", "center", "scale")


class OcclusionPerson(PublishedDataset):
    """One view of one rendered person, 15 joints before the camera.

    The box is the dataset's own; pose_hg crops a square of its longer side. The extra
    ``depth_px`` is always of the published 16 joints, whose head is at the neck.

    Args:
        raw: folder with the two pickles and ``images``.
        joint_set: ``occlusion_person_15``, or ``mpii_16`` with the thorax in the middle
            of the shoulders and no head.
        published_head: with ``mpii_16``, put the top of the head at the neck, as
            pose_hg's loader does.
        published_pairing: pose_hg's validation without its full test: the first tenth
            of the images, image k with the labels of view 10 k.

    Source: specs/pose_hg.md, sections 8.0, 8.6 and 9.
    """

    name = "occlusion_person"
    description = "Occlusion-Person: rendered people, seven in ten partly hidden."
    citation = "Zhang et al., AdaFuse: Adaptive Multiview Fusion, IJCV 2021"
    needs = (
        "unrealcv_train.pkl, unrealcv_validation.pkl: lists of image, joints_3d, "
        "joints_2d, center and scale",
        "images/*",
    )
    origin = "https://github.com/zhezh/occlusion_person"
    licence = "research"

    def __init__(
        self,
        raw: str,
        *,
        joint_set: str = _SET,
        published_head: bool = False,
        published_pairing: bool = False,
    ):
        super().__init__(raw)
        if joint_set not in (_SET, "mpii_16"):
            raise UserError(f"joint_set: expected {_SET} or mpii_16, got {joint_set}")
        self.joint_set = joint_set
        self.published_head = published_head
        self.published_pairing = published_pairing
        joints = 15 if joint_set == _SET else 16
        self.spec = schema.RecordSpec(
            joint_set=joint_set, num_joints=joints, extras=(DEPTH_PX,)
        )

    def splits(self) -> Sequence[str]:
        """The two files."""
        return tuple(_FILES)

    def entries(self, split: str) -> Iterator[Entry]:
        """Views by their place in the list."""
        path = self.path(_FILES[split])
        views = self.read_pickle(path)
        if not isinstance(views, list):
            raise self.wrong(path, "a list of views", type(views).__name__)
        for i, view in enumerate(views):
            self.require(f"{path}: view {i}", view, ("image",))
        # How many views further the labels of the next image are.
        step = 10 if self.published_pairing and split == "val" else 1
        labels = views[::step]
        for i, view in enumerate(labels):
            if view.keys() >= {*_FIELDS}:
                yield Entry(i, (views[i]["image"], view))
            else:
                self.drop(split, "view without labels")
        if labels and self.dropped[split, "view without labels"] == len(labels):
            missing = ", ".join(n for n in _FIELDS if n not in labels[0])
            raise self.wrong(path, f"views with {missing}", "none")

    def record(self, split: str, key: Any, data: Any) -> schema.Record:
        """One view."""
        image, view = data
        points = np.asarray(view["joints_2d"], np.float64)
        joints = np.asarray(view["joints_3d"], np.float64)
        if points.shape != (15, 2) or joints.shape != (15, 3):
            where = f"{self.path(_FILES[split])}: view {key}"
            expected = "joints_2d [15, 2] and joints_3d [15, 3]"
            raise self.wrong(where, expected, [list(points.shape), list(joints.shape)])
        keypoints, camera = with_validity(points, 2), with_validity(joints / 1000)
        mpii_keypoints = mpii_joints.keypoints_in_mpii_order(keypoints, _SET)
        mpii_camera = mpii_joints.joints_in_mpii_order(camera, _SET)
        headless = mpii_keypoints.copy(), mpii_camera.copy()
        neck, head = MPII.index("neck_extra"), MPII.index("headtop")
        for array in (mpii_keypoints, mpii_camera):
            array[head] = array[neck]
        depth = mpii_joints.pixel_depth(mpii_keypoints[:, :2], mpii_camera[:, :3])
        if self.joint_set == "mpii_16":
            whole = (mpii_keypoints, mpii_camera)
            keypoints, camera = whole if self.published_head else headless
        size = np.asarray(view["scale"], np.float64) * mpii_joints.MPII_SCALE_PX
        return {
            **self.read_named(self.path("images"), str(image)),
            "sample_id": f"{split}_{key:06d}",
            "bbox_xywh_px": box_of_centre(view["center"], size),
            "keypoints_px": keypoints,
            "joints_cam_m": camera,
            "depth_px": depth,
        }
