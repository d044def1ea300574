import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from hmr_jax.convert import checkpoints, merge, tables
from hmr_jax.systems.ikol import checkpoint as ikol_tables
from hmr_jax.systems.ikol.checkpoint import CHECKPOINT as IKOL
from hmr_jax.systems.ikol.network import IkolNet
from tests.convert import torch_writer as writer

SMPL_SHAPES = {"smpl.v_template": (6890, 3), "smpl.parents": (24,)}


def manifest(parity_dir, depth):
    path = parity_dir / "ikol" / f"ikol_state_dict_resnet{depth}.json"
    entries = json.loads(path.read_text())
    return {name: tuple(entry["shape"]) for name, entry in entries.items()}


def zeros(shapes):
    """Arrays of the right shape that take no memory."""
    return {n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()}


def model_shapes(**options):
    net = IkolNet(**options)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)


@pytest.mark.parametrize("depth", [34, 50])
def test_the_published_state_dict_fits_name_by_name(parity_dir, depth):
    shapes = manifest(parity_dir, depth)
    ours = model_shapes(depth=depth)
    variables = checkpoints.convert_checkpoint(IKOL, zeros(shapes), template=ours)
    jax.tree.map(
        lambda a, b: np.testing.assert_equal(a.shape, b.shape), variables, ours
    )
    back = checkpoints.to_torch_state_dict(IKOL, variables, depth=depth)
    kept = {n: s for n, s in shapes.items() if not n.startswith("smpl.")}
    assert {name: array.shape for name, array in back.items()} == kept


@pytest.mark.parametrize(
    ("depth", "entries", "scalars"),
    # state entries and trainable scalars of the original, spec section 2.5
    [
        (18, 161, 17419916),
        (34, 257, 27528076),
        (50, 359, 37615756),
        (101, 665, 56607884),
    ],
)
def test_sizes_of_every_depth(depth, entries, scalars):
    table = ikol_tables.ikol_table(depth)
    # ten entries of the body model are not ours
    assert len(table.entries) + len(table.counters) == entries - 10
    shapes = model_shapes(depth=depth)
    paths = {entry.path for entry in table.entries.values()}
    assert paths == set(flatten_dict(shapes))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == scalars
    names = [*table.entries, *table.counters]
    assert ikol_tables.find_table(names).entries == table.entries


@pytest.fixture
def small():
    """A small network's variables, as random numpy arrays."""
    shapes = model_shapes(depth=18, width=4, deconv_channels=(6, 5), hidden=8)
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda s: rng.standard_normal(s.shape).astype(np.float32), dict(shapes)
    )


def test_round_trip(small):
    state = checkpoints.to_torch_state_dict(IKOL, small, depth=18)
    assert state["preact.bn1.num_batches_tracked"].dtype == np.int64
    assert state["deconv_layers.0.weight"].shape == (32, 6, 4, 4)
    back = checkpoints.convert_checkpoint(IKOL, state, template=small)
    jax.tree.map(np.testing.assert_array_equal, back, small)


def test_all_that_is_missing_unexpected_or_misshaped_is_listed(small):
    state = checkpoints.to_torch_state_dict(IKOL, small, depth=18)
    del state["fc1.bias"]
    state |= zeros(SMPL_SHAPES)  # a body's arrays are ignored
    state["extra.weight"] = np.zeros(3)
    state["decphi.bias"] = np.zeros(45, np.float32)
    state["fc2.weight"] = np.zeros(8, np.float32)
    with pytest.raises(ValueError) as error:
        checkpoints.convert_checkpoint(IKOL, state, template=small)
    message = str(error.value)
    assert "missing: fc1.bias;" in message
    assert "unexpected: extra.weight;" in message
    assert "decphi.bias: expected (46,) as params.decphi.bias, got (45,)" in message
    assert "fc2.weight: expected 2 axes, got shape (8,)" in message
    assert "smpl" not in message


def test_init_shape_may_be_missing(small):
    state = checkpoints.to_torch_state_dict(IKOL, small, depth=18)
    del state["init_shape"]
    back = checkpoints.convert_checkpoint(IKOL, state, template=small)
    np.testing.assert_array_equal(
        back["batch_stats"]["init_shape"], small["batch_stats"]["init_shape"]
    )
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, small))
    for template in (None, shapes):
        zeros = checkpoints.convert_checkpoint(IKOL, state, template=template)
        np.testing.assert_array_equal(zeros["batch_stats"]["init_shape"], np.zeros(10))


def test_a_model_with_more_than_the_checkpoint_is_refused(small):
    state = checkpoints.to_torch_state_dict(IKOL, small, depth=18)
    template = {**small, "params": {**small["params"], "new": {"w": np.zeros(2)}}}
    with pytest.raises(ValueError, match=r"params\.new\.w: not in the table"):
        checkpoints.convert_checkpoint(IKOL, state, template=template)


def test_unknown_backbones():
    with pytest.raises(ValueError, match="found .0, 0, 0, 0. per stage"):
        checkpoints.convert_checkpoint(IKOL, {"fc.weight": np.zeros(1)})


def test_imagenet_backbone(tmp_path, small):
    table = tables.resnet(18, "", "backbone")
    flat = flatten_dict(small)
    state = merge.to_state_dict(
        unflatten_dict({entry.path: flat[entry.path] for entry in table.values()}),
        tables.Table(table, counters=tables.counters(table)),
    )
    state = {n: 2 * a if a.dtype == np.float32 else a for n, a in state.items()}
    state |= {"fc.weight": np.zeros((10, 32)), "fc.bias": np.zeros(10)}
    writer.write_legacy(tmp_path / "resnet18.pth", writer.tensors(state, True))
    backbone = checkpoints.load_backbone(tmp_path / "resnet18.pth", template=small)
    merged = checkpoints.with_backbone(small, backbone)
    assert jax.tree.structure(merged) == jax.tree.structure(small)
    conv = merged["params"]["backbone"]["layer2_0"]["downsample_conv"]["kernel"]
    before = small["params"]["backbone"]["layer2_0"]["downsample_conv"]["kernel"]
    np.testing.assert_array_equal(conv, 2 * before)
    np.testing.assert_array_equal(
        merged["params"]["fc1"]["kernel"], small["params"]["fc1"]["kernel"]
    )
    wide = model_shapes(depth=18, width=8, deconv_channels=(6, 5), hidden=8)
    with pytest.raises(ValueError, match=r"layer4\.1\.conv2\.weight: expected"):
        checkpoints.load_backbone(tmp_path / "resnet18.pth", template=wide)
    with pytest.raises(ValueError, match="backbone does not fit"):
        checkpoints.with_backbone(
            jax.tree.map(lambda s: np.zeros(s.shape), wide), backbone
        )


@pytest.mark.parametrize("layout", sorted(tables.LAYOUTS))
def test_layouts_are_inverse_pairs(layout, rng):
    ndim = tables.LAYOUTS[layout].ndim or 3
    shape = (2, 3, 1) if layout == "conv1d" else (2, 3, 4, 5)[:ndim]
    array = rng.standard_normal(shape)
    to_ours, to_torch, _ = tables.LAYOUTS[layout]
    np.testing.assert_array_equal(to_torch(to_ours(array)), array)
