"""What IKOL's transforms promise, for every combination of augmentations."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines.transforms import image
from data_pipelines.transforms.ikol import IkolTransform, ikol_options
from hmr_jax.body.joint_sets import JOINT_SETS
from tests.data_pipelines.people import encode_image, make_record, parsed

SIZE = 64
FLIP = list(JOINT_SETS["smpl_24"].flip_permutation)
ALL_ON = {"box_jitter": 0.5, "colour": 0.2, "occlusion": 0.5}
BATCH_KEYS = {
    "crop_to_image": (2, 3),
    "intrinsics_inv": (3, 3),
    "root_cam_m": (3,),
    "target_uvd": (24, 3),
    "target_uvd_weight": (24, 3),
    "target_quat": (24, 4),
    "target_quat_weight": (24, 1),
    "target_shape": (10,),
    "target_shape_weight": (1,),
    "target_twist": (23, 2),
    "target_twist_weight": (23, 2),
    "has_smpl": (1,),
    "joints_cam_m": (24, 4),
    "joints_h36m_cam_m": (17, 4),
    "pose_aa": (24, 3),
    "betas": (10,),
    "bbox_xywh_px": (4,),
}


def transform(loader="hybrik", train=True, **options):
    return IkolTransform(
        ikol_options(loader, train=train, image_size_px=SIZE, **options)
    )


@functools.cache
def people(count=12, **arguments):
    return parsed([make_record(i, **arguments) for i in range(count)])


def uniforms(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(
        rng.uniform(0.001, 0.999, (count, IkolTransform.num_uniforms)), tf.float32
    )


def numpy(tree):
    return {name: value.numpy() for name, value in tree.items()}


def labels_of(made, records=None, seed=0):
    labels, plan = made.labels(
        people() if records is None else records, uniforms(seed=seed)
    )
    return numpy(labels), numpy(plan)


def back_projected(labels, depth_range_m=2.0):
    """specs/ikol.md, section 3, in numpy: uvd to camera metres."""
    crop = (labels["target_uvd"][..., :2] + 0.5) * SIZE
    crop = np.concatenate([crop, np.ones_like(crop[..., :1])], -1)
    pixels = np.einsum("bij,bnj->bni", labels["crop_to_image"], crop)
    pixels = np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)
    ray = np.einsum("bij,bnj->bni", labels["intrinsics_inv"], pixels)
    depth = labels["target_uvd"][..., 2] * depth_range_m
    return ray * (depth + labels["root_cam_m"][:, None, 2])[..., None]


@pytest.mark.parametrize("loader", ["hybrik", "mm"])
@pytest.mark.parametrize("seed", range(3))
def test_uvd_back_projects_to_the_joints(loader, seed):
    labels, _ = labels_of(transform(loader, **ALL_ON), seed=seed)
    points, valid = labels["joints_cam_m"][..., :3], labels["joints_cam_m"][..., 3]
    assert valid.all()
    # 0.1 mm: float32 at a depth of three metres.
    np.testing.assert_allclose(back_projected(labels), points, atol=1e-4)
    root = labels["root_cam_m"][:, None]
    np.testing.assert_allclose(points[:, :1], root, atol=1e-6)


def test_published_camera_stays_behind_in_the_mirror():
    made = transform(flip=1.0, published=True)
    labels, _ = labels_of(made)
    straight, _ = labels_of(transform(train=False))
    for name in ("intrinsics_inv", "root_cam_m"):
        np.testing.assert_array_equal(labels[name], straight[name])
    error = np.abs(back_projected(labels) - labels["joints_cam_m"][..., :3])
    assert error.max() > 0.01


def test_test_transform_is_the_padded_box():
    records = people()
    labels, plan = labels_of(transform(train=False))
    x, y, w, h = (records["bbox_xywh_px"][:, i].numpy() for i in range(4))
    side = np.maximum(w - 1, h - 1) * 1.25
    np.testing.assert_allclose(labels["crop_to_image"][:, 0, 0], side / SIZE, rtol=1e-5)
    middle = labels["crop_to_image"] @ [SIZE / 2, SIZE / 2, 1]
    expected = np.stack([x + (w - 1) / 2, y + (h - 1) / 2], 1)
    np.testing.assert_allclose(middle, expected, atol=1e-4)
    np.testing.assert_array_equal(labels["pose_aa"], records["pose_aa"])
    np.testing.assert_array_equal(plan["rectangle"][:, 2:], 0)
    other, _ = labels_of(transform(train=False), seed=9)
    for name in labels:
        np.testing.assert_array_equal(labels[name], other[name])


def test_batch_has_the_keys_and_shapes_of_the_network():
    labels, _ = labels_of(transform())
    assert {k: v.shape[1:] for k, v in labels.items()} == BATCH_KEYS
    assert all(v.dtype == np.float32 for v in labels.values())


def test_joints_outside_the_crop_have_no_weight():
    labels, _ = labels_of(transform(scale_deviation=0.6))
    inside = (np.abs(labels["target_uvd"]) <= 0.5).all(-1)
    assert 0 < inside.mean() < 1
    expected = np.repeat(inside[..., None], 3, -1)
    np.testing.assert_array_equal(labels["target_uvd_weight"], expected)


def test_flip_exchanges_sides_of_every_label():
    straight, _ = labels_of(transform(train=False))
    flipped, _ = labels_of(transform(train=False, flip=1.0))
    sign = np.array([1.0, 1.0, -1.0, -1.0])
    np.testing.assert_allclose(
        flipped["target_quat"], straight["target_quat"][:, FLIP] * sign, atol=1e-6
    )
    mirrored = straight["joints_cam_m"][:, FLIP] * [-1, 1, 1, 1]
    np.testing.assert_array_equal(flipped["joints_cam_m"], mirrored)
    # The crop is mirrored about its own middle: x -> S - x, in pixel centres.
    mirrored = straight["target_uvd"][:, FLIP] * [-1, 1, 1]
    np.testing.assert_allclose(flipped["target_uvd"], mirrored, atol=1e-5)
    box, other = straight["bbox_xywh_px"], flipped["bbox_xywh_px"]
    np.testing.assert_allclose(other[:, 0], 64 - box[:, 0] - box[:, 2], atol=1e-4)
    swapped = [j - 1 for j in FLIP[1:]]
    np.testing.assert_array_equal(
        flipped["target_twist"], straight["target_twist"][:, swapped] * [1, -1]
    )
    np.testing.assert_array_equal(
        flipped["target_twist_weight"], straight["target_twist_weight"][:, swapped]
    )


def test_crop_rotation_leaves_rotations_alone_unless_published():
    straight, _ = labels_of(transform(train=False))
    turned, _ = labels_of(transform("mm", flip=0.0))
    np.testing.assert_array_equal(turned["pose_aa"], straight["pose_aa"])
    published, _ = labels_of(transform("mm", flip=0.0, published=True))
    changed = np.abs(published["pose_aa"] - straight["pose_aa"]).max(-1) > 1e-3
    assert changed[:, 0].any()
    assert not changed[:, 1:].any()


def test_quaternion_forms_are_options():
    for form in ("positive", "rotmat", "axis_angle"):
        labels, _ = labels_of(transform(train=False, quaternion_form=form))
        np.testing.assert_allclose(
            np.linalg.norm(labels["target_quat"], axis=-1), 1, atol=1e-5
        )
        assert form == "axis_angle" or labels["target_quat"][..., 0].min() >= 0


def test_unlabelled_records_have_no_weight_and_finite_labels():
    made = [
        make_record(i)
        | dict.fromkeys(("has_smpl", "has_joints_3d", "has_camera", "has_twist"), 0)
        for i in range(12)
    ]
    labels, _ = labels_of(transform(), records=parsed(made))
    assert all(np.isfinite(v).all() for v in labels.values())
    for name in ("target_quat_weight", "target_shape_weight", "target_twist_weight"):
        assert not labels[name].any(), name
    assert not labels["target_uvd_weight"][..., 2].any()
    assert labels["target_uvd_weight"][..., :2].any()
    assert labels["root_cam_m"][:, 2].min() > 0.5
    outside = (np.abs(labels["target_uvd"][..., :2]) > 0.5).any(-1)
    assert not labels["target_uvd_weight"][outside].any()
    kept, _ = labels_of(transform(keep_outside_2d=True), records=parsed(made))
    assert kept["target_uvd_weight"][..., :2].all()


def marked(index, size, kind):
    """A record whose image is black but for a soft spot on joint 5 or its mirror."""
    record = make_record(index, size=size)
    x, y = record["keypoints_px"][5, :2]
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    width = size[0] / 40
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * width**2))
    record["image"] = encode_image(
        np.repeat((250 * spot)[..., None], 3, -1).astype(np.uint8), kind
    )
    return record


@pytest.mark.parametrize(
    ("size", "kind"), [((64, 64), "PNG"), ((300, 260), "JPEG"), ((301, 261), "PNG")]
)
def test_a_marked_point_lands_where_its_label_says(size, kind):
    made = transform(occlusion=0.0, scale_deviation=0.2)
    records = parsed([marked(i, size, kind) for i in range(8)])
    labels, plan = made.labels(records, uniforms(8, seed=4))
    render = tf.function(made.image)
    mean, deviation = (np.array(v) for v in image.NORMALIZATIONS["imagenet"])
    checked, mirrored = 0, 0
    for i in range(8):
        pixels = render({k: v[i] for k, v in plan.items()}).numpy()
        light = np.clip(pixels * deviation + mean, 0, None).mean(-1)
        light = np.where(light > 0.05 * light.max(), light, 0)
        moved = bool(labels["root_cam_m"][i, 0] * records["joints_cam_m"][i, 0, 0] < 0)
        joint = FLIP[5] if moved else 5
        expected = (labels["target_uvd"][i, joint, :2].numpy() + 0.5) * SIZE
        if np.abs(expected - SIZE / 2).max() > SIZE / 2 - 8:
            continue
        grid = np.mgrid[:SIZE, :SIZE]
        found = np.array([(grid[1] * light).sum(), (grid[0] * light).sum()])
        np.testing.assert_allclose(found / light.sum(), expected, atol=0.5)
        checked, mirrored = checked + 1, mirrored + moved
    assert checked >= 3 and 0 < mirrored < checked


def test_large_jpegs_are_decoded_reduced():
    records = parsed([marked(i, (600, 600), "JPEG") for i in range(2)])
    _, plan = transform(train=False).labels(records, uniforms(2))
    assert plan["halvings"].numpy().min() >= 2
    _, plan = transform(train=False, published=True).labels(records, uniforms(2))
    assert not plan["halvings"].numpy().any()


def covered(canvas, rectangle):
    return image.paint_noise(canvas, tf.constant(rectangle), [1, 2]).numpy()


def test_occlusion_covers_its_rectangle_with_noise():
    canvas = tf.zeros([40, 50, 3], tf.uint8)
    painted = covered(canvas, [5, 10, 20, 15])
    inside = painted[5:25, 10:25]
    assert inside.std() > 60 and abs(inside.mean() - 127.5) < 8
    outside = painted.copy()
    outside[5:25, 10:25] = 0
    assert not outside.any()
    over_the_edge = covered(canvas, [-5, 40, 10, 30])
    assert over_the_edge[:5, 40:].any()
    assert not over_the_edge[5:].any() and not over_the_edge[:, :40].any()
    for rectangle in ([5, 10, 0, 0], [60, 60, 5, 5]):
        assert not covered(canvas, rectangle).any()


def test_occlusion_rectangles_lie_in_the_image():
    _, plan = labels_of(transform(occlusion=1.0))
    rectangle = plan["rectangle"].copy()
    rectangle[:, :2] += plan["window"][:, :2]
    assert rectangle[:, 2:].min() >= 0 and rectangle[:, 2:].max() > 0
    assert (rectangle[:, :2] >= 0).mean() > 0.8
    _, plan = labels_of(transform(occlusion=1.0), people() | {"occlude": tf.zeros(12)})
    assert not plan["rectangle"][:, 2:].any()


def finished(pixels, gain=None, clip=True, **options):
    made = transform(colour=0.0 if gain is None else 0.4, colour_clip=clip, **options)
    return made._finish(tf.constant(pixels), {"gain": gain})


def test_normalizations_and_colour():
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 4, 3)).astype(np.float32)
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (pixels / 255 - mean) / deviation
    for name in ("imagenet", "mm"):
        found = finished(pixels, normalization=name)
        np.testing.assert_allclose(found, expected, atol=2e-3)
    found = finished(pixels, normalization="hybrik")
    expected = (pixels / 255 - (0.406, 0.457, 0.480)) / (0.225, 0.224, 0.229)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    gain = tf.constant([0.5, 1.0, 1.4])
    found = finished(pixels, gain)
    expected = (np.clip(pixels * gain, 0, 255) / 255 - mean) / deviation
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = finished(pixels, gain, clip=False)
    expected = (pixels * gain / 255 - mean) / deviation
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loader": "spin"}, ValueError, "expected one of .*hybrik.*found 'spin'"),
        ({"normalization": "grey"}, ValueError, "normalization: expected one of"),
        ({"quaternion_form": "xyzw"}, ValueError, "quaternion_form: expected one of"),
        ({"image_size_px": 4}, ValueError, "expected 8 or more, found 4"),
        ({"colour_jitter": 4}, TypeError, "colour_jitter"),
    ],
)
def test_wrong_options_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ikol_options(**({"train": True} | arguments))
