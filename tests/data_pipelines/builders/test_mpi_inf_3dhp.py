"""MPI-INF-3DHP's own files: MATLAB 5 cells, a text of cameras, HDF5 test labels."""

import functools
import io

import h5py
import numpy as np
import pytest
import scipy.io

from data_pipelines.builders.mpi_inf_3dhp import MpiInf3dhp
from data_pipelines.schema import RecordError
from hmr_jax.body.joint_sets import JOINT_SETS
from tests.data_pipelines.builders.published import (
    build,
    close,
    picture,
    pixels,
    put,
    read,
)

FRAMES, CAMERAS = 21, 14
FOCAL, CENTRE = (1497.5, 1497.0), (1024.5, 1051.0)


def calibration() -> bytes:
    """As the release writes it; the extrinsics of camera c are shifted by c metres."""
    lines = ["Skeletool Camera Calibration File V1.0"]
    for camera in range(CAMERAS):
        intrinsic = [FOCAL[0], 0, CENTRE[0], 0, 0, FOCAL[1], CENTRE[1], 0]
        lines += [
            f"name          {camera}",
            "  sensor      10 10",
            "  size        2048 2048",
            "  animated    0",
            "  intrinsic   " + " ".join(map(str, [*intrinsic, *np.eye(4)[2:].ravel()])),
            "  extrinsic   1 0 0 " + f"{1000 * camera} 0 1 0 5 0 0 1 3000 0 0 0 1",
            "  radial      0",
        ]
    return "\n".join(lines).encode()


def write_training(folder, rng):
    """S1/Seq1: 14 cells of F x 56 and F x 84; pictures of cameras 0 (from 1) and 1."""
    points = rng.uniform(-400, 400, (CAMERAS, FRAMES, 28, 3)) + [0, 0, 3500]
    flat = pixels(points, FOCAL, CENTRE)
    flat[0, 10, 0] = [2048, 5]  # not one of the mapped joints
    flat[1, 3, 25] = [-1, 5]  # one of them
    cells = {}
    for name, values in (("annot2", flat), ("annot3", points)):
        cell = np.empty((CAMERAS, 1), object)
        for camera in range(CAMERAS):
            cell[camera, 0] = values[camera].reshape(FRAMES, -1)
        cells[name] = cell
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, cells | {"frames": np.arange(FRAMES)[:, None]})
    put(folder / "S1/Seq1/annot.mat", buffer.getvalue())
    put(folder / "S1/Seq1/camera.calibration", calibration())
    for camera in range(9):
        for frame in range(FRAMES if camera < 2 else 1):
            number = frame + (camera != 1)
            name = f"video_{camera}/frame_{number:06d}.jpg"
            put(folder / "S1/Seq1/imageFrames" / name, picture(camera, (16, 16)))
    return points / 1000, flat


def write_test(folder, rng):
    """TS1 to TS6 of three frames each, the second not evaluated."""
    labels = {}
    for number in range(1, 7):
        size = (2048, 2048) if number < 5 else (1920, 1080)
        points = rng.uniform(-400, 400, (3, 17, 3)) + [0, 0, 3500]
        flat = pixels(points, FOCAL, (size[0] / 2, size[1] / 2))
        if number == 6:
            points[2] += [0, 1500, 0]  # below the image
            flat = pixels(points, FOCAL, (size[0] / 2, size[1] / 2))
        path = folder / f"mpi_inf_3dhp_test_set/TS{number}/annot_data.mat"
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file["annot2"] = flat[:, None]
            file["annot3"] = points[:, None]
            file["univ_annot3"] = 0.9 * points[:, None]
            file["valid_frame"] = np.array([[1.0], [0.0], [1.0]])
        put(path, buffer.getvalue())
        for frame in range(3):
            image = path.parent / f"imageSequence/img_{frame + 1:06d}.jpg"
            put(image, picture(1, size) if frame == 0 else picture(1, (8, 8)))
        labels[f"TS{number}"] = (points / 1000, flat)
    return labels


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("mpi"), np.random.default_rng(4)
    return folder, write_training(folder, rng), write_test(folder, rng)


@pytest.fixture
def opened(dataset):
    """The one training sequence that is there."""
    return functools.partial(MpiInf3dhp, str(dataset[0]), subjects=(1,), sequences=(1,))


