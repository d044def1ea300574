"""Rendered training batches: pictures, labels and targets agree with one another."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.forward import body_forward
from hmr_jax.geometry.rotations import axis_angle_to_matrix
from hmr_jax.render.phong import PointLight
from hmr_jax.synthetic import proxies
from hmr_jax.synthetic.pose_bank import shipped_bank
from hmr_jax.synthetic.pose_law import PoseLaw
from hmr_jax.synthetic.proxies import ProxyAssets, ProxyOptions
from hmr_jax.synthetic.proxy_options import ProxyAugmentation
from hmr_jax.synthetic.textures import TextureBank

SIZE = 96
GREY = 200
PLAIN = ProxyOptions(
    image_size_px=SIZE,
    mean_camera_m=(0.0, 0.0, 2.5),
    augmentation=ProxyAugmentation.none(),
    poses=PoseLaw(root="upright", azimuth_range_deg=60.0),
)
INDEX = np.array([3, 200, 500, 700], np.int32)


@pytest.fixture(scope="module")
def assets(open_body, surface):
    rng = np.random.default_rng(0)
    made = ProxyAssets(
        body=open_body,
        surface=surface,
        textures=TextureBank(np.full((2, 16, 16, 3), GREY, np.uint8), np.int32(0)),
        backgrounds=rng.integers(1, 100, (3, SIZE, SIZE, 3)).astype(np.uint8),
        poses_aa=shipped_bank().poses_aa,
    )
    return jax.tree.map(jnp.asarray, made)


@pytest.fixture(scope="module")
def scene(assets):
    """Figures, and their picture under ambient light alone."""

    def make(key, index, assets):
        figures = proxies.sample_figures(key, index, assets, PLAIN)
        count = index.shape[0]
        light = PointLight(
            jnp.full((count, 3), 5.0), *(jnp.full(count, x) for x in (0.5, 0, 0, 64.0))
        )
        drawn = proxies.render_figures(
            figures, jnp.zeros(count, jnp.int32), light, assets, PLAIN
        )
        return figures, *drawn

    return jax.device_get(jax.jit(make)(jax.random.key(2), INDEX, assets))


@pytest.fixture(scope="module")
def make(assets):
    made = jax.jit(
        lambda key, batch: proxies.make_batch(key, batch, assets, PLAIN, targets="all")
    )
    return lambda key, batch: jax.device_get(made(key, batch))


def test_ambient_light_shows_the_texture(scene):
    _, image, labels = scene
    covered = labels > 0
    assert 0.02 < covered.mean() < 0.5
    np.testing.assert_allclose(image[covered], 0.5 * GREY / 255, atol=1e-5)
    assert not image[~covered].any()


def test_joints_lie_on_their_parts(scene):
    """Left and right, pictures and joints, cannot be exchanged without notice."""
    figures, _, labels = scene
    parts = {
        9: (4, 19, 21), 10: (3, 20, 22), 15: (5, 12, 14), 16: (6, 11, 13),
        7: (15, 17, 19, 21), 8: (16, 18, 20, 22), 13: (8, 10, 12, 14),
        14: (7, 9, 11, 13),
    }  # fmt: skip
    seen = 0
    for image in range(len(INDEX)):
        for joint, wanted in parts.items():
            x, y = figures.joints_coco_px[image, joint]
            column, row = int(x), int(y)
            near = labels[image, row - 2 : row + 3, column - 2 : column + 3]
            other = {label + (1 if label % 2 else -1) for label in wanted}
            if np.isin(near, wanted).any():
                seen += 1
            else:  # hidden behind something, but never shown as the other side
                assert not np.isin(near, list(other - set(wanted))).all()
    assert seen >= 0.75 * len(INDEX) * len(parts)


def test_projection_is_the_published_one(scene, assets):
    figures, _, _ = scene
    wrist = figures.joints_m[:, 20] * np.array([1.0, -1.0, -1.0])
    x, y, z = (wrist + figures.translation_m).T
    focal = 300.0 * SIZE / 256
    expected = np.stack([focal * x / z + SIZE / 2, focal * y / z + SIZE / 2], -1)
    np.testing.assert_allclose(figures.joints_coco_px[:, 9], expected, atol=1e-3)


def test_vertices_are_those_of_the_targets(make, assets):
    batch = make(jax.random.key(1), {"pose_index": INDEX})
    rotmats = np.concatenate(
        [batch["target_global_rotmat"][:, None], batch["target_pose_rotmats"]], 1
    )
    betas = jnp.asarray(batch["target_shape"])
    posed = body_forward(assets.body, betas, jnp.asarray(rotmats))
    np.testing.assert_allclose(batch["target_vertices_m"], posed.vertices_m, atol=1e-5)
    rest = body_forward(assets.body, betas, jnp.zeros((len(INDEX), 24, 3)))
    np.testing.assert_allclose(
        batch["target_zero_pose_vertices_m"], rest.vertices_m, atol=1e-5
    )
    expected = axis_angle_to_matrix(jnp.asarray(assets.poses_aa[INDEX, 1:]))
    np.testing.assert_allclose(batch["target_pose_rotmats"], expected, atol=1e-5)


def test_crops_show_the_person_and_the_background(make):
    batch = make(jax.random.key(1), {"pose_index": INDEX})
    joints = batch["target_joints2d_px"]
    assert batch["joints2d_visible"].mean() > 0.8
    inside = (joints > 0.05 * SIZE) & (joints < 0.95 * SIZE)
    assert inside[batch["joints2d_visible"] > 0].all()
    # The longer side of the box takes 1 / 1.2 of the crop.
    extent = np.ptp(joints, axis=1).max(-1) / SIZE
    assert ((extent > 0.5) & (extent < 1 / 1.2)).all()
    corner = batch["image"][:, -6:, -6:]  # black where outside the picture
    assert corner.max() < 0.4
    assert (corner > 0).mean() > 0.4
    np.testing.assert_array_equal(batch["joints2d_px"], joints)


def test_input_is_edges_and_heatmaps(make):
    batch = make(jax.random.key(1), {"pose_index": INDEX})
    assert batch["proxy"].shape == (4, SIZE, SIZE, 18)
    x, y = batch["joints2d_px"][0, 5]
    rows, columns = np.mgrid[:SIZE, :SIZE]
    std = 4.0 * SIZE / 256
    bump = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * std**2))
    bump *= batch["joints2d_visible"][0, 5]
    np.testing.assert_allclose(batch["proxy"][0, ..., 6], bump, atol=1e-5)
    assert batch["proxy"][..., 0].max() > 0.3


def test_batches_depend_on_the_key_alone(make):
    first = make(jax.random.key(1), {"pose_index": INDEX})
    again = make(jax.random.key(1), {"pose_index": INDEX})
    other = make(jax.random.key(2), {"pose_index": INDEX})
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert np.abs(first["target_shape"] - other["target_shape"]).max() > 0.1
    assert np.isfinite(np.concatenate([v.ravel() for v in first.values()])).all()


def test_a_picture_follows_its_place_in_the_whole_batch(assets):
    """However many devices share the batch: each draws its part of it."""
    options = dataclasses.replace(
        PLAIN,
        augmentation=ProxyAugmentation(),
        poses=PoseLaw(root="upright", mixed_share=0.5, mirrored_share=0.5),
        light_per_image=False,
    )
    make = jax.jit(
        lambda batch: proxies.make_batch(jax.random.key(4), batch, assets, options)
    )

    def part(rows):
        batch = {
            "pose_index": INDEX[rows],
            "batch_row": np.arange(4, dtype=np.int32)[rows],
        }
        return jax.device_get(make(batch))

    whole = part(slice(0, 4))
    for rows in (slice(0, 2), slice(2, 4)):
        for name, value in part(rows).items():
            np.testing.assert_allclose(
                value, whole[name][rows], atol=2e-5, rtol=1e-5, err_msg=name
            )
    # Equal poses at different places are different pictures.
    twins = {"pose_index": INDEX[[0, 0]], "batch_row": np.arange(2, dtype=np.int32)}
    shape = jax.device_get(make(twins))["target_shape"]
    assert np.abs(shape[0] - shape[1]).max() > 0.1


def test_backgrounds_of_the_batch_go_first(make):
    white = np.full((4, SIZE, SIZE, 3), 255, np.uint8)
    batch = make(jax.random.key(1), {"pose_index": INDEX, "background": white})
    corner = batch["image"][:, -6:, -6:]
    assert (corner > 0.99).mean() > 0.4
    assert ((corner > 0.99) | (corner == 0)).all()


def test_one_light_for_a_batch_or_one_for_each():
    one = proxies._lights(jax.random.key(0), 3, False)
    each = proxies._lights(jax.random.key(0), 3, True)
    assert np.ptp(np.asarray(one.position_m), axis=0).max() == 0
    assert np.ptp(np.asarray(each.position_m), axis=0).max() > 0.01


@pytest.mark.parametrize(
    ("field", "value"),
    [("focal_px", 0.0), ("shape_std", np.nan), ("camera_std_m", -1.0),
     ("depth_range_m", (0.5, -0.5))],
)  # fmt: skip
def test_options_out_of_range(field, value):
    with pytest.raises(ValueError, match=f"{field}.*got"):
        dataclasses.replace(PLAIN, **{field: value})


def test_seams_change_the_normals_at_borders_alone(scene, assets):
    figures, image, labels = scene
    index = jnp.zeros(len(INDEX), jnp.int32)
    lamp = PointLight(
        jnp.tile(jnp.array([0.5, -1.0, -2.0]), (len(INDEX), 1)),
        *(jnp.full(len(INDEX), x) for x in (0.2, 0.7, 0.0, 64.0)),
    )
    drawn = [
        np.asarray(
            proxies.render_figures(
                jax.tree.map(jnp.asarray, figures), index, lamp, assets,
                dataclasses.replace(PLAIN, normal_seams=seams),
            )[0]
        )
        for seams in (False, True)
    ]  # fmt: skip
    changed = np.abs(drawn[0] - drawn[1]).max(-1) > 1e-3
    assert 0 < changed.sum() < 0.5 * (labels > 0).sum()


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match="image_size_px: .*got 100"):
        dataclasses.replace(PLAIN, image_size_px=100)
    with pytest.raises(ValueError, match="above 1 m, got 1 m"):
        dataclasses.replace(PLAIN, mean_camera_m=(0.0, 0.0, 1.0))
