"""Labels' geometry against the original's stored values and by its own laws."""

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines.transforms import geometry
from hmr_jax.body.joint_sets import JOINT_SETS, SMPL_PARENTS

FLIP = JOINT_SETS["smpl_24"].flip_permutation
PARITY = 1e-6
"""README_public.txt of the vectors: 1e-6 relative, affine maps 1e-3 px."""
AFFINE_PARITY_PX = 1e-3
MIRROR = np.diag([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def stored(parity_dir):
    with np.load(parity_dir / "ikol" / "ikol_metrics_public.npz") as vectors:
        return {name: vectors[name] for name in vectors}


def test_crop_affine_parity(stored):
    centre, side = stored["in_aff_center"], stored["in_aff_scale"][:, 0]
    rotation = np.deg2rad(stored["in_aff_rot"])
    affine = geometry.crop_affine(centre, side, rotation, 256)
    np.testing.assert_allclose(affine, stored["affine"], rtol=PARITY, atol=2e-3)
    points = np.random.default_rng(0).uniform(0, 700, (8, 5, 2))
    expected = geometry.apply_affine(tf.constant(stored["affine"]), points)
    # The original makes its maps in float32 from points up to 1700 px away.
    np.testing.assert_allclose(
        geometry.apply_affine(affine, points), expected, atol=2 * AFFINE_PARITY_PX
    )
    np.testing.assert_allclose(
        geometry.invert_affine(affine), stored["affine_inv"], atol=AFFINE_PARITY_PX
    )


def test_box_parity(stored):
    box = stored["in_box_xywh"]
    size = np.full((2, 8), [[640.0], [480.0]])
    clipped = geometry.clip_box(box, size[0], size[1])
    np.testing.assert_allclose(clipped, stored["box_clip_xyxy"], rtol=PARITY)
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)
    centre, side = geometry.square_crop(tf.constant(corners), 1.25)
    np.testing.assert_allclose(centre, stored["box_center"], rtol=PARITY)
    np.testing.assert_allclose(side, stored["box_scale"][:, 0], rtol=PARITY)


def test_flip_parity(stored):
    pose = geometry.flip_axis_angle(tf.constant(stored["in_theta"]), FLIP)
    np.testing.assert_allclose(pose, stored["flip_thetas"], rtol=PARITY)
    twist, weight = geometry.flip_twist(
        tf.constant(stored["in_twist"]), tf.constant(stored["in_twist_w"]), FLIP
    )
    np.testing.assert_allclose(twist, stored["flip_twist"], rtol=PARITY)
    np.testing.assert_allclose(weight, stored["flip_twist_w"], rtol=PARITY)
    cam = geometry.flip_points_cam(tf.constant(stored["in_theta"]), FLIP)
    np.testing.assert_allclose(cam, stored["flip_xyz"], rtol=PARITY)
    points, visible = np.moveaxis(stored["in_joints_vis"], -1, 0)
    mirror = geometry.mirror_affine(
        tf.constant([True]), tf.constant([640.0], tf.float64)
    )
    moved = geometry.apply_affine(mirror, tf.constant(points[None, :, :2]))[0]
    moved = np.concatenate([moved, points[:, 2:]], -1) * (visible[:, :1] > 0)
    expected = stored["flip_joints_w640"][..., 0]
    np.testing.assert_allclose(moved[list(FLIP)], expected, rtol=PARITY)


def test_quaternion_label_parity(stored):
    quaternion = geometry.axis_angle_to_quaternion(tf.constant(stored["in_theta"]))
    np.testing.assert_allclose(quaternion, stored["theta_quat_label"], atol=PARITY)


def test_projection_and_crop_coordinate_parity(stored):
    points = tf.constant(stored["in_cam_pts_mm"])
    camera = np.array([[1145.0, 0, 512], [0, 1143, 515], [0, 0, 1]])
    pixels = geometry.project(points, camera)
    expected = stored["cam2pixel_f1145_1143_c512_515"]
    np.testing.assert_allclose(pixels, expected[:, :2], rtol=PARITY)
    ray = np.asarray(geometry.invert_intrinsics(tf.constant(camera)))
    np.testing.assert_allclose(ray, np.linalg.inv(camera), rtol=1e-12, atol=1e-15)
    centre = tf.constant([300.0, 250.0], tf.float64)
    side, zero = tf.constant(400.0, tf.float64), tf.constant(0.0, tf.float64)
    to_image = geometry.invert_affine(geometry.crop_affine(centre, side, zero, 256))
    crop = (stored["in_h2c_uvd"][:, :2] + 0.5) * 256
    np.testing.assert_allclose(
        geometry.apply_affine(to_image, crop),
        stored["heatmap_to_coord_box100_50_500_450"][:, :2],
        rtol=PARITY,
    )


def to_matrix(pose):
    """Rodrigues by the exponential's closed form, in numpy."""
    angle = np.linalg.norm(pose, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(pose, -1, 0)
    zero = np.zeros_like(x)
    skew = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    skew = skew.reshape(*pose.shape[:-1], 3, 3) / np.maximum(angle, 1e-12)
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def posed_joints(pose, rest):
    rotation, joints = to_matrix(pose), np.zeros((24, 3))
    world = [rotation[0]]
    for joint, parent in enumerate(SMPL_PARENTS[1:], start=1):
        world.append(world[parent] @ rotation[joint])
        joints[joint] = joints[parent] + world[parent] @ (rest[joint] - rest[parent])
    return joints, np.stack(world)


def symmetric_rest(rng):
    rest = rng.standard_normal((24, 3))
    return (rest + (rest @ MIRROR)[list(FLIP)]) / 2


def test_flipped_pose_poses_the_mirrored_body(rng):
    pose, rest = rng.standard_normal((24, 3)), symmetric_rest(rng)
    joints, _ = posed_joints(pose, rest)
    flipped = geometry.flip_axis_angle(tf.constant(pose), FLIP).numpy()
    mirrored, _ = posed_joints(flipped, rest)
    expected = geometry.flip_points_cam(tf.constant(joints), FLIP)
    np.testing.assert_allclose(mirrored, expected, atol=1e-12)


def test_flipped_twist_is_the_mirrored_bones_twist(rng):
    rest, angle = symmetric_rest(rng), rng.uniform(-3, 3, 23)
    bones = rest[1:] - rest[list(SMPL_PARENTS[1:])]
    axes = bones / np.linalg.norm(bones, axis=1, keepdims=True)
    pose = np.concatenate([np.zeros((1, 3)), axes * angle[:, None]])
    flipped_pose = geometry.flip_axis_angle(tf.constant(pose), FLIP).numpy()
    cos_sin = tf.constant(np.stack([np.cos(angle), np.sin(angle)], 1))
    flipped, _ = geometry.flip_twist(cos_sin, tf.ones(23), FLIP)
    angle = np.arctan2(flipped[:, 1], flipped[:, 0])[:, None]
    np.testing.assert_allclose(
        to_matrix(flipped_pose[1:]), to_matrix(axes * angle), atol=1e-12
    )


def test_flipping_twice_changes_nothing(rng):
    width = tf.constant(500.0, tf.float64)
    pose = tf.constant(rng.standard_normal((2, 24, 3)))
    twist = tf.constant(rng.standard_normal((2, 23, 2)))
    camera = tf.constant(rng.uniform(1, 2, (2, 3, 3)))

    def twice(function, value):
        return function(function(value))

    pairs = [
        (twice(lambda p: geometry.flip_points_cam(p, FLIP), pose), pose),
        (twice(lambda p: geometry.flip_axis_angle(p, FLIP), pose), pose),
        (twice(lambda t: geometry.flip_twist(t, t, FLIP)[0], twist), twist),
        (twice(lambda c: geometry.flip_intrinsics(c, width), camera), camera),
    ]
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_quaternion_forms_agree_where_the_trace_serves(rng):
    pose = tf.constant(rng.uniform(-1.5, 1.5, (50, 3)))
    quaternion = geometry.axis_angle_to_quaternion(pose)
    np.testing.assert_allclose(
        geometry.quaternion_by_trace(pose), quaternion, atol=1e-9
    )
    np.testing.assert_allclose(
        geometry.quaternion_to_axis_angle(quaternion), pose, atol=1e-9
    )
    long = pose * 3.5
    positive = geometry.positive_quaternion(geometry.axis_angle_to_quaternion(long))
    assert positive[:, 0].numpy().min() >= 0
    back = geometry.quaternion_to_axis_angle(positive)
    np.testing.assert_allclose(
        to_matrix(back.numpy()), to_matrix(long.numpy()), atol=1e-9
    )
    zero = tf.zeros([1, 3], tf.float64)
    for form in (geometry.axis_angle_to_quaternion, geometry.quaternion_by_trace):
        np.testing.assert_array_equal(form(zero), [[1, 0, 0, 0]])
    np.testing.assert_array_equal(
        geometry.quaternion_to_axis_angle(form(zero)), [[0, 0, 0]]
    )


def test_rotation_about_z_multiplies_from_the_left(rng):
    pose, angle = rng.uniform(-1, 1, (6, 3)), rng.uniform(-1, 1, 6)
    quaternion = geometry.axis_angle_to_quaternion(tf.constant(pose))
    turned = geometry.rotate_about_z(quaternion, tf.constant(angle))
    about_z = to_matrix(angle[:, None] * [0, 0, 1])
    found = to_matrix(geometry.quaternion_to_axis_angle(turned).numpy())
    np.testing.assert_allclose(found, about_z @ to_matrix(pose), atol=1e-12)
