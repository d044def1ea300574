"""What every system's augmentation promises, for any combination of changes."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines.transforms import geometry, i2l, ikol, int_hmr, moving, pose_hg
from data_pipelines.transforms import ikol_crop as ikol_crop
from hmr_jax.body.joint_sets import JOINT_SETS
from tests.data_pipelines.transforms.batches import batch_of, numpy, rendered
from tests.data_pipelines.transforms.people import (
    MARK,
    mirrored_person,
    person,
    spec_of,
)

COUNT = 8
PLAIN = {"colour": 0.0}
SYSTEMS = {
    "ikol": lambda **o: ikol.IkolTransform(
        ikol.ikol_options(train=True, occlusion=0.0, **PLAIN, **o)
    ),
    "i2l_body": lambda **o: i2l.I2lTransform(i2l.i2l_options(train=True, **PLAIN, **o)),
    "i2l_hand": lambda **o: i2l.I2lTransform(
        i2l.i2l_options("hand", train=True, **PLAIN, **{**o, "flip": 0.0})
    ),
    "int_hmr": lambda **o: int_hmr.IntTransform(
        int_hmr.int_options(
            1, clips=False, train=True, rotation_deg=30.0, size_jitter=0.2, **o
        )
    ),
    "pose_hg": lambda **o: pose_hg.PoseHgTransform(
        pose_hg.pose_hg_options(train=True, padding=1.25, **o)
    ),
}
MIRRORED_FIRST = ("ikol", "i2l_body", "pose_hg")
"""Systems that mirror the picture and then cut; INT mirrors the crop."""
# How the systems read the right and lower end of a box.
LAST_PIXEL = {"ikol": True, "i2l_body": True}


@functools.cache
def made(name, **options):
    return SYSTEMS[name](**options)


def joint_set_of(transform):
    found = transform.joint_set
    return JOINT_SETS[found] if isinstance(found, str) else found


def rotations_of(name):
    return 16 if name == "i2l_hand" else 24


@functools.cache
def people(name, count=COUNT, **changes):
    joints = len(joint_set_of(made(name)))
    return [
        person(i, joints, rotations=rotations_of(name)) | changes for i in range(count)
    ]


def batch(name, records):
    transform = made(name)
    spec = spec_of(joint_set_of(transform), rotations_of(name))
    from data_pipelines import schema

    return batch_of([schema.validate(r, spec) for r in records], spec, transform)


def uniforms(transform, count=COUNT, seed=0):
    rng = np.random.default_rng(seed)
    shape = (count, transform.num_uniforms)
    return tf.constant(rng.uniform(0.001, 0.999, shape), tf.float32)


def crop_points(name, labels):
    """2D labels in pixels of the crop, and which of them count."""
    if name == "ikol":
        return (labels["target_uvd"][..., :2] + 0.5) * 256
    if name.startswith("i2l"):
        return labels["orig_joint_img"][..., :2] * 4
    if name == "int_hmr":
        return (labels["keypoints_norm"][..., :2] + 1) * 112
    return labels["pts_crop"] * 4.0


@pytest.mark.parametrize("name", ["ikol", "i2l_body", "int_hmr"])
def test_a_marked_point_lands_where_its_label_says(name):
    transform = made(name)
    labels, plan = transform.labels(batch(name, people(name)), uniforms(transform))
    flip = joint_set_of(transform).flip_permutation
    labels = numpy(labels)
    points = crop_points(name, labels)
    flipped = labels.get("flipped")
    if flipped is None:
        root = np.array([r["joints_cam_m"][0, 0] for r in people(name)])
        flipped = labels["root_cam_m"][:, 0] * root < 0
    images = rendered(transform, plan)
    size, checked = images.shape[1], 0
    for image, place, mirror in zip(images, points, flipped, strict=True):
        x, y = place[flip[MARK] if mirror else MARK]
        if min(x, y) < 20 or max(x, y) > size - 20:
            continue
        light = image.mean(-1) - image.min()
        light = np.where(light > 0.05 * light.max(), light, 0)
        rows, columns = np.mgrid[:size, :size]
        found = np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum()
        np.testing.assert_allclose(found, [x, y], atol=0.5)
        checked += 1
    assert checked >= 4 and 0 < np.sum(flipped) < COUNT


def test_marked_points_of_hands_and_heatmaps():
    for name in ("i2l_hand", "pose_hg"):
        transform = made(name)
        labels, plan = transform.labels(batch(name, people(name)), uniforms(transform))
        labels, checked = numpy(labels), 0
        flip = joint_set_of(transform).flip_permutation
        for i, image in enumerate(rendered(transform, plan)):
            to_crop = np.linalg.inv(np.vstack([labels["crop_to_image"][i], [0, 0, 1]]))
            mark = to_crop @ [*people(name)[i]["keypoints_px"][MARK, :2], 1]
            if np.abs(mark[:2] - 128).max() > 108:
                continue
            light = image.mean(-1) - image.min()
            light = np.where(light > 0.05 * light.max(), light, 0)
            rows, columns = np.mgrid[:256, :256]
            found = [(columns * light).sum(), (rows * light).sum()]
            np.testing.assert_allclose(found / light.sum(), mark[:2], atol=0.5)
            checked += 1
            if name == "pose_hg":
                joint = flip[MARK] if labels["flipped"][i] else MARK
                heat = labels["target_heatmaps"][i, :, :, joint]
                peak = np.array(np.unravel_index(heat.argmax(), heat.shape))[::-1]
                np.testing.assert_array_equal(peak, np.floor(mark[:2] / 4 + 1e-4))
        assert checked >= 3


@pytest.mark.parametrize("name", MIRRORED_FIRST)
def test_flipping_twice_changes_nothing(name):
    straight, mirror = made(name, flip=0.0), made(name, flip=1.0)
    flips = {
        "joints": joint_set_of(straight).flip_permutation,
        "pose": JOINT_SETS["smpl_24"].flip_permutation,
        "h36m": JOINT_SETS["h36m_17"].flip_permutation,
    }
    reflected = [
        mirrored_person(r, flips, LAST_PIXEL.get(name, False)) for r in people(name)
    ]
    draws = uniforms(straight)
    expected, plan = straight.labels(batch(name, people(name)), draws)
    found, mirrored_plan = mirror.labels(batch(name, reflected), draws)
    skipped = {"flipped", "bbox_xywh_px", "crop_to_image", "intrinsics", "side_px"}
    skipped |= {"translation_m", "extrinsics"}
    if name == "ikol":
        skipped -= {"crop_to_image"}
    for key in expected.keys() - skipped:
        np.testing.assert_allclose(
            found[key], expected[key], atol=2e-3 if "img" in key else 3e-4, err_msg=key
        )
    images, expected = rendered(mirror, mirrored_plan), rendered(straight, plan)
    assert np.abs(images - expected).max() < 0.05


def test_the_mirrored_crop_of_int_mirrored_again_is_the_crop():
    straight, mirror = made("int_hmr", flip=0.0), made("int_hmr", flip=1.0)
    records, draws = batch("int_hmr", people("int_hmr")), uniforms(straight)
    expected, plan = straight.labels(records, draws)
    found, mirrored_plan = mirror.labels(records, draws)
    flip = list(joint_set_of(straight).flip_permutation)
    pose_flip = list(JOINT_SETS["smpl_24"].flip_permutation)
    again = found["keypoints_norm"].numpy()[:, flip]
    again[..., 0] = -2 / 224 - again[..., 0]
    np.testing.assert_allclose(again, expected["keypoints_norm"], atol=1e-4)
    again = found["joints_cam_m"].numpy()[:, flip] * [-1, 1, 1, 1]
    np.testing.assert_allclose(again, expected["joints_cam_m"], atol=1e-5)
    again = found["pose_aa"].numpy()[:, pose_flip] * [1, -1, -1]
    np.testing.assert_allclose(again, expected["pose_aa"], atol=1e-5)
    images = rendered(mirror, mirrored_plan)[:, :, ::-1]
    assert np.abs(images - rendered(straight, plan)).max() < 0.02


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("place", [moving.place, moving.place_then_flip])
def test_moved_3d_points_project_onto_moved_2d_points(place, turn, rng):
    count, width = 32, tf.fill([32], tf.constant(640.0, tf.float64))
    placement = place(
        tf.constant(rng.uniform(100, 500, (count, 2))),
        tf.constant(rng.uniform(80, 700, (count, 2))),
        rotation_rad=tf.constant(rng.uniform(-3, 3, count)),
        flip=tf.constant(rng.uniform(size=count) < 0.5),
        width=width,
        size_px=(256, 192),
    )
    points = tf.constant(rng.uniform(-0.5, 0.5, (count, 24, 3)) + [0, 0, 3])
    camera = tf.constant(
        [[900.0, 3.0, 310.0], [0, 850.0, 250.0], [0, 0, 1]], tf.float64
    )
    camera = tf.tile(camera[None], [count, 1, 1])
    flip = JOINT_SETS["smpl_24"].flip_permutation
    pixels = geometry.project(points, camera)
    expected = moving.points_px(pixels, placement, flip)
    moved = moving.points_cam(points, placement, flip, turn=turn)
    seen = np.einsum(
        "bij,bnj->bni", moving.crop_camera(camera, placement, turn=turn), moved
    )
    np.testing.assert_allclose(seen[..., :2] / seen[..., 2:], expected, atol=1e-9)


def test_int_joints_project_onto_its_keypoints():
    transform = made("int_hmr")
    for seed in range(3):
        labels, _ = transform.labels(
            batch("int_hmr", people("int_hmr")), uniforms(transform, seed=seed)
        )
        labels = numpy(labels)
        seen = np.einsum(
            "bij,bnj->bni", labels["crop_intrinsics"], labels["joints_cam_m"][..., :3]
        )
        found = seen[..., :2] / seen[..., 2:]
        expected = crop_points("int_hmr", labels)
        np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_i2l_joints_project_onto_its_cells(seed):
    transform = made("i2l_body")
    records = people("i2l_body")
    labels, _ = transform.labels(
        batch("i2l_body", records), uniforms(transform, seed=seed)
    )
    labels = numpy(labels)
    sign = np.where(labels["flipped"] > 0, -1, 1)
    root = np.stack([r["joints_cam_m"][0, :3] for r in records])
    cos, sin = np.cos(labels["turn_rad"]), np.sin(labels["turn_rad"])
    x, y, z = root[:, 0] * sign, root[:, 1], root[:, 2]
    root = np.stack([cos * x - sin * y, sin * x + cos * y, z], 1)
    joints = labels["orig_joint_cam_m"] + root[:, None]
    seen = np.einsum("bij,bnj->bni", labels["crop_intrinsics"], joints)
    valid = labels["orig_joint_valid"]
    found = seen[..., :2] / seen[..., 2:] / 4 * valid
    np.testing.assert_allclose(found, labels["orig_joint_img"][..., :2], atol=1e-3)
    z = (labels["orig_joint_cam_m"][..., 2:] + 1) * 32 * valid
    np.testing.assert_allclose(z, labels["orig_joint_img"][..., 2:], atol=1e-3)


@pytest.mark.parametrize("name", SYSTEMS)
def test_batches_are_functions_of_records_and_numbers(name):
    transform, records = made(name), batch(name, people(name))
    draws = uniforms(transform)
    one, plan = transform.labels(records, draws)
    other, _ = transform.labels(records, draws)
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
        assert np.isfinite(one[key]).all()
    first = {k: v[:1] for k, v in plan.items()}
    np.testing.assert_array_equal(
        rendered(transform, first), rendered(transform, first)
    )


@pytest.mark.parametrize("name", SYSTEMS)
def test_unlabelled_people_have_finite_labels_without_weight(name):
    flags = ("has_smpl", "has_keypoints", "has_joints_3d", "has_camera", "has_twist")
    records = [r | dict.fromkeys(flags, 0) for r in people(name)]
    transform = made(name)
    labels, _ = transform.labels(batch(name, records), uniforms(transform))
    assert all(np.isfinite(v).all() for v in labels.values())
    weights = [v for k, v in labels.items() if k.endswith(("_weight", "valid", "mask"))]
    assert not any(np.any(v) for v in weights)
    if name == "pose_hg":
        assert not np.any(labels["target_heatmaps"]) and not np.any(
            labels["reg_target"]
        )


def test_frames_of_a_clip_share_the_crop_and_the_colours():
    options = int_hmr.int_options(3, clips=True, train=True, rotation_deg=20.0)
    transform = int_hmr.IntTransform(options)
    draws = uniforms(transform).numpy()
    draws[:, : transform.num_clip_uniforms] = draws[:1, : transform.num_clip_uniforms]
    one = [people("int_hmr")[0]] * COUNT
    labels, plan = transform.labels(batch("int_hmr", one), tf.constant(draws))
    for value in labels.values():
        np.testing.assert_array_equal(value, np.broadcast_to(value[:1], value.shape))
    for key in ("warp", "amounts", "order"):
        assert (plan[key].numpy() == plan[key].numpy()[:1]).all()
    changed = plan["kept"].numpy() != [0, 224, 0, 224]
    assert (changed.any(0).sum() == 1) and 0 < changed.any(1).sum() < COUNT
    assert np.isfinite(rendered(transform, plan)).all()


def test_a_box_that_is_the_whole_picture_is_taken_as_it_is():
    whole = {"bbox_xywh_px": np.array([0.0, 0.0, 300.0, 260.0])}
    records = [r | whole for r in people("int_hmr")]
    transform = made("int_hmr", flip=0.0)
    labels, _ = transform.labels(batch("int_hmr", records), uniforms(transform))
    expected = [[300 / 224, 0, 0], [0, 260 / 224, 0]]
    for affine in labels["crop_to_image"].numpy():
        np.testing.assert_allclose(affine, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: i2l.i2l_options("foot", train=True), "expected one of .*found 'foot'"),
        (lambda: i2l.i2l_options("hand", train=True, flip=0.5), "mirrored right hand"),
        (lambda: int_hmr.int_options(4, clips=True, train=True), "expected .*found 4"),
        (
            lambda: int_hmr.int_options(clips=True, train=True, erase_part=2),
            "erase_part: expected 0 to 1, found 2",
        ),
        (lambda: pose_hg.pose_hg_options(train=True, image_size_px=30), "multiples"),
        (lambda: pose_hg.pose_hg_options(train=True, sigma=0), "sigma: expected"),
    ],
)
def test_wrong_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
