"""A small distribution network, the bodies of its output, and bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.forward import body_forward
from hmr_jax.body.landmarks import coco_joints, face_landmarks
from hmr_jax.body.open_assets import load_open_body
from hmr_jax.distributions.matrix_fisher import MatrixFisher
from hmr_jax.geometry.rotations import random_rotation
from hmr_jax.nn.proxy import proxy_representation
from hmr_jax.systems import hierprob

SMALL = {"width": 4, "hidden": 8, "embedding": 6, "pose_hidden": 5}


@pytest.fixture(scope="module")
def net():
    return hierprob.HierProbNet(**SMALL, signs="backend")


@pytest.fixture(scope="module")
def variables(net):
    """Drawn without the initialisers, whose compilation takes longest of all."""
    proxy = jax.ShapeDtypeStruct((2, 32, 32, 18), jnp.float32)
    shapes = jax.eval_shape(
        lambda x: net.init(jax.random.key(0), x, train=False), proxy
    )
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        fan_in = np.prod(leaf.shape[:-1]) if name == "kernel" else 100
        values = rng.standard_normal(leaf.shape) / np.sqrt(fan_in)
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, dict(shapes))


@pytest.fixture(scope="module")
def apply(net, variables):
    return functools.partial(
        jax.jit(functools.partial(net.apply, train=False)), variables
    )


@pytest.fixture(scope="module")
def body(tiny_body):
    """With a face, which 60 vertices do not tell."""
    face = np.zeros((5, 60), np.float32)
    face[np.arange(5), 50 + np.arange(5)] = 1
    regressors = dict(tiny_body.extra_joint_regressors)
    regressors["coco_face_5"] = jnp.asarray(face)
    return tiny_body.__class__(
        **{
            **{f: getattr(tiny_body, f) for f in tiny_body.__dataclass_fields__},
            "extra_joint_regressors": regressors,
        }
    )


@pytest.fixture(scope="module")
def raw():
    """Two predicted people: one uncertain, one all but certain."""
    rng = np.random.default_rng(5)
    scale = jnp.array([3.0, 3e4]).reshape(2, 1, 1, 1)
    rotations = random_rotation(jax.random.key(1), (2, 23))
    fisher = MatrixFisher.from_matrix(scale * rotations, "backend")
    normal = rng.standard_normal
    return {
        "features": jnp.zeros((2, 4)),
        "pose_fisher_matrix": fisher.matrix,
        "pose_u": fisher.u,
        "pose_s": fisher.s,
        "pose_v": fisher.v,
        "pose_mode": fisher.mode(),
        "shape_mean": jnp.asarray(normal((2, 10)), jnp.float32),
        "shape_log_std": jnp.full((2, 10), -1.0),
        "global_rotmat": random_rotation(jax.random.key(2), (2,)),
        "camera": jnp.array([[0.9, 0.1, -0.2], [0.7, 0.0, 0.3]]),
    }


def test_ancestors_of_the_body():
    chains = hierprob.ancestors(hierprob.BODY_PARENTS)
    # body joint 22 is the right hand
    assert chains[22] == (20, 18, 16, 13, 8, 5, 2)
    assert chains[14] == (11, 8, 5, 2)
    assert [len(c) for c in chains[:4]] == [0, 0, 0, 1]


def test_what_the_network_says(apply):
    rng = np.random.default_rng(0)
    out = apply(jnp.asarray(rng.random((2, 32, 32, 18)), jnp.float32))
    assert out["pose_fisher_matrix"].shape == (2, 23, 3, 3)
    assert out["shape_mean"].shape == out["shape_std"].shape == (2, 10)
    u, s, v = (np.asarray(out[f"pose_{name}"]) for name in "usv")
    product = np.einsum("...ik,...k,...jk->...ij", u, s, v)
    np.testing.assert_allclose(product, out["pose_fisher_matrix"], atol=1e-5)
    for name in ("pose_u", "pose_v", "pose_mode", "global_rotmat"):
        np.testing.assert_allclose(np.linalg.det(out[name]), 1, atol=1e-5)
    np.testing.assert_allclose(out["shape_std"], np.exp(out["shape_log_std"]), 1e-6)


def test_children_depend_on_their_ancestors_alone(net, variables, apply):
    """Another knee changes the ankle and the foot of its side, and nothing else."""
    proxy = jnp.zeros((2, 32, 32, 18))
    before = np.asarray(apply(proxy)["pose_fisher_matrix"])
    head = variables["params"]["pose"]["joint_3"]["out"]
    changed = {**head, "bias": head["bias"] + jnp.arange(9.0)}
    pose = {**variables["params"]["pose"]}
    pose["joint_3"] = {**pose["joint_3"], "out": changed}
    other = {**variables, "params": {**variables["params"], "pose": pose}}
    run = apply.func
    after = np.asarray(run(other, proxy)["pose_fisher_matrix"])
    moved = np.flatnonzero(np.abs(after - before).max((0, 2, 3)) > 0)
    # body joints: left knee, left ankle, left foot
    np.testing.assert_array_equal(moved, [3, 6, 9])


def test_a_side_that_does_not_fit(net):
    with pytest.raises(ValueError, match="multiples of 32, got 32 x 40"):
        net.init(jax.random.key(0), jnp.zeros((1, 32, 40, 18)), train=False)


def nothing_to_see():
    """A black picture without joints, and one of NaN with joints that are NaN."""
    images = jnp.zeros((2, 32, 32, 3)).at[1].set(jnp.nan)
    joints = jnp.full((2, 17, 2), jnp.nan).at[0].set(5.0)
    visible = jnp.zeros((2, 17)).at[1].set(1.0)
    return images, joints, visible


def test_nothing_to_see_gives_the_body_of_an_empty_representation(apply, body):
    proxy = proxy_representation(*nothing_to_see())
    np.testing.assert_array_equal(proxy, 0)
    out = jax.jit(hierprob.decode)(apply(proxy), body)
    for name, value in out.items():
        assert np.isfinite(value).all(), name
    # Equal up to rounding, which may depend on the place in the batch.
    first, second = out["vertices_m"]
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_nothing_to_see_has_finite_gradients(net, variables, body):
    images, joints, visible = nothing_to_see()

    def total(params, images, joints):
        proxy = proxy_representation(images, joints, visible)
        out = net.apply({**variables, "params": params}, proxy, train=False)
        return sum(jnp.sum(x**2) for x in hierprob.decode(out, body).values())

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))
    found = gradient(variables["params"], images, joints)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_the_most_likely_body(raw, body):
    out = jax.jit(functools.partial(hierprob.decode, reposed=True))(raw, body)
    pose = np.concatenate([raw["global_rotmat"][:, None], raw["pose_mode"]], 1)
    posed = body_forward(body, raw["shape_mean"], jnp.asarray(pose))
    np.testing.assert_allclose(out["vertices_m"], posed.vertices_m, atol=1e-6)
    coco = np.asarray(out["joints_coco_m"])
    np.testing.assert_allclose(coco[:, 2], posed.vertices_m[:, 52], atol=1e-6)
    np.testing.assert_allclose(coco[:, 5], posed.joints_m[:, 16], atol=1e-6)
    # s (x + tx), s (-y + ty): the picture's y points down
    s, tx, ty = np.asarray(raw["camera"]).T[:, :, None]
    expected = np.stack([s * (coco[..., 0] + tx), s * (-coco[..., 1] + ty)], -1)
    np.testing.assert_allclose(out["joints2d_norm"][:, 0], expected, atol=1e-6)
    rest = body_forward(body, raw["shape_mean"], jnp.zeros((2, 24, 3))).vertices_m
    np.testing.assert_allclose(out["reposed_vertices_m"], rest, atol=1e-6)
    assert out["joints3d_m"].shape == (2, 14, 3)
    assert "features" not in out


def test_samples_spread_as_much_as_the_distributions_are_wide(raw, body):
    draw = jax.jit(
        functools.partial(hierprob.decode_samples, num_samples=40),
        static_argnames=("sample_shape",),
    )
    out = draw(jax.random.key(3), raw, body)
    assert out["sample_vertices_m"].shape == (2, 40, 60, 3)
    assert out["sample_joints2d_norm"].shape == (2, 40, 17, 2)
    assert out["sample_complete"].all()
    np.testing.assert_allclose(np.linalg.det(out["sample_rotmats"]), 1, atol=1e-5)
    betas = np.asarray(out["sample_betas"])
    mean, std = np.asarray(raw["shape_mean"]), np.exp(-1)
    assert np.abs(betas.mean(1) - mean).max() < 5 * std / np.sqrt(40)
    np.testing.assert_allclose(betas.std(1).mean(), std, rtol=0.1)
    fixed = draw(jax.random.key(3), raw, body, sample_shape=False)
    expected = np.broadcast_to(mean[:, None], betas.shape)
    np.testing.assert_array_equal(fixed["sample_betas"], expected)
    vertices = np.asarray(fixed["sample_vertices_m"], np.float64)
    offset = np.linalg.norm(vertices - vertices.mean(1, keepdims=True), axis=-1)
    spread = hierprob.vertex_spread(fixed["sample_vertices_m"])
    np.testing.assert_allclose(spread, offset.mean(1), rtol=1e-4, atol=1e-7)
    uncertain, certain = np.asarray(spread).mean(-1)
    assert uncertain > 20 * certain


def test_uncertainty_is_that_of_the_samples(raw, body):
    @jax.jit
    def both(key, raw, body):
        drawn = hierprob.decode_samples(key, raw, body, 8, sample_shape=False)
        spread = hierprob.vertex_spread(drawn["sample_vertices_m"])
        return hierprob.vertex_uncertainty(key, raw, body, 8), spread

    found, spread = both(jax.random.key(4), raw, body)
    np.testing.assert_allclose(found, spread, rtol=1e-5, atol=1e-7)


def test_samples_carry_gradients(raw, body):
    def total(matrix):
        fisher = MatrixFisher.from_matrix(matrix, "backend")
        new = raw | {"pose_u": fisher.u, "pose_s": fisher.s, "pose_v": fisher.v}
        out = hierprob.decode_samples(jax.random.key(0), new, body, 2)
        return jnp.sum(out["sample_joints2d_norm"] ** 2)

    gradient = jax.jit(jax.grad(total))(raw["pose_fisher_matrix"])
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0]).max() > 0


def test_samples_in_order_of_their_fit():
    target = jnp.zeros((1, 3, 2)).at[0, 2].set(jnp.nan)
    samples = jnp.array([[[[3.0, 0], [0, 0], [0, 0]], [[1, 1], [2, 0], [9, 9]]]])
    visible = jnp.ones((1, 3))
    order = hierprob.samples_by_fit(samples, target, visible)
    np.testing.assert_array_equal(order, [[1, 0]])
    order = hierprob.samples_by_fit(samples, target, jnp.zeros((1, 3)))
    np.testing.assert_array_equal(order, [[0, 1]])


def test_the_open_body_has_a_face(tiny_body):
    body = load_open_body()
    rest = body.template_m
    nose, left_eye, right_eye, left_ear, right_ear = np.asarray(
        face_landmarks(body, rest)
    )
    mirror = np.array([-1, 1, 1], np.float32)
    np.testing.assert_allclose(left_eye, right_eye * mirror, atol=1e-3)
    np.testing.assert_allclose(left_ear, right_ear * mirror, atol=1e-3)
    assert left_ear[0] > left_eye[0] > 0.02
    assert nose[2] > left_eye[2] > left_ear[2] > 0
    assert left_eye[1] > nose[1]
    joints = body_forward(body, jnp.zeros(10), jnp.zeros((24, 3))).joints_m
    coco = coco_joints(body, rest, joints)
    assert coco.shape == (17, 3)
    with pytest.raises(ValueError, match="60 vertices is not known"):
        face_landmarks(tiny_body, tiny_body.template_m)
