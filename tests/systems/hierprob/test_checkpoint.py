"""Checkpoints of the distribution network and of HRNet, name by name."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from hmr_jax.convert import (
    convert_checkpoint,
    read_torch_checkpoint,
    to_torch_state_dict,
)
from hmr_jax.convert.hrnet import CHECKPOINT as HRNET
from hmr_jax.nn.hrnet import HRNet
from hmr_jax.systems.hierprob import INIT_CAMERA, INIT_GLOBAL_ROT6D, HierProbNet
from hmr_jax.systems.hierprob import checkpoint as tables
from hmr_jax.systems.hierprob.checkpoint import CHECKPOINT as HIERPROB
from tests.convert import torch_writer


def manifest(parity_dir, name):
    path = parity_dir / "hierprob" / f"manifest_{name}.json"
    return {n: tuple(shape) for n, shape in json.loads(path.read_text()).items()}


def zeros(shapes):
    """Arrays of the right shape that take no memory."""
    state = {n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()}
    return state | {n: a for n, a in tables.CONSTANTS.items() if n in state}


def model_shapes(net, channels):
    image = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)


@pytest.mark.parametrize(
    ("system", "name", "net", "channels", "depth", "entries", "scalars"),
    [
        (HIERPROB, "net", HierProbNet(), 18, 18, 224, 12616684),
        (HRNET, "hrnet", HRNet(), 3, None, 1754, 63595745),
    ],
)
def test_the_published_state_dict_fits_name_by_name(
    parity_dir, system, name, net, channels, depth, entries, scalars
):
    shapes = manifest(parity_dir, name)
    assert len(shapes) == entries
    ours = model_shapes(net, channels)
    assert sum(leaf.size for leaf in jax.tree.leaves(ours["params"])) == scalars
    variables = convert_checkpoint(system, zeros(shapes), template=ours)
    jax.tree.map(
        lambda a, b: np.testing.assert_equal(a.shape, b.shape), variables, dict(ours)
    )
    back = to_torch_state_dict(system, variables, depth=depth)
    assert {n: a.shape for n, a in back.items()} == shapes


def test_the_deeper_encoder_fits_its_own_table():
    """ResNet-50 with 2048 features and a first layer of 1024."""
    ours = model_shapes(HierProbNet(depth=50), 18)
    assert ours["params"]["fc1"]["kernel"].shape == (2048, 1024)
    assert ours["params"]["fc_embed"]["kernel"].shape == (2048 + 29, 256)
    paths = {entry.path for entry in tables.hierprob_table(50).entries.values()}
    assert paths == set(flatten_dict(ours))


@pytest.fixture(scope="module")
def small():
    """A small network's variables as random numpy arrays, and the network's shapes."""
    net = HierProbNet(width=4, hidden=8, embedding=6, pose_hidden=5)
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda s: rng.standard_normal(s.shape).astype(np.float32),
        dict(model_shapes(net, 18)),
    )


def test_round_trip(small):
    state = to_torch_state_dict(HIERPROB, small, depth=18)
    np.testing.assert_array_equal(state["init_glob"], [INIT_GLOBAL_ROT6D])
    np.testing.assert_array_equal(state["init_cam"], np.array(INIT_CAMERA, np.float32))
    assert state["fc_pose.22.0.weight"].shape == (5, 6 + 21 * 7)
    back = convert_checkpoint(HIERPROB, state, template=small)
    jax.tree.map(np.testing.assert_array_equal, back, small)


def test_the_best_epoch_is_read_unless_another_is_named(tmp_path, small):
    state = to_torch_state_dict(HIERPROB, small, depth=18)
    last = {n: a + 1 if n == "fc1.bias" else a for n, a in state.items()}
    content = {
        "epoch": 295,
        "best_epoch": 290,
        "best_epoch_val_metrics": {"PVE-SC": 0.07},
        "model_state_dict": torch_writer.tensors(last, True),
        "best_model_state_dict": torch_writer.tensors(state, True),
        "optimiser_state_dict": {"state": {}, "param_groups": []},
    }
    path = tmp_path / "epoch_295.tar"
    torch_writer.write_zip(path, content)
    best = read_torch_checkpoint(path)
    np.testing.assert_array_equal(best["fc1.bias"], state["fc1.bias"])
    named = read_torch_checkpoint(path, key="model_state_dict")
    np.testing.assert_array_equal(named["fc1.bias"], state["fc1.bias"] + 1)


def test_other_constants_and_names_are_refused(small):
    state = to_torch_state_dict(HIERPROB, small, depth=18)
    other = state | {"init_cam": np.array([1, 0, 0], np.float32)}
    with pytest.raises(ValueError, match=r"expected init_cam = .*found \[1.0, 0.0"):
        convert_checkpoint(HIERPROB, other)
    with pytest.raises(ValueError, match="the constant init_glob, found none"):
        convert_checkpoint(
            HIERPROB, {n: a for n, a in state.items() if n != "init_glob"}
        )
    with pytest.raises(ValueError, match=r"unexpected: fc_extra\.bias"):
        convert_checkpoint(HIERPROB, state | {"fc_extra.bias": np.zeros(2)})
    del state["fc_pose.3.2.bias"]
    with pytest.raises(ValueError, match=r"missing: fc_pose\.3\.2\.bias"):
        convert_checkpoint(HIERPROB, state)


def test_a_strict_hrnet(parity_dir):
    state = zeros(manifest(parity_dir, "hrnet"))
    del state["stage4.2.fuse_layers.0.3.0.weight"]
    with pytest.raises(ValueError, match=r"missing: stage4\.2\.fuse_layers"):
        convert_checkpoint(HRNET, state)
    with pytest.raises(ValueError, match="expected an HRNet"):
        convert_checkpoint(HRNET, {"conv1.weight": np.zeros((4, 3, 3, 3))})
