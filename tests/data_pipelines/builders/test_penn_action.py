"""Penn Action: every label by hand, and the published script's order."""

import numpy as np
import pytest
import scipy.io

from data_pipelines.builders.penn_action import PennAction
from data_pipelines.schema import RecordError
from hmr_jax.body.joint_sets import get_joint_set, map_joints
from tests.data_pipelines.builders import written


def write(folder, name, frames, train, seed):
    rng = np.random.default_rng(seed)
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    x, y = rng.uniform(1, 40, (2, frames, 13))
    seen = rng.integers(0, 2, (frames, 13))
    seen[:, :2] = 1
    low = rng.uniform(1, 10, (frames, 2))
    video = {
        "action": "baseball_pitch",
        "pose": "front",
        "x": x,
        "y": y,
        "visibility": seen,
        "train": train,
        "bbox": np.append(low, low + rng.uniform(5, 20, (frames, 2)), 1),
        "dimensions": np.array([[36, 48, frames]]),
        "nframes": frames,
    }
    for i in range(frames):
        written.write_image(folder / "frames" / name / f"{i + 1:06d}.jpg", seed=i)
    scipy.io.savemat(folder / "labels" / f"{name}.mat", video)
    return video


def test_every_label(tmp_path):
    raw = tmp_path / "raw"
    videos = {
        "0001": write(raw, "0001", 3, 1, 1),
        "0002": write(raw, "0002", 2, -1, 2),
        "0003": write(raw, "0003", 1, 1, 3),
    }
    videos["0001"]["visibility"][1] = 0
    scipy.io.savemat(raw / "labels" / "0001.mat", videos["0001"])

    def make():
        return PennAction(str(raw))

    dataset = make()
    found = written.read_all(dataset, "train")
    assert list(found) == ["0001/000001", "0001/000003", "0003/000001"]
    assert dataset.dropped == {("train", "no box"): 1}
    assert list(dataset.keys("test")) == ["0002/000001", "0002/000002"]
    for name, record in found.items():
        video, i = videos[name[:4]], int(name[5:]) - 1
        seen = video["visibility"][i] == 1
        points = np.stack([video["x"][i], video["y"][i]], -1)
        low, high = points[seen].min(0), points[seen].max(0)
        side = (high - low).max()
        written.same(
            record,
            {
                "keypoints_px": np.append(points, 2 * seen[:, None], 1),
                "bbox_xywh_px": [*((low + high) / 2 - side / 2), side, side],
                "sequence_id": name[:4],
                "frame_id": i + 1,
                "image": (raw / "frames" / f"{name}.jpg").read_bytes(),
            },
        )
    written.same_records(written.built(make, tmp_path / "out", "train"), found)


def test_in_the_order_of_spin():
    """The raw order: head, then left and right of each joint (D10, recommended)."""
    index, present = map_joints("penn_action_13", "spin_49")
    right_leg, left_leg = [12, 10, 8], [7, 9, 11]
    right_arm, left_arm = [6, 4, 2], [1, 3, 5]
    limbs = [*right_leg, *left_leg, *right_arm, *left_arm]
    assert index[25:37].tolist() == limbs and present[25:37].all()
    assert present[38] and index[38] == 0
    assert present.sum() == 13


def test_the_released_box(tmp_path):
    video = write(tmp_path, "0007", 2, 1, 4)
    dataset = PennAction(str(tmp_path), box="annotated")
    for i, record in enumerate(written.read_all(dataset, "train").values()):
        x1, y1, x2, y2 = video["bbox"][i]
        written.same(record, {"bbox_xywh_px": [x1, y1, x2 - x1, y2 - y1]})


def test_the_published_order(tmp_path):
    """Names of another order, twice: to the 14 of LSP, and those to SPIN's 49."""
    video = write(tmp_path, "0001", 1, 1, 5)
    names = "lankle lknee lhip rhip rknee rankle lwrist lelbow lshoulder rshoulder"
    names = [*names.split(), "relbow", "rwrist", "headtop"]
    lsp = "rankle rknee rhip lhip lknee lankle rwrist relbow rshoulder lshoulder lelbow"
    lsp = [*lsp.split(), "lwrist", "headtop"]
    order = [names.index(name) for name in lsp]
    rows = np.arange(13)[order][order]  # row of the file behind each name of lsp
    record = next(
        iter(
            written.read_all(
                PennAction(str(tmp_path), published_order=True), "train"
            ).values()
        )
    )
    index, present = map_joints("penn_action_13", "lsp_14")
    found = record["keypoints_px"][index][present]
    np.testing.assert_allclose(found[:, 0], video["x"][0][rows], rtol=1e-6)
    assert get_joint_set("penn_action_13").joints[0] == "headtop"


def test_another_release(tmp_path):
    with pytest.raises(RecordError, match="penn_action: .*expected label files"):
        PennAction(str(tmp_path)).keys("train")
    write(tmp_path, "0001", 1, 1, 5)
    path = tmp_path / "labels" / "0001.mat"
    scipy.io.savemat(path, {"x": np.zeros((2, 14)), "y": 0, "visibility": 0, "bbox": 0})
    with pytest.raises(RecordError, match="expected an entry named 'train'"):
        PennAction(str(tmp_path)).keys("train")
