"""pose_hg's databases: labels by hand, and the published loader's values."""

import zlib

import numpy as np
import pytest

from data_pipelines.builders.vibe_db import VibeDatabase
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders import written

MPII_TO_H36M = [6, 2, 1, 0, 3, 4, 5, 7, 8, 9, 9, 13, 14, 15, 12, 11, 10]


def arrays(number, bodies=False):
    rng = np.random.default_rng(8)
    joints = rng.normal(0, 400, (number, 16, 3))
    joints -= joints[:, 6:7]
    image = rng.uniform(1, 40, (number, 16, 3))
    seen = rng.integers(0, 2, (number, 16, 1)).astype(float)
    content = {
        "vid_name": np.array([f"S1_Seq1_video_{i // 3}_seg0" for i in range(number)]),
        "frame_id": np.array([f"{i % 3 + 1:06d}" for i in range(number)]),
        "joints3D": joints,
        "joints3D_image": image,
        "joints2D": np.concatenate([image[..., :2], seen], -1),
        "bbox": rng.uniform(10, 30, (number, 4)),
        "img_name": np.array(
            [f"../data/mpi_inf_3dhp/S1/video_0/{i:06d}.jpg" for i in range(number)],
            object,
        ),
        "features": np.zeros((number, 4), np.float32),
    }
    if bodies:
        content["pose"] = rng.normal(size=(number, 72))
        content["shape"] = rng.normal(size=(number, 10))
        content["valid"] = np.ones(number)
    return content


def write(folder, name, content, size=(48, 36)):
    (folder / "vibe_db").mkdir(parents=True, exist_ok=True)
    data = zlib.compress(written.joblib_dump(content, 16))
    (folder / "vibe_db" / f"{name}_db.pt").write_bytes(data)
    for i, image in enumerate(content["img_name"]):
        written.write_image(folder / image.removeprefix("../data/"), size, i)


def check(record, content, i):
    points, joints = content["joints3D_image"][i, :, :2], content["joints3D"][i]
    u = (points - points.mean(0)) @ [1, 1j]
    v = (joints[:, :2] - joints[:, :2].mean(0)) @ [1, 1j]
    pixels_per_mm = abs(np.vdot(v, u)) / np.vdot(v, v).real
    x, y, w, h = content["bbox"][i]
    seen = 2 * content["joints2D"][i, :, 2:]
    written.same(
        record,
        {
            "keypoints_px": np.append(points, seen, 1),
            "joints_cam_m": np.append(joints / 1000, np.ones((16, 1)), 1),
            "depth_px": pixels_per_mm * joints[:, 2],
            "bbox_xywh_px": [x - w / 2, y - h / 2, w, h],
            "sequence_id": content["vid_name"][i],
            "frame_id": i % 3 + 1,
            "has_root": 0,
        },
        1e-4,
    )


def test_every_label_of_mpii3d(tmp_path):
    content = arrays(5)
    write(tmp_path / "raw", "mpii3d_train", content)
    write(tmp_path / "raw", "mpii3d_val", content)

    def make():
        return VibeDatabase(str(tmp_path / "raw"))

    found = written.read_all(make(), "train")
    assert len(found) == 5
    for i, record in enumerate(found.values()):
        check(record, content, i)
        assert record["has_smpl"] == 0
    assert make().name == "vibe_db_mpii3d"
    written.same_records(
        written.built(make, tmp_path / "out", "val"),
        {
            name.replace("train", "val"): record
            | {"sample_id": name.replace("train", "val")}
            for name, record in found.items()
        },
    )


def test_every_label_of_3dpw(tmp_path):
    content = arrays(4, bodies=True)
    content["bbox"][0] = [0, 0, np.inf, np.inf]
    write(tmp_path, "3dpw_val", content)
    dataset = VibeDatabase(str(tmp_path), dataset="3dpw")
    found = list(written.read_all(dataset, "val").values())
    assert dataset.dropped == {("val", "no box"): 1}
    assert len(found) == 3
    for i, record in enumerate(found, start=1):
        check(record, content, i)
        written.same(
            record,
            {
                "has_smpl": 1,
                "pose_aa": content["pose"][i].reshape(24, 3),
                "betas": content["shape"][i],
                "translation_m": np.zeros(3),
            },
        )


@pytest.mark.parametrize("dataset", ["mpii3d", "3dpw"])
def test_the_published_loader(parity_dir, tmp_path, dataset):
    vectors = np.load(parity_dir / "pose_hg" / "datasets_public.npz")
    content = written.pose_hg_inputs(parity_dir).mpii3d_records(11)
    write(tmp_path, f"{dataset}_train", content, (480, 360))
    records = written.read_all(VibeDatabase(str(tmp_path), dataset=dataset), "train")
    assert len(records) == 4
    for i, record in enumerate(records.values()):
        name = f"part/{dataset}/{i}/"
        box = record["bbox_xywh_px"]
        np.testing.assert_allclose(box[:2] + box[2:] / 2, vectors[name + "c"], 1e-5)
        np.testing.assert_allclose(box[2:].max(), vectors[name + "s"], 1e-6)
        points = vectors[name + "pts"]
        np.testing.assert_allclose(record["keypoints_px"][:, :2], points[:, :2], 1e-6)
        np.testing.assert_allclose(record["depth_px"], points[:, 2], atol=1e-4)
        np.testing.assert_allclose(
            1000 * record["joints_cam_m"][MPII_TO_H36M, :3],
            vectors[name + "gt_3d"],
            atol=1e-3,
        )


def test_the_published_pairing(tmp_path):
    content = arrays(21)
    write(tmp_path, "mpii3d_val", content)
    dataset = VibeDatabase(str(tmp_path), published_pairing=True)
    found = list(written.read_all(dataset, "val").values())
    assert len(found) == 3
    for k, record in enumerate(found):
        image = tmp_path / content["img_name"][k].removeprefix("../data/")
        assert record["image"] == image.read_bytes()
        check(record, content, 10 * k)


def test_too_many_boxes(tmp_path):
    content = arrays(3)
    content["bbox"] = np.concatenate([content["bbox"], content["bbox"][:2]])
    write(tmp_path, "3dpw_train", content)
    with pytest.raises(RecordError, match=r"3dpw_train_db.pt: expected bbox of 3 fram"):
        VibeDatabase(str(tmp_path), dataset="3dpw").keys("train")
    dataset = VibeDatabase(str(tmp_path), dataset="3dpw", published_boxes=True)
    for i, record in enumerate(written.read_all(dataset, "train").values()):
        check(record, content, i)


def test_another_release(tmp_path):
    content = arrays(2)
    content["joints2D"] = np.zeros((2, 49, 3))
    write(tmp_path, "mpii3d_train", content)
    with pytest.raises(
        RecordError, match=r"joints2D of shape \[N, 16, 3\], found \[49"
    ):
        written.read_all(VibeDatabase(str(tmp_path)), "train")
    (tmp_path / "vibe_db" / "mpii3d_val_db.pt").write_bytes(b"x")
    with pytest.raises(RecordError, match="vibe_db_mpii3d: .*expected a joblib file"):
        VibeDatabase(str(tmp_path)).keys("val")
    with pytest.raises(ValueError, match="dataset: expected mpii3d or 3dpw"):
        VibeDatabase(str(tmp_path), dataset="h36m")
