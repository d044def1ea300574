"""Edges and heatmaps against stored values, and what bad input gives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.nn import proxy
from tests.systems.hierprob.inputs import SEED, load_inputs, load_vectors

detect = functools.partial(jax.jit, static_argnames=("options",))(
    lambda images, options=(): proxy.detect_edges(images, **dict(options))
)


@pytest.fixture(scope="module")
def inputs(parity_dir, recipe):
    return load_inputs(parity_dir, recipe)


def pictures(inputs, name, count, side):
    raw = inputs.image(name, SEED, count, side, side)
    return raw, jnp.asarray(raw.transpose(0, 2, 3, 1).astype(np.float32) / 255)


def assert_few_toggle(found, expected):
    """Equal but for pixels where two neighbours tie to the last bit."""
    share = np.mean(np.abs(np.asarray(found) - expected[:, 0]) > 1e-5)
    assert share <= 1e-3
    return share


def test_edges_of_the_released_network(parity_dir, inputs):
    stored = load_vectors(parity_dir, "canny")
    raw, images = pictures(inputs, "canny128", 2, 128)
    _, large = pictures(inputs, "canny256", 1, 256)
    assert raw.sum(dtype=np.int64) == stored["image128_checksum"][0]
    np.testing.assert_allclose(
        proxy.gaussian_taps(1.0, 5), stored["gaussian_kernel"], atol=1e-7
    )
    edges = detect(images)
    blurred = np.moveaxis(np.asarray(edges.blurred[:1]), -1, 1)
    np.testing.assert_allclose(blurred, stored["thr0_blurred_img"], rtol=0, atol=1e-6)
    expected = stored["thr0_grad_magnitude"][:, 0]
    np.testing.assert_allclose(edges.magnitude, expected, rtol=0, atol=3e-6)
    bins = np.asarray(edges.orientation_deg) != stored["thr0_grad_orientation"][:, 0]
    assert np.mean(bins) <= 5e-4
    assert_few_toggle(edges.thin, stored["thr0_thin_edges"])
    np.testing.assert_array_equal(edges.thin, edges.thresholded_thin)
    assert_few_toggle(detect(large).thresholded_thin, stored["img256_thin_edges"])


def test_edges_with_other_options(parity_dir, inputs):
    stored = load_vectors(parity_dir, "canny")
    _, images = pictures(inputs, "canny128", 2, 128)
    found = detect(images[1:], options=(("threshold", 0.2),))
    name = "thr02_thresholded_thin_edges"
    assert_few_toggle(found.thresholded_thin, stored[name])
    # the same, not thinned
    name = "thr02_nonms_thresholded_grad_magnitude"
    assert_few_toggle(found.thresholded_magnitude, stored[name])
    wide = (("gaussian_std_px", 2.0), ("gaussian_size", 7), ("threshold", 0.1))
    found = detect(images[:1], options=wide)
    name = "std2_size7_thr01_thresholded_thin_edges"
    assert_few_toggle(found.thresholded_thin, stored[name])


def test_heatmaps_and_their_inverse(parity_dir, inputs):
    stored = load_vectors(parity_dir, "heatmaps")
    small, large = (
        jnp.asarray(inputs.joints2d(f"wh{side}", SEED, 2, side)) for side in (64, 256)
    )
    np.testing.assert_array_equal(small, stored["joints64"])
    seen = jnp.ones((2, 17))
    render = jax.jit(proxy.joint_heatmaps, static_argnums=(2, 3))
    maps = np.moveaxis(np.asarray(render(small, seen, 64, 64)), -1, 1)
    np.testing.assert_allclose(maps, stored["heatmaps64"], rtol=0, atol=1e-6)
    maps = np.array(render(large, seen, 256, 256))
    nchw = np.moveaxis(maps, -1, 1)
    expected = stored["heatmaps256_sub"]
    np.testing.assert_allclose(nchw[..., 3::8, 5::8], expected, rtol=0, atol=1e-6)
    total = nchw.astype(np.float64).sum((2, 3))
    np.testing.assert_allclose(total, stored["heatmaps256_sum"], rtol=1e-5)
    invert = jax.jit(proxy.heatmap_joints)
    joints, visible = invert(maps)
    np.testing.assert_array_equal(joints, stored["argmax_joints"])
    np.testing.assert_array_equal(visible, stored["argmax_vis"])
    maps[0, ..., 3] = maps[1, ..., 16] = 0
    joints, visible = invert(maps)
    np.testing.assert_array_equal(joints, stored["argmax_joints_blank"])
    np.testing.assert_array_equal(visible, stored["argmax_vis_blank"])


@pytest.mark.parametrize(
    ("rounding", "name"), [("nearest", "rounded"), ("truncate", "truncated")]
)
def test_whole_pixel_heatmaps(parity_dir, inputs, rounding, name):
    stored = load_vectors(parity_dir, "heatmaps")
    joints = jnp.asarray(inputs.joints2d("wh256", SEED, 2, 256)[:1])
    maps = proxy.joint_heatmaps(joints, jnp.ones((1, 17)), 256, 256, rounding=rounding)
    found = np.moveaxis(np.asarray(maps[0]), -1, 0)[:, 3::8, 5::8]
    expected = stored[f"{name}_int_heatmaps_sub"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_bright_picture_has_edges_at_its_border_alone():
    edges = proxy.detect_edges(jnp.ones((1, 32, 48, 3)))
    inside = np.asarray(edges.magnitude[0, 4:-4, 4:-4])
    assert inside.max() < 1e-6
    assert np.asarray(edges.thin[0, 0, 4:-4]).min() > 1
    assert np.asarray(edges.thin[0, 4:-4, -1]).min() > 1


def test_direction_and_sign_of_the_gradient():
    """A step that is brighter to the right, or below."""
    step = jnp.where(jnp.arange(16) >= 8, 1.0, 0.0)
    across = jnp.broadcast_to(step[None, None, :, None], (1, 16, 16, 3))
    edges = proxy.detect_edges(across)
    # left minus right is negative: atan2(0, -1) + 180 degrees
    assert np.asarray(edges.orientation_deg)[0, 8, 8] % 360 == 0
    edges = proxy.detect_edges(jnp.swapaxes(across, 1, 2))
    assert np.asarray(edges.orientation_deg)[0, 8, 8] == 90


def test_a_joint_that_is_not_finite_is_not_visible():
    joints = jnp.array([[[3.0, 4.0], [jnp.nan, 4.0], [jnp.inf, 2.0], [5.0, 5.0]]])
    visible = jnp.array([[True, True, True, False]])
    maps = proxy.joint_heatmaps(joints, visible, 8, 9)
    assert maps.shape == (1, 8, 9, 4)
    np.testing.assert_array_equal(
        np.unravel_index(maps[0, ..., 0].argmax(), (8, 9)), (4, 3)
    )
    np.testing.assert_array_equal(maps[..., 1:], 0)
    found, seen = proxy.heatmap_joints(maps)
    np.testing.assert_array_equal(seen, [[True, False, False, False]])
    np.testing.assert_array_equal(found[0, 1:], -1)


def test_black_pictures_and_no_joints_give_zeros_and_finite_gradients():
    joints = jnp.full((2, 17, 2), jnp.nan)

    def total(images, joints):
        maps = proxy.proxy_representation(images, joints, jnp.zeros((2, 17)))
        return jnp.sum(maps), maps

    images = jnp.zeros((2, 32, 32, 3)).at[1, 3, 3].set(jnp.nan)
    gradient = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    slopes, maps = gradient(images, joints)
    assert maps.shape == (2, 32, 32, 18)
    np.testing.assert_array_equal(maps, 0)
    for slope in slopes:
        assert np.isfinite(slope).all()


def test_an_even_number_of_taps_is_refused():
    with pytest.raises(ValueError, match="odd number of taps, got 4"):
        proxy.gaussian_taps(1.0, 4)
