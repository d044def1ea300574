"""The network in small: what it gives, its fused parts, and what gradients reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.systems.i2l_meshnet import network
from hmr_jax.systems.i2l_meshnet.network import I2lMeshNet
from tests import tolerances

JOINTS, VERTICES, ROTATIONS, CELLS = 5, 11, 3, 8


def small(**options):
    values = dict(depth=18, width=4, cells=CELLS, deconv_channels=(6, 6, 6))
    values |= dict(hidden=(8, 7), parameters=True)
    return I2lMeshNet(JOINTS, VERTICES, ROTATIONS, **(values | options))


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((2, 4 * CELLS, 4 * CELLS, 3)), jnp.float32)
    rows = jnp.asarray(rng.dirichlet(np.ones(VERTICES), JOINTS), jnp.float32)
    net = small()
    variables = jax.jit(lambda k: net.init(k, images, rows, train=False))(
        jax.random.key(0)
    )
    return net, variables, images, rows


def test_outputs(case):
    net, variables, images, rows = case
    raw = net.apply(variables, images, rows, train=False)
    assert raw["joints_cells"].shape == (2, JOINTS, 3)
    assert raw["vertices_cells"].shape == (2, VERTICES, 3)
    np.testing.assert_allclose(
        raw["mesh_joints_cells"],
        np.einsum("jv,bvc->bjc", rows, raw["vertices_cells"]),
        rtol=1e-5,
    )
    for name in ("joints_cells", "vertices_cells"):
        assert np.all((raw[name] >= 0) & (raw[name] <= CELLS - 1))
    assert raw["rotmats"].shape == (2, ROTATIONS, 3, 3)
    assert raw["betas"].shape == (2, 10)
    params = variables["params"]
    assert set(params) == {
        *("pose_backbone", "pose_net", "pose2feat", "mesh_backbone", "mesh_net"),
        "param_regressor",
    }
    assert "conv1" not in params["mesh_backbone"]


def test_first_stage_has_no_parameters(case):
    _, _, images, rows = case
    shapes = jax.eval_shape(
        lambda k: small(parameters=False).init(k, images, rows, train=False),
        jax.random.key(0),
    )
    assert "param_regressor" not in shapes["params"]


def test_initial_values(case):
    """Section 7 of the specification: the 1D convolutions are PyTorch's own."""
    params = case[1]["params"]
    bound = 1 / 6**0.5
    kernel = np.asarray(params["mesh_net"]["conv_x"]["kernel"])
    assert 0.8 * bound < np.abs(kernel).max() <= bound
    assert np.abs(params["pose2feat"]["kernel"]).max() < 0.01
    assert not params["pose2feat"]["bias"].any()
    fc = np.asarray(params["param_regressor"]["fc0"]["kernel"])
    np.testing.assert_allclose(fc.std(), 0.01, rtol=0.3)
    assert not params["param_regressor"]["fc0"]["bias"].any()


def direct(features, kernel, bias):
    """Softmax of the whole heat maps, as it is written."""
    heat = jax.nn.softmax(features @ kernel + bias, axis=1)
    return jnp.einsum("c,bcn->bn", jnp.arange(heat.shape[1], dtype=heat.dtype), heat)


def test_fused_soft_argmax(x64):
    """The same values and gradients, and no heat map waits for the backward pass."""
    rng = np.random.default_rng(1)
    features, kernel = (
        jnp.asarray(rng.standard_normal(s)) for s in ((2, CELLS, 6), (6, 40))
    )
    bias = jnp.asarray(rng.standard_normal((1, 1, 40)))
    weights = jnp.asarray(rng.standard_normal((2, 40)))
    plain = lambda f, k: jnp.sum(weights * direct(f, k, bias))  # noqa: E731
    fused = lambda f, k: jnp.sum(weights * network.expected_cell(f, k))  # noqa: E731
    expected = jax.value_and_grad(plain, (0, 1))(features, kernel)
    found = jax.value_and_grad(fused, (0, 1))(features, kernel)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=tolerances.X64_IDENTITY),
        found,
        expected,
    )
    _, pullback = jax.vjp(fused, features, kernel)
    kept = [x.shape for x in jax.tree.leaves(pullback) if hasattr(x, "shape")]
    assert (2, CELLS, 40) not in kept
    _, pullback = jax.vjp(plain, features, kernel)
    kept = [x.shape for x in jax.tree.leaves(pullback) if hasattr(x, "shape")]
    assert (2, CELLS, 40) in kept


