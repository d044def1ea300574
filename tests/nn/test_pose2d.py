"""Crops for the 2D pose network, and the joints' way back to the picture."""

import jax
import jax.numpy as jnp
import numpy as np

from hmr_jax.geometry.crops import Box, box_of_image
from hmr_jax.nn import pose2d


def bright_dot(crops):
    """Stands for a network: 'heatmaps' are every fourth pixel of the crop."""
    red = crops[:, 1::4, 1::4, :1]
    return {"heatmaps": jnp.concatenate([red, -jnp.ones_like(red)], -1)}


def test_joints_return_to_the_picture():
    y, x = np.mgrid[:120, :160]
    dots = [(60.0, 70.0), (100.0, 30.0)]
    images = np.stack([np.exp(-((x - u) ** 2 + (y - v) ** 2) / 200) for u, v in dots])
    images = jnp.asarray(np.repeat(images[..., None], 3, -1), jnp.float32)
    boxes = Box(
        jnp.array([[62.0, 66.0], [95.0, 40.0]]), jnp.array([[60.0, 80.0], [50.0, 30.0]])
    )
    find = jax.jit(lambda x, b: pose2d.detect_joints(bright_dot, x, b, threshold=0.5))
    out = find(images, boxes)
    # within the pixels of the picture that a step of four crop pixels covers
    np.testing.assert_allclose(out["joints_px"][:, 0], dots, atol=1.5)
    np.testing.assert_array_equal(out["crop_joints_px"][:, 1], 0)
    assert (np.asarray(out["confidence"])[:, 1] < 0).all()
    assert out["proxy_images"].shape == (2, 256, 256, 3)
    joints = out["crop_joints_px"] * 2 / 3 + jnp.array([[[32.0, 0.0]]])
    np.testing.assert_allclose(out["proxy_joints_px"], joints, atol=1e-4)


def test_a_box_that_is_not_finite_is_the_whole_picture():
    images = jnp.ones((2, 30, 20, 3))
    whole = box_of_image(30, 20, (2,))
    broken = Box(
        whole.centre_px.at[0, 1].set(jnp.nan), whole.size_px.at[1, 0].set(jnp.inf)
    )
    expected, shown = pose2d.person_crops(images, whole)
    found, same = pose2d.person_crops(images, broken)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(same.size_px, shown.size_px)
    # black where the margin leaves the picture
    assert expected[0, 0, 0, 0] == 0
    assert expected[0, 192, 144, 0] == 1
