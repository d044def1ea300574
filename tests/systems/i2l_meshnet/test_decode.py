"""Cells to bodies before the camera, against the targets that are their inverse."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.systems.i2l_meshnet import decode
from hmr_jax.systems.i2l_meshnet.targets import to_heatmap
from tests.systems.i2l_meshnet import vectors

SPACE = {"heatmap_size": 16, "image_size_px": 64, "depth_range_m": 2.0}


def test_the_way_back_from_the_heat_maps(rng):
    points = jnp.asarray(
        rng.uniform(-0.6, 0.6, (3, 9, 3)) + [0.2, -0.1, 4], jnp.float32
    )
    root = points[:, 0]
    camera = np.array([[90.0, 0.5, 40], [0, 80, 30], [0, 0, 1]], np.float32)
    affine = np.array([[0.7, 0.1, 3], [-0.1, 0.7, 5], [0, 0, 1]], np.float32)
    tiled = lambda x: jnp.asarray(np.tile(x, (3, 1, 1)))  # noqa: E731
    there = {"intrinsics": tiled(camera), "image_to_crop": tiled(affine[:2])}
    back = {
        "intrinsics_inv": tiled(np.linalg.inv(camera)),
        "crop_to_image": tiled(np.linalg.inv(affine)[:2]),
    }
    cells, _ = to_heatmap(points, root, there, **SPACE)
    found = decode.to_camera(cells, root[:, 2], back, **SPACE)
    np.testing.assert_allclose(found, points, atol=2e-5)


@pytest.mark.parametrize("kind", vectors.KINDS)
def test_posed_bodies_stand_at_their_regressed_root(recipe, rng, kind):
    """A hand's pose is measured from the mean hand."""
    body, hand = vectors.body(recipe, kind), kind == "mano"
    rows = vectors.regressor(vectors.body_arrays(recipe, kind), kind)
    body = dataclasses.replace(body, extra_joint_regressors={"own": jnp.asarray(rows)})
    zero = {
        "pose_aa": jnp.zeros((1, body.num_joints, 3)),
        "betas": jnp.asarray(rng.standard_normal((1, 10)), jnp.float32),
    }
    found = decode.posed(zero, body, "own", hand=hand)
    joints = np.einsum("jv,bvc->bjc", rows, found["vertices_cam_m"])
    np.testing.assert_allclose(found["joints_cam_m"], joints, atol=1e-5)
    np.testing.assert_allclose(joints[:, 0], 0, atol=1e-5)
    plain = decode.posed(zero, body, "own", hand=False)
    moved = np.abs(plain["vertices_cam_m"] - found["vertices_cam_m"]).max()
    assert (moved > 1e-3) == hand
