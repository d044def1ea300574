"""The rasteriser against brute force, analytic depth, and its own promises."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.render.rasterize import interpolate, rasterize

# Depths of order 1 to 10 m through one float32 division and two products.
DEPTH_RTOL = 2e-5
# Barycentrics are ratios of areas; a sub-pixel face at 40 px loses two more digits.
WEIGHT_ATOL = 2e-3


def brute_force(vertices, faces, height, width, near_m=0.01):
    """Every face against every pixel in float64."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    depth = np.full((height, width), np.inf)
    face = np.full((height, width), -1)
    for index, corners in enumerate(np.asarray(vertices, np.float64)[faces]):
        if not np.all(np.isfinite(corners)) or np.any(corners[:, 2] <= near_m):
            continue
        a, b, c = corners
        areas = [_area(b, c, x, y), _area(c, a, x, y), _area(a, b, x, y)]
        total = sum(areas)
        if np.all(total == 0):
            continue
        inside = np.all([area / total > 0 for area in areas], axis=0)
        inverse = sum(s / z for s, z in zip(areas, corners[:, 2], strict=True)) / total
        nearer = inside & (1 / inverse < depth)
        depth[nearer], face[nearer] = (1 / inverse)[nearer], index
    return depth, face


def _area(a, b, x, y):
    return (a[0] - x) * (b[1] - y) - (a[1] - y) * (b[0] - x)


def random_mesh(rng, num_faces, size, spread):
    """Separate triangles of a given spread in pixels, partly outside the image."""
    centres = rng.uniform(-0.2 * size, 1.2 * size, (num_faces, 1, 2))
    corners = centres + rng.normal(scale=spread, size=(num_faces, 3, 2))
    depth = rng.uniform(1.0, 9.0, (num_faces, 3, 1))
    vertices = np.concatenate([corners, depth], -1).reshape(-1, 3).astype(np.float32)
    return vertices, np.arange(3 * num_faces, dtype=np.int32).reshape(-1, 3)


def grid_sphere(rows, columns):
    """A closed sphere of unit radius: vertices [V, 3], outward faces."""
    polar, azimuth = np.meshgrid(
        np.linspace(0, np.pi, rows),
        np.linspace(0, 2 * np.pi, columns, endpoint=False),
        indexing="ij",
    )
    vertices = np.stack(
        [
            np.sin(polar) * np.cos(azimuth),
            np.cos(polar),
            np.sin(polar) * np.sin(azimuth),
        ],
        -1,
    )
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a = row * columns + column
    b = row * columns + (column + 1) % columns
    upper = np.stack([a, b, a + columns], -1).reshape(-1, 3)
    lower = np.stack([b, b + columns, a + columns], -1).reshape(-1, 3)
    return vertices.reshape(-1, 3), np.concatenate([upper, lower]).astype(np.int32)


def project(points, focal_px, centre_px):
    screen = points[:, :2] / points[:, 2:] * focal_px + centre_px
    return np.concatenate([screen, points[:, 2:]], -1).astype(np.float32)


@pytest.mark.parametrize("spread", [0.8, 4.0, 40.0])
def test_matches_brute_force(rng, spread):
    vertices, faces = random_mesh(rng, 120, 48, spread)
    fragments = rasterize(vertices, faces, 40, 48)
    depth, face = brute_force(vertices, faces, 40, 48)
    np.testing.assert_array_equal(fragments.face, face)
    np.testing.assert_allclose(fragments.depth, depth, rtol=DEPTH_RTOL)


@pytest.mark.parametrize("chunk_size", [64, 1000, 50_000])
def test_result_does_not_depend_on_the_chunk(rng, chunk_size):
    vertices, faces = random_mesh(rng, 120, 48, 6.0)
    expected = rasterize(vertices, faces, 40, 48)
    result = rasterize(vertices, faces, 40, 48, chunk_size=chunk_size)
    np.testing.assert_array_equal(result.face, expected.face)
    np.testing.assert_array_equal(result.depth, expected.depth)


def test_blocks_of_faces_keep_candidate_numbers_within_int32(rng, monkeypatch):
    module = __import__("hmr_jax.render.rasterize", fromlist=["x"])
    vertices, faces = random_mesh(rng, 31, 20, 9.0)
    expected = rasterize(vertices, faces, 20, 21)
    # 31 faces in blocks of 4: (limit - 64) // (20 * 21) = 4, the last one padded.
    monkeypatch.setattr(module, "MAX_ITEMS", 64 + 4 * 20 * 21 + 5)
    plain = functools.partial(rasterize.__wrapped__, height=20, width=21, chunk_size=64)
    result = jax.jit(plain)(vertices, faces)
    np.testing.assert_array_equal(result.face, expected.face)


