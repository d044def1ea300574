"""I2L-MeshNet's crops and targets against its own loaders (public vectors)."""

import functools
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf

from data_pipelines.builders import catalog, layouts, record_source
from data_pipelines.transforms import crop_labels, geometry, i2l, image, window
from hmr_jax.body.model import BodyModel
from hmr_jax.systems.i2l_meshnet.targets import i2l_targets
from tests.data_pipelines.transforms.batches import (
    batch_of,
    normal_cdf,
    numpy,
    rendered,
    uniforms_of,
    vectors,
)

BUILDS = {
    "Human36M": ("h36m_i2l", "Human36M", {"rootnet": True}),
    "MuCo": ("muco_3dhp", "MuCo", {}),
    "MSCOCO": ("coco", "MSCOCO", {"people": "i2l", "fits": True, "pelvis": True}),
    "FreiHAND": ("freihand", "FreiHAND", {"layout": "i2l", "rootnet": True}),
    "PW3D": ("pw3d_i2l", "PW3D", {"rootnet": True}),
}
TESTED = ("Human36M", "PW3D", "FreiHAND")
# README_public.txt of the vectors: heatmap cells, metres, radians, grey levels / 255.
CELLS, METRES, RADIANS, GREY = 5e-4, 1e-5, 1e-5, 1e-4
CROP_GREY = 0.02
# 5e-5 there, but the original solves its maps from points rounded to float32: the exact
# ones, in float64, are 7.6e-5 away.
AFFINE = 1e-4


@pytest.fixture(scope="module")
def folder(parity_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("minidata")
    packed = parity_dir / "i2l_meshnet" / "minidata_public.zip"
    with zipfile.ZipFile(packed) as file:
        file.extractall(path)
    return path / "data"


@pytest.fixture(scope="module")
def stored(parity_dir):
    arrays = {}
    for kind in ("smpl", "mano"):
        arrays |= vectors(parity_dir, "i2l_meshnet", f"datasets_{kind}_public.npz")
    return arrays


@pytest.fixture(scope="module")
def preproc(parity_dir):
    return vectors(parity_dir, "i2l_meshnet", "preproc_public.npz")


@functools.cache
def _body(recipe, hand: bool) -> BodyModel:
    arrays = recipe.mano_like(0) if hand else recipe.smpl_like(0)
    parents = recipe.MANO_PARENTS if hand else recipe.SMPL_PARENTS
    regressors = {}
    if not hand:
        regressors = {
            "h36m_right_first_17": recipe.h36m_regressor(0),
            "coco_17": recipe.h36m_regressor(100),
        }
    return BodyModel.create(
        template_m=arrays["v_template"],
        shape_dirs_m=arrays["shapedirs"],
        pose_dirs_m=arrays["posedirs"],
        joint_regressor=arrays["J_regressor"],
        skin_weights=arrays["weights"],
        faces=arrays["f"],
        parents=tuple(int(p) for p in parents),
        hand_mean=arrays.get("hands_mean"),
        extra_joint_regressors=regressors,
    )


def opened(folder, name, split):
    builder, sub, options = BUILDS[name]
    dataset = catalog.load(layouts.choose(builder))(str(folder / sub), **options)
    split = "eval" if (name, split) == ("FreiHAND", "test") else split
    return dataset, list(
        record_source.checked_examples(dataset, split, dataset.keys(split))
    )


def chosen(numbers, hand):
    """Augmentations 0 and 1 of README_public.txt as uniforms."""
    turned = np.asarray(numbers)
    colours = np.where(turned[:, None], [0.9, 1.1, 1.03], 1.0)
    return uniforms_of(
        i2l.SLOTS,
        len(turned),
        scale=normal_cdf(turned * 0.17 / 0.25),
        rotate=np.where(turned, 0.1, 0.9),
        rotation=normal_cdf(turned * -23.5 / 30),
        colour=(colours - 0.8) / 0.4,
        flip=np.where(turned, 0.9 if hand else 0.1, 0.9),
    )


@functools.cache
def transform(hand):
    return i2l.I2lTransform(i2l.i2l_options("hand" if hand else "body", train=True))


@functools.cache
def compiled(hand):
    made = functools.partial(
        i2l_targets,
        hand=hand,
        depth_range_m=0.3 if hand else 2.0,
        published_pelvis=True,
    )
    return jax.jit(made)


def made_batch(recipe, folder, name):
    """Every sample plain, then every sample augmented."""
    hand = name == "FreiHAND"
    dataset, records = opened(folder, name, "train")
    made, count = transform(hand), len(records)
    batch = batch_of(records * 2, dataset.spec, made)
    labels, plan = made.labels(batch, chosen([0] * count + [1] * count, hand))
    # Filled up to one size, so that the body is compiled once.
    rows = np.arange(10) % (2 * count)
    inputs = {k: jnp.asarray(v.numpy()[rows]) for k, v in labels.items()}
    targets = compiled(hand)(_body(recipe, hand), inputs)
    return count, numpy(labels) | numpy(targets), rendered(made, plan)


def close(found, expected, limit, what):
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit, err_msg=what)


