"""Cameras against written-out formulas, their inverses, and the stored vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmr_jax.geometry import cameras

AFFINE_PX = 1e-3  # stated by the vectors' README


def f32(x):
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize("batch", [(), (1,), (3, 1, 2)])
def test_perspective_and_back(batch, rng):
    focal = f32(rng.uniform(500, 1500, (*batch, 2)))
    centre = f32(rng.uniform(100, 500, (*batch, 2)))
    points = rng.normal(size=(*batch, 7, 3))
    points[..., 2] += 5
    points = f32(points)
    intrinsics = cameras.intrinsics_matrix(focal, centre)
    px = cameras.perspective_project(points, intrinsics)
    expected = (
        focal[..., None, :] * points[..., :2] / points[..., 2:] + centre[..., None, :]
    )
    np.testing.assert_allclose(px, expected, rtol=1e-5)
    inverse = cameras.invert_intrinsics(intrinsics)
    np.testing.assert_allclose(inverse, np.linalg.inv(intrinsics), rtol=1e-4, atol=1e-7)
    back = cameras.back_project(px, points[..., 2], inverse)
    np.testing.assert_allclose(back, points, atol=1e-5)


def test_skewed_intrinsics(x64):
    matrix = jnp.array([[900.0, 3.0, 310.0], [0.0, 800.0, 240.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(
        cameras.invert_intrinsics(matrix) @ matrix, np.eye(3), atol=1e-12
    )


def test_points_at_the_camera_are_finite():
    intrinsics = cameras.intrinsics_matrix(f32([500, 500]), f32([50, 50]))

    def total(points):
        return jnp.sum(cameras.perspective_project(points, intrinsics))

    gradient = jax.grad(total)(jnp.zeros((2, 3)))
    assert np.isfinite(gradient).all()
    assert np.isfinite(
        jax.grad(
            lambda s: jnp.sum(
                cameras.weak_perspective_to_translation(s, jnp.zeros(2), 500.0, 224.0)
            )
        )(f32(0.0))
    )


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_weak_perspective(seed):
    rng = np.random.default_rng(seed)
    scale, translation = f32(rng.uniform(0.5, 1.2, 4)), f32(rng.normal(size=(4, 2)))
    points = f32(0.5 * rng.normal(size=(4, 6, 3)))
    focal, side = f32(rng.uniform(800, 5000, 4)), f32(rng.uniform(100, 400, 4))
    offset = f32(rng.uniform(-300, 300, (4, 2)))
    weak = cameras.weak_perspective_project(points, scale, translation)
    np.testing.assert_allclose(
        weak, scale[:, None, None] * (points[..., :2] + translation[:, None]), rtol=1e-6
    )
    for shift in (None, offset):
        cam = cameras.weak_perspective_to_translation(
            scale, translation, focal, side, shift
        )
        back = cameras.translation_to_weak_perspective(cam, focal, side, shift)
        np.testing.assert_allclose(back[0], scale, rtol=1e-5)
        np.testing.assert_allclose(back[1], translation, atol=1e-4)
    # The full image's perspective camera puts the body's origin where the crop's
    # weak-perspective camera does.
    principal = f32(np.full((4, 2), 500.0))
    intrinsics = cameras.intrinsics_matrix(jnp.stack([focal, focal], -1), principal)
    px = cameras.perspective_project(cam[:, None], intrinsics)[:, 0]
    origin = scale[:, None] * translation
    expected = principal + offset + origin * side[:, None] / 2
    np.testing.assert_allclose(px, expected, rtol=1e-4)


def test_normalized_to_pixels():
    points = f32([[-1, -1], [0, 0], [1, 1]])
    np.testing.assert_allclose(
        cameras.normalized_to_pixels(points, 224.0), [[0, 0], [112, 112], [224, 224]]
    )


@pytest.mark.parametrize("batch", [(), (1,), (3, 1, 2)])
def test_crop(batch, rng):
    centre = f32(rng.uniform(0, 500, (*batch, 2)))
    side = f32(rng.uniform(50, 500, batch))
    angle = f32(rng.uniform(-1, 1, batch))
    affine = cameras.crop_affine(centre, side, angle, 256.0)
    points = f32(rng.uniform(0, 500, (*batch, 5, 2)))
    c, s = np.cos(angle), np.sin(angle)
    turn = np.stack([c, s, -s, c], -1).reshape(*batch, 2, 2)  # R(-angle)
    relative = np.asarray(points) - centre[..., None, :]
    expected = (256 / side)[..., None, None] * np.einsum(
        "...ij,...nj->...ni", turn, relative
    ) + 128
    got = cameras.apply_affine(affine, points)
    np.testing.assert_allclose(got, expected, atol=5e-3, rtol=1e-5)
    inverse = cameras.invert_affine(affine)
    np.testing.assert_allclose(cameras.apply_affine(inverse, got), points, atol=2e-3)
    both = cameras.compose_affine(inverse, affine)
    np.testing.assert_allclose(
        both, np.broadcast_to(np.eye(2, 3), both.shape), atol=2e-3
    )


def test_stored_vectors(parity_dir):
    data = np.load(parity_dir / "ikol" / "ikol_metrics_public.npz")
    affine = cameras.crop_affine(
        f32(data["in_aff_center"]),
        f32(data["in_aff_scale"][:, 0]),
        f32(np.deg2rad(data["in_aff_rot"])),
        256.0,
    )
    np.testing.assert_allclose(affine, data["affine"], atol=AFFINE_PX)
    np.testing.assert_allclose(
        cameras.invert_affine(affine), data["affine_inv"], atol=AFFINE_PX
    )
    expected = data["cam2pixel_f1145_1143_c512_515"]
    intrinsics = cameras.intrinsics_matrix(f32([1145, 1143]), f32([512, 515]))
    points = f32(data["in_cam_pts_mm"])
    np.testing.assert_allclose(
        cameras.perspective_project(points, intrinsics), expected[:, :2], rtol=1e-5
    )
    np.testing.assert_allclose(points[:, 2], expected[:, 2], rtol=1e-6)
    # A box is a crop whose sides differ: two scales, no rotation.
    box = [100, 50, 500, 450]
    uv = f32(data["in_h2c_uvd"][:, :2]) + 0.5
    size, corner = f32([box[2] - box[0], box[3] - box[1]]), f32(box[:2])
    to_image = jnp.concatenate([jnp.diag(size), corner[:, None]], 1)
    np.testing.assert_allclose(
        cameras.apply_affine(to_image, uv),
        data["heatmap_to_coord_box100_50_500_450"][:, :2],
        rtol=1e-5,
    )
