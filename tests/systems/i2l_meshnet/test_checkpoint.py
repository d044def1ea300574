"""The authors' snapshots, name by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.convert import checkpoints, merge, read_torch_checkpoint, tables
from hmr_jax.errors import UserError
from hmr_jax.systems.i2l_meshnet.checkpoint import CHECKPOINT
from hmr_jax.systems.i2l_meshnet.network import I2lMeshNet
from tests.convert import torch_writer as writer
from tests.systems.i2l_meshnet import vectors


def zeros(shapes):
    """Arrays of the right shape that take no memory."""
    return {n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()}


def model_shapes(kind, *, parameters=True):
    joints, vertices, rotations = vectors.SIZES[kind]
    net = I2lMeshNet(joints, vertices, rotations, parameters)
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    rows = jax.ShapeDtypeStruct((joints, vertices), jnp.float32)
    make = lambda x, r: net.init(jax.random.key(0), x, r, train=False)  # noqa: E731
    return jax.eval_shape(make, image, rows)


@pytest.mark.parametrize("parameters", [True, False])
@pytest.mark.parametrize("kind", vectors.KINDS)
def test_a_snapshot_fits_name_by_name(parity_dir, kind, parameters):
    """With the body model inside, or, without its last stage, as hands have it."""
    parts = vectors.manifest(parity_dir, kind)
    shapes = parts["network"]
    if not parameters:
        shapes = {k: s for k, s in shapes.items() if "param_regressor" not in k}
    body = parts["body_model_buffers"] if parameters else {}
    ours = model_shapes(kind, parameters=parameters)
    variables = checkpoints.convert_checkpoint(
        CHECKPOINT, zeros(shapes | body), template=ours
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_equal(a.shape, b.shape), variables, ours
    )
    back = checkpoints.to_torch_state_dict(CHECKPOINT, variables, depth=50)
    assert {name: array.shape for name, array in back.items()} == shapes


@pytest.mark.parametrize(("kind", "total"), [("smpl", 142335471), ("mano", 137272839)])
def test_parameters_as_published(kind, total):
    """But for those that the original never uses."""
    params = model_shapes(kind)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == total - 9536


def test_what_does_not_fit_is_named(parity_dir):
    shapes = vectors.manifest(parity_dir, "mano")["network"]
    del shapes["pose2feat.conv.0.bias"]
    shapes["pose2feat.conv.2.weight"] = (3,)
    with pytest.raises(UserError, match=r"conv\.0\.bias.*conv\.2\.weight"):
        checkpoints.convert_checkpoint(CHECKPOINT, zeros(shapes))


def test_body_checkpoint_does_not_fit_a_hand(parity_dir):
    shapes = vectors.manifest(parity_dir, "smpl")["network"]
    with pytest.raises(UserError, match="778.*6890"):
        checkpoints.convert_checkpoint(
            CHECKPOINT, zeros(shapes), template=model_shapes("mano")
        )


def test_first_hand_files_have_a_body_s_last_layer(parity_dir):
    shapes = vectors.manifest(parity_dir, "mano")["network"]
    shapes["param_regressor.fc_pose.0.weight"] = (144, 512)
    shapes["param_regressor.fc_pose.0.bias"] = (144,)
    variables = checkpoints.convert_checkpoint(
        CHECKPOINT, zeros(shapes), template=model_shapes("mano", parameters=False)
    )
    assert "param_regressor" not in variables["params"]


def test_through_a_file_of_data_parallel(tmp_path, rng):
    """Legacy format, the prefix of DataParallel, beside an optimiser's state."""
    net = I2lMeshNet(3, 5, 2, True, 50, 8, 8, (4, 4, 4), hidden=(6, 5))
    image, rows = jnp.zeros((1, 32, 32, 3)), jnp.zeros((3, 5))
    shapes = jax.eval_shape(
        lambda x, r: net.init(jax.random.key(0), x, r, train=False), image, rows
    )
    made = jax.tree.map(
        lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes
    )
    state = checkpoints.to_torch_state_dict(CHECKPOINT, made, depth=50)
    path = tmp_path / "snapshot_8.pth.tar"
    wrapped = {f"module.{name}": array for name, array in state.items()}
    writer.write_legacy(path, {"epoch": 8, "network": writer.tensors(wrapped)})
    found = checkpoints.convert_checkpoint(
        CHECKPOINT, read_torch_checkpoint(path), template=shapes
    )
    jax.tree.map(np.testing.assert_array_equal, found, made)


def test_both_backbones_begin_with_imagenet(tmp_path, rng):
    """The second one without the layers that it has not."""
    net = I2lMeshNet(3, 5, 2, False, 18, 4, 8, (4, 4, 4))
    image, rows = jnp.zeros((1, 32, 32, 3)), jnp.zeros((3, 5))
    shapes = jax.eval_shape(
        lambda x, r: net.init(jax.random.key(0), x, r, train=False), image, rows
    )
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
    sizes = {
        name: merge.LAYOUTS[layout].to_torch(of(shapes, path)).shape
        for name, (path, layout) in tables.resnet(18, "", "pose_backbone").items()
    }
    state = {
        name: rng.standard_normal(size).astype(np.float32)
        for name, size in (sizes | {"fc.weight": (9, 32), "fc.bias": (9,)}).items()
    }
    path = tmp_path / "resnet.pth"
    writer.write_zip(path, writer.tensors(state))
    names = CHECKPOINT.backbones
    loaded = checkpoints.load_backbone(path, template=shapes, names=names)
    begun = checkpoints.with_backbone(zeros, loaded, names=names)
    first, second = (begun["params"][name] for name in names)
    assert set(first) - set(second) == {"conv1", "bn1"}
    kernel = state["layer4.1.conv2.weight"].transpose(2, 3, 1, 0)
    for part in (first, second):
        np.testing.assert_array_equal(part["layer4_1"]["conv2"]["kernel"], kernel)
    assert not begun["params"]["mesh_net"]["conv_x"]["kernel"].any()
    with pytest.raises(UserError, match="mesh_backbone"):
        checkpoints.with_backbone(zeros, loaded, names=names[:1])


def of(tree, path):
    for name in path:
        tree = tree[name]
    return np.zeros(tree.shape, np.float32)
