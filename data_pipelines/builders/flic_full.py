"""FLIC-Full: upper bodies of people in films."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders import mpii_joints
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from hmr_jax.errors import UserError

_PARTS = (1, 2, 3, 4, 5, 6, 7, 10, 13, 14, 17)
"""FLIC's numbers, from 1, of the joints of ``flic_11``."""
_PUBLISHED_MPII = (12, 11, 10, 7, 8, 9, 19, 21, 18, 17, 6, 5, 4, 1, 2, 3)
"""pose_hg's table of parts in the order of MPII, which it takes as numbers from 0."""
_TORSO = schema.FieldSpec(
    "torso_box_px",
    "float32",
    (4,),
    "px",
    "image",
    "the released torso box: left, top, width, height; zero where there is none",
)


class FlicFull(PublishedDataset):
    """One person of one frame, 11 joints.

    Args:
        raw: folder with ``examples.mat`` and ``images``.
        joint_set: ``flic_11``, or ``mpii_16`` with the pelvis and thorax in the middle
            of hips and shoulders.
        published_parts: pose_hg's labels: its table of 1-based part numbers read as
            0-based, so that every joint of ``mpii_16`` holds its neighbour's place.
        published_box: pose_hg's crop, made of the first two joints instead of the two
            coordinates; by default a square 1.25 times as large as the joints.

    Source: specs/pose_hg.md, section 8.3.
    """

    name = "flic_full"
    description = "FLIC-Full: 2D joints of upper bodies in Hollywood films."
    citation = (
        "Sapp and Taskar, MODEC: Multimodal Decomposable Models for Human Pose "
        "Estimation, CVPR 2013"
    )
    needs = (
        "examples.mat: struct array examples with coords [2, 29], filepath, istrain, "
        "istest",
        "images/*.jpg",
    )
    origin = "https://bensapp.github.io/flic-dataset.html"
    licence = "frames of films, research"

    def __init__(
        self,
        raw: str,
        *,
        joint_set: str = "flic_11",
        published_parts: bool = False,
        published_box: bool = False,
    ):
        super().__init__(raw)
        if joint_set not in ("flic_11", "mpii_16"):
            raise UserError(f"joint_set: expected flic_11 or mpii_16, got {joint_set}")
        self.joint_set = "mpii_16" if published_parts else joint_set
        self.published_parts = published_parts
        self.published_box = published_box
        joints = 11 if self.joint_set == "flic_11" else 16
        self.spec = schema.RecordSpec(
            joint_set=self.joint_set, num_joints=joints, extras=(_TORSO,)
        )

    def splits(self) -> Sequence[str]:
        """The people marked for training and for testing."""
        return ("train", "test")

    def entries(self, split: str) -> Iterator[Entry]:
        """People by their place in the struct array."""
        path = self.path("examples.mat")
        examples = np.atleast_1d(self.read_mat(path, "examples")["examples"])
        names = set(getattr(examples.flat[0], "_fieldnames", ()))
        self.require(path, names, ("coords", "filepath", "istrain", "istest"))
        for i, person in enumerate(examples.ravel()):
            if person.istest if split == "test" else person.istrain:
                yield Entry(i, {name: getattr(person, name) for name in names})
            elif split == "train" and not person.istest:
                self.drop(split, "neither for training nor for testing")

    def record(self, split: str, key: Any, data: Any) -> schema.Record:
        """One person."""
        image = self.read_named(self.path("images"), str(data["filepath"]))
        coordinates = np.asarray(data["coords"], np.float64)
        if coordinates.shape != (2, 29):
            where = f"{self.path('examples.mat')}: example {key}"
            raise self.wrong(where, "coords of shape [2, 29]", list(coordinates.shape))
        missing = np.asarray(np.isnan(coordinates).any(0))
        parts = np.where(missing[:, None], 0, coordinates.T)
        parts = np.column_stack([parts, np.where(missing, 0, 2)])
        size = image["image_width"], image["image_height"]
        keypoints = parts[np.array(_PARTS) - 1]
        if self.published_box:
            # The loader's third column is 1 where a joint is labelled.
            rows = np.minimum(parts, [np.inf, np.inf, 1])
            box = mpii_joints.published_box(rows[0], rows[1], size)
        else:
            box = mpii_joints.box_of_labels(keypoints, size)
        if self.published_parts:
            keypoints = parts[np.array(_PUBLISHED_MPII)]
        elif self.joint_set == "mpii_16":
            keypoints = mpii_joints.keypoints_in_mpii_order(keypoints, "flic_11")
        return {
            **image,
            "sample_id": f"{split}_{key:06d}",
            "sequence_id": str(data.get("moviename", "")),
            "frame_id": int(data.get("currframe", 0)),
            "bbox_xywh_px": box_of_centre(*box),
            "keypoints_px": keypoints,
            "torso_box_px": _torso(data.get("torsobox", np.zeros(4))),
        }


def _torso(published: Any) -> np.ndarray:
    corners = np.asarray(published, np.float64)
    if corners.shape != (4,) or not np.isfinite(corners).all():
        return np.zeros(4)
    return np.concatenate([corners[:2], corners[2:] - corners[:2]])
