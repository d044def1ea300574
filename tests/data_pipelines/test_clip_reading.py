"""Batches of clips: complete, shared out, repeatable, resumable."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines import reading
from data_pipelines.builders import conversion
from data_pipelines.clips import ClipOptions
from tests.data_pipelines.people import People
from tests.data_pipelines.test_reading import Plain, assert_same

TRACKS = (("a", 0, 9), ("a", 1, 3), ("b", 0, 6), ("", 0, 1))
"""Sequence, person, frames; on disk the persons of a frame stand side by side."""


class Video(People):
    """Three tracks and a single image."""

    def __init__(self):
        super().__init__()
        self.name = "video"
        rows = [(s, f, p) for s, p, count in TRACKS for f in range(count)]
        self._rows = sorted(rows)

    def keys(self, split):
        return [f"train_{i}" for i in range(len(self._rows))]

    def example(self, split, key):
        sequence, frame, person = self._rows[int(key.removeprefix("train_"))]
        ids = {"sequence_id": sequence, "frame_id": frame, "person_id": person}
        return super().example(split, key) | ids | {"has_smpl": 1}


class Shaken(Plain):
    """Shows the random numbers it was given."""

    num_uniforms = 3
    num_clip_uniforms = 1

    def labels(self, parsed_records, uniforms):
        labels, plan = super().labels(parsed_records, uniforms)
        person = parsed_records["person_id"]
        labels["frame_weight"] = tf.ones(tf.shape(person), tf.float32)
        return labels | {"person": person, "uniforms": uniforms}, plan

    fields = (*Plain.fields, "person_id")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    return conversion.build(Video, folder, num_shards=3, progress=False)


def dataset(path, clips, **arguments):
    defaults = {"split": "train", "batch_size": 2, "transform": Shaken(), "seed": 7}
    return reading.make_dataset(path, clips=clips, **(defaults | arguments))


def take(iterator, count):
    return list(itertools.islice(iterator, count))


ALL = ClipOptions(4, sampling="all")
RANDOM = ClipOptions(2, 4, overlap=0.5, sampling="random_per_cell")


def test_evaluation_reads_every_frame_once(video):
    iterator = dataset(video, ALL, num_epochs=1)
    batches = list(iterator)
    # ceil(9/4) + 1 + 2 + 1 = 7 windows.
    assert len(batches) == iterator.steps_per_epoch == 4
    assert batches[0]["image"].shape == (2, 4, 4, 4, 3)
    assert batches[0]["keypoints_px"].shape == (2, 4, 24, 3)
    clips = {n: np.concatenate([b[n] for b in batches]) for n in batches[0]}
    counted = clips["valid"] > 0
    found = np.sort(clips["sample_index"][counted])
    np.testing.assert_array_equal(found, np.arange(19))
    by_frame = [c.tolist() for c in clips["frame"][:7]]
    assert by_frame[0] == [0, 0, 0, 0]  # the image alone comes first on disk
    assert by_frame[1:4] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 7, 6, 5]]
    assert by_frame[4:] == [[0, 1, 2, 1], [0, 1, 2, 3], [4, 5, 4, 3]]
    np.testing.assert_array_equal(clips["person"][4], 1)
    # What fills up the last batch has no weight; a reflected frame keeps its own.
    np.testing.assert_array_equal(clips["frame_weight"][-1], 0)
    np.testing.assert_array_equal(clips["frame_weight"][3], 1)
    np.testing.assert_array_equal(clips["valid"][3], [1, 0, 0, 0])
    names = iterator.sample_ids(batches[0]["sample_index"])
    assert len(names) == 8 and names[0] == names[3] == "person_0000"


def test_frames_of_a_clip_share_numbers(video):
    (batch,) = take(dataset(video, RANDOM, batch_size=5, shuffle=True), 1)
    uniforms = batch["uniforms"]
    assert uniforms.shape == (5, 2, 3)
    assert (uniforms[:, 0, 0] == uniforms[:, 1, 0]).all()
    assert (uniforms[:, 0, 1:] != uniforms[:, 1, 1:]).all()


def test_clips_are_repeatable_resumable_and_shared_out(video):
    whole = take(dataset(video, RANDOM, shuffle=True, num_threads=1), 12)
    first = dataset(video, RANDOM, shuffle=True, num_threads=3)
    assert_same(take(first, 7), whole[:7])
    state = json.loads(json.dumps(first.state()))
    second = dataset(video, RANDOM, shuffle=True)
    second.restore(state)
    assert_same(take(second, 5), whole[7:])
    for part in range(2):
        half = dataset(
            *(video, RANDOM),
            **{"batch_size": 1, "shuffle": True},
            **{"process_index": part, "process_count": 2},
        )
        for batch, expected in zip(take(half, 4), whole, strict=False):
            np.testing.assert_array_equal(batch["image"], expected["image"][part:][:1])
    with pytest.raises(ValueError, match="clips: expected"):
        dataset(video, ALL, shuffle=True).restore(state)


def test_sources_are_mixed_by_clips(video):
    iterator = dataset(
        [video, video], RANDOM, batch_size=4, shuffle=True, caps=(None, 3)
    )
    # 5 + 1 + 3 + 1 windows of stride 2, and three of the other source.
    assert iterator.steps_per_epoch == (10 + 3) // 4
    index = np.concatenate([b["sample_index"] for b in take(iterator, 3)])
    assert 2 * 2 <= (index >= 19).sum() <= 2 * 3
    groups = dataset([video, video], RANDOM, shuffle=True, groups=(0, 1))
    assert groups.steps_per_epoch == 10


def test_transforms_must_not_share_more_than_they_draw(video):
    transform = Shaken()
    transform.num_clip_uniforms = 4
    with pytest.raises(OSError, match="num_clip_uniforms of 0 to 3"):
        next(dataset(video, RANDOM, transform=transform))


def test_damage_in_a_clip_is_named(video, tmp_path):
    import shutil

    from data_pipelines import records, schema

    copy = shutil.copytree(video, tmp_path / "copy")
    path = sorted(copy.glob("*.tfrecord*"))[1]
    split = records.open_directory(copy).split("train")
    data = bytearray(path.read_bytes())
    data[int(split.offset[8]) + 300] ^= 255
    path.write_bytes(data)
    with pytest.raises(schema.RecordError, match="record 2 .*checksum") as caught:
        list(dataset(copy, ALL, num_epochs=1))
    assert str(path) in str(caught.value)
