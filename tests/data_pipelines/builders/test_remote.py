"""Everything works through TensorFlow's file system layer, here its ram://."""

import itertools
import uuid

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines import reading, records, schema, storage
from data_pipelines.builders import report
from tests.data_pipelines.people import build_people
from tests.data_pipelines.test_reading import Plain


@pytest.fixture
def folder():
    return f"ram://{uuid.uuid4().hex}"


def test_records_are_written_and_read_remotely(folder, tmp_path):
    path = build_people(folder, count=7)
    assert path == f"{folder}/people_smpl_24/1.1.0"
    names = storage.names(path)
    assert "features.json" in names and ".parts" not in names
    assert records.find_directory(folder) == path
    assert records.verify(path) == {"train": 7}
    assert report.read(path)["written"] == {"train": 7}
    local = build_people(tmp_path, count=7)
    assert (
        records.open_directory(path).fingerprint
        == records.open_directory(local).fingerprint
    )
    batches = [
        list(
            itertools.islice(
                reading.make_dataset(
                    place, split="train", batch_size=3, transform=Plain(), shuffle=True
                ),
                3,
            )
        )
        for place in (path, local)
    ]
    for remote, here in zip(*batches, strict=True):
        np.testing.assert_array_equal(remote["image"], here["image"])


def test_a_remote_conversion_goes_on(folder, monkeypatch):
    with pytest.raises(schema.RecordError, match="train_6"):
        build_people(folder, count=8, num_shards=4, broken=6)
    path = f"{folder}/people_smpl_24/1.1.0"
    with pytest.raises(schema.RecordError, match="expected one directory with records"):
        records.open_directory(path)
    first = f"{path}/people_smpl_24-train.tfrecord-00000-of-00004"
    before = tf.io.gfile.stat(first).mtime_nsec
    assert build_people(folder, count=8, num_shards=4) == path
    assert tf.io.gfile.stat(first).mtime_nsec == before
    assert records.verify(path) == {"train": 8}


def test_damage_of_a_remote_shard_is_named(folder):
    path = build_people(folder, count=4)
    shard = f"{path}/people_smpl_24-train.tfrecord-00001-of-00002"
    storage.write_bytes(shard, storage.read_bytes(shard)[:-10])
    with pytest.raises(schema.RecordError, match=f"{shard}: .*cut off in .*record 1"):
        records.verify(path)
    storage.remove(shard)
    with pytest.raises(schema.RecordError, match=f"{shard}: expected a TFRecord file"):
        records.verify(path)
