"""What every system's augmentation promises, for any combination of changes."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines.transforms import crop_labels, geometry, i2l, ikol, int_hmr, pose_hg
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


def batch(name, records, **traits):
    transform = made(name)
    spec = spec_of(joint_set_of(transform), rotations_of(name))
    from data_pipelines import schema

    records = [schema.validate(r, spec) for r in records]
    return batch_of(records, spec, transform, **traits)


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
@pytest.mark.parametrize("place", [crop_labels.place, crop_labels.place_then_flip])
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
    expected = crop_labels.points_px(pixels, placement, flip)
    moved = crop_labels.points_cam(points, placement, flip, turn=turn)
    seen = np.einsum(
        "bij,bnj->bni", crop_labels.crop_camera(camera, placement, turn=turn), moved
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


def lacking(name, flag):
    """People without one kind of label; joints without a root are about it."""
    records = [r | {"has_root": 1} | ({flag: 0} if flag else {}) for r in people(name)]
    if flag == "has_root":
        for i, record in enumerate(records):
            about = record["joints_cam_m"] - record["joints_cam_m"][:1] * [1, 1, 1, 0]
            records[i] = record | {"joints_cam_m": about}
    return records


def relative_depths(name, labels):
    """Of joints 0, 1, ... below the first, in any unit, and which count."""
    if name == "ikol":
        return labels["target_uvd"][..., 2], labels["target_uvd_weight"][..., 2]
    if name == "i2l_body":
        return labels["orig_joint_cam_m"][..., 2], labels["orig_joint_valid"][..., 0]
    if name == "int_hmr":
        z = labels["joints_cam_m"][..., 2]
        return z - z[:, :1], labels["joints_cam_m"][..., 3]
    return labels["reg_target"][..., 0], labels["reg_mask"]


def counted_points(name, labels):
    points = crop_points(name, labels)
    if name == "ikol":
        return points, labels["target_uvd_weight"][..., 0]
    if name == "i2l_body":
        return points, labels["orig_joint_trunc"][..., 0]
    if name == "int_hmr":
        return points, labels["keypoints_norm"][..., 2]
    return points, labels["target_heatmaps"].max((1, 2))


@pytest.mark.parametrize("flag", ["has_camera", "has_root", "has_keypoints"])
@pytest.mark.parametrize("name", ["ikol", "i2l_body", "int_hmr", "pose_hg"])
def test_without_one_kind_of_label_the_others_stay_right(name, flag):
    """2D places, of keypoints or projected joints, and depths are what they were."""
    transform = made(name)
    draws = uniforms(transform)
    expected = numpy(transform.labels(batch(name, lacking(name, None)), draws)[0])
    found = numpy(transform.labels(batch(name, lacking(name, flag)), draws)[0])
    assert all(np.isfinite(v).all() for v in found.values())
    points, weight = counted_points(name, found)
    places, places_weight = counted_points(name, expected)
    if flag == "has_keypoints" and name in ("int_hmr", "pose_hg"):
        assert not weight.any()
    else:
        np.testing.assert_array_equal(weight, places_weight)
        counts = weight > 0
        assert counts.any()
        np.testing.assert_allclose(points[counts], places[counts], atol=2e-3)
    depth, weight = relative_depths(name, found)
    depths, depths_weight = relative_depths(name, expected)
    if flag == "has_keypoints" and name == "pose_hg":
        assert not weight.any()
    else:
        np.testing.assert_array_equal(weight, depths_weight)
        counts = weight > 0
        np.testing.assert_allclose(depth[counts], depths[counts], atol=1e-4)
    if name == "ikol":
        # Any root that is made up lies before the camera.
        assert found["root_cam_m"][:, 2].min() > 0.5


ROOTS = {"ikol": (0,), "i2l_body": (0,), "pose_hg": (6, 2, 3)}
"""The root, and joints of which it can be made."""


@pytest.mark.parametrize("name", ROOTS)
def test_without_a_root_there_are_no_depths(name):
    records = lacking(name, None)
    for i, record in enumerate(records):
        joints = record["joints_cam_m"].copy()
        joints[list(ROOTS[name]), 3] = 0
        h36m = np.zeros((17, 4))
        records[i] = record | {"joints_cam_m": joints, "joints_h36m_cam_m": h36m}
    transform = made(name)
    labels = numpy(transform.labels(batch(name, records), uniforms(transform))[0])
    if name == "ikol":
        assert not labels["target_uvd_weight"][..., 2].any()
        assert labels["target_uvd_weight"][..., :2].any()
    elif name == "i2l_body":
        # Keypoints go on counting, as of a dataset that has no 3D joints.
        assert not labels["is_3d"].any() and not labels["orig_joint_cam_m"].any()
        assert labels["orig_joint_trunc"].any()
        assert labels["fit_check_cam_m"][:, 1:, 3].any()
    else:
        assert not labels["reg_mask"].any()
        assert not labels["joints_h36m_cam_m"][..., 3].any()
        assert labels["target_heatmaps"].any()


def test_joints_of_unknown_place_have_none_in_i2l():
    records = [r | {"has_camera": 0} for r in lacking("i2l_body", "has_keypoints")]
    transform = made("i2l_body")
    labels, _ = transform.labels(batch("i2l_body", records), uniforms(transform))
    assert not np.any(labels["orig_joint_img"]) and not np.any(
        labels["orig_joint_trunc"]
    )
    assert np.all(labels["is_3d"]) and np.mean(labels["orig_joint_valid"]) > 0.9
    assert np.any(labels["orig_joint_cam_m"])


def test_what_declares_itself_a_weight_is_in_the_batch():
    for name in SYSTEMS:
        transform = made(name)
        labels, _ = transform.labels(batch(name, people(name)), uniforms(transform))
        assert set(transform.weights) <= set(labels)


def test_int_crops_are_square_unless_stretched():
    draws = uniforms(made("int_hmr"))
    records = batch("int_hmr", people("int_hmr"))
    wh = records["bbox_xywh_px"].numpy()[:, 2:]
    assert (np.abs(wh[:, 0] - wh[:, 1]) > 5).any()
    for stretched in (False, True):
        options = int_hmr.int_options(1, clips=False, train=False)
        options = int_hmr.IntOptions(**{**vars(options), "stretch_box": stretched})
        labels, _ = int_hmr.IntTransform(options).labels(records, draws)
        scale = labels["crop_to_image"].numpy()[:, [0, 1], [0, 1]] * 224 / 1.1
        expected = wh if stretched else wh.max(1, keepdims=True).repeat(2, 1)
        np.testing.assert_allclose(scale, expected, rtol=1e-4)


@pytest.mark.parametrize("stretched", [False, True])
def test_without_a_box_the_picture_is_taken_as_it_is(stretched):
    whole = {"bbox_xywh_px": np.array([0.0, 0.0, 300.0, 260.0])}
    records = [r | whole for r in people("int_hmr")]
    transform = made("int_hmr", flip=0.0, stretch_box=stretched)
    draws = uniforms(transform)
    labels, _ = transform.labels(batch("int_hmr", records, has_box=0.0), draws)
    expected = [[300 / 224, 0, 0], [0, 300 / 224, -20]]
    if stretched:
        expected[1] = [0, 260 / 224, 0]
    for affine in labels["crop_to_image"].numpy():
        np.testing.assert_allclose(affine, expected, atol=1e-4)
    # A box of a person may be as large as the picture.
    labels, _ = transform.labels(batch("int_hmr", records), draws)
    assert np.abs(labels["crop_to_image"].numpy() - expected).max((1, 2)).min() > 0.01


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
