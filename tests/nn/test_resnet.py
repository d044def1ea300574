import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.nn import resnet


def _shapes(net, side=64):
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    return jax.eval_shape(
        lambda x: net.init(jax.random.key(0), x, use_running_average=True), images
    )


@pytest.mark.parametrize(
    ("depth", "scalars"),
    # torchvision's published totals less the 1000-way classifier
    [(18, 11176512), (34, 21284672), (50, 23508032), (101, 42500160)],
)
def test_number_of_parameters(depth, scalars):
    params = _shapes(resnet.ResNet(depth))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == scalars


@pytest.mark.parametrize("depth", [18, 50])
def test_stage_outputs_shrink_by_two_and_widen_by_two(depth, key):
    net = resnet.ResNet(depth, width=4)
    images = jnp.zeros((1, 64, 96, 3))
    out = jax.eval_shape(
        lambda x: net.init_with_output(key, x, use_running_average=True)[0], images
    )
    expansion = resnet.variant(depth).expansion
    assert out["stem"].shape == (1, 16, 24, 4)
    for stage in range(1, 5):
        shrink = 2 ** (stage - 1)
        expected = (1, 16 // shrink, 24 // shrink, 4 * shrink * expansion)
        assert out[f"layer{stage}"].shape == expected


def test_names_of_a_bottleneck_and_of_its_shortcut():
    params = _shapes(resnet.ResNet(50, width=4))["params"]
    names = {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3"}
    assert set(params["layer3_1"]) == names
    assert set(params["layer3_0"]) == names | {"downsample_conv", "downsample_bn"}
    # the first stage of a bottleneck net widens without a stride
    assert "downsample_conv" in params["layer1_0"]


def test_bfloat16_keeps_float32_parameters_and_statistics(key):
    net = resnet.ResNet(18, width=4, dtype=jnp.bfloat16)
    images = jnp.ones((2, 32, 32, 3))
    out, variables = jax.eval_shape(
        lambda x: net.init_with_output(key, x, use_running_average=True), images
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert out["layer4"].dtype == jnp.bfloat16


@pytest.mark.parametrize("side", [8, 9])
def test_max_pool_equals_the_pooling_primitive(side, rng):
    x = jnp.asarray(rng.standard_normal((2, side, side, 3)), jnp.float32)
    expected = nn.max_pool(jnp.asarray(x), (3, 3), (2, 2), ((1, 1), (1, 1)))
    np.testing.assert_array_equal(resnet.max_pool_3x3(x), expected)


def test_an_unknown_depth_is_refused():
    with pytest.raises(ValueError, match="got 19"):
        resnet.variant(19)


def test_without_stem(key):
    """The rest is the same network; features of another width are refused."""
    whole, rest = resnet.ResNet(18, width=4), resnet.ResNet(18, width=4, stem=False)
    images = jax.random.uniform(key, (1, 32, 32, 3))
    variables = whole.init(key, images, use_running_average=True)
    out = whole.apply(variables, images, use_running_average=True)
    less = {
        name: {k: v for k, v in tree.items() if k not in ("conv1", "bn1")}
        for name, tree in variables.items()
    }
    found = rest.apply(less, out["stem"], use_running_average=True)
    np.testing.assert_array_equal(found["layer4"], out["layer4"])
    with pytest.raises(ValueError, match="4 channels, got 3"):
        rest.apply(less, images, use_running_average=True)
