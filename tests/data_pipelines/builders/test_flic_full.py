"""FLIC-Full: labels by hand, and the published loader's two mistakes."""

import numpy as np
import pytest
import scipy.io

from data_pipelines.builders.flic_full import FlicFull
from data_pipelines.schema import RecordError
from hmr_jax.body.joint_sets import get_joint_set
from tests.data_pipelines.builders import written

NUMBERS = {  # FLIC's part numbers, from 1
    "left_shoulder": 1,
    "left_elbow": 2,
    "left_wrist": 3,
    "right_shoulder": 4,
    "right_elbow": 5,
    "right_wrist": 6,
    "left_hip_extra": 7,
    "right_hip_extra": 10,
    "left_eye": 13,
    "right_eye": 14,
    "nose": 17,
}
FIELDS = ("poselet_hit_idx", "moviename", "coords", "filepath", "imgdims", "currframe")
FIELDS += ("torsobox", "istrain", "istest", "isbad", "isunchecked")


def write(folder, coordinates, marks, size=(80, 60)):
    """``examples.mat`` as MATLAB writes it: one struct array, fields in order."""
    kinds = [(name, object) for name in FIELDS]
    examples = np.empty((1, len(coordinates)), kinds)
    for i, (points, (train, test)) in enumerate(zip(coordinates, marks, strict=True)):
        file = f"film-{i:08d}.jpg"
        written.write_image(folder / "images" / file, size, i)
        values = ([1, 2], "film", points, file, [60, 80, 3], 100 + i)
        values += ([10.0, 12.0, 40.0, 50.0], train, test, 0, 0)
        for name, value in zip(FIELDS, values, strict=True):
            is_text = isinstance(value, str)
            examples[0, i][name] = value if is_text else np.atleast_2d(value)
    scipy.io.savemat(folder / "examples.mat", {"examples": examples})


def people(number, missing=((), ())):
    rng = np.random.default_rng(3)
    coordinates = np.full((number, 2, 29), np.nan)
    for part in NUMBERS.values():
        coordinates[:, :, part - 1] = rng.uniform(2, 58, (number, 2))
    for i, parts in enumerate(missing):
        coordinates[i][:, [part - 1 for part in parts]] = np.nan
    return coordinates


def test_every_label(tmp_path):
    coordinates = people(4, ((), (3, 7)))
    write(tmp_path / "raw", coordinates, [(1, 0), (1, 0), (0, 1), (0, 0)])

    def make():
        return FlicFull(str(tmp_path / "raw"))

    dataset = make()
    train = written.read_all(dataset, "train")
    assert list(train) == ["train_000000", "train_000001"]
    assert list(written.read_all(dataset, "test")) == ["test_000002"]
    reason = "neither for training nor for testing"
    assert dataset.dropped == {("train", reason): 1}
    for i, record in enumerate(train.values()):
        expected = np.zeros((11, 3))
        for name, part in NUMBERS.items():
            x, y = coordinates[i, :, part - 1]
            if np.isfinite(x):
                expected[get_joint_set("flic_11").index(name)] = x, y, 2
        shown = expected[expected[:, 2] > 0, :2]
        low, high = shown.min(0), shown.max(0)
        side = 1.25 * (high - low).max()
        written.same(
            record,
            {
                "keypoints_px": expected,
                "bbox_xywh_px": [*((low + high) / 2 - side / 2), side, side],
                "torso_box_px": [10, 12, 30, 38],
                "frame_id": 100 + i,
                "sequence_id": "film",
            },
        )
    assert train["train_000001"]["keypoints_px"][[2, 6], 2].max() == 0
    written.same_records(written.built(make, tmp_path / "out", "train"), train)


def test_in_the_order_of_mpii(tmp_path):
    coordinates = people(2, ((), (7,)))
    write(tmp_path, coordinates, [(1, 0), (1, 0)])
    dataset = FlicFull(str(tmp_path), joint_set="mpii_16")
    whole, part = (record["keypoints_px"] for record in map_examples(dataset))
    places = {2: 10, 3: 7, 10: 6, 11: 5, 12: 4, 13: 1, 14: 2, 15: 3}
    for row, number in places.items():
        np.testing.assert_allclose(whole[row, :2], coordinates[0][:, number - 1])
    np.testing.assert_allclose(whole[6, :2], coordinates[0][:, [6, 9]].mean(1))
    np.testing.assert_allclose(whole[7, :2], coordinates[0][:, [0, 3]].mean(1))
    assert not whole[[0, 1, 4, 5, 8, 9]].any()
    assert not part[[3, 6]].any() and part[7, 2] == 2


def map_examples(dataset):
    return [dataset.example("train", key) for key in dataset.keys("train")]


def test_the_published_loader(parity_dir, tmp_path):
    vectors = np.load(parity_dir / "pose_hg" / "datasets_public.npz")
    coordinates = written.pose_hg_inputs(parity_dir).flic_records(11)
    write(tmp_path, coordinates, [(1, 1)] * 4, (480, 360))
    dataset = FlicFull(str(tmp_path), published_parts=True, published_box=True)
    assert dataset.spec.joint_set == "mpii_16"
    for split in ("train", "test"):
        records = written.read_all(dataset, split)
        assert len(records) == 4
        for i, record in enumerate(records.values()):
            box = record["bbox_xywh_px"]
            name = f"part/flic/{i}/"
            np.testing.assert_allclose(box[:2] + box[2:] / 2, vectors[name + "c"], 1e-6)
            np.testing.assert_allclose(box[2:], vectors[name + "s"], 1e-6)
            expected = vectors[name + "pts"] * [1, 1, 2]
            np.testing.assert_allclose(record["keypoints_px"], expected, 1e-6)


def test_another_release(tmp_path):
    scipy.io.savemat(tmp_path / "examples.mat", {"people": np.zeros(3)})
    with pytest.raises(RecordError, match=r"flic_full: .*entry named 'examples'"):
        FlicFull(str(tmp_path)).keys("train")
    scipy.io.savemat(tmp_path / "examples.mat", {"examples": {"coords": 1, "a": 2}})
    with pytest.raises(RecordError, match="entry named 'filepath'"):
        FlicFull(str(tmp_path)).keys("train")