@pytest.mark.parametrize("name", ["Human36M", "MuCo", "MSCOCO", "FreiHAND"])
def test_training_samples(recipe, folder, stored, name):
    count, made, images = made_batch(recipe, folder, name)
    unit = 1000 if name == "FreiHAND" else 1
    for i, pixels in enumerate(images):
        key = f"{name}.train.{i % count}.aug{i // count}"

        def want(field, key=key):
            return stored[f"{key}.{field}"]

        close(pixels.transpose(2, 0, 1)[:, ::4, ::4], want("img"), GREY, key)
        for field in ("orig_joint_valid", "orig_joint_trunc"):
            np.testing.assert_array_equal(made[field][i], want(field), err_msg=key)
        valid = want("orig_joint_valid")
        found = made["orig_joint_img"][i] * valid
        close(found, want("orig_joint_img") * valid, CELLS, key)
        close(made["orig_joint_cam_m"][i], want("orig_joint_cam"), METRES, key)
        assert made["is_valid_fit"][i, 0] == want("is_valid_fit"), key
        assert made["is_3d"][i, 0] == want("is_3D"), key
        if f"{key}.fitting_error" in stored:
            error = made["fitting_error"][i]
            np.testing.assert_allclose(error, want("fitting_error"), rtol=1e-3)
        close(made["fit_joint_img"][i], want("fit_joint_img"), CELLS, key)
        close(made["fit_mesh_img"][i, ::20], want("fit_mesh_img"), CELLS, key)
        close(
            made["fit_joint_cam_m"][i] * unit, want("fit_joint_cam"), METRES * unit, key
        )
        for field, step in (("fit_joint_trunc", 1), ("fit_mesh_trunc", 20)):
            np.testing.assert_array_equal(made[field][i, ::step], want(field))
        if made["has_smpl"][i, 0]:
            close(made["pose_param"][i], want("pose_param"), RADIANS, key)
        close(made["shape_param"][i], want("shape_param"), 1e-6, key)


@pytest.mark.parametrize("name", TESTED)
def test_test_samples(folder, stored, name):
    dataset, records = opened(folder, name, "test")
    mode = "hand" if name == "FreiHAND" else "body"
    made = i2l.I2lTransform(i2l.i2l_options(mode, train=False))
    batch = batch_of(records, dataset.spec, made)
    labels, plan = made.labels(batch, uniforms_of(i2l.SLOTS, len(records)))
    for i, pixels in enumerate(rendered(made, plan)):
        key = f"{name}.test.{i}.aug0"
        found = pixels.transpose(2, 0, 1)[:, ::4, ::4]
        close(found, stored[f"{key}.img"], GREY, key)
        affine = labels["crop_to_image"][i].numpy()
        close(affine, stored[f"{key}.bb2img_trans"], 5e-4, key)


