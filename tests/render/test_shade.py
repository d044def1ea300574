"""Shading against closed forms on spheres and planes."""

import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.render.shade import (
    HarmonicLight,
    Light,
    Texture,
    irradiance,
    project_to_screen,
    render_mesh,
    sample_texture,
    vertex_normals,
)
from tests.render.test_rasterize import grid_sphere

INTRINSICS = jnp.array([[90.0, 0.0, 31.5], [0.0, 90.0, 23.5], [0.0, 0.0, 1.0]])
LAMP = Light(jnp.full(3, 0.2), jnp.array([0.0, -3.0, -4.0]), jnp.full(3, 0.6))


@pytest.fixture(scope="module")
def sphere():
    vertices, faces = grid_sphere(40, 48)
    centre = np.array([0.0, 0.0, 5.0])
    return jnp.asarray(vertices + centre, jnp.float32), jnp.asarray(faces)


def square(depth_m, half_m):
    corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    vertices = np.concatenate([half_m * np.array(corners), np.full((4, 1), depth_m)], 1)
    return jnp.asarray(vertices, jnp.float32), jnp.array([[0, 2, 1], [0, 3, 2]])


def test_vertex_normals_of_a_sphere_point_outwards(sphere):
    vertices, faces = sphere
    outward = vertices - jnp.array([[0.0, 0.0, 5.0]])
    # The poles are many vertices in one place, each with a single face.
    inner = np.abs(outward[:, 1]) < 0.99
    cosine = np.asarray(jnp.sum(vertex_normals(vertices, faces) * outward, -1))
    assert np.min(cosine[inner]) > 0.998


def test_lambert_shading_of_a_sphere(sphere):
    vertices, faces = sphere
    white = jnp.ones_like(vertices)
    rendering = render_mesh(
        vertices, faces, INTRINSICS, 48, 64, light=LAMP, vertex_rgb=white
    )
    x = (np.arange(64) - 31.5)[None] / 90.0
    y = (np.arange(48) - 23.5)[:, None] / 90.0
    ray = np.stack(np.broadcast_arrays(x, y, 1.0), -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    along = 5.0 * ray[..., 2]
    inside = along**2 - 24.0 > 0.05
    distance = along - np.sqrt(np.maximum(along**2 - 24.0, 0.0))
    normal = distance[..., None] * ray - [0.0, 0.0, 5.0]
    expected = 0.2 + 0.6 * np.maximum(normal @ [0.0, -0.6, -0.8], 0.0)
    image = np.asarray(rendering.image)
    # The mesh deviates from the sphere by 0.4 %, its normals by some hundredths.
    np.testing.assert_allclose(image[inside][:, 0], expected[inside], atol=0.02)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_background_shows_where_the_mesh_is_not(rng, sphere):
    vertices, faces = sphere
    background = jnp.asarray(rng.uniform(size=(48, 64, 3)), jnp.float32)
    rendering = render_mesh(
        vertices, faces, INTRINSICS, 48, 64, background=background, supersample=2
    )
    mask = np.asarray(rendering.mask)
    assert set(np.unique(mask)) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert rendering.fragments.face.shape == (96, 128)
    outside = mask == 0.0
    np.testing.assert_array_equal(rendering.image[outside], background[outside])
    # The disc of a unit sphere at 5 m: radius 90 / sqrt(24) px.
    np.testing.assert_allclose(mask.sum(), np.pi * 90.0**2 / 24.0, rtol=0.01)


def test_supersampling_keeps_the_picture_in_place():
    vertices, faces = square(2.0, 0.49)  # edges between samples: no ties
    masks = [
        np.asarray(render_mesh(vertices, faces, INTRINSICS, 48, 64, supersample=s).mask)
        for s in (1, 3)
    ]
    for mask in masks:  # 44.1 px wide around the principal point
        y, x = np.mgrid[:48, :64]
        np.testing.assert_allclose((mask * x).sum() / mask.sum(), 31.5, atol=0.02)
        np.testing.assert_allclose((mask * y).sum() / mask.sum(), 23.5, atol=0.02)
        np.testing.assert_allclose(mask.sum(), 44.1**2, rtol=0.02)


def test_texture_lands_in_place():
    vertices, faces = square(2.0, 0.5)
    image = np.zeros((2, 2, 3), np.float32)
    image[0, 0], image[0, 1], image[1, 0] = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    uv = jnp.array([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    flat = Light(jnp.ones(3), jnp.array([0.0, 0.0, -1.0]), jnp.zeros(3))
    rendering = render_mesh(
        *(vertices, faces, INTRINSICS, 48, 64),
        texture=Texture(jnp.asarray(image), uv, faces),
        light=flat,
        smooth=False,
    )
    corners = np.asarray(rendering.image)[[4, 4, 42, 42], [12, 50, 12, 50]]
    expected = [image[0, 0], image[0, 1], image[1, 0], image[1, 1]]
    np.testing.assert_allclose(corners, expected, atol=1e-4)
    middle = sample_texture(jnp.asarray(image), jnp.array([0.5, 0.5]))
    np.testing.assert_allclose(middle, image.mean((0, 1)), atol=1e-6)


def test_harmonic_light_is_its_polynomial(rng):
    normals = rng.standard_normal((50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    coefficients = 0.1 * rng.standard_normal((9, 3))
    coefficients[0] += 1.0
    x, y, z = normals.T
    basis = [x**0, y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y]
    light = HarmonicLight(jnp.asarray(coefficients, jnp.float32))
    result = irradiance(light, jnp.asarray(normals, jnp.float32))
    np.testing.assert_allclose(
        result, np.maximum(np.stack(basis, 1) @ coefficients, 0), atol=1e-5
    )


def test_vertices_behind_the_camera_draw_nothing():
    vertices, faces = square(2.0, 0.5)
    behind = vertices.at[0, 2].set(-1.0)
    screen = project_to_screen(behind, INTRINSICS)
    assert np.all(np.isfinite(screen))
    assert float(render_mesh(behind, faces, INTRINSICS, 48, 64).mask.sum()) == 0.0


def test_rejects_two_kinds_of_colour():
    vertices, faces = square(2.0, 0.5)
    texture = Texture(jnp.zeros((2, 2, 3)), jnp.zeros((4, 2)), faces)
    with pytest.raises(ValueError, match="got both"):
        render_mesh(
            *(vertices, faces, INTRINSICS, 8, 8), vertex_rgb=vertices, texture=texture
        )
