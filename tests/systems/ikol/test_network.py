import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.forward import body_forward, rest_joints
from hmr_jax.losses.reduce import finish
from hmr_jax.systems.ikol.decode import decode as decode_raw
from hmr_jax.systems.ikol.decode import flip_test, lift_joints, merge_flipped
from hmr_jax.systems.ikol.losses import ikol_losses
from hmr_jax.systems.ikol.network import IkolNet
from tests import tolerances

SIZE_PX = 64
TINY = {
    "depth": 18,
    "width": 4,
    "depth_bins": 16,
    "deconv_channels": (8, 8, 8),
    "hidden": 16,
}


def make_batch(samples=2):
    """Upright cameras at four metres that see the whole crop range."""
    focal = 150.0
    intrinsics_inv = np.array(
        [[1 / focal, 0, -32 / focal], [0, 1 / focal, -32 / focal], [0, 0, 1]]
    )
    batch = {
        "crop_to_image": np.eye(2, 3),
        "intrinsics_inv": intrinsics_inv,
        "root_cam_m": np.array([0.1, -0.2, 4.0]),
    }
    return {
        name: jnp.asarray(np.stack([value] * samples), jnp.float32)
        for name, value in batch.items()
    }


def rest_uvd(body):
    """Heat-map coordinates [24, 3] of the resting body under ``make_batch``'s camera.

    A layer's answer to joints that no body can reach hangs on the last digit.
    """
    joints = rest_joints(body, jnp.zeros((1, 10)))[0]
    points = joints - joints[:1] + jnp.array([[0.1, -0.2, 4.0]])
    pixels = points[:, :2] / points[:, 2:] * 150 + 32
    return jnp.concatenate([pixels / SIZE_PX - 0.5, (points[:, 2:] - 4) / 2], -1)


def make_raw(rng, body=None, samples=2):
    def normal(*shape, scale=1.0):
        return jnp.asarray(scale * rng.standard_normal((samples, *shape)), jnp.float32)

    uvd = normal(24, 3, scale=0.01)
    return {
        "uvd": uvd if body is None else uvd + rest_uvd(body)[None],
        "shape": normal(10, scale=0.3),
        "delta_shape": normal(10),
        "twist": normal(23, 2),
        "leaf_quaternions": normal(5, 4),
    }


def random_variables(net, seed=0):
    """Small random parameters, without the minute that compiling ``init`` takes."""
    image = jax.ShapeDtypeStruct((1, SIZE_PX, SIZE_PX, 3), jnp.float32)
    shapes = jax.eval_shape(
        lambda x: net.init(jax.random.key(0), x, train=False), image
    )
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return jnp.ones(leaf.shape)
        scale = 1.0 if name == "kernel" else 0.1
        scale /= np.sqrt(np.prod(leaf.shape[:-1]) or 1)
        return jnp.asarray(scale * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, dict(shapes))


@pytest.fixture(scope="module")
def tiny():
    net = IkolNet(**TINY)
    shape = (2, SIZE_PX, SIZE_PX, 3)
    images = jnp.asarray(np.random.default_rng(1).uniform(-2, 2, shape), jnp.float32)
    variables = random_variables(net)
    variables["batch_stats"]["init_shape"] = jnp.arange(10.0)
    apply = jax.jit(functools.partial(net.apply, train=False))
    return net, images, variables, apply


@pytest.fixture(scope="module")
def decode():
    """The default decoding, compiled once for the file."""
    return jax.jit(
        functools.partial(decode_raw, image_size_px=SIZE_PX),
        static_argnames="vertices",
    )


def test_named_outputs_and_their_shapes(tiny):
    _, images, variables, apply = tiny
    out = apply(variables, images)
    assert {k: v.shape[1:] for k, v in out.items()} == {
        "uvd": (24, 3),
        "shape": (10,),
        "delta_shape": (10,),
        "twist": (23, 2),
        "leaf_quaternions": (5, 4),
        "features": (2, 2, 32),
        "pooled": (32,),
        "heatmap_features": (16, 16, 8),
        "logits": (16, 16, 24 * 16),
    }
    np.testing.assert_allclose(
        out["shape"] - out["delta_shape"], np.tile(np.arange(10.0), (2, 1)), atol=1e-5
    )
    assert (jnp.abs(out["uvd"]) <= 0.5).all()


