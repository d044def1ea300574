"""The ICCV-protocol crops of Human3.6M: every label by hand."""

import numpy as np
import pytest
import scipy.io

from data_pipelines.builders.h36m_fang import H36mFang
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders import written

EDGES = "0-1 1-2 2-6 6-3 3-4 4-5 10-11 11-12 12-8 8-13 13-14 14-15 6-8 8-9"
TO_MPII = [3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13]
LEFT_FIRST = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]


def write(folder, clip, number, seed, frames_first=False):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 224, (number, 17, 2))
    joints = rng.normal(0, 400, (number, 17, 3)) + [0, 0, 4000]
    path = folder / "images" / clip
    path.mkdir(parents=True)
    content = {
        "Y2d": points.reshape(number, 34),
        "Y3d_mono": joints.reshape(number, 51),
    }
    if not frames_first:
        content = {name: array.T for name, array in content.items()}
    content |= {"bbox": np.ones((4, number)), "num_images": np.array([[number]])}
    scipy.io.savemat(path / "matlab_meta.mat", content)
    for i in range(number):
        written.write_image(path / f"{clip}_{i + 1:06d}.jpg", (224, 224), i)
    return points, joints


def thorax_from_shoulders(joints):
    joints = joints[TO_MPII]
    joints[7] = (joints[12] + joints[13]) / 2
    return joints


@pytest.mark.parametrize("frames_first", [False, True])
def test_every_label(tmp_path, frames_first):
    raw = tmp_path / "raw"
    clips = ["s_01_act_02_subact_01_ca_01", "s_08_act_16_subact_02_ca_04"]
    labels = [write(raw, clip, 7, i, frames_first) for i, clip in enumerate(clips)]
    write(raw, "s_11_act_03_subact_01_ca_02", 2, 5)

    def make():
        return H36mFang(str(raw))

    dataset = make()
    found = written.read_all(dataset, "train")
    assert list(found) == [f"{clip}_{i:06d}" for clip in clips for i in (1, 6)]
    assert dataset.dropped == {("train", "clips that are not there"): 5 * 120 - 2}
    assert list(dataset.keys("val")) == ["s_11_act_03_subact_01_ca_02_000001"]
    for name, record in found.items():
        points, joints = labels[clips.index(name[:-7])]
        points, joints = points[int(name[-6:]) - 1], joints[int(name[-6:]) - 1]
        flat, solid = thorax_from_shoulders(points), thorax_from_shoulders(joints)
        ratio = [0.0, 0.0]
        for edge in EDGES.split():
            a, b = map(int, edge.split("-"))
            ratio[0] += np.hypot(*(flat[a] - flat[b]))
            ratio[1] += np.hypot(*(solid[a] - solid[b])[:2])
        metres = np.append((joints - joints[0]) / 1000, np.ones((17, 1)), 1)
        written.same(
            record,
            {
                "keypoints_px": np.append(points, np.full((17, 1), 2), 1),
                "joints_cam_m": metres,
                "joints_h36m_cam_m": metres[LEFT_FIRST],
                "depth_px": (solid[:, 2] - joints[0, 2]) * ratio[0] / ratio[1],
                "bbox_xywh_px": [0, 0, 224, 224],
                "sequence_id": name[:-7],
                "frame_id": int(name[-6:]),
                "has_root": 0,
            },
            1e-4,
        )
    if not frames_first:
        written.same_records(written.built(make, tmp_path / "out", "train"), found)


def test_another_release(tmp_path):
    with pytest.raises(RecordError, match="h36m_fang: .*found none of them"):
        H36mFang(str(tmp_path)).keys("train")
    clip = "s_09_act_02_subact_01_ca_01"
    write(tmp_path, clip, 3, 1)
    path = tmp_path / "images" / clip / "matlab_meta.mat"
    content = {"Y2d": np.zeros((32, 3)), "Y3d_mono": np.zeros((51, 3)), "num_images": 3}
    scipy.io.savemat(path, content)
    with pytest.raises(RecordError, match=r"expected Y2d of 17 x 2 x 3 numbers"):
        H36mFang(str(tmp_path)).keys("val")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RecordError, match="expected a MATLAB file"):
        H36mFang(str(tmp_path)).keys("val")
