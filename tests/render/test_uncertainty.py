"""Colours of uncertainty and pictures under a weak-perspective camera."""

import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.render import uncertainty


def test_jet_is_the_known_colour_map():
    colormaps = pytest.importorskip("matplotlib").colormaps
    places = np.linspace(0, 1, 256)
    expected = colormaps["jet"](places)[:, :3]
    found = uncertainty.jet(jnp.asarray(places, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_jet_at_known_places():
    found = uncertainty.jet(jnp.array([-1.0, 0.0, 0.5, 1.0, 2.0, jnp.nan]))
    dark_blue, dark_red = [0, 0, 0.5], [0.5, 0, 0]
    middle = [(0.5 - 0.35) / 0.31, 1, (0.65 - 0.5) / 0.31]
    expected = [dark_blue, dark_blue, middle, dark_red, dark_red, dark_red]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_colours_follow_the_scale():
    values = jnp.array([[0.0, 0.05, 0.3]])
    found = uncertainty.uncertainty_colours(values, largest_m=0.1)
    np.testing.assert_allclose(found, uncertainty.jet(jnp.array([[0.0, 0.5, 1.0]])))
    assert found.shape == (1, 3, 3)
    with pytest.raises(ValueError, match="positive"):
        uncertainty.uncertainty_colours(values, largest_m=0.0)


def test_turns_show_the_persons_left_first():
    # facing the camera (-z): nose, left hand (+x), head (-y)
    points = jnp.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0], [0, 1, 1], [-1, 0, 0]])
    found = uncertainty.turned(points, 90)
    # the left hand comes nearest, the nose points to the left of the picture
    np.testing.assert_allclose(found[1], [0, 0, -1], atol=1e-7)
    np.testing.assert_allclose(found[0], [-1, 0, 0], atol=1e-7)
    np.testing.assert_allclose(found[2], points[2], atol=1e-7)
    four = points
    for _ in range(4):
        four = uncertainty.turned(four, 90)
    np.testing.assert_array_equal(four, points)
    slow = uncertainty.turned(uncertainty.turned(points, 30), 60)
    np.testing.assert_allclose(slow, found, atol=1e-6)


def test_the_fitted_camera_holds_all_sides():
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.uniform([-3, 1, 5], [1, 2, 9], (50, 3)), jnp.float32)
    camera = uncertainty.fitted_camera(points, fill=0.8)
    for degrees in (0, 90, 180, 270):
        seen = uncertainty.turned(points, degrees)
        flat = camera[0] * (seen[:, :2] + camera[None, 1:])
        assert np.abs(flat).max() <= 0.8 + 1e-5


SQUARE = np.array([[-0.5, -0.25, 0], [0.5, -0.25, 0], [0.5, 0.25, 0], [-0.5, 0.25, 0]])
FACES = np.array([[0, 2, 1], [0, 3, 2]])  # turned towards the camera at -z


def test_a_square_lies_where_its_camera_puts_it():
    camera = jnp.array([0.5, 0.25, -0.5])
    rgb = jnp.tile(jnp.array([[1.0, 0.5, 0.0]]), (4, 1))
    picture = uncertainty.render_weak_perspective(
        jnp.asarray(SQUARE, jnp.float32),
        jnp.asarray(FACES),
        camera,
        64,
        vertex_rgb=rgb,
        supersample=4,
    )
    mask = np.asarray(picture.mask)
    rows, columns = np.nonzero(mask > 0.45)
    # pixels (p + 1) * 32 of x in [-.25, .75] / 2 and y in [-.75, -.25] / 2
    assert [columns.min(), columns.max()] == [28, 44]
    assert [rows.min(), rows.max()] == [20, 28]
    np.testing.assert_allclose(mask.sum(), 16 * 8, rtol=0.02)
    inside = np.asarray(picture.rgb)[24, 36]
    assert inside[0] > 1.9 * inside[1] > 0 and inside[2] == 0


def test_the_nearer_square_hides_the_other():
    near = SQUARE - np.array([[0, 0, 0.5]])
    vertices = jnp.asarray(np.concatenate([SQUARE, near]), jnp.float32)
    faces = jnp.asarray(np.concatenate([FACES, FACES + 4]))
    rgb = jnp.asarray(np.repeat([[1.0, 0, 0], [0, 1.0, 0]], 4, axis=0), jnp.float32)
    camera = jnp.array([1.0, 0.0, 0.0])
    picture = uncertainty.render_weak_perspective(
        vertices, faces, camera, 32, vertex_rgb=rgb
    )
    middle = np.asarray(picture.rgb)[16, 16]
    assert middle[1] > 0.5 and middle[0] == 0
    turned = uncertainty.turned(vertices, 180)
    behind = uncertainty.render_weak_perspective(
        turned, faces, camera, 32, vertex_rgb=rgb
    )
    middle = np.asarray(behind.rgb)[16, 16]
    assert middle[0] > 0.4 and middle[1] == 0


def test_a_mesh_of_nan_draws_nothing_and_the_bar_has_all_colours():
    camera = jnp.array([1.0, 0.0, 0.0])
    vertices = jnp.full((4, 3), jnp.nan)
    picture = uncertainty.render_weak_perspective(
        vertices, jnp.asarray(FACES), camera, 16
    )
    assert not np.asarray(picture.mask).any()
    white = np.full((16, 16, 3), 255, np.uint8)
    np.testing.assert_array_equal(uncertainty.over(white, picture), white)
    bar = uncertainty.colour_bar(200)
    assert bar.shape == (28, 200, 3)
    np.testing.assert_array_equal(bar[0, 0], [0, 0, 128])
    np.testing.assert_array_equal(bar[0, -1], [128, 0, 0])
