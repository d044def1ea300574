"""INT's crops, colours and flips against the original's own (public vectors)."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance

from data_pipelines import schema
from data_pipelines.transforms import colour, crop_labels, int_hmr
from data_pipelines.transforms.image import NORMALIZATIONS
from tests.data_pipelines.people import encode_image
from tests.data_pipelines.transforms.batches import (
    batch_of,
    rendered,
    uniforms_of,
    vectors,
)

# README_public.txt of the vectors: two grey levels; points are float32.
GREY, POINTS_PX, METRES = 2, 1e-3, 1e-5
WHOLE = {"size_jitter": 0.0, "random_crop": 0.0, "flip": 0.0}


@pytest.fixture(scope="module")
def stored(parity_dir):
    return vectors(parity_dir, "int_hmr", "int_data_public.npz")


def waves(height, width):
    """The picture of README_public.txt."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [
            np.clip(
                np.rint(
                    127.5
                    + 120 * np.sin(x / (11 + 5 * k) + k) * np.cos(y / (17 - 3 * k) - k)
                ),
                *(0, 255),
            )
            for k in range(3)
        ],
        axis=-1,
    ).astype(np.uint8)


def transform(**options):
    chosen = int_hmr.int_options(1, clips=False, train=False, published=True)
    return int_hmr.IntTransform(
        int_hmr.IntOptions(**{**vars(chosen), "box_scale": 1.3, **options})
    )


def record(stored, picture):
    x, y, w, h = stored["in_crop_bbox"]
    return {
        "sample_id": "a",
        "image": encode_image(picture),
        "image_height": picture.shape[0],
        "image_width": picture.shape[1],
        "bbox_xywh_px": [x - w / 2, y - h / 2, w, h],
        "keypoints_px": stored["in_crop_kp"],
        "has_keypoints": 1,
        **dict.fromkeys(("has_smpl", "has_joints_3d", "has_camera"), 0),
        **dict.fromkeys(("has_twist", "has_mask"), 0),
    }


def test_crops(stored):
    spec = schema.RecordSpec("spin_49", 49)
    records = [schema.validate(record(stored, waves(300, 400)), spec)]
    mean, deviation = (np.array(v) for v in NORMALIZATIONS["imagenet"])
    for case, (scale, turn, *shift) in enumerate(stored["in_crop_cases"]):
        # Any scale is a random crop of a box that is cut out that much.
        made = transform(random_crop=1.0, random_crop_size=1.29, rotation_deg=60.0)
        reach = 1.3 - scale
        draws = uniforms_of(
            int_hmr.SLOTS,
            1,
            random_crop=0.0 if reach > 1e-6 else 1.0,
            crop_scale=(scale - 0.01) / 1.29,
            shift=[s / reach + 0.5 if reach > 1e-6 else 0.5 for s in shift],
            rotation=(turn + 60) / 120,
        )
        if reach < -1e-6:
            made = transform(box_scale=float(scale), rotation_deg=60.0)
        labels, plan = made.labels(batch_of(records, spec, made), draws)
        affine = np.linalg.inv(np.vstack([labels["crop_to_image"][0], [0, 0, 1]]))
        expected = stored[f"crop{case}_affine"]
        np.testing.assert_allclose(affine[:2], expected, atol=POINTS_PX)
        keypoints = labels["keypoints_norm"][0].numpy()
        keypoints[:, :2] = (keypoints[:, :2] + 1) * 112
        expected = stored[f"crop{case}_kp"]
        np.testing.assert_allclose(keypoints, expected, atol=POINTS_PX)
        pixels = rendered(made, plan)[0]
        grey = (pixels * deviation + mean) * 255
        expected = stored[f"crop{case}_image_sub"]
        np.testing.assert_allclose(grey[::4, ::4], expected, atol=GREY + 0.01)
        if case == 3:
            expected = stored["norm_image_sub"].transpose(1, 2, 0)
            limit = GREY / 255 / 0.224 + 1e-4
            np.testing.assert_allclose(pixels[::8, ::8], expected, atol=limit)
            expected = stored["norm_kp"]
            np.testing.assert_allclose(labels["keypoints_norm"][0], expected, atol=1e-5)


def flipped_placement(count, size=224):
    width = tf.fill([count], float(size))
    centre = tf.fill([count, 2], size / 2)
    return crop_labels.place_then_flip(
        centre,
        width,
        rotation_rad=tf.zeros([count]),
        flip=tf.fill([count], True),
        width=width,
        size_px=size,
    )


