"""MPI-INF-3DHP from its own files: annot.mat, and HDF5 files of the test set."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders import mpi_inf_3dhp_files as files
from data_pipelines.builders.boxes import box_of_centre, box_of_points
from data_pipelines.builders.label_values import select_joints, with_validity
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.builders.published_files import join
from data_pipelines.record_fields import VALID_FRAME
from data_pipelines.schema import Record
from hmr_jax.errors import UserError

_SIDE_PX = 2048
_TEST = tuple(f"TS{n}" for n in range(1, 7))
_MAPPED = (25, 24, 23, 18, 19, 20, 4, 3, 5, 7, 16, 15, 14, 9, 10, 11)
"""The joints that INT (with 6 and 7) and pose_hg take to their own sets."""
_MAPPED_TEST = (10, 9, 8, 11, 12, 13, 14, 15, 1, 0, 4, 3, 2, 5, 6, 7)
"""The same of the test set's 17."""
_CHEST_HEIGHT = (0, 1, 2, 4, 5, 6, 7, 8)


@dataclasses.dataclass(frozen=True)
class _Rule:
    """Which frames become records.

    Attributes:
        stride: every so many frames of the training set.
        cameras: of the training set.
        used: joints that must lie in the training image and make the box.
        used_test: the same of the test set's joints, for the box.
        growth: of the box around the joints.
        square: whether the box is made square.
        test_inside: whether the joints must lie in the test image.
    """

    stride: int = 1
    cameras: tuple[int, ...] = _CHEST_HEIGHT
    used: tuple[int, ...] = tuple(range(28))
    used_test: tuple[int, ...] = tuple(range(17))
    growth: float = 1.1
    square: bool = True
    test_inside: bool = False


_RULES = {
    "ikol": _Rule(stride=10, growth=1.2, square=False),
    "int_hmr": _Rule(cameras=tuple(range(9)), used=(*_MAPPED, 6)),
    "pose_hg": _Rule(used=_MAPPED, used_test=_MAPPED_TEST, test_inside=True),
}