def test_gaussians_are_convolved_as_the_volume_would_be(x64):
    """Joints in the middle, at the border and outside of the cells."""
    rng = np.random.default_rng(2)
    places = rng.uniform(-3, CELLS + 3, (2, JOINTS, 3))
    places[:, 0], places[:, 1] = 0, CELLS - 1
    places = jnp.asarray(places)
    kernel = jnp.asarray(rng.standard_normal((3, 3, JOINTS * CELLS, 4)))
    cells = jnp.arange(CELLS, dtype=places.dtype)
    rows = [
        jnp.exp(-0.5 * ((cells.reshape(1, 1, -1) - places[..., i, None]) / 1.5) ** 2)
        for i in range(3)
    ]
    volume = jnp.einsum("bjx,bjy,bjz->byxjz", *rows).reshape(2, CELLS, CELLS, -1)
    expected = jax.lax.conv_general_dilated(
        volume, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    found = network.convolve_gaussians(places, kernel, CELLS, 1.5)
    np.testing.assert_allclose(found, expected, atol=tolerances.X64_IDENTITY)


def gradient_of(case, name):
    net, variables, images, rows = case

    def total(params):
        raw, _ = net.apply(
            {**variables, "params": params},
            images,
            rows,
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(jnp.sin(raw[name]))

    gradient = jax.jit(jax.grad(total))(variables["params"])
    return {
        part: any(np.any(x) for x in jax.tree.leaves(tree))
        for part, tree in gradient.items()
    }, gradient


def test_mesh_reaches_the_first_backbone_through_its_first_layer_alone(case):
    reached, gradient = gradient_of(case, "vertices_cells")
    assert reached == {
        "pose_backbone": True,
        "pose_net": False,
        "pose2feat": True,
        "mesh_backbone": True,
        "mesh_net": True,
        "param_regressor": False,
    }
    parts = gradient["pose_backbone"]
    moved = {k for k, v in parts.items() if any(map(np.any, jax.tree.leaves(v)))}
    assert moved == {"conv1", "bn1"}
    assert not np.any(gradient["mesh_net"]["conv_x"]["bias"])


def test_parameters_reach_their_regressor_alone(case):
    reached, _ = gradient_of(case, "pose_aa")
    assert [name for name, moved in reached.items() if moved] == ["param_regressor"]


@pytest.mark.parametrize("train_lixel", [True, False])
def test_whose_statistics_move(case, train_lixel):
    net, variables, images, rows = case
    _, new = net.apply(
        variables,
        images,
        rows,
        train=True,
        train_lixel=train_lixel,
        mutable=["batch_stats"],
    )
    moved = {
        part: any(
            np.any(a != b)
            for a, b in zip(
                jax.tree.leaves(tree),
                jax.tree.leaves(variables["batch_stats"][part]),
                strict=True,
            )
        )
        for part, tree in new["batch_stats"].items()
    }
    assert moved.pop("param_regressor")
    assert set(moved.values()) == {train_lixel}


def test_wrong_sizes_are_named(case):
    net, variables, images, rows = case
    with pytest.raises(ValueError, match="expected 32 x 32 for 8 cells"):
        net.apply(variables, images[:, :16], rows, train=False)
    with pytest.raises(ValueError, match=r"expected \(5, 11\).*got \(4, 11\)"):
        net.apply(variables, images, rows[:4], train=False)
