"""The joint-limit sampler: ranges kept, sides mirrored, axes meant as documented."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.synthetic import joint_limits

SMPL = JOINT_SETS["smpl_24"]


def pose_with(joint, axis, degrees):
    """Rotation matrix of one joint turned about one axis."""
    angles = np.zeros((23, 3))
    angles[SMPL.index(joint) - 1, axis] = np.deg2rad(degrees)
    vector = joint_limits.compose_angles(angles)[SMPL.index(joint) - 1]
    return Rotation.from_rotvec(vector).as_matrix()


def test_samples_stay_in_range_and_reach_most_of_it():
    rng = np.random.default_rng(0)
    angles = np.stack([joint_limits.sample_joint_angles(rng) for _ in range(2000)])
    low, rest, high = np.moveaxis(joint_limits.joint_limits_rad(), -1, 0)
    assert np.all(low <= rest) and np.all(rest <= high)
    assert np.all(angles >= low - 1e-12) and np.all(angles <= high + 1e-12)
    width = high - low
    moving = width > 0
    assert np.all((np.ptp(angles, axis=0) / np.maximum(width, 1e-9))[moving] > 0.8)


def test_right_mirrors_left():
    limits = joint_limits.joint_limits_rad()
    for left, right in SMPL.flip_pairs:
        mirrored = limits[left - 1].copy()
        mirrored[1:] = -mirrored[1:, ::-1]
        np.testing.assert_array_equal(limits[right - 1], mirrored)


def test_order_of_rotations(rng):
    angles = rng.uniform(-1.0, 1.0, (23, 3))
    matrices = Rotation.from_rotvec(joint_limits.compose_angles(angles)).as_matrix()
    for joint, order in (("left_hip", "XZY"), ("neck", "XZY"), ("right_elbow", "YZX")):
        index = SMPL.index(joint) - 1
        picked = angles[index, ["XYZ".index(letter) for letter in order]]
        expected = Rotation.from_euler(order, picked).as_matrix()
        np.testing.assert_allclose(matrices[index], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("joint", "axis", "degrees", "bone", "towards"),
    [
        ("left_hip", 0, -60, (0, -1, 0), (0, 0, 1)),  # the thigh swings forward
        ("left_hip", 2, 40, (0, -1, 0), (1, 0, 0)),  # and outwards, to the left
        ("right_hip", 2, -40, (0, -1, 0), (-1, 0, 0)),
        ("left_knee", 0, 90, (0, -1, 0), (0, 0, -1)),  # the shank swings back
        ("left_elbow", 1, -90, (1, 0, 0), (0, 0, 1)),  # the forearm comes forward
        ("right_elbow", 1, 90, (-1, 0, 0), (0, 0, 1)),
        ("left_shoulder", 2, -60, (1, 0, 0), (0, -1, 0)),  # the arm hangs down
        ("right_shoulder", 2, 60, (-1, 0, 0), (0, -1, 0)),
        ("spine1", 0, 25, (0, 1, 0), (0, 0, 1)),  # the trunk bends forward
    ],
)
def test_ranges_allow_the_natural_direction(joint, axis, degrees, bone, towards):
    limits = joint_limits.joint_limits_rad()[SMPL.index(joint) - 1, axis]
    assert limits[0] <= np.deg2rad(degrees) <= limits[2]
    moved = pose_with(joint, axis, degrees) @ np.array(bone, float)
    assert moved @ np.array(towards) > np.sin(np.deg2rad(abs(degrees))) - 1e-6


def test_knees_and_elbows_do_not_overextend():
    limits = np.rad2deg(joint_limits.joint_limits_rad())
    assert limits[SMPL.index("left_knee") - 1, 0, 0] >= 0
    assert limits[SMPL.index("left_elbow") - 1, 1, 2] <= 0
    assert limits[SMPL.index("right_elbow") - 1, 1, 0] >= 0


def test_poses_are_reproducible_and_mostly_upright():
    rng = np.random.default_rng(3)
    poses = np.stack([joint_limits.sample_pose(rng) for _ in range(300)])
    again = joint_limits.sample_pose(np.random.default_rng(3))
    np.testing.assert_array_equal(poses[0], again)
    up = Rotation.from_rotvec(poses[:, 0]).apply([0.0, 1.0, 0.0])[:, 1]
    assert 0.75 < np.mean(up > 0.85) < 0.97
    assert np.all(np.linalg.norm(poses, axis=-1) <= np.pi + 1e-9)
