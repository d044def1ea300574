"""3DPW's crops: prepared ones, and those made here of the sequences."""

import io
import pickle

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image
from scipy.spatial.transform import Rotation

from data_pipelines.builders.pw3d_hierprob import Pw3dHierprob
from data_pipelines.schema import RecordError
from tests.conftest import tiny_body_arrays
from tests.data_pipelines.builders import written

IMAGE = (160, 120)


def write_prepared(folder):
    rng = np.random.default_rng(14)
    names = ["downtown_a_00_image_00003_person_000.png"]
    names += ["downtown_a_00_image_00003_person_001.png"]
    labels = {
        "imgname": np.array(names),
        "center": rng.uniform(100, 900, (2, 2)),
        "wh": rng.uniform(100, 300, 2),
        "pose": rng.normal(size=(2, 72)),
        "shape": rng.normal(size=(2, 10)),
        "gender": np.array(["m", "f"]),
    }
    folder.mkdir()
    np.savez(folder / "3dpw_test.npz", **labels)
    keypoints = rng.uniform(0, 64, (2, 17, 3))
    np.save(folder / "hrnet_results_centred.npy", keypoints)
    for i, name in enumerate(names):
        written.write_image(folder / "cropped_frames" / name, (64, 64), i)
    return labels, keypoints


def test_prepared_files(tmp_path):
    raw = tmp_path / "raw"
    labels, keypoints = write_prepared(raw)

    def make():
        return Pw3dHierprob(str(raw))

    found = written.read_all(make(), "test")
    for i, (name, record) in enumerate(found.items()):
        assert f"{name}.png" == labels["imgname"][i]
        written.same(
            record,
            {
                "keypoints_px": keypoints[i],
                "pose_aa": labels["pose"][i].reshape(24, 3),
                "betas": labels["shape"][i],
                "source_box": [*labels["center"][i], labels["wh"][i]],
                "bbox_xywh_px": [0, 0, 64, 64],
                "gender": ("male", "female")[i],
                "sequence_id": f"downtown_a_00_00{i}",
                "frame_id": 3,
                "person_id": i,
                "has_root": 0,
                "has_camera": 0,
            },
        )
    written.same_records(written.built(make, tmp_path / "out", "test"), found)
    (raw / "hrnet_results_centred.npy").unlink()
    for record in written.read_all(make(), "test").values():
        assert record["has_keypoints"] == 0


def write_sequences(folder):
    """One sequence as Python 2 wrote it: two people, lists over people, 3 frames."""
    rng = np.random.default_rng(15)
    frames = 3
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    cameras[:, :3, :3] = Rotation.random(frames, random_state=2).as_matrix()
    cameras[:, :3, 3] = [0, 0, 4]
    sequence = {
        "sequence": "office_b_00",
        "poses": [0.3 * rng.normal(size=(frames, 72)) for _ in range(2)],
        "betas": [rng.normal(size=300), rng.normal(size=10)],
        "trans": [0.2 * rng.normal(size=(frames, 3)) for _ in range(2)],
        "genders": ["m", "f"],
        "campose_valid": [np.array([1, 0, 1]), np.array([1, 1, 1])],
        "cam_poses": cameras,
        "cam_intrinsics": np.array([[90.0, 0, 80], [0, 91, 60], [0, 0, 1]]),
        "img_frame_ids": np.arange(frames),
    }
    path = folder / "sequenceFiles" / "test"
    path.mkdir(parents=True)
    (path / "office_b_00.pkl").write_bytes(pickle.dumps(sequence, 2))
    for i in range(frames):
        image = folder / "imageFiles" / "office_b_00" / f"image_{i:05d}.jpg"
        written.write_image(image, IMAGE, i)
    (folder / "body").mkdir()
    for seed, gender in enumerate(("MALE", "FEMALE")):
        data = pickle.dumps(tiny_body_arrays(seed), 2)
        (folder / "body" / f"SMPL_{gender}.pkl").write_bytes(data)
    return sequence


