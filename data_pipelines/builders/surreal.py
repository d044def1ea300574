"""SURREAL: rendered people on pictures of rooms, from its own clips."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders import annotation_lists, video_frames
from data_pipelines.builders.boxes import box_of_points
from data_pipelines.builders.cameras import (
    best_rigid,
    moved_translation,
    pinhole,
    rotated_root,
)
from data_pipelines.builders.label_values import (
    mask_png,
    numbers,
    smpl_fields,
    with_validity,
)
from data_pipelines.builders.numpy_body import NumpyBody
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import FieldSpec, Record
from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.errors import UserError
from hmr_jax.pictures.names import canonical

_SPLITS = ("train", "val", "test")
_CHOICES = ("second", "middle", "all")
_SIZE_PX = (320, 240)
_GENDERS = {0.0: "female", 1.0: "male"}
_CAMERA = ((600.0, 600.0), (160.0, 120.0))
_TO_CAMERA = np.array([[0.0, 0, -1], [0, 1, 0], [-1, 0, 0]])
"""World to camera: a reflection, which is why left and right are published swapped."""
_MIRRORED = list(JOINT_SETS["smpl_24"].flip_permutation)
_POSE = FieldSpec(
    "pose_clip_aa",
    "float32",
    (24, 3),
    "rad",
    "parent joint; the root's in the clip's own frame",
    "pose with left and right put right; the same as pose_aa but for the root",
)
_BETAS = FieldSpec("betas_clip", "float32", (10,), doc="shape coefficients")
_INFO = ("joints2D", "joints3D", "pose", "shape", "gender", "camLoc")


class Surreal(PublishedDataset):
    """SURREAL's CMU part as its owners publish it.

    Frames come from pictures beside the clips, ``<clip>_%03d.jpg`` or ``.png`` with
    the 0-based frame number, where they are there, else from the mp4 files, which
    needs PyAV. The root of the body in the camera frame follows from the body model
    alone: without ``smpl_male`` and ``smpl_female`` there are joints and, as extra
    fields, the published pose and shape.

    Args:
        raw: folder with ``train``, ``val`` and ``test`` (``SURREAL/data/cmu``).
        train_frames: of a training clip: one per ``second``, the ``middle`` or
            ``all``.
        test_frames: the same of the other splits' clips.
        stride: frames per second; 0 asks the video, which needs PyAV.
        clips: text file of the clips of ``val`` and ``test`` that are wanted, one path
            such as ``run0/seq/clip_c0001.mp4`` a line; empty for all.
        smpl_male: file of the male body.
        smpl_female: file of the female body.
        masks: add the person's pixels from the ``_segm.mat`` files.
        json: read instead the files of I2L-MeshNet's conversion tool: their name, in
            which ``{split}`` stands for the split. Pictures are at
            ``<split>/run/sequence/<clip>_%03d.jpg``. Of the options above none counts.

    Source: specs/i2l_meshnet.md, section 12.2.
    """

    name = "surreal"
    file_options = ("smpl_male", "smpl_female")
    description = "SURREAL: rendered people with SMPL parameters and 24 joints."
    citation = "Varol et al., Learning from synthetic humans, CVPR 2017"
    needs = (
        "{train,val,test}/run{0,1,2}/<sequence>/<clip>_info.mat",
        "the same with .mp4, or pictures <clip>_%03d.jpg",
        "the same with _segm.mat (option masks)",
        "SMPL's male and female files (options smpl_male, smpl_female)",
    )
    origin = "di.ens.fr/willow/research/surreal"
    licence = "SURREAL: non-commercial research, by registration"
    traits = {"crop_padding": 1.25}
    spec = schema.RecordSpec("smpl_24", 24, extras=(_POSE, _BETAS))

    def __init__(
        self,
        raw: str,
        *,
        train_frames: str = "second",
        test_frames: str = "middle",
        stride: int = 0,
        clips: str = "",
        smpl_male: str = "",
        smpl_female: str = "",
        masks: bool = False,
        json: str = "",
    ):
        for value in (train_frames, test_frames):
            if value not in _CHOICES:
                raise UserError(f"frames: expected one of {_CHOICES}, got {value!r}")
        if bool(smpl_male) != bool(smpl_female):
            raise UserError("smpl_male, smpl_female: expected both or none, got one")
        super().__init__(raw)
        self._bodies = {}
        if smpl_male:
            self._bodies = {
                "male": NumpyBody(self, smpl_male),
                "female": NumpyBody(self, smpl_female),
            }
        self._held: tuple[str, dict[str, np.ndarray]] = ("", {})

    def splits(self) -> Sequence[str]:
        """Names of the splits whose folder is there."""
        found = tuple(s for s in _SPLITS if self.exists(self.path(s)))
        if not found:
            raise self.wrong(self.raw, f"folders {', '.join(_SPLITS)}", "none")
        return found

    def _info(self, stem: str) -> dict[str, np.ndarray]:
        """Labels of a clip with the frames first; the last clip is held."""
        if self._held[0] != stem:
            path = f"{stem}_info.mat"
            content = self.read_mat(path, *_INFO)
            frames = np.size(content["pose"]) // 72
            shapes = {"joints2D": (2, 24), "joints3D": (3, 24), "pose": (72,)}
            shapes |= {"shape": (10,), "gender": ()}
            labels = {"camLoc": np.asarray(content["camLoc"], np.float64).reshape(3)}
            for name, shape in shapes.items():
                # One frame has no axis of frames: MATLAB drops a last axis of one.
                array = numbers(
                    self, f"{path}: {name}", content[name], (*shape, frames)
                )
                labels[name] = np.moveaxis(array, -1, 0)
            self._held = (stem, labels)
        return self._held[1]

    def entries(self, split: str) -> Iterator[Entry]:
        """Clips by name, and their frames in time."""
        if self.arguments["json"]:
            yield from self._json_entries(split)
            return
        wanted = self._listed(split)
        infos = self.glob(split, split, "run*", "*", "*_info.mat")
        if not infos:
            raise self.wrong(self.path(split), "clips run*/*/*_info.mat", "none")
        for path in infos:
            stem = path.removesuffix("_info.mat")
            name = "/".join(stem.split("/")[-3:])
            if wanted is not None and name not in wanted:
                self.drop(split, "clip is not in the list")
                continue
            labels = self._info(stem)
            number = len(labels["pose"])
            if number < 2:
                self.drop(split, "clip of a single frame", number)
                continue
            for frame in self._frames(split, stem, number):
                box = _box(labels["joints2D"][frame].T)
                if box is None:
                    self.drop(split, "no joint inside the image")
                else:
                    yield Entry(f"{name}_{frame:03d}", (stem, frame, box))

    def _listed(self, split: str) -> set[str] | None:
        path = self.arguments["clips"]
        if not path or split == "train":
            return None
        data = self.read_bytes(self.path(path), "a list of clips")
        lines = map(canonical, data.decode("utf-8-sig", "replace").split())
        stems = (line.removesuffix(".mp4").split("/")[-3:] for line in lines)
        return {"/".join(parts) for parts in stems}

    def _frames(self, split: str, stem: str, number: int) -> Sequence[int]:
        kind = "train_frames" if split == "train" else "test_frames"
        choice = self.arguments[kind]
        if choice == "all":
            return range(number)
        if choice == "middle":
            return (number // 2,)
        rate = self.arguments["stride"]
        rate = rate or video_frames.frames_per_second(self, f"{stem}.mp4")
        return range(0, number, max(int(rate), 1))

    def _picture(self, stem: str, frame: int) -> Record:
        for suffix in ("jpg", "png"):
            path = f"{stem}_{frame:03d}.{suffix}"
            if self.exists(path):
                return self.read_image(path)
        path = f"{stem}.mp4"
        return self.image_fields(
            video_frames.frames(self, path, [frame])[frame], f"{path}: frame {frame}"
        )

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one frame."""
        if self.arguments["json"]:
            return self._json_record(split, key, *data)
        stem, frame, box = data
        labels = self._info(stem)
        joints = (labels["joints3D"][frame].T - labels["camLoc"]) @ _TO_CAMERA.T
        joints = joints[_MIRRORED]
        pixels = labels["joints2D"][frame].T[_MIRRORED]
        pose = labels["pose"][frame].reshape(24, 3)[_MIRRORED] * [1, -1, -1]
        betas = labels["shape"][frame]
        gender = _GENDERS.get(float(labels["gender"][frame]))
        if gender is None:
            where = f"{stem}_info.mat: gender: frame {frame}"
            raise self.wrong(where, "0 (female) or 1 (male)", labels["gender"][frame])
        record = {
            **self._picture(stem, frame),
            "sequence_id": key.rpartition("_")[0],
            "frame_id": frame,
            "bbox_xywh_px": box,
            "keypoints_px": with_validity(pixels),
            "joints_cam_m": with_validity(joints),
            "intrinsics": pinhole(*_CAMERA),
            "gender": gender,
            "pose_clip_aa": pose,
            "betas_clip": betas,
        }
        if self._bodies:
            body = self._bodies[gender]
            matrix = best_rigid(body.posed(pose, betas), joints)
            moved = moved_translation(np.zeros(3), matrix, body.rest_joints(betas)[0])
            record |= {
                "pose_aa": rotated_root(pose, matrix[:3, :3]),
                "betas": betas,
                "translation_m": moved,
            }
        if self.arguments["masks"]:
            record |= self._mask(stem, frame)
        return record

    def _json_entries(self, split: str) -> Iterator[Entry]:
        path = self.path(self.arguments["json"].format(split=split))
        images, annotations = annotation_lists.coco_lists(
            self,
            split,
            path,
            ("file_name", "width", "height", "cam_param"),
            (),
            ("bbox", "joint_img", "joint_cam", "smpl_param"),
        )
        for annotation in annotations:
            image = images[annotation["image_id"]]
            if annotation_lists.usable_box(self, split, annotation, image):
                key = image["file_name"].rpartition(".")[0]
                yield Entry(key, (image, annotation))

    def _json_record(
        self, split: str, key: str, image: dict, annotation: dict
    ) -> Record:
        where = f"{self.path(self.arguments['json'].format(split=split))}: {key}"
        camera = image["cam_param"]
        self.require(f"{where}: cam_param", camera, ("focal", "princpt"))
        joints, pixels = annotation["joint_cam"], annotation["joint_img"]
        size = 2 if np.size(pixels) == 48 else 3
        joints = numbers(self, f"{where}: joint_cam", joints, (24, 3))
        pixels = numbers(self, f"{where}: joint_img", pixels, (24, size))
        fit = smpl_fields(self, where, annotation["smpl_param"])
        return {
            **self.sized_image(self.path(split), image["file_name"], image),
            "sequence_id": key.rpartition("_")[0],
            "frame_id": annotation_lists.frame_number(key),
            "bbox_xywh_px": np.asarray(annotation["bbox"], np.float64),
            "keypoints_px": with_validity(pixels[:, :2]),
            "joints_cam_m": with_validity(joints),
            "intrinsics": pinhole(camera["focal"], camera["princpt"]),
            **fit,
            "pose_clip_aa": fit["pose_aa"],
            "betas_clip": fit["betas"],
        }

    def _mask(self, stem: str, frame: int) -> Record:
        name = f"segm_{frame + 1}"
        parts = self.read_mat(f"{stem}_segm.mat", name)[name]
        return {"mask": mask_png(np.asarray(parts) > 0)}


def _box(pixels: np.ndarray) -> np.ndarray | None:
    """The box, times 1.2, of the joints [24, 2] inside the image."""
    inside = np.all((pixels >= 0) & (pixels < _SIZE_PX), axis=1)
    if not inside.any():
        return None
    box = box_of_points(pixels[inside], 1.2)
    return box if box[2:].min() > 0 else None
