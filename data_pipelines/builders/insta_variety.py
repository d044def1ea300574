"""InstaVariety: clips from Instagram with detected points, from its TFRecords."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.builders.published_dataset import PublishedDataset

_NORMALISED_SIZE_PX = 224


class InstaVariety(PublishedDataset):
    """One frame of one clip, 25 detected points with their confidence.

    The frames are crops already: the box is the whole image and the trait ``has_box``
    is 0.

    Args:
        raw: folder with the TFRecords.
        published_points: take the 25 points for the first 25 of SPIN's 49, which are
            OpenPose's in another order, as the published script leaves them; by
            default they go by name.

    Source: specs/int_hmr.md, sections 15 and 20 (D11).
    """

    name = "insta_variety"
    description = "InstaVariety: clips from Instagram, 2D joints found by OpenPose."
    citation = (
        "Kanazawa et al., Learning 3D Human Dynamics from Video, CVPR 2019 (HMMR)"
    )
    needs = (
        "{train,test}/*.tfrecord: clips with meta/N, image/encoded, image/xys, "
        "image/visibilities, image/face_pts, image/toe_pts",
    )
    origin = "https://github.com/akanazawa/human_dynamics (data)"
    licence = "non-commercial research; videos of Instagram's users"
    traits = {"has_box": 0.0}

    def __init__(self, raw: str, *, published_points: bool = False):
        super().__init__(raw)
        self.published_points = published_points
        joint_set = "openpose_25" if published_points else "insta_variety_25"
        self.spec = schema.RecordSpec(joint_set=joint_set, num_joints=25)
        self._reader: tuple[str, int, Iterator[bytes]] = ("", 0, iter(()))
        self._clip: tuple[str, Any] = ("", None)

    def splits(self) -> Sequence[str]:
        """The two folders."""
        return ("train", "test")

    def _clips(self, path: str, first: int = 0) -> Iterator[bytes]:
        """The serialised clips of a file from a number on."""
        import tensorflow as tf

        expected = "a TFRecord file of clips"
        try:
            dataset = tf.data.TFRecordDataset(path).skip(first)
            yield from dataset.as_numpy_iterator()
        except tf.errors.NotFoundError as error:
            raise self.wrong(path, expected, "no such file") from error
        except tf.errors.OpError as error:
            raise self.wrong(path, expected, error.message) from error

    def _parsed(self, path: str, number: int, data: bytes) -> Any:
        """The features of a clip."""
        import tensorflow as tf
        from google.protobuf.message import DecodeError

        where = f"{path}: clip {number}"
        try:
            features = tf.train.Example.FromString(data).features.feature
        except DecodeError as error:
            found = f"{len(data)} other bytes"
            raise self.wrong(where, "a tf.train.Example", found) from error
        self.require(where, features, ("meta/N", "image/encoded", "image/xys"))
        return features

    def keys(self, split: str) -> Sequence[str]:
        """File, clip and frame."""
        files = self.glob(split, split, "*.tfrecord")
        if not files:
            raise self.wrong(self.path(split), "files *.tfrecord", "none")
        keys = []
        for path in files:
            stem = path.rsplit("/", 1)[1].removesuffix(".tfrecord")
            for i, data in enumerate(self._clips(path)):
                clip = self._parsed(path, i, data)
                frames = self._length(f"{path}: clip {i}", clip)
                if not frames:
                    self.drop(split, "clip without frames")
                keys += [f"{stem}/{i:05d}/{k:06d}" for k in range(frames)]
            self.inputs.note_large_file(path)
        return keys

    def _clip_of(self, path: str, number: int) -> dict[str, Any]:
        """A clip's images and points; files are read on from the last clip."""
        name = f"{path}: clip {number}"
        if self._clip[0] != name:
            at, position, reader = self._reader
            if at != path or position > number:
                position, reader = number, self._clips(path, number)
            data = next(itertools.islice(reader, number - position, None), None)
            if data is None:
                raise self.wrong(path, f"clip {number}", "the end of the file")
            self._reader = (path, number + 1, reader)
            clip = self._parsed(path, number, data)
            self._clip = (name, self._labels(name, clip))
        return self._clip[1]

    def _labels(self, where: str, clip: Any) -> dict[str, Any]:
        """Images [N] and points [N, 25, 3] of a clip, pixels and confidence."""
        frames = self._length(where, clip)
        images = list(clip["image/encoded"].bytes_list.value)
        if len(images) != frames:
            raise self.wrong(where, f"{frames} images", len(images))
        body = self._numbers(where, clip, "image/xys", (frames, 2, 14))
        seen = self._numbers(where, clip, "image/visibilities", (frames, 1, 14))
        face = self._numbers(where, clip, "image/face_pts", (frames, 3, 5))
        toes = self._numbers(where, clip, "image/toe_pts", (frames, 3, 6))
        whole = np.concatenate([body, seen], axis=1)
        points = np.concatenate([whole, face, toes], axis=2).transpose(0, 2, 1)
        if "image/phis" in clip:
            points[..., :2] = (points[..., :2] + 1) / 2 * _NORMALISED_SIZE_PX
        return {"images": images, "points": points}

    def _length(self, where: str, clip: Any) -> int:
        """The number of frames that a clip says it has."""
        said = clip["meta/N"].int64_list.value
        if len(said) != 1 or said[0] < 0:
            raise self.wrong(f"{where}: meta/N", "a number of frames", list(said))
        return int(said[0])

    def _numbers(
        self, where: str, clip: Any, name: str, shape: tuple[int, ...]
    ) -> np.ndarray:
        """A feature as an array; zeros where a clip has none."""
        if name not in clip:
            return np.zeros(shape)
        feature = clip[name]
        kind = feature.WhichOneof("kind")
        values = getattr(feature, kind).value if kind else ()
        array = np.asarray(values, np.float64)
        if array.size != int(np.prod(shape)):
            raise self.wrong(f"{where}: {name}", f"{shape} numbers", array.size)
        return array.reshape(shape)

    def example(self, split: str, key: Any) -> schema.Record:
        """One frame."""
        stem, number, frame = str(key).split("/")
        path = self.path(split, f"{stem}.tfrecord")
        clip = self._clip_of(path, int(number))
        image = self.image_fields(clip["images"][int(frame)], f"{path}: {key}")
        return {
            **image,
            "sample_id": str(key),
            "sequence_id": f"{stem}/{number}",
            "frame_id": int(frame),
            "bbox_xywh_px": [0, 0, image["image_width"], image["image_height"]],
            "keypoints_px": clip["points"][int(frame)],
        }
