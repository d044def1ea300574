"""Banks of poses from files in their published layouts, and the order of batches."""

import numpy as np
import pytest

from hmr_jax.synthetic import pose_bank

NAMES = ["h36m_S1_1", "up3d_00001", "3dpw_a_1", "CMU_01_01", "h36m_S5_2"]


def write(path, rng, names=NAMES, **changed):
    poses = rng.normal(0, 0.5, (len(names), 72))
    arrays = {"fnames": np.array(names), "poses": poses} | changed
    np.savez(path, **arrays)
    return poses.reshape(-1, 24, 3)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [("all", [0, 1, 2, 3, 4]), ("not_amass", [0, 1, 2, 4]), ("amass", [3]),
     ("h36m", [0, 4])],
)  # fmt: skip
def test_original_layout_and_its_filters(tmp_path, rng, keep, kept):
    poses = write(tmp_path / "smpl_train_poses.npz", rng)
    bank = pose_bank.read_pose_npz(tmp_path / "smpl_train_poses.npz", keep)
    np.testing.assert_allclose(bank.poses_aa, poses[kept], atol=1e-6)
    assert not bank.upright


@pytest.mark.parametrize("kind", [object, bytes])
def test_names_may_be_python_objects_or_bytes(tmp_path, rng, kind):
    path = tmp_path / "poses.npz"
    poses = write(path, rng, fnames=np.array(NAMES, dtype=kind))
    assert pose_bank.is_pose_npz(path)
    np.testing.assert_allclose(pose_bank.read_pose_npz(path).poses_aa, poses, atol=1e-6)
    assert len(pose_bank.read_pose_npz(path, "not_amass")) == 4


def test_bad_files(tmp_path, rng):
    path = tmp_path / "poses.npz"
    with pytest.raises(FileNotFoundError, match="poses.npz"):
        pose_bank.read_pose_npz(path)
    path.write_bytes(b"PK not really")
    with pytest.raises(ValueError, match="poses.npz: expected an .npz archive"):
        pose_bank.read_pose_npz(path)
    write(path, rng, poses=np.zeros((5, 69)))
    with pytest.raises(ValueError, match=r"poses: expected shape \(5, 72\), found"):
        pose_bank.read_pose_npz(path)
    write(path, rng, poses=np.full((5, 72), np.nan))
    with pytest.raises(ValueError, match="found NaN or infinity in 5 of 5"):
        pose_bank.read_pose_npz(path)
    write(path, rng)
    with pytest.raises(ValueError, match="found none among 5 .such as 'h36m_S1_1'"):
        pose_bank.read_pose_npz(path, "surreal")
    write(path, rng, poses=np.full((5, 72), "x"))
    with pytest.raises(ValueError, match="poses.npz: poses: expected numbers"):
        pose_bank.read_pose_npz(path)
    np.savez(path, names=np.array(NAMES), poses=np.zeros((5, 72)))
    with pytest.raises(ValueError, match="expected fnames and poses, or an AMASS file"):
        pose_bank.is_pose_npz(path)
    np.savez(path, trans=np.zeros(3))
    with pytest.raises(ValueError, match=r"fnames and poses, found \['trans'\]"):
        pose_bank.read_pose_npz(path)


def test_amass_frames_with_stride_and_limit(tmp_path, rng):
    poses = rng.normal(0, 0.3, (10, 156)).astype(np.float32)
    np.savez(tmp_path / "clip_poses.npz", poses=poses, trans=np.zeros((10, 3)))
    bank = pose_bank.read_motion_bank(tmp_path, stride=3)
    assert bank.upright
    np.testing.assert_allclose(
        bank.poses_aa[:, 1:22], poses[::3, 3:66].reshape(4, 21, 3), atol=1e-6
    )
    assert len(pose_bank.read_motion_bank(tmp_path, limit=5)) == 5
    assert not pose_bank.is_pose_npz(tmp_path / "clip_poses.npz")


def test_shipped_splits_share_no_pose():
    train, test = pose_bank.shipped_bank("train"), pose_bank.shipped_bank("test")
    assert len(train) + len(test) == 1200
    seen = {pose.tobytes() for pose in train.poses_aa}
    assert not any(pose.tobytes() in seen for pose in test.poses_aa)
    more = pose_bank.shipped_bank("train", num_limits=5, seed=3)
    assert len(more) == len(train) + 5
    assert more.fingerprint != train.fingerprint
    again = pose_bank.shipped_bank("train", num_limits=5, seed=3)
    assert more.fingerprint == again.fingerprint


def test_every_epoch_takes_every_pose_once():
    order = pose_bank.PoseOrder(10, 3, seed=1)
    assert order.steps_per_epoch == 3
    batches = [next(order)["pose_index"] for _ in range(6)]
    for epoch in (batches[:3], batches[3:]):
        assert len(set(np.concatenate(epoch))) == 9
    assert not np.array_equal(np.concatenate(batches[:3]), np.concatenate(batches[3:]))


def test_processes_share_a_batch_and_resume_in_place():
    whole = pose_bank.PoseOrder(20, 4, seed=1)
    parts = [
        pose_bank.PoseOrder(20, 4, seed=1, process_index=i, process_count=2)
        for i in range(2)
    ]
    for _ in range(7):
        expected = next(whole)["pose_index"]
        found = np.concatenate([next(part)["pose_index"] for part in parts])
        np.testing.assert_array_equal(found, expected)
    resumed = pose_bank.PoseOrder(20, 4, seed=1)
    resumed.restore(whole.state())
    np.testing.assert_array_equal(
        next(resumed)["pose_index"], next(whole)["pose_index"]
    )


@pytest.mark.parametrize(("batch", "processes"), [(0, 1), (21, 1), (3, 2)])
def test_batches_that_cannot_be(batch, processes):
    with pytest.raises(ValueError, match=f"got {batch}"):
        pose_bank.PoseOrder(20, batch, process_count=processes)
