"""What becomes of a bank's poses, against rotations written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.geometry.rotations import axis_angle_to_matrix
from hmr_jax.synthetic.pose_law import UPPER_BODY, PoseLaw, sample_poses

HALF_TURN = np.diag([1.0, -1.0, -1.0])


@pytest.fixture
def bank(rng):
    return jnp.asarray(rng.normal(0, 0.6, (7, 24, 3)).astype(np.float32))


def drawn(bank, count=7, **law):
    index = jnp.arange(count) % len(bank)
    return np.asarray(sample_poses(jax.random.key(3), bank, index, PoseLaw(**law)))


@pytest.mark.parametrize("root", ["camera_right", "camera_left"])
def test_roots_of_pictures_are_turned_up(bank, root):
    plain = np.asarray(axis_angle_to_matrix(bank))
    found = drawn(bank, root=root)
    right = root == "camera_right"
    expected = plain[:, 0] @ HALF_TURN if right else HALF_TURN @ plain[:, 0]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)
    np.testing.assert_allclose(found[:, 1:], plain[:, 1:], atol=1e-6)


def test_upright_roots_face_the_camera_within_the_range(bank):
    still = bank.at[:, 0].set(jnp.array([0.0, 2.0, 0.0])[None])
    law = {"root": "upright", "pitch_deg": (0.0, 0.0), "roll_deg": 0.0}
    found = drawn(still, 700, azimuth_range_deg=30.0, **law)[:, 0]
    np.testing.assert_allclose(found[:, 1, 1], 1.0, atol=1e-5)
    facing = np.rad2deg(np.arctan2(found[:, 0, 2], found[:, 2, 2]))
    assert np.abs(facing).max() < 30.01
    assert np.abs(facing.mean()) < 4 * 30 / np.sqrt(3 * 700)
    assert facing.std() == pytest.approx(30 / np.sqrt(3), rel=0.1)


def test_a_camera_that_looks_down_sees_the_head_nearer(bank):
    still = bank.at[:, 0].set(0.0)
    law = {"root": "upright", "azimuth_range_deg": 0.0, "roll_deg": 0.0}
    found = drawn(still, pitch_deg=(20.0, 0.0), **law)[:, 0]
    up = found @ np.array([0.0, 1.0, 0.0])
    # y up, the camera on the positive z axis
    angle = np.deg2rad(20)
    expected = np.array([0.0, np.cos(angle), np.sin(angle)])
    np.testing.assert_allclose(up, np.tile(expected, (7, 1)), atol=1e-6)


def test_mirrored_poses(bank):
    found = drawn(bank, root="camera_left", mirrored_share=1.0)
    flip = np.diag([-1.0, 1.0, 1.0])
    plain = np.asarray(axis_angle_to_matrix(bank))
    order = list(JOINT_SETS["smpl_24"].flip_permutation)
    expected = flip @ plain[:, order] @ flip
    np.testing.assert_allclose(found[:, 1:], expected[:, 1:], atol=1e-6)


def test_mixed_poses_keep_their_legs(bank):
    found = drawn(bank, 300, root="camera_left", mixed_share=1.0)
    plain = np.asarray(axis_angle_to_matrix(bank))[np.arange(300) % 7]
    legs = [joint for joint in range(1, 24) if joint not in UPPER_BODY]
    np.testing.assert_allclose(found[:, legs], plain[:, legs], atol=1e-6)
    changed = np.abs(found[:, 13] - plain[:, 13]).max((1, 2)) > 1e-3
    assert changed.mean() == pytest.approx(6 / 7, abs=4 * np.sqrt(6 / 49 / 300))


def test_jitter_leaves_the_root(bank):
    found = drawn(bank * 0, 500, root="camera_left", jitter_rad=0.1)
    np.testing.assert_allclose(found[:, 0], np.tile(HALF_TURN, (500, 1, 1)), atol=1e-6)
    vectors = np.stack([found[..., 2, 1], found[..., 0, 2], found[..., 1, 0]], -1)
    assert vectors[:, 1:].std() == pytest.approx(0.1, rel=0.05)


def test_bad_values():
    with pytest.raises(ValueError, match="root: expected one of"):
        PoseLaw(root="left")
    with pytest.raises(ValueError, match="jitter_rad: .*got -1"):
        PoseLaw(jitter_rad=-1.0)
    with pytest.raises(ValueError, match="mixed_share: expected 0 to 1, got 2"):
        PoseLaw(mixed_share=2.0)