def test_training_updates_statistics_and_drops_out(tiny):
    net, images, variables, _ = tiny

    @jax.jit
    def run(key):
        return net.apply(
            variables,
            images,
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )

    one, new = run(jax.random.key(1))
    other, _ = run(jax.random.key(2))
    assert not np.allclose(one["twist"], other["twist"])
    np.testing.assert_array_equal(one["uvd"], other["uvd"])
    before = variables["batch_stats"]["backbone"]["bn1"]["mean"]
    assert not np.allclose(new["batch_stats"]["backbone"]["bn1"]["mean"], before)
    np.testing.assert_array_equal(
        new["batch_stats"]["init_shape"], variables["batch_stats"]["init_shape"]
    )


def test_bfloat16_backbone_gives_nearly_the_same_in_float32(tiny):
    net, images, variables, apply = tiny
    narrow = net.clone(dtype=jnp.bfloat16)
    out = jax.jit(functools.partial(narrow.apply, train=False))(variables, images)
    exact = apply(variables, images)
    for name in ("uvd", "shape", "twist", "leaf_quaternions", "logits"):
        assert out[name].dtype == jnp.float32, name
    # 8 bits of mantissa through some 20 layers
    np.testing.assert_allclose(out["twist"], exact["twist"], atol=0.1)


def test_init_starts_at_the_given_mean_shape():
    net = IkolNet(**TINY, mean_betas=(1.0,) * 10)
    np.testing.assert_array_equal(net._init_shape(), np.ones(10))
    np.testing.assert_array_equal(IkolNet()._init_shape(), np.zeros(10))


def test_images_of_other_sides_are_refused():
    with pytest.raises(ValueError, match="multiples of 32, got 48 x 64"):
        IkolNet().init(jax.random.key(0), jnp.zeros((1, 48, 64, 3)), train=False)


def test_lift_inverts_the_projection_of_the_labels(rng):
    joints = jnp.asarray(0.3 * rng.standard_normal((2, 24, 3)), jnp.float32)
    batch = make_batch()
    points = joints + batch["root_cam_m"][:, None]
    pixels = points[..., :2] / points[..., 2:] * 150 + 32
    depth = (points[..., 2:] - batch["root_cam_m"][:, None, 2:]) / 2
    uvd = jnp.concatenate([pixels / SIZE_PX - 0.5, depth], -1)
    lifted = lift_joints(uvd, **batch, image_size_px=SIZE_PX)
    np.testing.assert_allclose(lifted, joints - joints[:, :1], atol=1e-5)


def test_decoded_mesh_is_the_body_at_the_decoded_pose(rng, tiny_body, decode):
    raw, batch = make_raw(rng, tiny_body), make_batch()
    out = decode(raw, batch, tiny_body)
    posed = body_forward(tiny_body, raw["shape"], out["pred_rotmats"])
    at_root = posed.vertices_m - posed.joints_m[:, :1]
    np.testing.assert_allclose(
        out["pred_vertices_cam_m"], at_root + batch["root_cam_m"][:, None], atol=1e-5
    )
    np.testing.assert_allclose(
        out["pred_joints_struct_m"], posed.joints_m - posed.joints_m[:, :1], atol=1e-5
    )
    assert np.abs(out["pred_joints_17_m"][:, 0]).max() == 0
    shift = out["pred_vertices_cam_m"] - out["pred_vertices_m"]
    np.testing.assert_allclose(shift - shift[:, :1], 0, atol=1e-5)
    norms = jnp.linalg.norm(out["pred_quaternions"], axis=-1)
    np.testing.assert_allclose(norms, 1, atol=tolerances.F32_IDENTITY)
    assert (out["pred_quaternions"][..., 0] >= 0).all()


def test_without_vertices_the_rest_is_the_same(rng, tiny_body, decode):
    raw, batch = make_raw(rng, tiny_body), make_batch()
    full = decode(raw, batch, tiny_body)
    fast = decode(raw, batch, tiny_body, vertices=False)
    assert set(full) - set(fast) == {
        "pred_vertices_m",
        "pred_joints_17_m",
        "pred_vertices_cam_m",
    }
    for name, value in fast.items():
        np.testing.assert_allclose(value, full[name], atol=1e-4, err_msg=name)


