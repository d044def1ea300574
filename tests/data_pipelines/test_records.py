"""Damage of every kind is found and named."""

import json
import shutil

import numpy as np
import pytest

from data_pipelines import record_index, records, schema
from tests.data_pipelines.people import build_people, make_record


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_people(tmp_path_factory.mktemp("records"), count=6)


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "copy")


def shard(path, number=1):
    return sorted(path.glob("*.tfrecord*"))[number]


def test_records_come_back_whole_and_in_order(built):
    found = list(records.read_records(built, "train"))
    assert [r["sample_id"] for r in found] == [f"person_{i:04d}" for i in range(6)]
    expected = schema.validate(make_record(4), schema.RecordSpec())
    for name, value in expected.items():
        np.testing.assert_array_equal(found[4][name], value, err_msg=name)
    picked = records.read_records(built, "train", [5, 0])
    assert [r["frame_id"] for r in picked] == [1, 0]
    assert records.verify(built) == {"train": 6}


def test_parent_directories_are_followed(built):
    assert records.find_directory(built.parent) == built
    assert records.find_directory(built.parent.parent) == built


def test_missing_directory_and_split(tmp_path, built):
    with pytest.raises(schema.RecordError, match="expected a directory of records"):
        records.open_directory(tmp_path / "nowhere")
    with pytest.raises(schema.RecordError, match="expected one directory with records"):
        records.open_directory(tmp_path)
    with pytest.raises(schema.RecordError, match="split named 'test', found train"):
        records.open_directory(built).split("test")


def test_truncated_shard_is_named_before_reading(copy):
    path = shard(copy)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(schema.RecordError, match="cut off in .*: record 2 ") as caught:
        records.open_directory(copy).split("train")
    assert str(path) in str(caught.value)
    with pytest.raises(schema.RecordError, match="record 2 .*: expected it to end at"):
        record_index.scan_shard(path)
    path.unlink()
    with pytest.raises(schema.RecordError, match="expected a TFRecord file"):
        records.open_directory(copy).split("train")


def test_changed_byte_is_named(copy):
    path = shard(copy)
    split = records.open_directory(copy).split("train")
    data = bytearray(path.read_bytes())
    data[int(split.offset[4]) + 200] ^= 1
    path.write_bytes(data)
    with pytest.raises(schema.RecordError, match="record 1 .*checksum") as caught:
        records.verify(copy)
    assert str(path) in str(caught.value)


def test_other_schema_version_and_fingerprint(copy):
    manifest = json.loads((copy / records.MANIFEST).read_text())
    changed = manifest | {"config": {"counts": 3}}
    (copy / records.MANIFEST).write_text(json.dumps(changed))
    with pytest.raises(schema.RecordError, match="expected fingerprint"):
        records.open_directory(copy)
    changed = manifest | {"schema_version": "0.9.0"}
    (copy / records.MANIFEST).write_text(json.dumps(changed))
    with pytest.raises(schema.RecordError, match="schema version 1.1.0, found 0.9.0"):
        records.open_directory(copy)
    (copy / records.MANIFEST).write_text("{")
    with pytest.raises(schema.RecordError, match="expected a manifest"):
        records.open_directory(copy)


def test_damaged_index_is_named(copy):
    (copy / records.INDEX).write_bytes(b"nothing")
    with pytest.raises(
        schema.RecordError, match=r"^\S*records\.npz: expected an \.npz"
    ):
        records.open_directory(copy)
    (copy / records.INDEX).unlink()
    with pytest.raises(schema.RecordError, match="expected the index"):
        records.open_directory(copy)