def test_large_and_tiny_triangles_in_one_mesh(rng):
    tiny, faces = random_mesh(rng, 2000, 64, 0.7)
    screen = np.array([[-500, -400, 5], [900, -400, 5], [30, 1500, 5]], np.float32)
    vertices = np.concatenate([tiny, screen])
    faces = np.concatenate([faces, [[6000, 6001, 6002]]]).astype(np.int32)
    fragments = rasterize(vertices, faces, 64, 64)
    depth, face = brute_force(vertices, faces, 64, 64)
    assert np.all(np.asarray(fragments.face) >= 0)
    assert 0.05 < np.mean(face != 2000) < 0.95
    np.testing.assert_array_equal(fragments.face, face)
    np.testing.assert_allclose(fragments.depth, depth, rtol=DEPTH_RTOL)


def test_no_holes_in_a_fine_sphere_at_512():
    vertices, faces = grid_sphere(90, 80)
    turn = np.array([[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]])
    screen = project(vertices @ turn.T + [0.0, 0.0, 4.0], 800.0, 255.5)
    seen = np.asarray(rasterize(screen, faces, 512, 512).face) >= 0
    y, x = np.mgrid[:512, :512] - 255.5
    # A sphere of radius 1 at 4 m appears as a disc; the mesh lies within 0.2 % of it.
    radius = 800.0 / np.sqrt(15.0)
    assert np.all(seen[np.hypot(x, y) < 0.99 * radius])
    assert not np.any(seen[np.hypot(x, y) > radius])


@pytest.mark.parametrize("step", [1.0, 1.0 / 3.0, 2.7])
def test_every_pixel_of_a_flat_grid_belongs_to_one_face(rng, step):
    """Grids with vertices and edges on pixel centres: the ties."""
    count = int(30 / step) + 1
    jitter = rng.choice([0.0, 0.25 * step], size=(count, count, 2)) * (step > 2)
    lines = (step * np.arange(count)).astype(np.float32)
    grid = np.stack(np.meshgrid(lines, lines, indexing="xy"), -1) + jitter
    vertices = np.concatenate([grid, np.full((count, count, 1), 2.0)], -1)
    row, column = np.meshgrid(np.arange(count - 1), np.arange(count - 1), indexing="ij")
    a = (row * count + column).ravel()
    one = np.stack([a, a + 1, a + count], -1)
    two = np.stack([a + 1, a + count, a + count + 1], -1)  # the other orientation
    faces = np.concatenate([one, two]).astype(np.int32)
    vertices = vertices.reshape(-1, 3).astype(np.float32)
    size = int(lines[-1]) - 1
    together = np.asarray(rasterize(vertices, faces, size, size).face)
    assert np.all(together[1:, 1:] >= 0)
    each = jax.jit(
        lambda faces: jnp.sum(
            jax.lax.map(
                lambda face: rasterize(vertices, face[None], size, size).face >= 0,
                faces,
            ),
            axis=0,
        )
    )
    if step > 0.5:  # one face at a time: no pixel belongs to two
        assert np.max(each(faces)) == 1


def test_depth_of_a_tilted_plane_and_perspective_weights():
    focal, centre = 60.0, 31.5
    corners = np.array([[-3, -3, 4], [3, -3, 4], [3, 3, 8], [-3, 3, 8]], np.float64)
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    fragments = rasterize(project(corners, focal, centre), faces, 64, 64)
    y, x = (np.mgrid[:64, :64] - centre) / focal
    # The plane z = 6 + 2/3 y met by the ray (x, y, 1).
    expected = 6.0 / (1.0 - 2.0 / 3.0 * y)
    covered = np.asarray(fragments.face) >= 0
    assert covered.mean() > 0.4
    depth = np.asarray(fragments.depth)
    np.testing.assert_allclose(depth[covered], expected[covered], rtol=DEPTH_RTOL)
    points = interpolate(fragments, jnp.asarray(corners[faces], jnp.float32))
    wanted = np.stack([x, y, np.ones_like(x)], -1) * expected[..., None]
    np.testing.assert_allclose(points[covered], wanted[covered], atol=2e-4)
    assert np.all(np.isinf(depth[~covered]))
    assert np.all(np.asarray(points)[~covered] == 0.0)


def test_barycentrics_are_weights(rng):
    vertices, faces = random_mesh(rng, 200, 40, 3.0)
    fragments = rasterize(vertices, faces, 40, 40)
    weights = np.asarray(fragments.barycentrics)
    covered = np.asarray(fragments.face) >= 0
    assert np.all(weights >= 0.0)
    np.testing.assert_allclose(weights[covered].sum(-1), 1.0, atol=1e-5)
    assert np.all(weights[~covered] == 0.0)
    where = interpolate(fragments, jnp.asarray(vertices)[faces])
    y, x = np.mgrid[:40, :40]
    inverse = interpolate(fragments, 1.0 / jnp.asarray(vertices)[faces][..., 2:])
    assert np.all(np.asarray(inverse)[covered] > 0.1)
    np.testing.assert_allclose(
        where[..., 2][covered], fragments.depth[covered], rtol=WEIGHT_ATOL
    )


