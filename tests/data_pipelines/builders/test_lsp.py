"""LSP and its extended set: labels by hand, and the published loader's values."""

import numpy as np
import pytest
import scipy.io

from data_pipelines.builders.lsp import Lsp, LspExtended
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders import written

SIZE = (90, 60)


def labels(number, seed=0):
    """[N, 14, 3]: x, y and whether the joint is occluded."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.uniform(2, 55, (number, 14, 2)), rng.integers(0, 2, (number, 14, 1))], -1
    )


def write_lsp(folder, points, numbers, size=SIZE):
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / "joints.mat", {"joints": points.transpose(2, 1, 0)})
    for k in numbers:
        written.write_image(folder / "images" / f"im{k:04d}.jpg", size, k)


def write_extended(folder, points, numbers, size=SIZE):
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / "joints.mat", {"joints": points.transpose(1, 2, 0)})
    for k in numbers:
        written.write_image(folder / "images" / f"im{k:05d}.jpg", size, k)


def square(points):
    low, high = points.min(0), points.max(0)
    side = 1.25 * max(high - low)
    return [*((low + high) / 2 - side / 2), side, side]


def test_every_label_of_lsp(tmp_path):
    points = labels(1003)
    write_lsp(tmp_path, points, (1, 2, 1000, 1001, 1003))
    dataset = Lsp(str(tmp_path))
    assert list(dataset.keys("train")) == list(range(1, 1001))
    assert list(dataset.keys("val")) == [1001, 1002, 1003]
    for split, number in (("train", 1), ("train", 1000), ("val", 1001), ("val", 1003)):
        expected = points[number - 1].copy()
        expected[:, 2] = 2 - expected[:, 2]
        written.same(
            dataset.example(split, number),
            {
                "keypoints_px": expected,
                "bbox_xywh_px": square(expected[:, :2]),
                "sample_id": f"im{number:04d}",
                "image": (tmp_path / "images" / f"im{number:04d}.jpg").read_bytes(),
            },
        )


@pytest.mark.parametrize("published", [False, True])
def test_conversion_of_the_extended_set(tmp_path, published):
    points = labels(3, 1)
    points[1, [0, 13]] = 0
    write_extended(tmp_path / "raw", points, (1, 2, 3))

    def make():
        return LspExtended(str(tmp_path / "raw"), published_visibility=published)

    found = written.built(make, tmp_path / "out", "train")
    assert list(found) == ["im00001", "im00002", "im00003"]
    for i, record in enumerate(found.values()):
        expected = points[i].copy()
        expected[(expected[:, :2] == 0).all(-1)] = -1
        expected[:, 2] += 1
        if not published:  # joints that are not marked as visible have no label
            expected[expected[:, 2] == 1] = 0
        expected[expected[:, 2] == 0] = 0
        shown = expected[expected[:, 2] > 0, :2]
        written.same(
            record, {"keypoints_px": expected, "bbox_xywh_px": square(shown)}, 1e-4
        )


def test_middles(tmp_path):
    points = labels(2, 2)
    points[1, [2, 8]] = 0  # right hip, right shoulder
    write_extended(tmp_path, points, (1, 2))
    order = [0, 1, 2, 3, 4, 5, None, None, 12, 13, *range(6, 12)]
    for published in (False, True):
        dataset = LspExtended(
            str(tmp_path),
            joint_set="mpii_16",
            published_means=published,
            published_visibility=True,
        )
        for i in range(2):
            found = dataset.example("train", i + 1)["keypoints_px"]
            for k, row in enumerate(order):
                if row is not None:
                    np.testing.assert_allclose(found[k, :2], points[i, row, :2])
            for k, sides in ((6, [2, 3]), (7, [8, 9])):
                if i == 0 or published:
                    np.testing.assert_allclose(
                        found[k, :2], points[i, sides, :2].mean(0)
                    )
                    assert found[k, 2] > 0
                else:
                    assert not found[k].any()


def test_the_published_loader(parity_dir, tmp_path):
    vectors = np.load(parity_dir / "pose_hg" / "datasets_public.npz")
    points = written.pose_hg_inputs(parity_dir).lsp_records(11)
    write_extended(tmp_path / "lspet", points, range(1, 5), (480, 360))
    before = np.zeros((1000, 14, 3))
    occluded = points.copy()
    occluded[..., 2] = 1 - occluded[..., 2]
    both = np.concatenate([before, occluded])
    write_lsp(tmp_path / "lsp", both, range(1001, 1005), (480, 360))
    options = {
        "joint_set": "mpii_16",
        "published_box": True,
        "published_means": True,
    }
    extended = LspExtended(
        str(tmp_path / "lspet"), published_visibility=True, **options
    )
    for dataset, split in (
        (extended, "train"),
        (Lsp(str(tmp_path / "lsp"), **options), "val"),
    ):
        records = written.read_all(dataset, split)
        assert len(records) == 4
        for i, record in enumerate(records.values()):
            box = record["bbox_xywh_px"]
            name = f"part/lsp/{i}/"
            np.testing.assert_allclose(box[:2] + box[2:] / 2, vectors[name + "c"], 1e-6)
            np.testing.assert_allclose(box[2:], vectors[name + "s"], 1e-6)
            expected = vectors[name + "pts"]
            found = record["keypoints_px"]
            np.testing.assert_allclose(found[:, :2], expected[:, :2], 1e-6)
            np.testing.assert_array_equal(
                found[:, 2] > 0, (expected[:, :2] > 0).any(-1)
            )
            seen = expected[:, 2] > 0
            np.testing.assert_array_equal(found[seen, 2], 2)


def test_another_release(tmp_path):
    write_lsp(tmp_path, labels(3), (1,))
    with pytest.raises(RecordError, match=r"lsp_extended: .*joints of shape \[14, 3"):
        LspExtended(str(tmp_path)).keys("train")
    with pytest.raises(ValueError, match="joint_set: expected lsp_14 or mpii_16"):
        Lsp(str(tmp_path), joint_set="coco_17")
