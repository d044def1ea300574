"""Leeds Sports Pose and its extended training set."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders import mpii_joints
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from hmr_jax.errors import UserError

_CITATION = "Johnson and Everingham, "


class Lsp(PublishedDataset):
    """One person of one image, 14 joints.

    Args:
        raw: folder with ``joints.mat`` and ``images``.
        joint_set: ``lsp_14``, or ``mpii_16`` with the pelvis and thorax in the middle
            of hips and shoulders.
        published_box: the crop of pose_hg's loader, 0.68 times the person's height; by
            default a square 1.25 times as large as the labelled joints.
        published_means: with ``mpii_16``, label the middles even where one side is
            missing, halfway to the image's corner, as that loader does.

    Source: specs/pose_hg.md, sections 8.2 and 9.
    """

    name = "lsp"
    description = "Leeds Sports Pose: 2D joints of people in sports photographs."
    citation = _CITATION + "Clustered Pose and Nonlinear Appearance Models, BMVC 2010"
    needs = (
        "joints.mat: joints [3, 14, 2000], the third row 1 where occluded",
        "images/im0001.jpg to im2000.jpg",
    )
    origin = "https://sam.johnson.io/research/lsp.html"
    licence = "images of Flickr's users under their licences; research"
    counts = {"train": 1000, "val": 1000}
    image_name = "im{:04d}.jpg"

    def __init__(
        self,
        raw: str,
        *,
        joint_set: str = "lsp_14",
        published_box: bool = False,
        published_means: bool = False,
    ):
        super().__init__(raw)
        if joint_set not in ("lsp_14", "mpii_16"):
            raise UserError(f"joint_set: expected lsp_14 or mpii_16, got {joint_set}")
        self.joint_set = joint_set
        self.published_box = published_box
        self.published_means = published_means
        joints = 14 if joint_set == "lsp_14" else 16
        self.spec = schema.RecordSpec(joint_set=joint_set, num_joints=joints)

    def splits(self) -> Sequence[str]:
        """The first and the second thousand."""
        return ("train", "val")

    def _read(self, axes: tuple[int, int, int], shape: str) -> np.ndarray:
        """The variable ``joints`` as [N, 14, 3]."""
        path = self.path("joints.mat")
        joints = np.asarray(self.read_mat(path, "joints")["joints"], np.float64)
        joints = joints[..., None] if joints.ndim == 2 else joints
        if joints.ndim != 3 or joints.transpose(axes).shape[1:] != (14, 3):
            raise self.wrong(path, f"joints of shape {shape}", list(joints.shape))
        return joints.transpose(axes)

    def read_keypoints(self) -> np.ndarray:
        """Every label: x, y, visibility (0 missing, 1 occluded, 2 visible) [N, 14, 3].

        Raises:
            RecordError: the file has another content.
        """
        joints = self._read((2, 1, 0), "[3, 14, N]")
        return self._labelled(joints, joints[..., 2] == 0)

    @staticmethod
    def _labelled(joints: np.ndarray, visible: np.ndarray) -> np.ndarray:
        labelled = (joints[..., :2] > 0).any(-1)
        visibility = np.where(labelled, 1 + visible, 0)
        return np.concatenate([joints[..., :2], visibility[..., None]], axis=-1)

    def entries(self, split: str) -> Iterator[Entry]:
        """Images by number from 1."""
        keypoints = self.read_keypoints()
        for number in self.image_numbers(split, len(keypoints)):
            yield Entry(number, keypoints[number - 1])

    def image_numbers(self, split: str, number: int) -> range:
        """Numbers of a split's images among so many."""
        middle = min(1000, number)
        return range(1, middle + 1) if split == "train" else range(1001, number + 1)

    def record(self, split: str, key: Any, data: Any) -> schema.Record:
        """One person."""
        name = self.image_name.format(key)
        image = self.read_image(self.path("images", name))
        size = image["image_width"], image["image_height"]
        keypoints = data
        if self.published_box:
            box = mpii_joints.published_box(keypoints[:, 0], keypoints[:, 1], size)
        else:
            box = mpii_joints.box_of_labels(keypoints, size)
        if self.joint_set == "mpii_16":
            keypoints = mpii_joints.keypoints_in_mpii_order(
                keypoints, "lsp_14", published=self.published_means
            )
        return {
            **image,
            "sample_id": name.removesuffix(".jpg"),
            "frame_id": key,
            "bbox_xywh_px": box_of_centre(*box),
            "keypoints_px": keypoints,
        }


class LspExtended(Lsp):
    """One person of one image of the extended training set.

    Joints that the release does not mark as visible have no label, since where they
    are is a guess.

    Args:
        raw: folder with ``joints.mat`` and ``images``.
        published_visibility: label every joint that has a place, as pose_hg's loader
            does; those not marked as visible count as occluded.
        joint_set: as in ``Lsp``; so are the other options.
        published_box: as in ``Lsp``.
        published_means: as in ``Lsp``.
    """

    name = "lsp_extended"
    description = "LSP-Extended: ten thousand images of hard poses, joints by turkers."
    citation = _CITATION + (
        "Learning Effective Human Pose Estimation from Inaccurate Annotation, CVPR 2011"
    )
    needs = (
        "joints.mat: joints [14, 3, 10000], the third column 1 where visible",
        "images/im00001.jpg to im10000.jpg",
    )
    origin = "https://sam.johnson.io/research/lspet.html"
    counts = {"train": 10000}
    image_name = "im{:05d}.jpg"

    def __init__(
        self,
        raw: str,
        *,
        joint_set: str = "lsp_14",
        published_box: bool = False,
        published_means: bool = False,
        published_visibility: bool = False,
    ):
        super().__init__(
            raw,
            joint_set=joint_set,
            published_box=published_box,
            published_means=published_means,
        )
        self.published_visibility = published_visibility

    def splits(self) -> Sequence[str]:
        """All of it is for training."""
        return ("train",)

    def read_keypoints(self) -> np.ndarray:
        """Every label; see ``Lsp.read_keypoints``."""
        joints = self._read((2, 0, 1), "[14, 3, N]")
        keypoints = self._labelled(joints, joints[..., 2] > 0)
        if not self.published_visibility:
            keypoints[keypoints[..., 2] < 2] = 0
        return keypoints

    def image_numbers(self, split: str, number: int) -> range:
        """All of them."""
        return range(1, number + 1)
