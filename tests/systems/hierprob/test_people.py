"""From crops and 2D joints to bodies, samples and uncertainty."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.forward import body_forward
from hmr_jax.body.landmarks import coco_joints
from hmr_jax.nn.pose2d import proxy_crops, usable_joints
from hmr_jax.nn.proxy import proxy_representation
from hmr_jax.systems.hierprob import people

SIZE, CROP, SAMPLES = 64, (96, 72), 12


def test_usable_joints():
    confidence = np.full((1, 17), 0.5, np.float32)
    confidence[0, [7, 8]] = [0.8, 0.7]  # elbows
    confidence[0, [0, 1, 2]] = [0.0, -0.1, np.nan]
    joints = np.zeros((1, 17, 2), np.float32)
    joints[0, 5, 1] = np.nan
    found = usable_joints(jnp.asarray(joints), jnp.asarray(confidence))
    expected = [False, False, False, True, True, False, True, True] + [False] * 3
    assert found[0].tolist() == [*expected, True, True] + [False] * 4


def test_points_return_from_the_proxy_representation():
    points = jnp.array([[[10.0, 20.0], [-5.0, 90.0]]])
    _, there = proxy_crops(jnp.zeros((1, *CROP, 3)), points, SIZE)
    back = people.uncrop_proxy_points(there, CROP, SIZE)
    np.testing.assert_allclose(back, points, atol=1e-4)
    # the middle of the crop's left side lies a band of 1/8 from the square's
    there = people.uncrop_proxy_points(jnp.array([[[8.0, 32.0]]]), CROP, SIZE)
    np.testing.assert_allclose(there, [[[0.0, 48.0]]], atol=1e-4)


def network(proxy):
    """Stands for the network: distributions that depend on what is to be seen."""
    features = proxy.mean((1, 2))
    count = features.shape[0]
    eye = jnp.broadcast_to(jnp.eye(3), (count, 23, 3, 3))
    size = 3.0 + 9.0 * features.mean(-1)
    s = jnp.broadcast_to(size[:, None, None], (count, 23, 3))
    zeros = jnp.zeros((count, 10))
    return {
        "features": features,
        "pose_fisher_matrix": eye * s[..., None],
        "pose_u": eye,
        "pose_s": s,
        "pose_v": eye,
        "pose_mode": eye,
        "shape_mean": zeros + features[:, :10],
        "shape_log_std": zeros,
        "shape_std": zeros + 1,
        "global_rotmat": eye[:, 0],
        "camera": jnp.array([[0.9, 0.1, 0.2]]) + features[:, :3],
    }


@pytest.fixture(scope="module")
def body(face_body):
    return face_body


@pytest.fixture(scope="module")
def predict(body):
    @jax.jit
    def call(crops, joints, visible, keys):
        return people.predict_people(
            network,
            body,
            crops,
            joints,
            visible,
            keys,
            size_px=SIZE,
            num_samples=SAMPLES,
        )

    return call


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(1)
    crops = jnp.asarray(rng.uniform(size=(3, *CROP, 3)), jnp.float32)
    joints = jnp.asarray(rng.uniform([0, 0], [72, 96], (3, 17, 2)), jnp.float32)
    visible = jnp.asarray(rng.uniform(size=(3, 17)) > 0.3)
    return crops, joints, visible, jax.random.split(jax.random.key(5), 3)


def test_the_network_sees_the_scaled_representation(predict, inputs):
    crops, joints, visible, _ = inputs
    out = predict(*inputs)
    images, places = proxy_crops(crops, joints, 256)
    # A triangle as wide as two pixels of the result, cut at the border.
    centres = (np.arange(SIZE)[:, None] + 0.5) * 256 / SIZE - 0.5
    away = np.abs(np.arange(256)[None] - centres) / (256 / SIZE)
    weights = np.maximum(1 - away, 0)
    weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    small = np.einsum("ry,byxc,qx->brqc", weights, np.asarray(images), weights)
    expected = proxy_representation(
        jnp.asarray(small), places * SIZE / 256, visible, heatmap_std_px=1.0
    )
    off = np.abs(np.asarray(out["proxy"] - expected)) > 1e-4
    assert off[..., 1:].sum() == 0
    assert off[..., 0].mean() < 1e-3  # ties of neighbours are decided by rounding
    # the body's joints in the crops: out of [-1, 1], out of the square's bands
    joints_m = np.asarray(out["joints_coco_m"]) * [1, -1, -1]
    camera = np.asarray(out["camera"])[:, None]
    flat = camera[..., :1] * (joints_m[..., :2] + camera[..., 1:])
    pixels = (flat + 1) * 0.5 * 96 - [12, 0]
    np.testing.assert_allclose(out["joints2d_crop_px"], pixels, atol=1e-2)


def test_samples_belong_to_the_person_not_to_the_batch(predict, inputs):
    out = predict(*inputs)
    turned = predict(*(value[::-1] for value in inputs))
    for name in ("sample_rotmats", "vertex_uncertainty_m", "shown_vertices_m"):
        np.testing.assert_allclose(turned[name][::-1], out[name], atol=2e-4)
    assert out["sample_rotmats"].shape == (3, SAMPLES, 23, 3, 3)
    assert out["shown_vertices_m"].shape[:2] == (3, 8)
    assert np.asarray(out["sample_complete"]).all()
    same_shape = (
        np.asarray(out["sample_betas"]) - np.asarray(out["shape_mean"])[:, None]
    )
    np.testing.assert_array_equal(same_shape, 0)


def test_samples_are_ordered_by_their_fit(predict, inputs, body):
    """Bodies posed anew from the drawn rotations, compared with the 2D joints."""
    _, _, visible, _ = inputs
    out = predict(*inputs)
    rotmats = np.asarray(out["sample_rotmats"])
    root = np.broadcast_to(np.eye(3, dtype=np.float32), (3, SAMPLES, 1, 3, 3))
    pose = jnp.asarray(np.concatenate([root, rotmats], 2))
    posed = body_forward(body, out["sample_betas"], pose)
    joints_m = np.asarray(coco_joints(body, posed.vertices_m, posed.joints_m))
    camera = np.asarray(out["camera"])[:, None, None]
    flat = camera[..., :1] * (joints_m[..., :2] * [1, -1] + camera[..., 1:])
    # the target is the nearest pixel, as far as it is in the picture
    target = np.asarray(out["proxy_joints_px"])[:, None]
    error = np.linalg.norm((flat + 1) * SIZE / 2 - target, axis=-1)
    worst = np.where(np.asarray(visible)[:, None], error, 0).max(-1)
    order = np.asarray(out["sample_order"])
    in_order = np.take_along_axis(worst, order, 1)
    assert (np.diff(in_order) > -1.5).all() and (np.ptp(in_order, axis=1) > 3).all()
    first = np.take_along_axis(
        np.asarray(posed.vertices_m), order[:, :8, None, None], axis=1
    )
    np.testing.assert_allclose(out["shown_vertices_m"], first, atol=1e-5)
    vertices = np.asarray(posed.vertices_m)
    offset = vertices - vertices.mean(1, keepdims=True)
    spread = np.linalg.norm(offset, axis=-1).mean(1)
    np.testing.assert_allclose(out["vertex_uncertainty_m"], spread, atol=1e-5)
    assert spread.max() > 0.01


def test_nothing_to_see_gives_a_finite_body(predict, inputs):
    crops, joints, visible, keys = inputs
    nothing = jnp.zeros_like(visible)
    out = predict(jnp.zeros_like(crops), joints * jnp.nan, nothing, keys)
    assert not np.asarray(out["proxy"]).any()
    for name in ("vertices_m", "vertex_uncertainty_m", "joints2d_crop_px", "camera"):
        assert np.isfinite(np.asarray(out[name])).all(), name
    # without joints, samples keep the order in which they were drawn
    np.testing.assert_array_equal(out["sample_order"][0], np.arange(SAMPLES))


def test_without_samples_nothing_of_them_is_there(body, inputs):
    out = jax.eval_shape(
        functools.partial(people.predict_people, network, size_px=SIZE, num_samples=0),
        body,
        *inputs,
    )
    assert not [name for name in out if name.startswith(("sample", "vertex_", "shown"))]


def test_the_rest_pose_is_the_reposed_body(predict, inputs):
    out = predict(*inputs)  # the stand-in's mode is the identity
    np.testing.assert_allclose(out["vertices_m"], out["reposed_vertices_m"], atol=1e-5)
