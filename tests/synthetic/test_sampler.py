"""Synthetic records: labels that agree with each other and with the picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.schema import RecordSpec, validate
from hmr_jax.body.forward import body_forward, forward_kinematics, regress_joints
from hmr_jax.body.joint_sets import JOINT_SETS, SMPL_PARENTS
from hmr_jax.geometry.rotations import axis_angle_to_matrix
from hmr_jax.render.draw import decode_image
from hmr_jax.solvers.inverse_kinematics import inverse_kinematics
from hmr_jax.solvers.types import DESIGNATED_CHILD, LEAF_JOINTS
from hmr_jax.synthetic.clothing import figure
from hmr_jax.synthetic.joint_limits import sample_pose
from hmr_jax.synthetic.motion import Clip, MotionSet
from hmr_jax.synthetic.sampler import (
    LIMITS_SEQUENCE,
    SampleSource,
    mirror_pose,
)
from hmr_jax.synthetic.scene import faded_light, shoot_all

SIZE, COUNT = 64, 10
# Positions of order 1 to 10 m in float32, rotations rebuilt from axis-angle near pi.
LABEL_ATOL_M = 2e-5
PIXEL_ATOL = 2e-3


def make_motion():
    rng = np.random.default_rng(5)
    clips = []
    for name, split, frames in (
        ("a", "train", 9),
        ("b", "train", 30),
        ("c", "test", 6),
    ):
        poses = np.stack([sample_pose(rng) for _ in range(frames)]).astype(np.float32)
        clips.append(Clip(name, poses, np.zeros((frames, 3), np.float32), 30.0, split))
    return MotionSet(tuple(clips))


def make_source(body, **changes):
    options = {"image_size_px": SIZE, "num_samples": COUNT, "chunk_size": 4, "seed": 2}
    return SampleSource(body, make_motion(), **{**options, **changes})


@pytest.fixture(scope="module")
def source(open_body):
    return make_source(open_body)


@pytest.fixture(scope="module")
def records(source):
    return list(source.samples())


@pytest.fixture(scope="module")
def batch(records):
    names = ("pose_aa", "betas", "translation_m", "intrinsics", "extrinsics")
    return {name: jnp.stack([r[name] for r in records]) for name in names}


@pytest.fixture(scope="module")
def posed(open_body, batch):
    parts = (batch["betas"], batch["pose_aa"], batch["translation_m"])
    return body_forward(open_body, *parts)


def project(points, intrinsics):
    pixels = np.einsum("nij,nkj->nki", intrinsics, points)
    return pixels[..., :2] / pixels[..., 2:]


def test_records_keep_the_schema(records):
    assert len(records) == COUNT
    for record in records:
        validate(record, RecordSpec())
    assert len({record["sample_id"] for record in records}) == COUNT


def test_joints_are_those_of_the_body(open_body, records, posed):
    joints = np.stack([record["joints_cam_m"] for record in records])
    np.testing.assert_allclose(joints[..., :3], posed.joints_m, atol=LABEL_ATOL_M)
    h36m = np.stack([record["joints_h36m_cam_m"] for record in records])
    expected = regress_joints(open_body, posed.vertices_m, "h36m_17")
    np.testing.assert_allclose(h36m[..., :3], expected, atol=LABEL_ATOL_M)
    assert np.all(joints[..., 3] == 1) and np.all(h36m[..., 3] == 1)


def test_keypoints_are_the_projected_joints(records, batch):
    joints = np.stack([record["joints_cam_m"] for record in records])[..., :3]
    pixels = project(joints, np.asarray(batch["intrinsics"]))
    keypoints = np.stack([record["keypoints_px"] for record in records])
    np.testing.assert_allclose(keypoints[..., :2], pixels, atol=PIXEL_ATOL)
    inside = np.all((pixels >= -0.5) & (pixels <= SIZE - 0.5), axis=-1)
    np.testing.assert_array_equal(keypoints[..., 2], inside)


def test_mask_and_box_are_those_of_the_mesh(records, batch, posed):
    outline = project(np.asarray(posed.vertices_m), np.asarray(batch["intrinsics"]))
    for record, points in zip(records, outline, strict=True):
        mask = decode_image(record["mask"])[..., 0] > 0
        left, top, width, height = record["bbox_xywh_px"]
        low = np.clip(points.min(0), 0, SIZE - 1)
        high = np.clip(points.max(0), 0, SIZE - 1)
        np.testing.assert_allclose([left, top], low, atol=PIXEL_ATOL)
        np.testing.assert_allclose([width, height], high - low + 1, atol=PIXEL_ATOL)
        rows, columns = np.nonzero(mask)
        assert columns.min() >= left - 1 and columns.max() <= left + width
        assert rows.min() >= top - 1 and rows.max() <= top + height
        # Vertices on the outline may round to a pixel that is less than half covered.
        seen = np.all((points > 0) & (points < SIZE - 1), axis=-1)
        column, row = np.round(points[seen]).astype(int).T
        assert mask[row, column].mean() > 0.85
        assert decode_image(record["image"]).shape == (SIZE, SIZE, 3)


def test_person_is_in_front_and_mostly_in_view(records, posed):
    assert np.min(np.asarray(posed.vertices_m)[..., 2]) > 0.35
    sides = [max(record["bbox_xywh_px"][2:]) / SIZE for record in records]
    assert 0.5 < np.median(sides) < 0.95
    visible = np.mean([record["keypoints_px"][:, 2] for record in records])
    assert visible > 0.85


def test_world_is_upright_with_the_person_on_its_floor(batch, posed):
    extrinsics = np.asarray(batch["extrinsics"])
    rotation, shift = extrinsics[:, :3, :3], extrinsics[:, :3, 3]
    eye = np.broadcast_to(np.eye(3), rotation.shape)
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2), eye, atol=1e-5)
    assert np.all(rotation[:, 1, 1] < 0)  # world up is image up
    points = np.asarray(posed.vertices_m) - shift[:, None]
    world = np.einsum("nji,nkj->nki", rotation, points)
    np.testing.assert_allclose(world[..., 1].min(1), 0.0, atol=1e-4)


def test_rotations_follow_from_joints_and_twists(open_body, records, batch, posed):
    """R_k = swing (from the joints) times twist (from the label)."""
    local = np.asarray(axis_angle_to_matrix(batch["pose_aa"]), np.float64)
    joints, rest = np.asarray(posed.joints_m), np.asarray(posed.rest_joints_m)
    for n, record in enumerate(records):
        world = np.asarray(posed.global_rotmats[n], np.float64)
        for k in range(1, 24):
            child, weight = DESIGNATED_CHILD[k], record["twist_weight"][k - 1]
            assert weight == 0 or child >= 0
            if not weight:
                continue
            bone = (rest[n, child] - rest[n, k]).astype(np.float64)
            bone /= np.linalg.norm(bone)
            aim = world[SMPL_PARENTS[k]].T @ (joints[n, child] - joints[n, k])
            aim /= np.linalg.norm(aim)
            swing = minimal_rotation(bone, aim)
            cos, sin = record["twist_cos_sin"][k - 1]
            np.testing.assert_allclose(cos**2 + sin**2, 1.0, atol=1e-5)
            cross = np.cross(np.eye(3), bone)
            twist = np.eye(3) + sin * cross + (1 - cos) * cross @ cross
            np.testing.assert_allclose(swing @ twist, local[n, k], atol=3e-4)


def test_layer_rebuilds_the_pose_from_the_labels(records, batch, posed):
    joints = np.stack([record["joints_cam_m"] for record in records])[..., :3]
    twist = jnp.stack([record["twist_cos_sin"] for record in records])
    local = axis_angle_to_matrix(batch["pose_aa"])
    result = inverse_kinematics(
        jnp.asarray(joints - joints[:, :1]),
        posed.rest_joints_m - posed.rest_joints_m[:, :1],
        twist,
        local[:, np.array(LEAF_JOINTS)],
    )
    np.testing.assert_allclose(
        result.joints_m, joints - joints[:, :1], atol=10 * LABEL_ATOL_M
    )
    error = np.abs(np.asarray(result.local_rotmats - local)).max((2, 3))
    weights = np.stack([record["twist_weight"] for record in records])
    known = np.concatenate([np.ones((COUNT, 1)), weights], axis=1) > 0
    known[:, list(LEAF_JOINTS)] = True
    assert error[known].max() < 5e-3 and np.median(error[known]) < 1e-4


def minimal_rotation(a, b):
    v = np.cross(np.eye(3), np.cross(a, b))
    return np.eye(3) + v + v @ v / (1 + a @ b)


def test_samples_do_not_depend_on_chunks_threads_or_order(open_body, source, records):
    assert_same(source.sample(7), records[7])
    other = make_source(open_body, num_threads=1, num_samples=100)
    for record, index in zip(other.samples([8, 3, 3]), (8, 3, 3), strict=True):
        assert_same(record, records[index])


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def test_seed_and_split_change_every_sample(open_body, source):
    scene, _ = source.scene(0)
    for changes in ({"seed": 3}, {"split": "test"}):
        other, _ = make_source(open_body, **changes).scene(0)
        assert not np.array_equal(scene.betas, other.betas)
        assert not np.array_equal(scene.background, other.background)


def test_test_split_shows_unchanged_held_out_frames_only(open_body):
    source = make_source(open_body, split="test", limits_share=1.0, num_samples=40)
    (clip,) = make_motion().split("test").clips
    for index in range(40):
        scene, (name, frame) = source.scene(index)
        assert name == "c"
        np.testing.assert_array_equal(scene.pose_aa, clip.poses_aa[frame])


def test_training_poses_come_from_training_clips_and_limits(open_body):
    source = make_source(open_body, num_samples=200)
    origins = [source.scene(index)[1] for index in range(200)]
    names = [name for name, _ in origins]
    assert set(names) == {"a", "b", LIMITS_SEQUENCE}
    assert 0.1 < np.mean([name == LIMITS_SEQUENCE for name in names]) < 0.3
    shares = {"limits_share": 0.0, "mixed_share": 0.0, "num_samples": 20}
    for mirrored in (0.0, 1.0):
        plain = make_source(open_body, mirrored_share=mirrored, **shares)
        for index in range(20):
            scene, (name, frame) = plain.scene(index)
            clip = next(c for c in make_motion().clips if c.name == name)
            pose = mirror_pose(scene.pose_aa) if mirrored else scene.pose_aa
            np.testing.assert_allclose(pose, clip.poses_aa[frame], atol=0.4)


def test_a_mirrored_pose_poses_the_mirrored_joints(rng):
    pose = rng.uniform(-1, 1, (24, 3)).astype(np.float32)
    rest = rng.uniform(-1, 1, (24, 3)).astype(np.float32)
    swap = list(JOINT_SETS["smpl_24"].flip_permutation)
    mirror = np.array([-1, 1, 1], np.float32)
    symmetric = (rest + rest[swap] * mirror) / 2

    def joints(pose):
        matrices = axis_angle_to_matrix(jnp.asarray(pose))
        rest_m = jnp.asarray(symmetric)
        return np.asarray(forward_kinematics(matrices, rest_m, SMPL_PARENTS)[1])

    found = joints(mirror_pose(pose).astype(np.float32))
    np.testing.assert_allclose(found, joints(pose)[swap] * mirror, atol=1e-5)


def test_flash_fades_with_the_square_of_the_distance(open_body):
    points = jnp.array([[0.0, 0.0, 1.0], [0.0, 3.0, 4.0], [0.0, 0.0, 2.0]])
    light = faded_light(points, jnp.array([0.0, 0.0, 2.0]), jnp.array(2.0))
    np.testing.assert_allclose(light, [4.0, 0.16, 1.0], rtol=1e-6)
    dark = faded_light(points, jnp.array([0.0, 0.0, 2.0]), jnp.array(0.0))
    np.testing.assert_array_equal(dark, np.ones(3))
    flash = make_source(open_body, flash_share=1.0)
    assert {float(flash.scene(i)[0].falloff) for i in range(5)} == {2.0}


def test_angles_of_view_are_checked_and_kept(open_body):
    wide = make_source(open_body, field_of_view_deg=(60.0, 61.0)).scene(0)[0]
    half = np.rad2deg(np.arctan(SIZE / 2 / wide.focal_px))
    assert 30.0 <= half <= 30.5
    with pytest.raises(ValueError, match="field_of_view_deg: expected two increasing"):
        make_source(open_body, field_of_view_deg=(70.0, 40.0))


def test_backgrounds_of_a_folder_and_png(open_body, tmp_path):
    from hmr_jax.render.draw import save_png

    save_png(tmp_path / "blue.png", np.full((50, 50, 3), [10, 20, 200], np.uint8))
    source = make_source(open_body, backgrounds=tmp_path, image_format="png")
    scene, _ = source.scene(0)
    np.testing.assert_array_equal(scene.background[0, 0], [10, 20, 200])
    record = source.sample(0)
    assert record["image"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "validation"}, "validation"),
        ({"image_size_px": 0}, "image_size_px"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"image_format": "gif"}, "gif"),
        ({"limits_share": 1.5}, "limits_share"),
        ({"backgrounds": "/nowhere"}, "nowhere"),
    ],
)
def test_wrong_arguments_are_named(open_body, changes, message):
    with pytest.raises(ValueError, match=message):
        make_source(open_body, **changes)


def test_no_clip_in_the_split_and_no_such_sample(open_body, source):
    motion = MotionSet(make_motion().split("train").clips)
    with pytest.raises(ValueError, match="'test'"):
        SampleSource(open_body, motion, split="test")
    for index in (-1, COUNT):
        with pytest.raises(IndexError, match=f"{index} of {COUNT}"):
            source.sample(index)


@pytest.mark.slow
def test_whole_chunk_at_once_gives_the_same_pictures(open_body, source):
    """The path of accelerators, run on the CPU."""
    scenes = [source.scene(index)[0] for index in range(2)]
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *scenes)
    options = {"size_px": SIZE, "supersample": 2}
    parts = (open_body, figure(open_body), stacked, np.int32(2))
    one_by_one = shoot_all(*parts, **options)
    together = shoot_all(*parts, **options, vectorized=True)
    difference = np.abs(np.int32(one_by_one.image) - np.int32(together.image))
    assert np.mean(difference > 2) < 1e-3
    for name, value in one_by_one.labels._asdict().items():
        other = getattr(together.labels, name)
        np.testing.assert_allclose(other, value, atol=PIXEL_ATOL, err_msg=name)
