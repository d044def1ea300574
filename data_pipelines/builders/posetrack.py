"""PoseTrack 2018: tracks of people in videos, from its JSON files."""

import collections
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.boxes import box_of_centre
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from hmr_jax.errors import UserError

_LISTS = ("images", "annotations")


class PoseTrack(PublishedDataset):
    """One tracked person of one labelled frame, 17 joints.

    A track is a sequence: its frames follow one another.

    Args:
        raw: folder with ``posetrack_data/annotations`` and ``images``.
        min_frames: drop tracks of fewer labelled frames, 8 as in INT.
        box: ``square``, INT's: 0.8 times the longer side of the released box, or
            ``annotated``, that box.

    Source: specs/int_hmr.md, section 15.
    """

    name = "posetrack"
    spec = schema.RecordSpec(joint_set="posetrack_17", num_joints=17)
    description = "PoseTrack 2018: 2D joints of tracked people in videos."
    citation = (
        "Andriluka et al., PoseTrack: A Benchmark for Human Pose Estimation and "
        "Tracking, CVPR 2018"
    )
    needs = (
        "posetrack_data/annotations/{train,val}/*.json: images, annotations",
        "images/{train,val}/<video>/000000.jpg, ...",
    )
    origin = "https://posetrack.net"
    licence = "registered research use"

    def __init__(self, raw: str, *, min_frames: int = 8, box: str = "square"):
        super().__init__(raw)
        if box not in ("square", "annotated"):
            raise UserError(f"box: expected square or annotated, got {box!r}")
        self.min_frames = min_frames
        self.box = box

    def splits(self) -> Sequence[str]:
        """The two parts with labels."""
        return ("train", "val")

    def _tracks(self, split: str, path: str) -> list[list[tuple[dict, dict]]]:
        """The tracks of a video, each a list of images and annotations in time."""
        content = self.read_json(path)
        self.require(path, content, _LISTS)
        images = {}
        for image in content["images"]:
            self.require(f"{path}: image", image, ("id", "file_name"))
            if image.get("is_labeled", True):
                images[image["id"]] = image
        tracks = collections.defaultdict(list)
        seen = set()
        for person in content["annotations"]:
            where = f"{path}: annotation"
            self.require(where, person, ("image_id", "track_id"))
            image = images.get(person["image_id"])
            if image is None:
                self.drop(split, "frame not labelled")
            elif not _has_labels(person):
                self.drop(split, "no box or keypoints")
            elif (place := (person["track_id"], image["file_name"])) in seen:
                self.drop(split, "track twice in a frame")
            else:
                seen.add(place)
                tracks[person["track_id"]].append((image, person))
        good = []
        for track in tracks.values():
            if len(track) < self.min_frames:
                self.drop(split, "track too short", len(track))
            else:
                good.append(sorted(track, key=lambda pair: pair[0]["file_name"]))
        return good

    def entries(self, split: str) -> Iterator[Entry]:
        """People by video, track and frame."""
        place = ("posetrack_data", "annotations", split)
        files = self.glob(split, *place, "*.json")
        if not files:
            path = self.path(*place)
            raise self.wrong(path, "JSON files, one a video", "none")
        for path in files:
            video = path.rsplit("/", 1)[1].removesuffix(".json")
            for track in self._tracks(split, path):
                for image, person in track:
                    frame = image["file_name"].rsplit("/", 1)[1].split(".")[0]
                    name = f"{video}/{person['track_id']:04d}/{frame}"
                    yield Entry(name, (image["file_name"], person))

    def record(self, split: str, key: Any, data: Any) -> schema.Record:
        """One person."""
        name, person = data
        keypoints = np.asarray(person["keypoints"], np.float64)
        if keypoints.size != 51:
            where = f"{self.path('posetrack_data', 'annotations', split)}: {key}"
            raise self.wrong(where, "51 numbers of keypoints", keypoints.size)
        keypoints = keypoints.reshape(17, 3)
        keypoints[:, 2] = 2.0 * (keypoints[:, :2] != 0).any(-1)
        left, top, width, height = person["bbox"]
        box = np.array([left, top, width, height], np.float64)
        if self.box == "square":
            side = 0.8 * max(width, height)
            box = box_of_centre((left + width / 2, top + height / 2), side)
        sequence, _, frame = key.rpartition("/")
        return {
            **self.read_named(self.raw, name),
            "sequence_id": sequence,
            "frame_id": int(frame),
            "person_id": int(person["track_id"]),
            "bbox_xywh_px": box,
            "keypoints_px": keypoints,
        }


def _has_labels(person: dict[str, Any]) -> bool:
    box = person.get("bbox") or ()
    return len(box) == 4 and min(box[2:]) > 0 and any(person.get("keypoints") or ())
