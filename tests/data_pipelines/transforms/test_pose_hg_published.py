"""pose_hg's crops and targets against the original's loaders (public vectors)."""

import functools
import importlib.util
import sys

import numpy as np
import pytest
import tensorflow as tf

from data_pipelines import record_fields, schema
from data_pipelines.transforms import crop_labels, geometry, image, pose_hg, window
from hmr_jax.body.joint_sets import map_joints
from tests.data_pipelines.people import encode_image
from tests.data_pipelines.transforms.batches import (
    batch_of,
    normal_cdf,
    rendered,
    uniforms_of,
    vectors,
)

SEED = 11
SETS_2D = ("mpii", "lsp", "flic")
SETS_3D = ("h36m", "mpii3d", "3dpw", "occlusion")
# README_public.txt of the vectors: one grey level of 0.0175 and rounding ties.
INPUT, RELATIVE, AFFINE = 0.03, 1e-4, 1e-4
SPEC = schema.RecordSpec("mpii_16", 16, extras=(record_fields.DEPTH_PX,))


@pytest.fixture(scope="module")
def inputs(parity_dir, recipe):
    path = parity_dir / "pose_hg" / "inputs_posehg3d.py"
    spec = importlib.util.spec_from_file_location("inputs_posehg3d", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["inputs_posehg3d"] = module
    spec.loader.exec_module(module)
    # Some of its functions call their argument by another name than they use.
    module.original = SEED
    return module


@pytest.fixture(scope="module")
def stored(parity_dir):
    return vectors(parity_dir, "pose_hg", "datasets_public.npz")


@pytest.fixture(scope="module")
def functions(parity_dir):
    return vectors(parity_dir, "pose_hg", "image_public.npz")


def record(stored, pictures, name, number):
    """What the originals parsed from the annotations, as a record."""
    key = f"part/{name}/{number}"
    points, centre = stored[f"{key}/pts"], stored[f"{key}/c"].astype(np.float64)
    side = float(stored[f"{key}/s"])
    three = name in SETS_3D
    result = {
        "sample_id": key,
        "image": encode_image(pictures[number][..., ::-1]),
        "image_height": 360,
        "image_width": 480,
        "bbox_xywh_px": [*(centre - side / 2), side, side],
        "keypoints_px": np.column_stack([points[:, :2], (points[:, :2] > 0).any(1)]),
        **dict.fromkeys(("has_smpl", "has_camera", "has_twist", "has_mask"), 0),
        "has_keypoints": 1,
        "has_joints_3d": int(three),
    }
    if three:
        joints = np.zeros((16, 4))
        joints[:, 3] = 1
        index, _ = map_joints("h36m_right_first_17", "h36m_17")
        seventeen = np.column_stack([stored[f"{key}/gt_3d"] / 1000, np.ones(17)])
        result |= {
            "joints_cam_m": joints,
            "joints_h36m_cam_m": seventeen[index],
            "depth_px": points[:, 2],
        }
    return schema.validate(result, SPEC)


@functools.cache
def transform(train, limit_side=True):
    return pose_hg.PoseHgTransform(
        pose_hg.pose_hg_options(train=train, published=True, limit_side=limit_side)
    )


def made_batch(stored, inputs, name, train):
    pictures = inputs.dataset_images(SEED)
    made = transform(train, limit_side=train or name not in ("lsp", "flic"))
    records = [record(stored, pictures, name, i) for i in range(4)]
    draws = uniforms_of(
        pose_hg.SLOTS,
        4,
        scale=normal_cdf(np.array(inputs.AUG_RANDN_SCALE)),
        rotate=np.where(inputs.AUG_USE_ROT, 0.1, 0.9),
        rotation=normal_cdf(np.array(inputs.AUG_RANDN_ROT)),
        flip=np.where(inputs.AUG_FLIP, 0.1, 0.9),
    )
    labels, plan = made.labels(batch_of(records, SPEC, made), draws)
    return {k: v.numpy() for k, v in labels.items()}, rendered(made, plan)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", [*SETS_2D, *SETS_3D])
def test_items(stored, inputs, name, split):
    labels, images = made_batch(stored, inputs, name, split == "train")
    for i, pixels in enumerate(images):
        key = f"{split}/{name}/{i}"
        want = {
            field.removeprefix(f"{key}/"): value
            for field, value in stored.items()
            if field.startswith(f"{key}/")
        }
        found = pixels.transpose(2, 0, 1)[:, ::8, ::8]
        np.testing.assert_allclose(found, want["input_s8"], atol=INPUT, err_msg=key)
        np.testing.assert_array_equal(labels["pts_crop"][i], want["pts_crop"])
        np.testing.assert_allclose(
            labels["side_px"][i], want["scale"][0], rtol=1e-6, err_msg=key
        )
        heat = labels["target_heatmaps"][i].transpose(2, 0, 1)
        np.testing.assert_allclose(
            heat.sum((1, 2)), want["target_sum"], rtol=RELATIVE, atol=1e-5
        )
        peaks = heat.reshape(16, -1).argmax(1)
        np.testing.assert_array_equal(peaks, want["target_argmax"], err_msg=key)
        if "target_s2" in want:
            np.testing.assert_allclose(heat[:, ::2, ::2], want["target_s2"], atol=1e-6)
        if name not in SETS_3D:
            continue
        check_depths(labels, want, i)


def check_depths(labels, want, i):
    np.testing.assert_allclose(
        labels["reg_target"][i], want["reg_target"], rtol=RELATIVE, atol=1e-6
    )
    np.testing.assert_array_equal(labels["reg_mask"][i], want["reg_mask"])
    np.testing.assert_array_equal(labels["reg_ind"][i], want["reg_ind"])
    index, _ = map_joints("h36m_17", "h36m_right_first_17")
    found = labels["joints_h36m_cam_m"][i, index, :3] * 1000
    np.testing.assert_allclose(found, want["gt_3d"], rtol=RELATIVE, atol=1e-3)


def test_fused_items(stored, inputs):
    labels, _ = made_batch(stored, inputs, "mpii", True)
    total, three, two = stored["fusion_len"]
    assert total == three + two
    for i in range(4):
        for field in ("reg_target", "reg_ind", "reg_mask", "pts_crop"):
            expected = stored[f"fusion/{i}/{field}"]
            np.testing.assert_array_equal(labels[field][i], expected, err_msg=field)


def test_affines(functions, inputs):
    points = inputs.points(SEED)
    for i, case in enumerate(inputs.affine_cases(SEED)):
        side = float(np.atleast_1d(case["scale"])[0])
        width, height = case["output_size"]
        centre = (
            np.float64(case["center"]) + np.atleast_1d(case["scale"]) * case["shift"]
        )
        affine = geometry.crop_affine(
            tf.constant(centre),
            tf.constant([side, side * height / width], tf.float64),
            tf.constant(np.deg2rad(case["rot"])),
            (width, height),
        )
        affine = geometry.invert_affine(affine) if case["inv"] else affine
        np.testing.assert_allclose(affine, functions[f"affine{i}"], atol=AFFINE)
        found = geometry.apply_affine(affine, tf.constant(points))
        np.testing.assert_allclose(found, functions[f"affine{i}_pts"], atol=4 * AFFINE)


def test_crops(functions, inputs):
    for i, (picture, centre, side, size, turn) in enumerate(inputs.crop_cases(SEED)):
        height, width = picture.shape[:2]
        widths = tf.constant([float(width)])
        placement = crop_labels.place(
            tf.constant(centre[None]),
            tf.constant([side]),
            rotation_rad=tf.constant([np.deg2rad(turn)], tf.float32),
            flip=tf.constant([False]),
            width=widths,
            size_px=tuple(size),
        )
        encoded = tf.constant([encode_image(picture)])
        sizes = tf.constant([float(height)]), widths
        plan = window.pixel_plan(
            encoded, sizes, placement, tuple(size), reduce_jpeg=True
        )
        one = {name: value[0] for name, value in plan.items()}
        pixels = image.decode_window(one["image"], one["window"], one["halvings"])
        sample = image.Sampler(tuple(size), lambda crop, _: tf.floor(crop + 0.5))
        found = sample(pixels, {"warp": one["warp"]}).numpy()
        assert np.abs(found - functions[f"crop{i}"]).max() <= 1


def drawn(points, size=(64, 64), sigma=2.0):
    # Whole numbers reach the function; those of the loaders do.
    place = np.trunc(np.array(points) + 0.5).astype(np.int32)
    place = np.where(np.array(points) < -0.5, place - 1, place)[None]
    every = tf.fill(place.shape[:2], True)
    maps = pose_hg.heatmaps(tf.constant(place), every, size, sigma)
    return maps[0].numpy().transpose(2, 0, 1)


def test_heatmaps(functions, inputs):
    found = drawn(inputs.GAUSS_CENTERS)
    np.testing.assert_allclose(found, functions["gauss"], atol=1e-6)
    found = drawn([(47, 63), (50, 10), (20, 66), (5, 5)], (48, 64))
    np.testing.assert_allclose(found, functions["gauss_rect"], atol=1e-6)
    found = drawn([(12, 40)], sigma=1.0)[0]
    np.testing.assert_allclose(found, functions["gauss_sigma1"], atol=1e-6)
    found = drawn([(30, 30), (33, 31)]).max(0)
    np.testing.assert_allclose(found, functions["gauss_two_max"], atol=1e-6)


def test_aspects(functions):
    cases = [
        ([100, 100], 1, False),
        ([100, 200], 1, False),
        ([100, 200], 1, True),
        ([100, 200], 0.75, False),
        ([300, 200], 0.75, True),
        ([300, 200], 0.75, False),
    ]
    for i, (box, aspect, short) in enumerate(cases):
        found = pose_hg.fit_aspect(
            tf.constant(box, tf.float64), aspect, short_side=short
        )
        np.testing.assert_allclose(found, functions[f"aspect{i}"])


def test_similarity_scales(functions, inputs):
    for i, (target, source, scaled) in enumerate(inputs.similarity_cases(SEED)):
        if scaled and target.shape[1] == 2:
            scale = geometry.similarity_scale(source, target, tf.ones(16, tf.float64))
            np.testing.assert_allclose(scale, functions[f"sim{i}_b"], rtol=1e-9)
