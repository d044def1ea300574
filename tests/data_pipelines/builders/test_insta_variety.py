"""InstaVariety: every label by hand, from TFRecords as published."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from data_pipelines.builders.insta_variety import InstaVariety
from data_pipelines.schema import RecordError
from hmr_jax.body.joint_sets import map_joints
from tests.data_pipelines.builders import written

SIZE = 224


def jpeg(seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def clip(frames, seed, toes=True, normalised=False):
    rng = np.random.default_rng(seed)
    low, high = (-1, 1) if normalised else (0, SIZE)
    face = rng.uniform(low, high, (frames, 3, 5))
    feet = rng.uniform(low, high, (frames, 3, 6))
    face[:, 2], feet[:, 2] = (
        rng.uniform(0, 1, (frames, 5)),
        rng.uniform(0, 1, (frames, 6)),
    )
    content = {
        "meta/N": np.array([frames]),
        "image/encoded": [jpeg(100 * seed + i) for i in range(frames)],
        "image/xys": rng.uniform(low, high, (frames, 2, 14)).astype(np.float32),
        "image/visibilities": rng.integers(0, 2, (frames, 14)),
        "image/face_pts": face.astype(np.float32),
    }
    if toes:
        content["image/toe_pts"] = feet.astype(np.float32)
    if normalised:
        content["image/phis"] = np.zeros((frames, 2048), np.float32)
    return content


def write(path, clips):
    import tensorflow as tf

    def feature(value):
        if isinstance(value, list):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=value))
        if value.dtype.kind == "i":
            values = tf.train.Int64List(value=value.ravel())
            return tf.train.Feature(int64_list=values)
        return tf.train.Feature(float_list=tf.train.FloatList(value=value.ravel()))

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in clips:
            features = {name: feature(value) for name, value in content.items()}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())


def expected_points(content, i):
    """x, y, confidence of 14 joints, 5 points of the face, 6 of the feet."""
    points = np.zeros((25, 3))
    points[:14, :2] = content["image/xys"][i].T
    points[:14, 2] = content["image/visibilities"][i]
    points[14:19] = content["image/face_pts"][i].T
    if "image/toe_pts" in content:
        points[19:] = content["image/toe_pts"][i].T
    if "image/phis" in content:
        points[:, :2] = (points[:, :2] + 1) / 2 * 224
    return points


def test_every_label(tmp_path):
    raw = tmp_path / "raw"
    clips = {
        "dance_00/00000": clip(3, 1),
        "dance_00/00001": clip(0, 2),
        "dance_00/00002": clip(2, 3, normalised=True),
        "yoga_00/00000": clip(1, 4, toes=False),
    }
    write(raw / "train" / "dance_00.tfrecord", list(clips.values())[:3])
    write(raw / "train" / "yoga_00.tfrecord", list(clips.values())[3:])
    write(raw / "test" / "dance_09.tfrecord", [clip(1, 5)])

    def make():
        return InstaVariety(str(raw))

    dataset = make()
    found = written.read_all(dataset, "train")
    assert dataset.dropped == {("train", "clip without frames"): 1}
    names = [
        f"{name}/{i:06d}"
        for name, content in clips.items()
        for i in range(content["meta/N"][0])
    ]
    assert list(found) == names
    for name, record in found.items():
        content, i = clips[name[:-7]], int(name[-6:])
        written.same(
            record,
            {
                "keypoints_px": expected_points(content, i),
                "image": content["image/encoded"][i],
                "image_width": SIZE,
                "bbox_xywh_px": [0, 0, SIZE, SIZE],
                "sequence_id": name[:-7],
                "frame_id": i,
            },
        )
    written.same_records(written.built(make, tmp_path / "out", "train"), found)
    # A worker may begin anywhere, and go back.
    for name in (names[4], names[0], names[5], names[1]):
        written.same_records(
            {"": make().example("train", name)},
            {"": {k: found[name][k] for k in make().example("train", name)}},
        )


def test_points_of_the_published_script(parity_dir, tmp_path):
    content = clip(1, 6)
    write(tmp_path / "train" / "a.tfrecord", [content])
    points = expected_points(content, 0)
    plain = InstaVariety(str(tmp_path))
    (record,) = written.read_all(plain, "train").values()
    maps = json.loads((parity_dir / "int_hmr" / "joint_maps.json").read_text())
    to_spin = np.array(maps["conventions"]["insta"]["to_spin"])
    index, present = map_joints(plain.spec.joint_set, "spin_49")
    found = np.where(present[:, None], record["keypoints_px"][index], 0)
    expected = np.where(to_spin[:, None] < 0, 0, points[to_spin])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    published = InstaVariety(str(tmp_path), published_points=True)
    (record,) = written.read_all(published, "train").values()
    index, present = map_joints(published.spec.joint_set, "spin_49")
    assert present.tolist() == [True] * 25 + [False] * 24
    np.testing.assert_allclose(record["keypoints_px"][index[:25]], points, rtol=1e-6)


def test_damage(tmp_path):
    with pytest.raises(RecordError, match=r"insta_variety: .*files \*.tfrecord"):
        InstaVariety(str(tmp_path)).keys("train")
    path = tmp_path / "train" / "a.tfrecord"
    write(path, [clip(1, 1) | {"image/xys": np.zeros(27, np.float32)}])
    with pytest.raises(RecordError, match=r"clip 0: image/xys: expected .*found 27"):
        written.read_all(InstaVariety(str(tmp_path)), "train")
    write(path, [clip(1, 1)])
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RecordError, match="a.tfrecord: expected a TFRecord file"):
        InstaVariety(str(tmp_path)).keys("train")
    write(path, [{"image/encoded": [b"x"]}])
    with pytest.raises(RecordError, match="expected an entry named 'meta/N'"):
        InstaVariety(str(tmp_path)).keys("train")
