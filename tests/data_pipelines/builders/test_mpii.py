"""MPII: labels by hand, the conversion, the published loader's values."""

import json

import numpy as np
import pytest

from data_pipelines.builders.mpii import Mpii
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders import written


def entry(image, seed, scale=1.5, missing=(), occluded=()):
    rng = np.random.default_rng(seed)
    joints = rng.integers(1, 40, (16, 2)).astype(float)
    joints[list(missing)] = -1
    seen = np.ones(16, int)
    seen[[*missing, *occluded]] = 0
    return {
        "joints_vis": seen.tolist(),
        "joints": joints.tolist(),
        "image": image,
        "scale": scale,
        "center": rng.uniform(10, 30, 2).tolist(),
    }


@pytest.fixture
def raw(tmp_path):
    people = [
        entry("015601864.jpg", 1),
        entry("015601864.jpg", 2, missing=(0, 9), occluded=(3,)),
        entry("000000002.jpg", 3, scale=-1.0),
        entry("000000002.jpg", 4),
    ]
    (tmp_path / "annot").mkdir()
    (tmp_path / "annot" / "train.json").write_text(json.dumps(people))
    (tmp_path / "annot" / "val.json").write_text(json.dumps(people[:1]))
    for name in ("015601864.jpg", "000000002.jpg"):
        written.write_image(tmp_path / "images" / name, seed=len(name))
    return tmp_path, people


def test_every_label(raw):
    folder, people = raw
    dataset = Mpii(str(folder))
    records = written.read_all(dataset, "train")
    assert list(records) == ["train_000000", "train_000001", "train_000003"]
    assert dataset.dropped == {("train", "no scale"): 1}
    for i, number in ((0, 0), (1, 1), (3, 1)):
        person, record = people[i], records[f"train_{i:06d}"]
        side = 250 * person["scale"]
        x, y = person["center"]
        left, top = x - 1 - side / 2, y + 15 * person["scale"] - 1 - side / 2
        expected = np.zeros((16, 3))
        for k, (px, py) in enumerate(person["joints"]):
            if px > 0 or py > 0:
                expected[k] = px - 1, py - 1, 2 if person["joints_vis"][k] else 1
        written.same(
            record,
            {
                "bbox_xywh_px": [left, top, side, side],
                "keypoints_px": expected,
                "image": (folder / "images" / person["image"]).read_bytes(),
                "image_height": 36,
                "image_width": 48,
                "sequence_id": person["image"],
                "person_id": number,
                "has_keypoints": 1,
                "has_joints_3d": 0,
                "has_smpl": 0,
            },
        )
    assert records["train_000001"]["keypoints_px"][3, 2] == 1
    assert records["train_000001"]["keypoints_px"][[0, 9], 2].max() == 0


def test_the_name_of_the_release_for_the_validation_part(raw):
    folder, people = raw
    assert list(Mpii(str(folder)).keys("val")) == [0]
    (folder / "annot" / "valid.json").write_text(json.dumps(people[:2]))
    assert list(Mpii(str(folder)).keys("val")) == [0, 1]
    for name in ("val", "valid"):
        (folder / "annot" / f"{name}.json").unlink()
    with pytest.raises(RecordError, match=r"mpii: .*valid.json: expected a JSON file"):
        Mpii(str(folder)).keys("val")


def test_conversion(raw, tmp_path):
    def make():
        return Mpii(str(raw[0]))

    found = written.built(make, tmp_path / "out", "train")
    written.same_records(found, written.read_all(make(), "train"))


def test_remote_files(raw):
    """A file system of TensorFlow's own stands for buckets."""
    import tensorflow as tf

    folder, _ = raw
    remote = "ram://mpii"
    for path in (p for p in folder.rglob("*") if p.is_file()):
        target = f"{remote}/{path.relative_to(folder)}"
        tf.io.gfile.makedirs(target.rsplit("/", 1)[0])
        tf.io.gfile.copy(str(path), target, overwrite=True)
    found = written.read_all(Mpii(remote), "train")
    written.same_records(found, written.read_all(Mpii(str(folder)), "train"))


def test_the_published_loader(parity_dir, tmp_path):
    vectors = np.load(parity_dir / "pose_hg" / "datasets_public.npz")
    people = written.pose_hg_inputs(parity_dir).mpii_records(11)
    (tmp_path / "annot").mkdir()
    (tmp_path / "annot" / "val.json").write_text(json.dumps(people))
    for person in people:
        written.write_image(tmp_path / "images" / person["image"], (480, 360))
    dataset = Mpii(str(tmp_path), published_joints=True)
    for i, record in enumerate(written.read_all(dataset, "val").values()):
        box = record["bbox_xywh_px"]
        name = f"part/mpii/{i}/"
        np.testing.assert_allclose(box[:2] + box[2:] / 2, vectors[name + "c"], 1e-5)
        np.testing.assert_allclose(box[2:], vectors[name + "s"], 1e-6)
        points = vectors[name + "pts"]
        np.testing.assert_array_equal(record["keypoints_px"][:, :2], points)
        np.testing.assert_array_equal(
            record["keypoints_px"][:, 2] > 0, (points > 0).any(-1)
        )


def test_another_release(raw):
    folder, people = raw
    for content, text in (
        ({"people": people}, "expected a list of people, found dict"),
        ([{"image": "a.jpg", "center": 1, "scale": 1}], "entries with 'joints'"),
    ):
        (folder / "annot" / "train.json").write_text(json.dumps(content))
        with pytest.raises(RecordError, match=text):
            Mpii(str(folder)).keys("train")
    (folder / "annot" / "train.json").unlink()
    with pytest.raises(RecordError, match=r"mpii: .*train.json: expected a JSON file"):
        Mpii(str(folder)).keys("train")
