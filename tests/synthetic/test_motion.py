"""Motion clips: the shipped ones and AMASS-like files."""

import numpy as np
import pytest

from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.body.open_assets import open_body_arrays
from hmr_jax.synthetic.motion import load_motion


def _matrices(vectors):
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors / np.maximum(angle[..., 0], 1e-9), -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    skew = skew.reshape(*x.shape, 3, 3)
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * (skew @ skew)


def _joints(clip):
    body = open_body_arrays()
    rest = body["J_regressor"] @ body["v_template"]
    local = _matrices(clip.poses_aa.astype(np.float64))
    turned, joints = local.copy(), np.zeros((len(clip), 24, 3))
    for joint, parent in enumerate(SMPL_PARENTS):
        if parent >= 0:
            turned[:, joint] = turned[:, parent] @ local[:, joint]
            offset = turned[:, parent] @ (rest[joint] - rest[parent])
            joints[:, joint] = joints[:, parent] + offset
    return joints + clip.root_m[:, None], turned


def test_splits_hold_different_clips_of_both_kinds():
    motion = load_motion()
    train, test = motion.split("train"), motion.split("test")
    assert len(train) + len(test) == len(motion) == 20
    assert {c.name for c in test.clips} == {
        "dance_a", "getup_facedown", "jump", "kick", "run"
    }  # fmt: skip
    assert not {c.name for c in train.clips} & {c.name for c in test.clips}
    assert train.num_frames > 2 * test.num_frames > 400
    with pytest.raises(ValueError, match="'validation'"):
        motion.split("validation")


def test_clips_are_finite_smooth_and_in_metres():
    for clip in load_motion().clips:
        assert clip.fps == 30.0
        assert clip.poses_aa.shape == (len(clip), 24, 3)
        assert clip.poses_aa.dtype == np.float32
        assert np.isfinite(clip.poses_aa).all()
        joints, _ = _joints(clip)
        # Nothing moves faster than 15 m/s between frames: no flips of rotations.
        speed = np.linalg.norm(np.diff(joints, axis=0), axis=-1) * clip.fps
        assert speed.max() < 15, clip.name
        assert np.abs(joints[..., 1]).max() < 3, clip.name


@pytest.mark.parametrize("name", ["walk", "run", "turn_left0"])
def test_upright_clips_have_feet_down_and_knees_that_bend_backwards(name):
    clip = {c.name: c for c in load_motion().clips}[name]
    joints, turned = _joints(clip)
    assert (joints[:, 15, 1] > joints[:, 0, 1] + 0.3).all()
    assert (joints[:, [7, 8], 1].min(1) < 0.5).all()
    assert abs(joints[:, [10, 11], 1].min()) < 0.15
    # Hip to ankle lies behind the knee as seen by the pelvis: knees point forward.
    forward = turned[:, 0, :, 2]
    for hip, knee, ankle in ((1, 4, 7), (2, 5, 8)):
        middle = 0.5 * (joints[:, hip] + joints[:, ankle])
        bend = ((joints[:, knee] - middle) * forward).sum(-1)
        assert bend.min() > -0.03
        assert bend.max() > 0.05
    # The left hip is on the left of the direction of walking.
    left = ((joints[:, 1] - joints[:, 2]) * turned[:, 0, :, 0]).sum(-1)
    assert (left > 0.1).all()
    travel = joints[-1, 0] - joints[0, 0]
    assert travel[2] > 0.3


def test_amass_files_are_turned_to_y_up(tmp_path):
    poses = np.zeros((4, 156), np.float32)
    # AMASS: z up; a person who faces -y stands by a turn of 90 degrees about x.
    poses[:, 0] = np.pi / 2
    poses[:, 100] = 1.0
    np.savez(
        tmp_path / "a.npz", poses=poses, trans=[[0.0, 1.0, 2.0]] * 4, mocap_framerate=60
    )
    (tmp_path / "b").mkdir()
    np.savez(tmp_path / "b" / "c.npz", poses=np.ones((2, 72), np.float32))
    motion = load_motion(tmp_path, split="test")
    assert [c.name for c in motion.clips] == ["a", "b/c"]
    first, second = motion.clips
    assert first.fps == 60.0
    np.testing.assert_allclose(first.poses_aa, 0.0, atol=1e-6)
    np.testing.assert_allclose(first.root_m[0], [0.0, 2.0, -1.0])
    np.testing.assert_allclose(second.poses_aa[:, 1:], 1.0)
    turn = _matrices(np.array([-np.pi / 2, 0.0, 0.0]))
    np.testing.assert_allclose(
        _matrices(second.poses_aa[0, 0]), turn @ _matrices(np.ones(3)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pose": np.zeros((2, 72))}, "expected an array 'poses'"),
        ({"poses": np.zeros((2, 60))}, r"\(2, 60\)"),
        ({"poses": np.zeros(72)}, r"\(72,\)"),
        ({"poses": np.zeros((2, 72)), "trans": np.zeros((3, 3))}, r"\(3, 3\)"),
    ],
)
def test_wrong_files_are_named(tmp_path, arrays, message):
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=message) as error:
        load_motion(path)
    assert "wrong.npz" in str(error.value)


def test_a_folder_as_amass_unpacks(tmp_path, caplog):
    subject = tmp_path / "KIT" / "3"
    (tmp_path / "KIT" / "__MACOSX").mkdir(parents=True)
    subject.mkdir()
    walk = {"poses": np.zeros((5, 156)), "trans": np.zeros((5, 3))}
    np.savez(subject / "walk_poses.npz", **walk, mocap_framerate=120.0)
    np.savez(subject / "shape.npz", gender="female", betas=np.zeros(16))
    np.savez(subject / "neutral_stagei.npz", betas=np.zeros(16), num_betas=16)
    np.savez(tmp_path / "KIT" / "__MACOSX" / "b.npz", **walk)
    (subject / "._walk_poses.npz").write_bytes(b"what macOS leaves")
    motion = load_motion(tmp_path)
    assert [(c.name, len(c), c.fps) for c in motion.clips] == [
        ("KIT/3/walk_poses", 5, 120.0)
    ]
    message = "1 motions; 2 other .npz files without poses were left out"
    assert message in caplog.text and "neutral_stagei.npz" in caplog.text
    (subject / "walk_poses.npz").unlink()
    with pytest.raises(FileNotFoundError, match="found 2 files without"):
        load_motion(tmp_path)


@pytest.mark.parametrize("cut", [0, 10, 300, -30])
def test_files_that_cannot_be_read_are_named(tmp_path, cut):
    path = tmp_path / "walk_poses.npz"
    np.savez_compressed(path, poses=np.random.default_rng(0).random((50, 156)))
    path.write_bytes(path.read_bytes()[:cut])
    for given in (path, tmp_path):
        with pytest.raises(
            OSError, match=r"walk_poses\.npz: expected an \.npz archive"
        ):
            load_motion(given)


def test_missing_files_are_named(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match=str(path)):
            load_motion(path)
