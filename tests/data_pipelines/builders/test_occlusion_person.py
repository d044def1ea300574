"""Occlusion-Person: labels by hand, and the published loader's values."""

import pickle

import numpy as np
import pytest

from data_pipelines.builders.occlusion_person import OcclusionPerson
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders import written

TO_MPII = [3, 2, 1, 4, 5, 6, 0, None, 8, None, 14, 13, 12, 9, 10, 11]
SHOULDERS = [9, 12]
NECK = 8
MPII_TO_H36M = [6, 2, 1, 0, 3, 4, 5, 7, 8, 9, 9, 13, 14, 15, 12, 11, 10]


def views(number):
    rng = np.random.default_rng(6)
    return [
        {
            "image": f"a{i}.jpg",
            "joints_3d": rng.normal(0, 400, (15, 3)) + [50, 20, 3000],
            "joints_2d": rng.uniform(0, 40, (15, 2)),
            "center": rng.uniform(10, 30, 2),
            "scale": rng.uniform(0.1, 0.3, 2),
        }
        for i in range(number)
    ]


def write(folder, name, content, size=(48, 36)):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pickle.dumps(content, 2))
    for i, view in enumerate(content):
        written.write_image(folder / "images" / view["image"], size, i)


def depth_px(points, joints):
    """Section 8.0 by the best similarity among rotations, found in complex numbers."""
    u = (points - points.mean(0)) @ [1, 1j]
    v = (joints[:, :2] - joints[:, :2].mean(0)) @ [1, 1j]
    scale = abs(np.vdot(v, u)) / np.vdot(v, v).real
    return scale * (joints[:, 2] - joints[6, 2])


def in_mpii_order(points):
    rows = [points[k] if k is not None else points[SHOULDERS].mean(0) for k in TO_MPII]
    rows[9] = points[NECK]
    return np.array(rows)


def test_every_label(tmp_path):
    content = views(3)
    write(tmp_path / "raw", "unrealcv_train.pkl", content)
    write(tmp_path / "raw", "unrealcv_validation.pkl", content[:1])

    def make():
        return OcclusionPerson(str(tmp_path / "raw"))

    found = written.read_all(make(), "train")
    for view, record in zip(content, found.values(), strict=True):
        size = view["scale"] * 200
        points, joints = (
            in_mpii_order(view["joints_2d"]),
            in_mpii_order(view["joints_3d"]),
        )
        written.same(
            record,
            {
                "keypoints_px": np.append(view["joints_2d"], np.full((15, 1), 2), 1),
                "joints_cam_m": np.append(
                    view["joints_3d"] / 1000, np.ones((15, 1)), 1
                ),
                "bbox_xywh_px": [*(view["center"] - size / 2), *size],
                "depth_px": depth_px(points, joints),
                "has_root": 1,
                "has_camera": 0,
            },
            1e-4,
        )
    written.same_records(written.built(make, tmp_path / "out", "train"), found)
    dataset = OcclusionPerson(str(tmp_path / "raw"), joint_set="mpii_16")
    for view, record in zip(
        content, written.read_all(dataset, "train").values(), strict=True
    ):
        expected = np.append(in_mpii_order(view["joints_2d"]), np.full((16, 1), 2), 1)
        expected[9] = 0
        np.testing.assert_allclose(record["keypoints_px"], expected, 1e-6)
        assert not record["joints_cam_m"][9].any()


def test_the_published_loader(parity_dir, tmp_path):
    vectors = np.load(parity_dir / "pose_hg" / "datasets_public.npz")
    content = written.pose_hg_inputs(parity_dir).occlusion_records(11)
    write(tmp_path, "unrealcv_validation.pkl", content, (480, 360))
    dataset = OcclusionPerson(str(tmp_path), joint_set="mpii_16", published_head=True)
    for i, record in enumerate(written.read_all(dataset, "val").values()):
        name = f"part/occlusion/{i}/"
        box = record["bbox_xywh_px"]
        np.testing.assert_allclose(box[:2] + box[2:] / 2, vectors[name + "c"], 1e-5)
        np.testing.assert_allclose(box[2:].max(), vectors[name + "s"], 1e-6)
        points = vectors[name + "pts"]
        np.testing.assert_allclose(record["keypoints_px"][:, :2], points[:, :2], 1e-6)
        np.testing.assert_allclose(record["depth_px"], points[:, 2], atol=1e-4)
        millimetres = record["joints_cam_m"][:, :3] * 1000
        np.testing.assert_allclose(
            (millimetres - millimetres[6])[MPII_TO_H36M],
            vectors[name + "gt_3d"],
            atol=1e-3,
        )


def test_the_published_pairing(tmp_path):
    content = views(21)
    write(tmp_path, "unrealcv_validation.pkl", content)
    dataset = OcclusionPerson(str(tmp_path), published_pairing=True)
    found = list(written.read_all(dataset, "val").values())
    assert len(found) == 3
    for k, record in enumerate(found):
        assert record["image"] == (tmp_path / "images" / f"a{k}.jpg").read_bytes()
        np.testing.assert_allclose(
            record["keypoints_px"][:, :2], content[10 * k]["joints_2d"], 1e-6
        )


def test_another_release(tmp_path):
    content = views(1)
    content[0]["joints_2d"] = np.zeros((17, 2))
    write(tmp_path, "unrealcv_train.pkl", content)
    with pytest.raises(RecordError, match=r"view 0: expected joints_2d \[15, 2\]"):
        written.read_all(OcclusionPerson(str(tmp_path)), "train")
    with pytest.raises(
        RecordError, match=r"unrealcv_validation.pkl: expected a pickle"
    ):
        OcclusionPerson(str(tmp_path)).keys("val")