def test_flips(stored):
    placement = flipped_placement(3)
    found = crop_labels.points_px(stored["in_kp2d"], placement, int_hmr.SPIN_FLIP)
    np.testing.assert_allclose(found, stored["kp2d_hflip_224"], atol=POINTS_PX)
    joints = tf.constant(stored["in_kp3d"])
    found = int_hmr.mirrored_about_hips(joints, placement)
    np.testing.assert_allclose(found, stored["kp3d_hflip"], atol=METRES)
    pose = tf.constant(stored["in_pose"].reshape(3, 24, 3))
    options = transform().options
    found = int_hmr.mirrored_pose(pose, placement, options)
    expected = stored["pose_hflip_original"].reshape(3, 24, 3)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "change", "amount"),
    [
        ("color_brightness_1.2", colour.brightness, 1.2),
        ("color_contrast_0.8", colour.contrast, 0.8),
        ("color_saturation_1.25", colour.saturation, 1.25),
        ("color_hue_-0.2", colour.shift_hue, -0.2),
    ],
)
def test_colours(stored, name, change, amount):
    picture = tf.constant(stored["in_color_image"], tf.float32)
    found = change(picture, tf.constant(amount))
    assert np.abs(found - stored[name]).max() <= GREY
    assert (found.numpy() == stored[name]).mean() > 0.99


@pytest.mark.parametrize("factor", [0.0, 0.7, 1.0, 1.3])
def test_colours_are_pillows(factor):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels, image = tf.constant(picture, tf.float32), Image.fromarray(picture)
    pairs = [
        (colour.brightness, ImageEnhance.Brightness),
        (colour.contrast, ImageEnhance.Contrast),
        (colour.saturation, ImageEnhance.Color),
    ]
    for change, library in pairs:
        found = tf.function(change, jit_compile=True)(pixels, tf.constant(factor))
        expected = np.asarray(library(image).enhance(factor))
        assert np.abs(found.numpy() - expected).max() <= 1
    hue = np.array(image.convert("HSV"))
    hue[..., 0] += np.uint8(int((factor / 2 - 0.3) * 255) % 256)
    expected = np.asarray(Image.fromarray(hue, "HSV").convert("RGB"))
    found = colour.shift_hue(pixels, tf.constant(factor / 2 - 0.3)).numpy()
    assert (found == expected).mean() > 0.995


def test_jitter_applies_the_four_in_their_order():
    rng = np.random.default_rng(0)
    pixels = tf.constant(rng.integers(0, 256, (8, 8, 3)), tf.float32)
    amounts, order = tf.constant([0.8, 1.2, 0.7, 0.1]), tf.constant([2, 0, 3, 1])
    found = colour.jitter(pixels, amounts, order)
    expected = colour.brightness(colour.saturation(pixels, 0.7), 0.8)
    expected = colour.contrast(colour.shift_hue(expected, 0.1), 1.2)
    # Compiled or not, products just at a whole number may fall on either side.
    assert np.abs(found - expected).max() <= 2 and np.mean(found == expected) > 0.9


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_erased_sides(stored, side):
    picture = tf.constant(waves(64, 64), tf.float32)
    number = ("left", "right", "top", "bottom").index(side)
    lines = tf.constant(int(64 * 0.37))
    kept = {"left": 2, "right": 3, "top": 2, "bottom": 3}[side]
    published = int_hmr.erase(picture, int_hmr.kept_part(tf.constant(kept), lines, 64))
    np.testing.assert_array_equal(published, stored[f"erase_{side}_0.37"])
    found = int_hmr.erase(
        picture, int_hmr.kept_part(tf.constant(number), lines, 64)
    ).numpy()
    turned = np.rot90(found, {"left": -1, "right": 1, "top": 0, "bottom": 2}[side])
    assert not turned[:23].any() and (turned[23:] > 0).any(-1).mean() > 0.9


def test_erasing_while_sampling_is_erasing_afterwards(stored):
    spec = schema.RecordSpec("spin_49", 49)
    records = [schema.validate(record(stored, waves(300, 400)), spec)]
    made = transform(erase=1.0)
    coloured = transform(erase=1.0, colour_jitter=0.3)
    for side in (0.1, 0.3, 0.6, 0.9):
        draws = uniforms_of(int_hmr.SLOTS, 1, side=side, erase_ratio=0.5)
        _, plan = made.labels(batch_of(records, spec, made), draws)
        found = rendered(made, plan)[0]
        expected = rendered(coloured, plan)[0]
        np.testing.assert_allclose(found, expected, atol=0.02)
        black = -np.array(NORMALIZATIONS["imagenet"][0]) / NORMALIZATIONS["imagenet"][1]
        share = (np.abs(found - black) < 1e-4).all(-1).mean()
        assert 0.3 < share < 0.6