def test_boxes(preproc):
    boxes = tf.constant(preproc["process_bbox_in"])
    width = tf.fill([len(boxes)], tf.constant(250.0, tf.float64))
    centre, side = i2l.process_box(boxes, width, width - 70, 1.25)
    found = np.concatenate(
        [centre.numpy() - side.numpy()[:, None] / 2, np.repeat(side[:, None], 2, 1)], 1
    )
    accepted = preproc["process_bbox_ok"] & (preproc["process_bbox_out"][:, 2] > 1)
    assert accepted.sum() > 10
    close(found[accepted], preproc["process_bbox_out"][accepted], 1e-3, "boxes")


def test_crops(preproc):
    picture = preproc["source_image"]
    height, width = picture.shape[:2]
    encoded = tf.io.encode_png(picture).numpy()
    boxes = preproc["crop_boxes"].astype(np.float32)
    count = len(boxes)
    widths = tf.fill([count], float(width))
    scale = tf.constant(preproc["crop_scale"], tf.float32)
    placement = crop_labels.place(
        tf.constant(boxes[:, :2] + boxes[:, 2:] / 2),
        boxes[:, 2:] * scale[:, None],
        rotation_rad=tf.constant(np.deg2rad(preproc["crop_rot"]), tf.float32),
        flip=tf.constant(preproc["crop_flip"]),
        width=widths,
        size_px=256,
    )
    affine = placement.mirrored_to_crop
    close(affine, preproc["crop_trans"], AFFINE, "affine")
    inverse = geometry.invert_affine(affine)
    close(inverse, preproc["crop_inv_trans"], AFFINE, "inverse")
    plan = window.pixel_plan(
        tf.fill([count], encoded),
        (tf.fill([count], float(height)), widths),
        placement,
        256,
        reduce_jpeg=True,
    )
    sample = image.Sampler((256, 256), lambda pixels, plan: pixels)
    for i in range(count):
        one = {name: value[i] for name, value in plan.items()}
        pixels = image.decode_window(one["image"], one["window"], one["halvings"])
        found = sample(pixels, {"warp": one["warp"]})
        close(found[::2, ::2], preproc["crops_s"][i], CROP_GREY, f"crop {i}")


def test_augmentation_statistics(preproc):
    count = 20000
    rng = np.random.default_rng(0)
    draws = tf.constant(rng.uniform(size=(count, i2l.SLOTS.num_uniforms)), tf.float32)
    made = i2l.I2lTransform(i2l.i2l_options(train=True))
    box = tf.tile([[100.0, 100.0, 101.0, 101.0]], [count, 1])
    r = {"bbox_xywh_px": box, "box_is_crop": tf.ones([count])}
    r |= {name: tf.fill([count], 400.0) for name in ("image_width", "image_height")}
    placement = i2l._placement(r, i2l.SLOTS.split(draws), made.options)
    linear = placement.mirrored_to_crop.numpy()[:, :, :2]
    scale = 256 / 101 / np.sqrt(np.linalg.det(linear))
    turn = np.rad2deg(placement.turn_rad.numpy())
    flip = placement.flip.numpy()
    turned = np.abs(turn) > 1e-6
    found = [
        *(scale.mean(), scale.std(), (np.abs(scale - 1) > 0.2499).mean()),
        *(1 - turned.mean(), turn[turned].std(), (np.abs(turn) > 59.99).mean()),
        flip.mean(),
    ]
    expected = np.delete(preproc["aug_stats"], 6)
    # Of 20,000 draws either side: some 0.5 % of the largest.
    np.testing.assert_allclose(found[:4], expected[:4], atol=0.012)
    np.testing.assert_allclose(found[4], expected[4], rtol=0.02)
    np.testing.assert_allclose(found[5:], expected[5:], atol=0.012)
