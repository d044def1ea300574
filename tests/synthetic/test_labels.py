"""Labels against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from hmr_jax.body.forward import body_forward
from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.geometry.rotations import swing_twist, twist_matrix
from hmr_jax.solvers.types import DESIGNATED_CHILD
from hmr_jax.synthetic import labels

ANGLE_ATOL = 2e-5  # float32 quaternions of angles up to 3 rad
CHILDREN = np.array(DESIGNATED_CHILD[1:])


def random_pose(rng, scale=0.8):
    vectors = scale * rng.standard_normal((24, 3))
    rest = rng.standard_normal((24, 3))
    rotmats = Rotation.from_rotvec(vectors).as_matrix()
    return jnp.asarray(rotmats, jnp.float32), jnp.asarray(rest, jnp.float32)


def test_twist_is_what_remains_after_the_swing(rng):
    rotmats, rest = random_pose(rng)
    cos_sin, weight = labels.twist_labels(rotmats, rest, SMPL_PARENTS)
    assert cos_sin.shape == (23, 2) and weight.shape == (23,)
    np.testing.assert_array_equal(weight, CHILDREN >= 0)
    for joint in np.flatnonzero(CHILDREN >= 0) + 1:
        bone = rest[CHILDREN[joint - 1]] - rest[joint]
        swing, _ = swing_twist(rotmats[joint], bone)
        rebuilt = swing @ twist_matrix(bone, cos_sin[joint - 1])
        np.testing.assert_allclose(rebuilt, rotmats[joint], atol=ANGLE_ATOL)
        # The swing is the minimal rotation: its axis is normal to the bone.
        axis = Rotation.from_matrix(np.asarray(swing)).as_rotvec()
        assert abs(axis @ np.asarray(bone)) < 1e-4
    np.testing.assert_array_equal(cos_sin[CHILDREN < 0], [[1.0, 0.0]] * 5)


def test_twist_of_spine3_is_about_the_neck(rng):
    _, rest = random_pose(rng)
    bone = np.asarray(rest[12] - rest[9])
    turn = Rotation.from_rotvec(0.7 * bone / np.linalg.norm(bone)).as_matrix()
    rotmats = jnp.eye(3)[None].repeat(24, 0).at[9].set(turn)
    cos_sin, _ = labels.twist_labels(rotmats, rest, SMPL_PARENTS)
    np.testing.assert_allclose(cos_sin[8], [np.cos(0.7), np.sin(0.7)], atol=ANGLE_ATOL)


def test_twist_has_no_weight_at_a_half_turn_of_the_swing():
    rest = jnp.asarray(np.arange(72.0).reshape(24, 3), jnp.float32)
    bone = np.asarray(rest[4] - rest[1])
    axis = np.cross(bone, [1.0, 0.0, 0.0])
    rotmats = []
    for angle in (np.pi, np.pi - 0.02, np.pi - 0.1):
        turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
        rotmats.append(jnp.eye(3)[None].repeat(24, 0).at[1].set(turn))
    batch = jnp.broadcast_to(rest, (3, 24, 3))
    cos_sin, weight = labels.twist_labels(jnp.stack(rotmats), batch, SMPL_PARENTS)
    assert np.all(np.isfinite(cos_sin))
    np.testing.assert_array_equal(weight[:, 0], [0.0, 0.0, 1.0])


def test_box_holds_the_pixels_and_stops_at_the_borders():
    points = jnp.array([[3.0, 4.0], [10.0, 20.0], [5.0, 8.0]])
    box = labels.bounding_box(points, 30, 40)
    np.testing.assert_array_equal(box, [3.0, 4.0, 8.0, 17.0])
    wide = jnp.array([[-9.0, 5.0], [99.0, 50.0]])
    np.testing.assert_array_equal(labels.bounding_box(wide, 30, 40), [0, 5, 40, 25])
    outside = jnp.array([[-9.0, -9.0], [-5.0, -2.0]])
    assert np.all(np.asarray(labels.bounding_box(outside, 30, 40))[2:] >= 1.0)


def test_points_are_in_the_image_up_to_the_edges_of_its_pixels():
    points = jnp.array([[-0.5, 0.0], [39.5, 29.5], [-0.6, 3.0], [4.0, 29.6]])
    inside = labels.in_image(points, 30, 40)
    np.testing.assert_array_equal(inside, [True, True, False, False])


def test_joints_in_the_cameras_plane_and_behind_it_are_not_seen(tiny_body):
    pose = jnp.broadcast_to(jnp.eye(3), (24, 3, 3))
    posed = body_forward(tiny_body, jnp.zeros(10), pose)
    joints = jnp.zeros((24, 3)).at[:, 2].set(2.0).at[3, 2].set(0.0).at[5, 2].set(-2.0)
    posed = posed._replace(joints_m=joints)
    intrinsics = jnp.array([[50.0, 0, 20], [0, 50, 15], [0, 0, 1]])
    found = labels.body_labels(tiny_body, posed, pose, intrinsics, 30, 40)
    expected = np.ones(24)
    expected[[3, 5]] = 0
    np.testing.assert_array_equal(found.keypoints_px[:, 2], expected)


def test_extrinsics_put_the_root_over_the_origin(rng):
    rotmat = jnp.asarray(Rotation.random(random_state=1).as_matrix(), jnp.float32)
    root = jnp.array([0.3, -0.2, 4.0])
    transform = jax.jit(labels.world_to_camera)(rotmat, root, jnp.float32(0.9))
    moved = np.asarray(transform) @ [0.0, 0.9, 0.0, 1.0]
    np.testing.assert_allclose(moved, [*root, 1.0], atol=1e-6)
    np.testing.assert_array_equal(transform[:3, :3], rotmat)
