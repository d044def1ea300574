"""SURREAL's clips: MATLAB 5 labels with the frames last, mirrored bodies."""

import functools
import io

import numpy as np
import pytest
import scipy.io
from PIL import Image

from data_pipelines.builders import video_frames
from data_pipelines.builders.numpy_body import NumpyBody
from data_pipelines.builders.surreal import Surreal
from data_pipelines.schema import RecordError
from hmr_jax.body.joint_sets import JOINT_SETS, SMPL_PARENTS
from tests.data_pipelines.builders.published import (
    build,
    close,
    picture,
    put,
    read,
    rodrigues,
)

SIZE = (320, 240)
TO_CAMERA = np.array([[0.0, 0, -1], [0, 1, 0], [-1, 0, 0]])
SWAP = list(JOINT_SETS["smpl_24"].flip_permutation)


def posed(arrays, pose, betas):
    """Joints of a pose, joint by joint."""
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    rest = arrays["J_regressor"] @ shaped
    turned, joints = [rodrigues(pose[0])], [rest[0]]
    for joint in range(1, 24):
        parent = SMPL_PARENTS[joint]
        joints.append(joints[parent] + turned[parent] @ (rest[joint] - rest[parent]))
        turned.append(turned[parent] @ rodrigues(pose[joint]))
    return np.array(joints), rest[0]


def clip(folder, split, name, frames, arrays, rng, gender=0.0):
    """A clip whose published joints are a mirrored, moved body's."""
    location = np.array([6.0, 0.4, -0.3])
    pose = 0.5 * rng.standard_normal((frames, 24, 3))
    betas = rng.standard_normal((frames, 10))
    turn, shift = rodrigues([0.4, 2.0, 0.3]), np.array([0.1, 0.2, 5.0])
    camera = np.stack(
        [posed(arrays, p, b)[0] for p, b in zip(pose, betas, strict=True)]
    )
    camera = camera @ turn.T + shift
    world = camera[:, SWAP] @ TO_CAMERA + location  # its own inverse, transposed
    pixels = 600 * camera[..., :2] / camera[..., 2:] + [160, 120]
    published = pose[:, SWAP] * [1, -1, -1]
    stem = folder / split / "run0" / "01_01" / name
    content = {
        "joints2D": pixels[:, SWAP].transpose(2, 1, 0),
        "joints3D": world.transpose(2, 1, 0),
        "pose": published.reshape(frames, 72).T,
        "shape": betas.T,
        "gender": np.full((frames, 1), gender),
        "camLoc": location[:, None],
        "zrot": np.zeros((frames, 1)),
        "sequence": f"{name}.mp4",
    }
    if frames == 1:  # MATLAB drops the last axis
        content["joints2D"] = content["joints2D"][..., 0]
        content["joints3D"] = content["joints3D"][..., 0]
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, content)
    put(stem.with_name(f"{name}_info.mat"), buffer.getvalue())
    for frame in range(frames):
        put(stem.with_name(f"{name}_{frame:03d}.jpg"), picture(frame, SIZE))
    return {"pose": pose, "betas": betas, "camera": camera, "pixels": pixels}


@pytest.fixture
def dataset(tmp_path, body_arrays):
    rng = np.random.default_rng(3)
    labels = {
        "a": clip(tmp_path, "train", "01_01_c0001", 7, body_arrays, rng),
        "one": clip(tmp_path, "train", "01_01_c0002", 1, body_arrays, rng),
        "b": clip(tmp_path, "val", "01_01_c0001", 5, body_arrays, rng, 1.0),
        "c": clip(tmp_path, "val", "01_01_c0009", 5, body_arrays, rng),
    }
    for gender in ("male", "female"):
        np.savez(tmp_path / f"{gender}.npz", **body_arrays)
    return tmp_path, labels


def test_labels_with_the_body(dataset, body_arrays):
    folder, labels = dataset
    bodies = {f"smpl_{g}": str(folder / f"{g}.npz") for g in ("male", "female")}
    source = Surreal(str(folder), stride=3, **bodies)
    assert source.splits() == ("train", "val")
    found = read(source, "train")
    assert list(found) == [f"run0/01_01/01_01_c0001_{i:03d}" for i in (0, 3, 6)]
    assert source.dropped == {("train", "clip of a single frame"): 1}
    for record in found.values():
        frame = int(record["frame_id"])
        joints, pixels = (labels["a"][k][frame] for k in ("camera", "pixels"))
        close(record["joints_cam_m"], np.c_[joints, np.ones(24)])
        close(record["keypoints_px"][:, :2], pixels, 1e-3)
        pose = record["pose_aa"].astype(np.float64)
        close(pose[1:], labels["a"]["pose"][frame][1:])
        close(record["betas"], labels["a"]["betas"][frame])
        body, root = posed(body_arrays, pose, record["betas"].astype(np.float64))
        close(body + record["translation_m"], joints, 1e-4)
        close(record["pose_clip_aa"], labels["a"]["pose"][frame])
        low, high = pixels.min(0), pixels.max(0)
        if (low >= 0).all() and (high < SIZE).all():
            sides = 1.2 * (high - low)
            box = [*((low + high - sides) / 2), *sides]
            close(record["bbox_xywh_px"], box, 1e-2)
        assert record["gender"] == "female" and record["sequence_id"][-5:] == "c0001"


