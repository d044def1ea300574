"""Crops against stored values of two conventions, and the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.geometry import crops
from hmr_jax.geometry.rotations import quaternion_to_matrix, rot6d_columns_to_matrix
from tests.systems.hierprob.inputs import SEED, load_inputs, load_vectors


@pytest.fixture(scope="module")
def inputs(parity_dir, recipe):
    return load_inputs(parity_dir, recipe)


@pytest.fixture(scope="module")
def stored(parity_dir):
    return load_vectors(parity_dir, "geom")


@pytest.fixture(scope="module")
def pictures(inputs):
    raw = inputs.image("crop", SEED, 2, 96, 72)
    return jnp.asarray(raw.transpose(0, 2, 3, 1).astype(np.float32))


def nchw(images):
    return np.moveaxis(np.asarray(images), -1, 1)


def box(x, y, width, height):
    return crops.Box(jnp.array([[x, y]], float), jnp.array([[width, height]], float))


def test_crops_around_masks(stored, inputs, pictures):
    labels = jnp.asarray(stored["crop_seg_in"].astype(np.float32))
    found = crops.fit_box(crops.box_of_mask(labels != 0), 64, 64, 1.2)
    crop = jax.jit(lambda x, b: crops.crop_images(x, b, 64, 64))
    rgb = nchw(crop(pictures / 255, found))
    np.testing.assert_allclose(rgb, stored["crop_rgb"], rtol=0, atol=3e-5)
    parts = crops.crop_images(
        labels[..., None], found, 64, 64, sampling="nearest", fill=-1.0
    )
    np.testing.assert_array_equal(parts[..., 0], stored["crop_iuv0"])
    joints = jnp.asarray(inputs.joints2d("crop", SEED, 2, 72))
    moved = crops.crop_points(joints, found, 64, 64)
    np.testing.assert_allclose(moved, stored["crop_joints2d"], rtol=0, atol=1e-4)
    back = crops.uncrop_points(moved, found, 64, 64)
    np.testing.assert_allclose(back, joints, rtol=0, atol=1e-4)


def test_a_crop_of_another_aspect(stored, pictures):
    fitted = crops.fit_box(box(30, 40, 60, 50), 64, 48, 1.2)
    found = crops.crop_images(pictures[:1] / 255, fitted, 64, 48)
    np.testing.assert_allclose(nchw(found), stored["crop2_rgb"], rtol=0, atol=3e-5)


def test_crops_of_points_and_their_inverse(stored, inputs, pictures):
    """The crops of OpenCV, on the scale of 0 to 255."""
    fitted = crops.fit_box(box(30, 40, 50, 50), 64, 64, 1.2)
    found = crops.crop_images(pictures[:1], fitted, 64, 64, convention="point")
    np.testing.assert_allclose(nchw(found), stored["cvcrop_rgb"], rtol=0, atol=5e-3)
    joints = jnp.asarray(inputs.joints2d("crop", SEED, 2, 72)[:1])
    moved = crops.crop_points(joints, fitted, 64, 64)
    np.testing.assert_allclose(moved, stored["cvcrop_joints2d"], rtol=0, atol=1e-4)
    labels = jnp.asarray(stored["crop_seg_in"][:1, ..., None].astype(np.float32))
    parts = crops.crop_images(
        labels, fitted, 64, 64, convention="point", sampling="nearest"
    )
    assert np.mean(np.asarray(parts[..., 0]) == stored["cvcrop_seg"]) >= 0.97
    back = crops.uncrop_images(found, box(30, 40, 60, 60), 96, 72, convention="point")
    np.testing.assert_allclose(nchw(back), stored["cvuncrop_rgb"], rtol=0, atol=5e-3)


def test_rotations(stored):
    for name, convert in (
        ("rot6d", rot6d_columns_to_matrix),
        ("quat", quaternion_to_matrix),
    ):
        found = convert(jnp.asarray(stored[f"{name}_in"]))
        np.testing.assert_allclose(found, stored[f"{name}_rotmat"], rtol=0, atol=1e-6)
    three = rot6d_columns_to_matrix(jnp.asarray(stored["rot6d_batch3_in"]))
    expected = stored["rot6d_batch3_rotmat_rowwise"]
    np.testing.assert_allclose(three, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("convention", ["area", "point"])
def test_the_whole_picture_comes_back(convention):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((2, 6, 8, 3), np.float32))
    whole = crops.box_of_image(6, 8, (2,))
    same = crops.crop_images(images, whole, 6, 8, convention=convention)
    np.testing.assert_allclose(same, images, atol=1e-6)
    twice = crops.Box(whole.centre_px, 2 * whole.size_px)
    wide = crops.crop_images(images, twice, 12, 16, convention=convention, fill=7.0)
    np.testing.assert_allclose(wide[:, 3:9, 4:12], images, atol=1e-6)
    assert np.count_nonzero(wide == 7.0) == 2 * 3 * (12 * 16 - 6 * 8)
    back = crops.uncrop_images(wide, twice, 6, 8, convention=convention)
    np.testing.assert_allclose(back, images, atol=1e-6)


def test_masks_that_are_empty_and_boxes_without_size():
    mask = jnp.zeros((2, 8, 10), bool).at[1, 2:5, 3].set(True)
    found = crops.box_of_mask(mask)
    np.testing.assert_array_equal(found.centre_px, [[5, 4], [3, 3]])
    np.testing.assert_array_equal(found.size_px, [[10, 8], [0, 2]])
    corner = crops.box_of_corners(jnp.array([2.0, 3.0, 2.0, 3.0]))
    fitted = crops.fit_box(corner, 32, 16, 1.5)
    np.testing.assert_allclose(fitted.size_px, [1.5, 3.0])
