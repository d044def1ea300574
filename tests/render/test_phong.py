"""Phong's shading against an independent formula, and the look-up's convention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.render import phong as phong_module
from hmr_jax.render.phong import PointLight, phong, sample_point_light
from hmr_jax.render.shade import sample_texture


def expected_rgb(point, normal, camera, light, texel):
    """One point in float64, angles instead of dot products where it matters."""
    towards = light["position_m"] - point
    towards /= np.linalg.norm(towards)
    normal = normal / np.linalg.norm(normal)
    cosine = normal @ towards
    if cosine <= 0:
        return np.minimum(light["ambient"] * texel, 1.0)
    # The half turn of the light's direction about the normal.
    mirrored = (2.0 * np.outer(normal, normal) - np.eye(3)) @ towards
    view = camera - point
    glance = max(view @ mirrored / np.linalg.norm(view), 0.0) ** light["shininess"]
    matt = light["ambient"] + light["diffuse"] * cosine
    return np.minimum(matt * texel + light["specular"] * glance, 1.0)


def as_light(values):
    return PointLight(**{key: jnp.asarray(x, jnp.float32) for key, x in values.items()})


LIGHT = {
    "position_m": np.array([0.4, 1.1, 1.5]),
    "ambient": 0.5,
    "diffuse": 0.7,
    "specular": 0.4,
    "shininess": 64.0,
}


def test_colours_agree_with_the_formula(rng):
    shape = (2, 5, 7, 3)
    points = rng.normal(0, 0.5, shape)
    camera = np.array([0.1, -0.2, 2.5])
    normals = rng.normal(size=shape)
    # A third of the normals look half-way between light and camera: the highlight.
    half = sum(
        v / np.linalg.norm(v, axis=-1, keepdims=True)
        for v in (LIGHT["position_m"] - points, camera - points)
    )
    normals[:, ::3] = half[:, ::3] + rng.normal(0, 0.1, shape)[:, ::3]
    texels = rng.uniform(size=shape)
    want = np.array(
        [
            expected_rgb(p, n, camera, LIGHT, t)
            for p, n, t in zip(
                *(x.reshape(-1, 3) for x in (points, normals, texels)), strict=True
            )
        ]
    ).reshape(shape)
    arrays = [jnp.asarray(x, jnp.float32) for x in (points, normals, camera, texels)]
    got = jax.jit(phong)(*arrays[:3], as_light(LIGHT), arrays[3])
    # Dot products are good to 1e-7, and the power of 64 multiplies that.
    np.testing.assert_allclose(got, want, atol=5e-5)
    plain = phong(*arrays[:3], as_light({**LIGHT, "specular": 0.0}), arrays[3])
    assert (np.asarray(got) - np.asarray(plain)).max() > 0.2
    assert np.asarray(got).max() == 1.0


def test_a_light_behind_leaves_the_ambient_light():
    point, normal = jnp.zeros((1, 3)), jnp.array([[0.0, 0.0, -1.0]])
    rgb = phong(
        *(point, normal, jnp.array([0.0, 0.0, -2.0]), as_light(LIGHT)),
        jnp.array([[0.2, 0.4, 0.8]]),
    )
    np.testing.assert_allclose(rgb, [[0.1, 0.2, 0.4]], rtol=1e-6)


@pytest.mark.parametrize("case", ["zero normal", "light at the point", "camera there"])
def test_degenerate_points_are_finite(case):
    point = np.array([[0.3, 0.2, 0.1]])
    normal = np.zeros((1, 3)) if case == "zero normal" else np.array([[0.0, 0.0, 1.0]])
    light = dict(LIGHT)
    if case == "light at the point":
        light["position_m"] = point[0]
    camera = point[0] if case == "camera there" else np.array([0.0, 0.0, 2.0])
    texel = jnp.full((1, 3), 0.6)
    arrays = [jnp.asarray(x, jnp.float32) for x in (point, normal, camera)]
    rgb = phong(*arrays, as_light(light), texel)
    assert np.isfinite(rgb).all()
    if case != "camera there":
        np.testing.assert_allclose(rgb, 0.3, rtol=1e-6)


def test_lights_follow_the_published_law():
    keys = jax.random.split(jax.random.key(3), 4000)
    lights = jax.jit(jax.vmap(sample_point_light))(keys)
    distance = np.linalg.norm(lights.position_m, axis=-1)
    towards = np.asarray(lights.position_m) / distance[:, None]
    laws = [(distance, 0.05, 3.0), (lights.ambient, 0.4, 0.8)]
    laws += [(lights.diffuse, 0.4, 0.8), (lights.specular, 0.0, 0.5)]
    for values, low, high in laws:
        values = np.asarray(values)
        assert values.min() >= low - 1e-6 and values.max() <= high + 1e-6
        error = (high - low) / np.sqrt(12 * len(values))
        assert abs(values.mean() - (low + high) / 2) < 4 * error
        assert abs(np.mean(values < low + (high - low) / 4) - 0.25) < 0.03
    # On the sphere every coordinate is uniform in [-1, 1].
    for axis in range(3):
        assert abs(towards[:, axis].mean()) < 4 / np.sqrt(3 * len(towards))
        assert abs((towards[:, axis] ** 2).mean() - 1 / 3) < 0.02
    assert (np.asarray(lights.shininess) == 64).all()
    pairs = np.corrcoef([distance, lights.ambient, lights.diffuse, lights.specular])
    assert np.abs(pairs - np.eye(4)).max() < 0.08


def test_texels_lie_between_the_corners():
    rows, columns = 6, 4
    image = np.arange(rows * columns * 3, dtype=np.uint8).reshape(rows, columns, 3)
    corners = jnp.array([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    found = sample_texture(jnp.asarray(image), corners, ends=True)
    want = np.array([image[0, 0], image[0, -1], image[-1, 0], image[-1, -1]]) / 255
    np.testing.assert_allclose(found, want, atol=1e-6)
    # A picture that is linear in row and column is met everywhere; values are kept.
    row, column = np.mgrid[:rows, :columns]
    linear = np.stack([column, row, 2 * row - column], -1).astype(np.float32)
    uv = np.random.default_rng(0).uniform(size=(3, 5, 2)).astype(np.float32)
    x, y = uv[..., 0] * (columns - 1), (1 - uv[..., 1]) * (rows - 1)
    found = sample_texture(jnp.asarray(linear), jnp.asarray(uv), ends=True)
    np.testing.assert_allclose(found, np.stack([x, y, 2 * y - x], -1), atol=1e-5)


def test_look_ups_beyond_the_border_are_clamped():
    image = jnp.asarray(np.random.default_rng(1).uniform(size=(3, 3, 3)), jnp.float32)
    uv = jnp.array([[-5.0, 2.0], [2.0, -5.0], [jnp.inf, jnp.inf], [jnp.nan, 0.5]])
    found = np.asarray(sample_texture(image, uv, ends=True))
    np.testing.assert_allclose(found[0], image[0, 0], rtol=1e-6)
    np.testing.assert_allclose(found[1:3], [image[2, 2], image[0, 2]], rtol=1e-6)
    np.testing.assert_allclose(found[3], image[1, 0], rtol=1e-6)


def test_the_published_exponent_is_kept():
    assert phong_module.SHININESS == 64.0
