"""The databases of 49 joints from which INT (and MAED) train and evaluate."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.frame_tables import FrameTables, text
from data_pipelines.builders.label_values import with_validity
from data_pipelines.record_fields import VALID_FRAME, WEAK_CAMERA
from hmr_jax.body.joint_sets import map_joints
from hmr_jax.errors import UserError

_SPLITS = {
    "insta": ("train",),
    "posetrack": ("train",),
    "pennaction": ("train",),
    "mpii3d": ("train", "val"),
    "h36m": ("train", "val"),
    "3dpw": ("train", "val", "test"),
    "coco2014-all": ("train",),
    "lspet": ("train",),
    "mpii": ("train",),
}
_OPTIONAL = (
    *("vid_name", "frame_id", "joints2D", "joints3D", "pose", "shape", "cam", "bbox"),
    "valid_i",
)
_INSTA_FROM = "insta_variety_25"
_UNREADABLE = ("TS2/imageSequence/img_005398", "TS2/imageSequence/img_003276")
_FALLBACK = "TS2/imageSequence/img_003277"


class IntDatabase(FrameTables):
    """One person of one frame; the 49 joints of SPIN, below the dataset's own root.

    Poses have their root in the camera frame; no translation is stored, so that
    ``translation_m`` is zero and ``has_root`` 0. Without boxes (insta) the box is the
    whole image and the trait ``has_box`` 0. Keypoints keep their confidence.

    Args:
        raw: the folder with ``database`` and the images.
        dataset: insta, posetrack, pennaction, mpii3d, h36m, 3dpw, coco2014-all, lspet
            or mpii.
        images: folder of the images instead.
        rename_3dhp: read MPI-INF-3DHP's training images as the published reader does:
            ``frame_`` before the last ten characters, and V for every v.
        published_fallback: read MPI-INF-3DHP's test image TS2 3277 for 3276 and 5398,
            which are damaged in some copies.
        published_points: keep 25 unconverted points of insta in the first 25 places of
            the 49, as the published script leaves them; by default they go by name.
        published_invalid: keep frames of MPI-INF-3DHP's validation that the dataset
            marks invalid.

    Source: specs/int_hmr.md, sections 12 and 20 (D11, D12, D19).
    """

    name = "int_db"
    file_options = ("images",)
    kept = ("img_name", *_OPTIONAL)
    spec = schema.RecordSpec(
        joint_set="spin_49", num_joints=49, extras=(WEAK_CAMERA, VALID_FRAME)
    )
    description = "A dataset as INT's database of the 49 joints of SPIN."
    citation = (
        "Yang et al., Capturing the Motion of Every Joint: 3D Human Pose and Shape "
        "Estimation with Independent Tokens, ICLR 2023; databases of Wan et al., "
        "Encoder-decoder with Multi-level Attention, ICCV 2021"
    )
    needs = (
        "database/{insta,posetrack,pennaction,mpii3d,h36m,3dpw,coco2014-all,lspet,"
        "mpii}_{train,val,test}_db.pt: joblib, arrays over frames",
        "the images it names, below the same folder",
    )
    origin = "https://github.com/ziniuwan/maed (databases)"
    licence = "those of the datasets: research, no redistribution"

    def __init__(
        self,
        raw: str,
        *,
        dataset: str = "3dpw",
        images: str | None = None,
        rename_3dhp: bool = False,
        published_fallback: bool = False,
        published_points: bool = False,
        published_invalid: bool = False,
    ):
        super().__init__(raw, images=images)
        if dataset not in _SPLITS:
            names = ", ".join(_SPLITS)
            raise UserError(f"dataset: expected one of {names}, got {dataset!r}")
        self.name = f"int_db_{dataset.replace('-', '_')}"
        self.dataset = dataset
        self.traits = {"has_box": float(dataset != "insta")}
        self.rename_3dhp = rename_3dhp
        self.published_fallback = published_fallback
        self.published_points = published_points
        self.published_invalid = published_invalid

    def splits(self) -> Sequence[str]:
        """The splits of the dataset that there are files of, at least one."""
        wanted = _SPLITS[self.dataset]
        found = tuple(s for s in wanted if self.exists(self.database_path(s)))
        return found or wanted[:1]

    def database_path(self, split: str) -> str:
        """The file of a split."""
        return self.path("database", f"{self.dataset}_{split}_db.pt")

    def keys(self, split: str) -> Sequence[int]:
        """Rows with a box, and of validation those marked valid."""
        needed = ("img_name",) if self.dataset == "insta" else ("img_name", "bbox")
        arrays = self.load(split, needed)
        number = self.check_lengths(split, _OPTIONAL)
        good = np.ones(number, bool)
        if "bbox" in arrays:
            good = self.usable(split, np.asarray(arrays["bbox"], np.float64))
        if "valid_i" in arrays and split != "train" and not self.published_invalid:
            valid = np.asarray(arrays["valid_i"], np.float64).reshape(number, -1)
            invalid = good & ~(valid[:, 0] > 0)
            if invalid.any():
                self.dropped[split, "marked invalid by the dataset"] = int(
                    invalid.sum()
                )
            good &= ~invalid
        return [int(k) for k in np.flatnonzero(good)]

    def image_path(self, name: str) -> str:
        """The path of an image that the database names; see the options."""
        path = super().image_path(name)
        folder, rest = self.images, path[len(self.images.rstrip("/")) :].lstrip("/")
        if self.rename_3dhp and "mpi_inf_3dhp" in rest and "test_set" not in rest:
            rest = f"{rest[:-10]}frame_{rest[-10:]}".replace("v", "V")
            return f"{folder.rstrip('/')}/{rest}"
        if self.published_fallback and "mpi_inf_3dhp" in rest:
            for stem in _UNREADABLE:
                path = path.replace(stem, _FALLBACK)
        return path

    def example(self, split: str, key: Any) -> schema.Record:
        """One frame."""
        arrays = self.load(split, ("img_name",))
        image = self.read_row_image(text(arrays["img_name"][key]))
        record: schema.Record = {
            **image,
            **self.frame_labels(split, key),
            "has_root": 0,
            "bbox_xywh_px": [0, 0, image["image_width"], image["image_height"]],
            "valid_frame": int(np.ravel(arrays["valid_i"][key])[0] > 0)
            if "valid_i" in arrays
            else 1,
        }
        if "bbox" in arrays:
            box = self.row(split, "bbox", key, (4,))
            record["bbox_xywh_px"] = box_of_centre(box[:2], box[2:])
        if "joints2D" in arrays:
            record |= {"keypoints_px": self._points(split, key)}
        if "joints3D" in arrays:
            record |= {"joints_cam_m": self._joints(split, key)}
        if "pose" in arrays:
            record |= self._body(split, key)
        record["weak_camera"] = np.array([1.0, 0.0, 0.0])
        if "cam" in arrays:
            record["weak_camera"] = self.row(split, "cam", key, (3,))
        return record

    def _points(self, split: str, key: int) -> np.ndarray:
        """The 49 keypoints of a frame, pixels and confidence [49, 3]."""
        if self._arrays[split]["joints2D"].shape[1:] != (25, 3):
            return self.row(split, "joints2D", key, (49, 3))
        points = self.row(split, "joints2D", key, (25, 3))
        if self.published_points:
            return np.concatenate([points, np.zeros((24, 3))])
        index, present = map_joints(_INSTA_FROM, "spin_49")
        return np.where(present[:, None], points[index], 0)

    def _joints(self, split: str, key: int) -> np.ndarray:
        """The 49 joints of a frame, metres and validity [49, 4]."""
        if self._arrays[split]["joints3D"].shape[-1] == 3:
            return with_validity(self.row(split, "joints3D", key, (49, 3)))
        return self.row(split, "joints3D", key, (49, 4))

    def _body(self, split: str, key: int) -> dict[str, np.ndarray]:
        arrays = self._arrays[split]
        if arrays["pose"].ndim == 4:
            turns = self.row(split, "pose", key, (24, 3, 3))
            pose = Rotation.from_matrix(turns).as_rotvec()
        else:
            pose = self.row(split, "pose", key, (72,)).reshape(24, 3)
        has_shape = "shape" in arrays
        betas = self.row(split, "shape", key, (10,)) if has_shape else np.zeros(10)
        return {"pose_aa": pose, "betas": betas, "translation_m": np.zeros(3)}