def test_every_tenth_frame(opened, dataset):
    points, flat = dataset[1]
    source = opened()
    found = read(source, "train")
    names = [f"S1_Seq1_video_0_{f:06d}" for f in (0, 20)]
    names += [f"S1_Seq1_video_1_{f:06d}" for f in (0, 10, 20)]
    assert list(found)[:5] == names
    assert source.dropped["train", "joints outside the image"] == 1
    assert source.dropped["train", "no picture"] == 6 * 2
    for name, record in found.items():
        camera, frame = int(name[14]), int(name[-6:])
        close(record["joints_cam_m"], np.c_[points[camera, frame], np.ones(28)])
        expected = flat[camera, frame]
        close(record["keypoints_px"][:, :2], expected, 1e-2)
        low, high = expected.min(0), expected.max(0)
        sides = 1.2 * (high - low)
        close(record["bbox_xywh_px"], [*((low + high - sides) / 2), *sides], 1e-2)
        close(record["intrinsics"][[0, 1], 2], CENTRE)
        close(record["extrinsics"][:3, 3], [camera, 0.005, 3])
        assert record["frame_id"] == frame
    segments = [found[n]["sequence_id"][-4:] for n in names]
    assert segments == ["seg0", "seg1", "seg0", "seg0", "seg0"]


def test_other_rules(opened, dataset):
    _, flat = dataset[1]
    source = opened(rule="pose_hg")
    found = read(source, "train")
    assert source.dropped["train", "joints outside the image"] == 1
    cameras = [name[14] for name in found]
    assert (cameras.count("0"), cameras.count("1"), cameras.count("3")) == (21, 20, 0)
    assert found["S1_Seq1_video_1_000004"]["sequence_id"].endswith("seg1")
    used = [25, 24, 23, 18, 19, 20, 4, 3, 5, 7, 16, 15, 14, 9, 10, 11]
    expected = flat[0, 7, used]
    low, high = expected.min(0), expected.max(0)
    side = 1.1 * (high - low).max()
    box = [*((low + high - side) / 2), side, side]
    close(found["S1_Seq1_video_0_000007"]["bbox_xywh_px"], box, 1e-2)
    keys = opened(rule="int_hmr", stride=5).keys("train")
    assert sum(k.startswith("S1_Seq1_video_3") for k in keys) == 1
    assert "S1_Seq1_video_1_000003" not in keys


ORDER = (
    "headtop neck_extra right_shoulder right_elbow right_wrist left_shoulder "
    "left_elbow left_wrist right_hip_extra right_knee right_ankle left_hip_extra "
    "left_knee left_ankle pelvis_extra spine_extra head_extra"
).split()


def test_the_test_set(opened, dataset):
    source = opened()
    found = read(source, "test")
    assert len(found) == 18 and next(iter(found)) == "TS1_000001"
    places = [JOINT_SETS["mpi_inf_3dhp_28"].index(n) for n in ORDER]
    for name, record in found.items():
        points, flat = dataset[2][name[:3]]
        frame = int(name[-6:]) - 1
        close(record["joints_cam_m"][places, :3], points[frame])
        close(record["keypoints_px"][places, :2], flat[frame], 1e-2)
        assert record["joints_cam_m"][:, 3].sum() == 17
        close(record["intrinsics"][[0, 1], [0, 1]], FOCAL, 1e-2)
        assert record["valid_frame"] == (frame != 1)
        assert record["frame_id"] == frame + 1
    assert len(opened(valid_only=True).keys("test")) == 12
    source = opened(rule="pose_hg")
    assert len(source.keys("test")) == 17
    assert source.dropped == {("test", "joints outside the image"): 1}
    record = read(opened(universal=True), "test")["TS1_000001"]
    close(record["joints_cam_m"][places, :3], 0.9 * dataset[2]["TS1"][0][0])
    assert record["has_camera"] == 0


def test_the_records_on_disk(opened, tmp_path):
    assert build(opened, tmp_path / "out").spec == MpiInf3dhp.spec


def test_what_is_missing_is_named(dataset, tmp_path):
    with pytest.raises(RecordError, match=r"S1/Seq2/annot.mat.*no such file"):
        MpiInf3dhp(str(dataset[0])).keys("train")
    put(tmp_path / "S1/Seq1/annot.mat", b"nothing of MATLAB's" * 20)
    with pytest.raises(RecordError, match=r"mpi_inf_3dhp: .*annot.mat.*MATLAB"):
        MpiInf3dhp(str(tmp_path)).keys("train")
