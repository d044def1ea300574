"""The ECCV 2018 challenge's cache: labels by hand, and the published loader's."""

import pickle

import numpy as np
import pytest

from data_pipelines.builders.h36m_eccv18 import H36mEccv18
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders import written

TO_MPII = [3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13]
LEFT_FIRST = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]


def frames(number, joints=18):
    rng = np.random.default_rng(4)
    return [
        {
            "joints_3d": rng.uniform(0, 40, (joints, 3)),
            "joints_3d_relative": rng.normal(0, 500, (joints, 3)),
            "center_x": 20.0 + i,
            "center_y": 15.5,
            "width": 30.0,
            "height": 33.0 + i,
            "joints_3d_vis": np.ones((joints, 3)),
        }
        for i in range(number)
    ]


def write(folder, split, content, protocol=2, size=(48, 36)):
    name = f"HM36_eccv_challenge_{split}"
    path = folder / "msra_cache" / f"{name}_cache"
    path.mkdir(parents=True)
    file = path / f"{name}_w288xh384_keypoint_jnt_bbox_db.pkl"
    file.write_bytes(pickle.dumps(content, protocol))
    images = folder / "ECCV18_Challenge" / split / "IMG"
    for i in range(len(content)):
        written.write_image(images / f"{i + 1:05d}.jpg", size, i)
    return file


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_every_label(tmp_path, protocol):
    content = frames(3)
    write(tmp_path / "raw", "Val", content, protocol)
    write(tmp_path / "raw", "Train", content[:1], protocol)

    def make():
        return H36mEccv18(str(tmp_path / "raw"))

    found = written.read_all(make(), "val")
    assert list(found) == ["val_00001", "val_00002", "val_00003"]
    images = tmp_path / "raw" / "ECCV18_Challenge" / "Val" / "IMG"
    for i, record in enumerate(found.values()):
        frame = content[i]
        metres = np.append(frame["joints_3d_relative"][:17] / 1000, np.ones((17, 1)), 1)
        pixels = frame["joints_3d"][:17]
        box = [20 + i - 15, 15.5 - (33 + i) / 2, 30, 33 + i]
        written.same(
            record,
            {
                "keypoints_px": np.append(pixels[:, :2], np.full((17, 1), 2), 1),
                "joints_cam_m": metres,
                "joints_h36m_cam_m": metres[LEFT_FIRST],
                "depth_px": pixels[TO_MPII, 2],
                "bbox_xywh_px": box,
                "frame_id": i + 1,
                "has_root": 0,
                "has_joints_3d": 1,
                "image": (images / f"{i + 1:05d}.jpg").read_bytes(),
            },
        )
    if protocol == 2:
        written.same_records(written.built(make, tmp_path / "out", "val"), found)


def test_the_published_loader(parity_dir, tmp_path):
    vectors = np.load(parity_dir / "pose_hg" / "datasets_public.npz")
    content = written.pose_hg_inputs(parity_dir).h36m_records(11)
    write(tmp_path, "Train", content, size=(480, 360))
    records = written.read_all(H36mEccv18(str(tmp_path)), "train")
    for i, record in enumerate(records.values()):
        name = f"part/h36m/{i}/"
        box = record["bbox_xywh_px"]
        np.testing.assert_allclose(box[:2] + box[2:] / 2, vectors[name + "c"], 1e-5)
        np.testing.assert_allclose(box[2:].max(), vectors[name + "s"], 1e-6)
        pixels = np.column_stack([record["keypoints_px"][TO_MPII, :2]])
        np.testing.assert_allclose(pixels, vectors[name + "pts"][:, :2], 1e-6)
        np.testing.assert_allclose(
            record["depth_px"], vectors[name + "pts"][:, 2], atol=1e-5
        )
        np.testing.assert_allclose(
            record["joints_cam_m"][:, :3] * 1000, vectors[name + "gt_3d"], atol=1e-3
        )


def test_another_release(tmp_path):
    file = write(tmp_path, "Val", frames(1, joints=16))
    with pytest.raises(RecordError, match=r"joints_3d of shape \[17 or more, 3\]"):
        written.read_all(H36mEccv18(str(tmp_path)), "val")
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(RecordError, match=r"h36m_eccv18: .*expected a pickle"):
        H36mEccv18(str(tmp_path)).keys("val")
    file.write_bytes(pickle.dumps([{"joints_3d": 1}]))
    with pytest.raises(RecordError, match="_db.pkl: expected frames with center_x"):
        H36mEccv18(str(tmp_path)).keys("val")