def test_middle_frames_of_listed_clips_without_the_body(dataset):
    folder, labels = dataset
    put(folder / "clips.txt", b"val/run0/01_01/01_01_c0001.mp4\n")
    source = Surreal(str(folder), clips="clips.txt")
    found = read(source, "val")
    assert list(found) == ["run0/01_01/01_01_c0001_002"]
    assert source.dropped == {("val", "clip is not in the list"): 1}
    (record,) = found.values()
    close(record["joints_cam_m"][:, :3], labels["b"]["camera"][2])
    close(record["betas_clip"], labels["b"]["betas"][2])
    assert record["has_smpl"] == 0 and record["gender"] == "male"


def test_masks_and_all_frames(dataset):
    folder, _ = dataset
    parts = np.zeros((240, 320), np.uint8)
    parts[20:40, 30:60] = 7
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {f"segm_{i + 1}": np.roll(parts, i, 0) for i in range(5)})
    for name in ("c0001", "c0009"):
        put(folder / f"val/run0/01_01/01_01_{name}_segm.mat", buffer.getvalue())
    found = read(Surreal(str(folder), masks=True, test_frames="all"), "val")
    assert len(found) == 10
    mask = np.array(Image.open(io.BytesIO(found["run0/01_01/01_01_c0009_003"]["mask"])))
    np.testing.assert_array_equal(mask, 255 * (np.roll(parts, 3, 0) > 0))


def test_files_of_the_conversion_tool(tmp_path, rng):
    fit = {
        "pose": rng.standard_normal(72),
        "shape": rng.standard_normal(10),
        "trans": [0.1, 0.2, 6.0],
        "gender": "female",
    }
    label = {"joint_img": rng.random((24, 2)), "joint_cam": rng.random((24, 3))}
    camera = {"focal": [600, 600], "princpt": [160, 120]}
    name = "run1/02_02/02_02_c0003_016.jpg"
    image = {"id": 4, "file_name": name, "width": 320, "height": 240}
    boxes = {"id": 0, "image_id": 4, "bbox": [10, 20, 100, 150], "smpl_param": fit}
    content = {
        "images": [image | {"cam_param": camera}],
        "annotations": [boxes | label],
    }
    put(tmp_path / "SURREAL_train.json", content)
    put(tmp_path / "train" / name, picture(0, SIZE))
    source = Surreal(str(tmp_path), json="SURREAL_{split}.json")
    record = read(source, "train")["run1/02_02/02_02_c0003_016"]
    close(record["joints_cam_m"][:, :3], label["joint_cam"])
    close(record["keypoints_px"][:, :2], label["joint_img"])
    close(record["pose_aa"].ravel(), fit["pose"])
    close(record["translation_m"], fit["trans"])
    close(record["bbox_xywh_px"], [10, 20, 100, 150])
    close(record["intrinsics"][[0, 1], 2], [160, 120])
    assert record["gender"] == "female" and record["frame_id"] == 16


def test_the_records_on_disk(dataset, tmp_path):
    factory = functools.partial(Surreal, str(dataset[0]), stride=3)
    assert build(factory, tmp_path / "out").spec == Surreal.spec


def test_a_video_without_a_decoder(dataset, monkeypatch):
    folder, _ = dataset
    monkeypatch.setattr(video_frames, "can_decode", lambda: False)
    with pytest.raises(RecordError, match=r"c0001.mp4: expected .*hmr_jax.video"):
        Surreal(str(folder)).keys("train")
    (folder / "val/run0/01_01/01_01_c0001_002.jpg").unlink()
    with pytest.raises(RecordError, match=r"surreal: .*c0001.mp4.*extracted frames"):
        read(Surreal(str(folder)), "val")


def test_frames_of_a_video(dataset):
    av = pytest.importorskip("av")
    folder, _ = dataset
    path = folder / "train/run0/01_01/01_01_c0001.mp4"
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=3)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in range(7):
            grey = np.full((SIZE[1], SIZE[0], 3), 20 + 30 * frame, np.uint8)
            video.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        video.mux(stream.encode())
    for picture_file in path.parent.glob("01_01_c0001_*.jpg"):
        picture_file.unlink()
    found = read(Surreal(str(folder)), "train")
    assert [int(r["frame_id"]) for r in found.values()] == [0, 3, 6]
    for record in found.values():
        pixels = np.array(Image.open(io.BytesIO(record["image"])))
        assert abs(pixels.mean() - 20 - 30 * int(record["frame_id"])) < 3
    with pytest.raises(RecordError, match=r"expected frame 9, found the end"):
        video_frames.frames(Surreal(str(folder)), str(path), [9])


def test_posed_joints_agree_with_the_plain_tree(dataset, body_arrays, rng):
    body = NumpyBody(Surreal(str(dataset[0])), str(dataset[0] / "male.npz"))
    pose, betas = rng.standard_normal((24, 3)), rng.standard_normal(10)
    close(body.posed(pose, betas), posed(body_arrays, pose, betas)[0], 1e-9)
