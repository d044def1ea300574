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