def _labels(rng, samples):
    def normal(*shape):
        return jnp.asarray(rng.standard_normal((samples, *shape)), jnp.float32)

    ones = functools.partial(jnp.ones, dtype=jnp.float32)
    return {
        "has_smpl": ones((samples, 1)),
        "target_shape": normal(10),
        "target_shape_weight": ones((samples, 1)),
        "target_twist": normal(23, 2),
        "target_twist_weight": ones((samples, 23, 2)),
        "target_uvd": normal(24, 3),
        "target_uvd_weight": ones((samples, 24, 3)),
        "target_quat": normal(24, 4),
        "target_quat_weight": ones((samples, 24, 1)),
    }


@pytest.mark.parametrize("scheme", ["newton", "published"])
def test_samples_without_body_or_camera_poison_neither_loss_nor_gradient(
    rng, tiny_body, scheme
):
    raw, batch = make_raw(rng, tiny_body, 3), make_batch(3)
    batch |= _labels(rng, 3)
    # sample 1: the original's stand-in for no camera; sample 2: no camera at all
    fake = jnp.array([[64.0, 0, 32], [0, 64, 32], [0, 0, 0]])
    matrices = batch["intrinsics_inv"].at[1].set(fake).at[2].set(jnp.nan)
    batch["intrinsics_inv"] = matrices
    batch["root_cam_m"] = batch["root_cam_m"].at[2].set(jnp.inf)
    supervised = jnp.array([True, False, False])
    batch["has_smpl"] = supervised[:, None].astype(jnp.float32)

    def loss(raw, body):
        out = decode_raw(
            raw,
            batch,
            body,
            image_size_px=SIZE_PX,
            scheme=scheme,
            vertices=False,
            layer_mask=supervised,
        )
        terms = ikol_losses(out, batch)
        return sum(finish(*term) for term in terms.values()), out

    (value, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        raw, tiny_body
    )
    assert np.isfinite(value)
    for name, array in gradient.items():
        assert np.isfinite(array).all(), name
    assert np.isfinite(out["pred_quaternions"]).all()


def test_masked_samples_see_their_own_rest_pose(rng, tiny_body, decode):
    raw, batch = make_raw(rng, tiny_body), make_batch()
    mask = jnp.array([True, False])
    out = decode(raw, batch, tiny_body, layer_mask=mask)
    rest = rest_joints(tiny_body, raw["shape"])
    np.testing.assert_allclose(
        out["pred_joints_struct_m"][1], rest[1] - rest[1, :1], atol=1e-4
    )
    free = decode(raw, batch, tiny_body)
    np.testing.assert_allclose(
        out["pred_joints_struct_m"][0], free["pred_joints_struct_m"][0], atol=1e-5
    )


def _mirror(raw, shift):
    """What a perfect network would say of the mirror image."""
    merged = merge_flipped(
        jax.tree.map(jnp.zeros_like, raw), raw, image_size_px=SIZE_PX, published=True
    )
    mirrored = {name: 2 * value for name, value in merged.items()}
    mirrored["delta_shape"] = raw["delta_shape"]
    mirrored["uvd"] = mirrored["uvd"].at[..., 0].add(-shift)
    return mirrored


@pytest.mark.parametrize("published", [False, True])
def test_flip_test_of_a_perfect_network_changes_nothing(rng, published):
    raw = make_raw(rng)
    if not published:
        raw["twist"] /= jnp.linalg.norm(raw["twist"], axis=-1, keepdims=True)
        raw["leaf_quaternions"] /= jnp.linalg.norm(
            raw["leaf_quaternions"], axis=-1, keepdims=True
        )
    shift = 0.0 if published else 1 / SIZE_PX
    mirrored = _mirror(raw, shift)
    if not published:  # a quaternion's sign does not matter
        mirrored["leaf_quaternions"] = -mirrored["leaf_quaternions"]
    merged = merge_flipped(raw, mirrored, image_size_px=SIZE_PX, published=published)
    for name, value in merged.items():
        np.testing.assert_allclose(value, raw[name], atol=1e-6, err_msg=name)


def test_flip_test_runs_the_mirror_image(tiny):
    _, images, variables, apply = tiny
    run = functools.partial(apply, variables)
    merged = flip_test(run, images)
    expected = merge_flipped(
        run(images), run(images[:, :, ::-1]), image_size_px=SIZE_PX
    )
    np.testing.assert_array_equal(merged["uvd"], expected["uvd"])
    assert set(merged) == {"uvd", "twist", "leaf_quaternions", "shape", "delta_shape"}