def test_nearer_face_hides_the_farther_in_any_order():
    square = np.array([[2, 2], [30, 2], [2, 30]], np.float32)
    near = np.concatenate([square, np.full((3, 1), 2.0, np.float32)], 1)
    far = np.concatenate([square, np.full((3, 1), 3.0, np.float32)], 1)
    vertices = np.concatenate([far, near])
    for faces in ([[0, 1, 2], [3, 4, 5]], [[3, 5, 4], [0, 2, 1]]):
        fragments = rasterize(vertices, np.array(faces, np.int32), 32, 32)
        covered = np.asarray(fragments.face) >= 0
        assert covered.sum() > 300
        np.testing.assert_allclose(fragments.depth[covered], 2.0, rtol=DEPTH_RTOL)


def test_equal_depth_gives_the_smaller_index():
    vertices = np.array([[1, 1, 2], [9, 1, 2], [1, 9, 2]], np.float32)
    faces = np.array([[0, 1, 2], [1, 2, 0], [2, 1, 0]], np.int32)
    face = np.asarray(rasterize(vertices, faces, 10, 10).face)
    assert set(np.unique(face)) == {-1, 0}


def test_bad_faces_are_ignored():
    good = np.array([[2, 2, 2], [12, 2, 2], [2, 12, 2]], np.float32)
    nan = np.array([[np.nan, 0, 1], [40, 0, 1], [0, 40, 1]], np.float32)
    infinite = np.array([[-5, -5, 1], [np.inf, 0, 1], [0, 40, 1]], np.float32)
    behind = np.array([[-5, -5, -1], [40, 0, -1], [0, 40, -1]], np.float32)
    crossing = np.array([[-5, -5, -1], [40, 0, 1], [0, 40, 1]], np.float32)
    line = np.array([[0, 0, 1], [5, 5, 1], [9, 9, 1]], np.float32)
    point = np.array([[5, 5, 1]] * 3, np.float32)
    far_off = np.array([[-1e12, 0, 1], [1e12, 0, 1], [0, 1e12, 1]], np.float32)
    vertices = np.concatenate(
        [good, nan, infinite, behind, crossing, line, point, far_off]
    )
    faces = np.arange(24).reshape(8, 3)
    faces = np.concatenate([faces, [[-1, -1, -1], [0, 1, 24]]]).astype(np.int32)
    fragments = rasterize(vertices, faces, 16, 16)
    assert set(np.unique(fragments.face)) == {-1, 0}
    assert not np.any(np.isnan(fragments.depth))
    assert not np.any(np.isnan(fragments.barycentrics))


def test_vmap_equals_one_by_one_and_empty_mesh(rng):
    meshes = [random_mesh(rng, 60, 32, spread) for spread in (1.0, 12.0)]
    vertices = jnp.stack([vertices for vertices, _ in meshes])
    faces = meshes[0][1]
    render = functools.partial(rasterize, faces=faces, height=24, width=32)
    together = jax.vmap(render)(vertices)
    for index in range(2):
        alone = render(vertices[index])
        np.testing.assert_array_equal(together.face[index], alone.face)
        np.testing.assert_allclose(together.depth[index], alone.depth, rtol=1e-6)
    nothing = rasterize(vertices[0], np.full((4, 3), -1, np.int32), 24, 32)
    assert np.all(np.asarray(nothing.face) == -1)


def test_gradient_of_depth_is_that_of_the_plane(rng):
    vertices, faces = random_mesh(rng, 20, 24, 6.0)

    def mean_depth(vertices):
        fragments = rasterize(vertices, faces, 24, 24)
        seen = fragments.face >= 0
        return jnp.sum(jnp.where(seen, fragments.depth, 0.0)) / jnp.sum(seen)

    # Moving the whole mesh away by t moves no pixel: depths scale with perspective.
    gradient = jax.jit(jax.grad(mean_depth))(jnp.asarray(vertices))
    assert np.all(np.isfinite(gradient))
    depth_scale = jnp.sum(gradient[:, 2] * vertices[:, 2])
    np.testing.assert_allclose(depth_scale, mean_depth(vertices), rtol=1e-4)


def test_rejects_an_empty_image():
    with pytest.raises(ValueError, match="0 x 8"):
        rasterize(np.zeros((3, 3), np.float32), np.zeros((1, 3), np.int32), 0, 8)