def posed(arrays, pose, betas):
    """Vertices and rest root, recursively, one vertex at a time."""
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    rest = arrays["J_regressor"] @ shaped
    turns = Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix()
    shaped = shaped + arrays["posedirs"] @ (turns[1:] - np.eye(3)).ravel()
    parents = arrays["kintree_table"][0].astype(np.int32)

    def move(j):
        local = np.eye(4)
        local[:3, :3] = turns[j]
        local[:3, 3] = rest[j] - turns[j] @ rest[j]
        return local if parents[j] < 0 else move(parents[j]) @ local

    moves = np.stack([move(j) for j in range(24)])
    vertices = [
        (np.tensordot(w, moves, 1) @ [*v, 1])[:3]
        for w, v in zip(arrays["weights"], shaped, strict=True)
    ]
    return np.array(vertices), rest[0]


def crop(image, centre, side):
    """The crop by scipy's interpolation at the same places."""
    step = 1.2 * side / 512
    grid = (np.arange(512) - 256) * step
    rows, columns = np.meshgrid(grid + centre[1], grid + centre[0], indexing="ij")
    channels = [
        scipy.ndimage.map_coordinates(
            np.pad(image[..., c].astype(float), 8), [rows + 8, columns + 8], order=1
        )
        for c in range(3)
    ]
    return np.stack(channels, -1)


def test_sequences(tmp_path):
    raw = tmp_path / "raw"
    sequence = write_sequences(raw)
    dataset = Pw3dHierprob(str(raw), layout="sequences", body=str(raw / "body"))
    found = written.read_all(dataset, "test")
    places = [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert list(found) == [
        f"office_b_00_image_{i:05d}_person_{p:03d}" for p, i in places
    ]
    assert dataset.dropped == {("test", "no valid camera pose"): 1}
    for (person, i), record in zip(places, found.values(), strict=True):
        betas = sequence["betas"][person][:10]
        pose, shift = sequence["poses"][person][i], sequence["trans"][person][i]
        vertices, root = posed(tiny_body_arrays(person), pose, betas)
        camera = sequence["cam_poses"][i]
        seen = (vertices + shift) @ camera[:3, :3].T + camera[:3, 3]
        pixels = seen @ sequence["cam_intrinsics"].T
        pixels = pixels[:, :2] / pixels[:, 2:]
        low, high = pixels.min(0), pixels.max(0)
        side, centre = max(high - low), (low + high) / 2
        turned = pose.reshape(24, 3).copy()
        turned[0] = (
            Rotation.from_matrix(camera[:3, :3]) * Rotation.from_rotvec(turned[0])
        ).as_rotvec()
        written.same(
            record,
            {
                "pose_aa": turned,
                "betas": betas,
                "gender": ("male", "female")[person],
                "source_box": [*centre, side],
                "bbox_xywh_px": [0, 0, 512, 512],
                "has_root": 1,
            },
            1e-4,
        )
        # The body in the camera projects into the crop where the image shows it.
        again, _ = posed(tiny_body_arrays(person), turned.ravel(), betas)
        again = again + record["translation_m"]
        np.testing.assert_allclose(again, seen, atol=1e-5)
        into = again @ record["intrinsics"].T
        expected = (pixels - centre) * 512 / (1.2 * side) + 256
        np.testing.assert_allclose(into[:, :2] / into[:, 2:], expected, atol=5e-3)
        path = raw / "imageFiles" / "office_b_00" / f"image_{i:05d}.jpg"
        image = np.asarray(Image.open(path))
        shown = np.asarray(Image.open(io.BytesIO(record["image"]))).astype(float)
        np.testing.assert_allclose(shown, crop(image, centre, side), atol=0.6)


def test_errors(tmp_path):
    with pytest.raises(RecordError, match="pw3d_hierprob: .*3dpw_test.npz"):
        Pw3dHierprob(str(tmp_path)).keys("test")
    with pytest.raises(ValueError, match="body: expected a folder"):
        Pw3dHierprob(str(tmp_path), layout="sequences")
    with pytest.raises(ValueError, match="layout: expected prepared or sequences"):
        Pw3dHierprob(str(tmp_path), layout="raw")
    write_sequences(tmp_path)
    (tmp_path / "body" / "SMPL_MALE.pkl").unlink()
    dataset = Pw3dHierprob(str(tmp_path), layout="sequences", body=str(tmp_path))
    with pytest.raises(RecordError, match=r"SMPL_MALE.pkl: expected a pickle"):
        written.read_all(dataset, "test")
    with pytest.raises(RecordError, match="sequence files"):
        dataset.keys("train")
