"""Cameras and masks from 2D keypoints, against least squares and cells by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.geometry import keypoints

FOCAL, CENTRE = 5000.0, (112.0, 112.0)


def least_squares(points, pixels, weight):
    """Two rows a point, each times the root of its weight; solved by numpy."""
    rows, right = [], []
    for point, pixel, w in zip(points, pixels, weight, strict=True):
        for axis in (0, 1):
            row = np.zeros(3)
            offset = pixel[axis] - CENTRE[axis]
            row[axis], row[2] = FOCAL, -offset
            rows.append(np.sqrt(w) * row)
            right.append(np.sqrt(w) * (offset * point[2] - FOCAL * point[axis]))
    return np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0]


def seen(rng, noise_px):
    points = rng.normal(0, 0.4, (3, 24, 3))
    true = np.array([0.1, -0.2, 40.0]) + rng.normal(0, 0.1, (3, 3))
    places = points + true[:, None]
    pixels = FOCAL * places[..., :2] / places[..., 2:] + np.array(CENTRE)
    weight = rng.uniform(0, 1, (3, 24)) * (rng.uniform(size=(3, 24)) < 0.8)
    return points, pixels + noise_px * rng.standard_normal(pixels.shape), weight, true


@pytest.mark.parametrize("noise_px", [0.0, 3.0])
def test_translation_is_that_of_weighted_least_squares(rng, noise_px):
    points, pixels, weight, true = seen(rng, noise_px)
    expected = [least_squares(*a) for a in zip(points, pixels, weight, strict=True)]
    with jax.enable_x64(True):
        centre = jnp.broadcast_to(jnp.array(CENTRE), (3, 2))
        found = keypoints.translation_from_keypoints(
            *map(jnp.asarray, (points, pixels, weight)), FOCAL, centre
        )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    if not noise_px:
        np.testing.assert_allclose(found, true, rtol=1e-9)
    single = [jnp.asarray(a, jnp.float32) for a in (points, pixels, weight, centre)]
    found = keypoints.translation_from_keypoints(*single[:3], FOCAL, single[3])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_translation_without_points_is_zero_with_finite_gradients(rng):
    points, pixels, weight, _ = seen(rng, 1.0)
    one = np.zeros(24)
    one[3] = 1.0
    same = np.tile(pixels[0, :1], (24, 1))
    for places, weights in (
        *((pixels[0], np.zeros(24)), (pixels[0], one)),
        *((same, weight[0]), (same, np.ones(24))),
    ):
        given = [jnp.asarray(a, jnp.float32) for a in (points[0], places, weights)]

        def total(given):
            centre = jnp.array(CENTRE, jnp.float32)
            return keypoints.translation_from_keypoints(*given, FOCAL, centre).sum()

        value, gradient = jax.value_and_grad(total)(given)
        assert value == 0
        assert all(np.isfinite(g).all() for g in gradient)


def test_camera_of_the_whole_image_projects_to_the_same_pixels(rng):
    """X in the crop is s (x + t) in half crops about the box's centre."""
    points = rng.normal(0, 1, (5, 2))
    scale, moved = rng.uniform(0.5, 1.5, 5), rng.normal(0, 0.2, (5, 2))
    centre, size = rng.uniform(100, 900, (5, 2)), rng.uniform(50, 300, (5, 2))
    image = np.array([1920.0, 1080.0])
    expected = centre + size / 2 * scale[:, None] * (points + moved)
    given = [jnp.asarray(a, jnp.float32) for a in (scale, moved, centre, size)]
    whole = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (5, 2))
    scales, translation = keypoints.crop_camera_to_image(*given, whole)
    found = image / 2 * (1 + np.asarray(scales) * (points + np.asarray(translation)))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_camera_of_the_published_vectors():
    """``orig_cam_1920x1080`` of the public vectors, for both of its boxes."""
    arrays = [
        *([0.9, 1.1], [[0.1, -0.1], [0.0, 0.2]]),
        *([[400, 300], [100, 500]], [[200, 200], [150, 150]], [[1920, 1080]] * 2),
    ]
    given = [jnp.asarray(a, jnp.float32) for a in arrays]
    found = jnp.concatenate(keypoints.crop_camera_to_image(*given), -1)
    expected = [
        [0.09374999, 0.16666666, -6.1222224, -2.7666667],
        [0.0859375, 0.15277779, -10.424242, -0.28484845],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_keypoint_mask_of_the_published_vectors(parity_dir):
    stored = np.load(parity_dir / "int_hmr" / "int_data_public.npz")
    points = jnp.asarray(stored["in_kp2d"][0, :, :2])
    found = keypoints.keypoint_mask(points, 224.0, 56)
    np.testing.assert_array_equal(found, stored["kp_mask_56"])


def test_keypoints_outside_count_at_the_edge():
    points = jnp.array([[[-5.0, 3.9], [4.0, 8.0]], [[99.0, 99.0], [99.0, -1.0]]])
    found = keypoints.keypoint_mask(points, 16.0, 4)
    expected = np.zeros((2, 4, 4))
    expected[0, [0, 2], [0, 1]] = 1
    expected[1, [3, 0], [3, 3]] = 1
    np.testing.assert_array_equal(found, expected)