class MpiInf3dhp(PublishedDataset):
    """MPI-INF-3DHP as its owners publish it, with the videos' frames extracted.

    Pictures are matched by the number at the end of their names, which may begin at 0
    or 1; frames without a picture are left out, so a part may be extracted. The test
    set's 17 joints stand at the places of their names among the 28. The cameras of the
    test set are fitted to its 2D and 3D joints.

    Args:
        raw: folder with ``S1`` to ``S8`` and ``mpi_inf_3dhp_test_set`` (or ``TS1`` to
            ``TS6``).
        rule: choice of training frames. ``ikol``: every 10th, all 28 joints in the
            image. ``int_hmr``: cameras 0 to 8, all frames, the mapped joints in the
            image. ``pose_hg``: the eight cameras at chest height, all frames, 16
            joints in the image; the test frames also need all joints in the image.
        stride: another step of the training frames; 0 for the rule's.
        valid_only: of the test set, the frames that the release evaluates alone.
        universal: joints of the skeleton of common size (``univ_annot3``), which do
            not project onto the image, in the test set.
        subjects: of the training set.
        sequences: of each subject.
        first_frame: number of the first frame in the pictures' names; -1 finds out.

    Source: specs/ikol.md 16; specs/int_hmr.md 15; specs/pose_hg.md 8.7.
    """

    name = "mpi_inf_3dhp"
    description = "MPI-INF-3DHP: markerless 3D joints of eight people, many cameras."
    citation = "Mehta et al., Monocular 3D human pose estimation in the wild, 3DV 2017"
    needs = (
        "S{1..8}/Seq{1,2}/annot.mat",
        "S{1..8}/Seq{1,2}/camera.calibration (optional: cameras)",
        "S{1..8}/Seq{1,2}/imageFrames/video_{0..8}/*.jpg, extracted by you",
        "mpi_inf_3dhp_test_set/TS{1..6}/annot_data.mat",
        "mpi_inf_3dhp_test_set/TS{1..6}/imageSequence/img_%06d.jpg",
    )
    origin = "vcai.mpi-inf.mpg.de/3dhp-dataset"
    licence = "non-commercial research"
    counts = {"test": 24888}
    traits = {"crop_padding": 1.25, "occlude": 0.0}
    spec = schema.RecordSpec("mpi_inf_3dhp_28", 28, extras=(VALID_FRAME,))

    def __init__(
        self,
        raw: str,
        *,
        rule: str = "ikol",
        stride: int = 0,
        valid_only: bool = False,
        universal: bool = False,
        subjects: Sequence[int] = tuple(range(1, 9)),
        sequences: Sequence[int] = (1, 2),
        first_frame: int = -1,
    ):
        if rule not in _RULES:
            raise UserError(f"rule: expected one of {tuple(_RULES)}, got {rule!r}")
        super().__init__(raw)
        self._rule = _RULES[rule]
        self._stride = stride or self._rule.stride
        self._valid_only, self._universal = valid_only, universal
        if self._rule.test_inside:
            self.counts = {}
        elif valid_only:
            self.counts = {"test": 2929}
        self._first = None if first_frame < 0 else first_frame
        self._held: tuple[str, Any] = ("", None)

    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return ("train", "test")

    def entries(self, split: str) -> Iterator[Entry]:
        """Frames by sequence, camera and time."""
        if split == "test":
            for name in _TEST:
                yield from self._test_entries(name)
            return
        for subject in self.arguments["subjects"]:
            for sequence in self.arguments["sequences"]:
                for camera in self._rule.cameras:
                    yield from self._train_entries(f"S{subject}/Seq{sequence}", camera)

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one frame."""
        if split == "test":
            return self._test_record(*data)
        return self._train_record(*data)

    # --- training set

    def _train(self, folder: str) -> dict[str, Any]:
        """Joints and cameras of a sequence; the last one is held."""
        if self._held[0] != folder:
            path = self.path(folder, "annot.mat")
            joints = files.training_joints(
                self, path, ("annot2", "annot3"), self._rule.cameras
            )
            calibration = files.cameras(self, self.path(folder, "camera.calibration"))
            self._held = (folder, {"joints": joints, "cameras": calibration})
        return self._held[1]

    def _train_entries(self, folder: str, camera: int) -> Iterator[Entry]:
        pixels, _ = self._train(folder)["joints"][camera]
        video = f"video_{camera}"
        parts = (("imageFrames", video), ("imageSequence", video), (video,))
        places = tuple(self.path(folder, *part) for part in parts)
        images = files.numbered_images(self, "train", places, self._first)
        wanted = list(range(0, len(pixels), self._stride))
        checked = pixels[:, list(self._rule.used)]
        inside = np.all((checked >= 0) & (checked < _SIDE_PX), axis=(1, 2))
        kept = [f for f in wanted if inside[f] and f in images]
        self.drop("train", "joints outside the image", int((~inside[wanted]).sum()))
        missing = sum(1 for f in wanted if inside[f] and f not in images)
        self.drop("train", "no picture", missing)
        name = folder.replace("/", "_")
        segment, last = 0, None
        for frame in kept:
            if last is not None and frame != last + self._stride:
                segment += 1
            last = frame
            key = f"{name}_{video}_{frame:06d}"
            track = f"{name}_{video}_seg{segment}"
            yield Entry(key, (folder, camera, int(frame), images[frame], track))

    def _train_record(
        self, folder: str, camera: int, frame: int, image: str, track: str
    ) -> Record:
        content = self._train(folder)
        pixels, joints = (array[frame] for array in content["joints"][camera])
        record = {
            **self.read_image(image),
            "sequence_id": track,
            "frame_id": frame,
            "bbox_xywh_px": self._box(pixels[list(self._rule.used)]),
            "keypoints_px": with_validity(pixels),
            "joints_cam_m": with_validity(joints),
        }
        if camera in content["cameras"]:
            intrinsics, extrinsics = content["cameras"][camera]
            record |= {"intrinsics": intrinsics, "extrinsics": extrinsics}
        return record

    def _box(self, pixels: np.ndarray) -> np.ndarray:
        box = box_of_points(pixels, self._rule.growth)
        if not self._rule.square:
            return box
        return box_of_centre(box[:2] + box[2:] / 2, box[2:].max())

    # --- test set

    def _test_folder(self, name: str) -> str:
        choices = (f"mpi_inf_3dhp_test_set/{name}", name)
        return self.folder_of(*choices)

    def _test(self, name: str) -> dict[str, Any]:
        """Labels and camera of a test sequence; the last one is held."""
        if self._held[0] != name:
            path = join(self._test_folder(name), "annot_data.mat")
            metric = files.evaluation_labels(self, path, "annot3")
            labels = metric
            if self._universal:
                labels = files.evaluation_labels(self, path, "univ_annot3")
            camera = files.fitted_camera(
                metric.pixels.reshape(-1, 2), metric.joints_m.reshape(-1, 3)
            )
            self._held = (name, {"labels": labels, "camera": camera})
        return self._held[1]

    def _test_entries(self, name: str) -> Iterator[Entry]:
        labels = self._test(name)["labels"]
        folder = join(self._test_folder(name), "imageSequence")
        images = files.numbered_images(self, "test", (folder,), 1)
        size = self.image_size(next(iter(images.values())))
        for frame, pixels in enumerate(labels.pixels[:, list(self._rule.used_test)]):
            if self._valid_only and not labels.valid[frame]:
                self.drop("test", "not evaluated by the release")
            elif self._rule.test_inside and not np.all((pixels >= 0) & (pixels < size)):
                self.drop("test", "joints outside the image")
            elif frame not in images:
                self.drop("test", "no picture")
            else:
                key = f"{name}_{frame + 1:06d}"
                yield Entry(key, (name, frame, images[frame]))

    def _test_record(self, name: str, frame: int, image: str) -> Record:
        content = self._test(name)
        labels = content["labels"]
        joints, pixels = (
            select_joints(
                with_validity(points), "mpi_inf_3dhp_test_17", "mpi_inf_3dhp_28"
            )
            for points in (labels.joints_m[frame], labels.pixels[frame])
        )
        record = {
            **self.read_image(image),
            "sequence_id": name,
            "frame_id": frame + 1,
            "bbox_xywh_px": self._box(labels.pixels[frame, list(self._rule.used_test)]),
            "keypoints_px": pixels,
            "joints_cam_m": joints,
            "valid_frame": int(labels.valid[frame]),
        }
        if content["camera"] is not None and not self._universal:
            record["intrinsics"] = content["camera"]
        return record
