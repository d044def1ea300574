import dataclasses

import numpy as np
import pytest

from data_pipelines import schema
from tests.data_pipelines.people import SIZE, encode_image, make_record

SPEC = schema.RecordSpec()


def assert_records_equal(a, b):
    assert set(a) == set(b) == set(schema.FIELD_BY_NAME)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_encoding_round_trip():
    record = schema.validate(make_record(3), SPEC)
    assert_records_equal(schema.decode(schema.encode(record), SPEC), record)


def test_left_out_fields_are_filled():
    record = schema.validate(
        make_record(0, joint_set="coco_17"), schema.RecordSpec("coco_17", 17)
    )
    assert record["pose_aa"].shape == (24, 3)
    assert not record["pose_aa"].any()
    np.testing.assert_array_equal(record["intrinsics"], np.eye(3))
    assert record["gender"] == "neutral"


def _wrong(name, value):
    return pytest.param({name: value}, name, id=name)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        _wrong("betas", np.zeros(11)),
        _wrong("pose_aa", np.full((24, 3), np.nan)),
        _wrong("intrinsics", np.diag([-1.0, 1.0, 1.0])),
        _wrong("bbox_xywh_px", [0, 0, 0, 5]),
        _wrong("image", b"not an image"),
        _wrong("sample_id", 7),
        _wrong("keypoints_px", None),
        _wrong("has_smpl", None),
        _wrong("has_twist", 2),
        _wrong("frame_id", "first"),
    ],
)
def test_a_wrong_field_is_named(change, name):
    with pytest.raises(schema.RecordError, match=f"field {name}: ") as caught:
        schema.validate(make_record(1) | change, SPEC, "people")
    assert "people: record " in str(caught.value)


def test_nan_says_where():
    record = make_record(1)
    record["joints_cam_m"][5, 2] = np.nan
    with pytest.raises(schema.RecordError, match=r"expected finite.*nan at \[5, 2\]"):
        schema.validate(record, SPEC)


def test_image_size_must_agree():
    image = encode_image(np.zeros((SIZE, SIZE + 1, 3), np.uint8))
    with pytest.raises(schema.RecordError, match="expected 64 x 64.*found 65 x 64"):
        schema.validate(make_record(1) | {"image": image}, SPEC)


EXTRAS = (
    schema.FieldSpec("world_pose_aa", "float32", (2, 3), "rad", "world", "test"),
    schema.FieldSpec("activity", "int64", (2,), doc="test"),
    schema.FieldSpec("note", "str", doc="test"),
    schema.FieldSpec("blob", "bytes", doc="test"),
)
WIDE = schema.RecordSpec(extras=EXTRAS)


def test_extras_are_stored_like_other_fields():
    import json

    given = {"world_pose_aa": np.arange(6.0).reshape(2, 3), "activity": [4, 5]}
    record = schema.validate(make_record(1) | given, WIDE)
    found = schema.decode(schema.encode(record, EXTRAS), WIDE)
    np.testing.assert_array_equal(found["world_pose_aa"], given["world_pose_aa"])
    np.testing.assert_array_equal(found["activity"], [4, 5])
    assert (found["note"], found["blob"]) == ("", b"")
    assert found.keys() == set(schema.FIELD_BY_NAME) | {e.name for e in EXTRAS}
    again = json.loads(json.dumps(dataclasses.asdict(WIDE)))
    assert schema.RecordSpec.from_json(again) == WIDE
    assert set(schema.tfds_features(WIDE)) == set(found)


def test_extras_are_zero_where_a_dataset_lacks_them():
    import tensorflow as tf

    given = {"world_pose_aa": np.ones((2, 3)), "note": "seen"}
    wide = schema.encode(schema.validate(make_record(0) | given, WIDE), EXTRAS)
    plain = schema.encode(schema.validate(make_record(1), SPEC))
    names = ("world_pose_aa", "activity", "note", "frame_id")
    batch = tf.constant([wide, plain])
    found = schema.parse_batch(batch, names, SPEC, schema.merged_extras([SPEC, WIDE]))
    np.testing.assert_array_equal(found["world_pose_aa"][:, 0, 0], [1, 0])
    np.testing.assert_array_equal(found["activity"], np.zeros((2, 2)))
    assert found["note"].numpy().tolist() == [b"seen", b""]
    with pytest.raises(schema.RecordError, match="world_pose_aa: expected one of"):
        schema.parse_batch(batch, names, SPEC)


def test_wrong_extras_are_refused():
    with pytest.raises(schema.RecordError, match="extra field betas"):
        schema.RecordSpec(extras=(schema.FieldSpec("betas", "float32"),))
    with pytest.raises(schema.RecordError, match="extra field x: .*fixed sizes"):
        schema.RecordSpec(extras=(schema.FieldSpec("x", "float32", ("joints",)),))
    other = schema.RecordSpec(extras=(schema.FieldSpec("activity", "int64", (3,)),))
    with pytest.raises(schema.RecordError, match=r"activity: .*\[2\].*\[3\]"):
        schema.merged_extras([WIDE, other])
    with pytest.raises(schema.RecordError, match="field activity: expected shape"):
        schema.validate(make_record(1) | {"activity": 3}, WIDE)


def test_records_without_an_absolute_root_say_so():
    assert schema.validate(make_record(0), SPEC)["has_root"] == 1
    assert schema.validate(make_record(0) | {"has_root": 0}, SPEC)["has_root"] == 0
    with pytest.raises(schema.RecordError, match="field has_root: expected 0 or 1"):
        schema.validate(make_record(0) | {"has_root": 2}, SPEC)


def test_unknown_fields_are_refused():
    with pytest.raises(schema.RecordError, match=r"unknown fields \['colour'\]"):
        schema.validate(make_record(1) | {"colour": 1}, SPEC)


def test_every_field_is_described():
    assert all(field.doc for field in schema.FIELDS)
    assert all(f.unit for f in schema.FIELDS if f.name.endswith(("_px", "_m", "_aa")))


def test_parsing_pads_lists_of_joints():
    import tensorflow as tf

    coco = schema.RecordSpec("coco_17", 17)
    small = schema.validate(make_record(0, joint_set="coco_17"), coco)
    large = schema.validate(make_record(1), SPEC)
    batch = tf.constant([schema.encode(small), schema.encode(large)])
    keypoints = schema.parse_batch(batch, ("keypoints_px",), SPEC)["keypoints_px"]
    assert keypoints.shape == (2, 24, 3)
    np.testing.assert_array_equal(keypoints[0, :17], small["keypoints_px"])
    assert not keypoints[0, 17:].numpy().any()
