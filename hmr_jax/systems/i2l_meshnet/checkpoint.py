"""The table of the published I2L-MeshNet, body and hand, both stages."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hmr_jax.convert import tables
from hmr_jax.errors import UserError

_UNUSED = "mesh_backbone"
CONSTANTS: dict[str, np.ndarray] = {
    f"{_UNUSED}.conv1.weight": np.zeros((64, 3, 7, 7), np.float32),
    f"{_UNUSED}.bn1.weight": np.ones(64, np.float32),
    f"{_UNUSED}.bn1.bias": np.zeros(64, np.float32),
    f"{_UNUSED}.bn1.running_mean": np.zeros(64, np.float32),
    f"{_UNUSED}.bn1.running_var": np.ones(64, np.float32),
    f"{_UNUSED}.bn1.num_batches_tracked": np.zeros((), np.int64),
}
"""The second backbone's first layers, which the original holds and never uses."""
_REGRESSOR = "param_regressor."
_FIRST_LAYER = f"{_REGRESSOR}fc.0.weight"
_SIX = f"{_REGRESSOR}fc_pose.0.weight"
_VALUES_6D = 6


def i2l_table(
    depth: int = 50, num_deconvs: int = 3, *, parameters: bool = True
) -> tables.Table:
    """Names of an I2L-MeshNet checkpoint.

    Args:
        depth: of both ResNets, 50 as published.
        num_deconvs: transposed convolutions of each head.
        parameters: the file's network has a ParamRegressor that is wanted.

    Returns:
        The table. The body model's own arrays, which published files hold, are ignored:
        the body comes from its model file. So are ``CONSTANTS``.

    Source: specs/i2l_meshnet.md section 6.
    """
    entries = tables.resnet(depth, "pose_backbone.", "pose_backbone")
    entries |= tables.resnet(depth, "mesh_backbone.", "mesh_backbone")
    for head in ("pose_net", "mesh_net"):
        entries |= _head(head, num_deconvs)
    entries |= tables.conv("pose2feat.conv.0", "pose2feat")
    entries |= tables.bias("pose2feat.conv.0", "pose2feat")
    entries |= tables.batch_norm("pose2feat.conv.1", "pose2feat", "bn")
    ignored = [*map(_exactly, CONSTANTS), r"human_model_layer\..*"]
    if parameters:
        for index, (linear, norm) in enumerate((("fc.0", "fc.1"), ("fc.3", "fc.4"))):
            name = _REGRESSOR.removesuffix(".")
            entries |= tables.linear(_REGRESSOR + linear, name, f"fc{index}")
            entries |= tables.batch_norm(_REGRESSOR + norm, name, f"bn{index}")
        for layer in ("fc_pose", "fc_shape"):
            entries |= tables.linear(f"{_REGRESSOR}{layer}.0", name, layer)
    else:
        ignored.append(_exactly(_REGRESSOR) + ".*")
    for unused in CONSTANTS:
        entries.pop(unused, None)
    return tables.Table(
        entries,
        ignored=(*ignored, tables.COUNTER_PATTERN),
        counters=tables.counters(entries),
    )


def _exactly(name: str) -> str:
    return name.replace(".", r"\.")


def _head(name: str, num_deconvs: int) -> dict[str, tables.Entry]:
    entries: dict[str, tables.Entry] = {}
    for index in range(num_deconvs):
        conv, norm = f"{name}.deconv.{3 * index}", f"{name}.deconv.{3 * index + 1}"
        entries |= tables.conv(conv, name, "deconv", f"deconv{index}", layout="deconv")
        entries |= tables.batch_norm(norm, name, "deconv", f"bn{index}")
    for layer, ours in (
        *(("conv_x.0", "conv_x"), ("conv_y.0", "conv_y")),
        *(("conv_z_1.0", "conv_z_1"), ("conv_z_2.0", "conv_z_2")),
    ):
        entries |= tables.conv(f"{name}.{layer}", name, ours, layout="conv1d")
        entries |= tables.bias(f"{name}.{layer}", name, ours)
    return entries | tables.batch_norm(f"{name}.conv_z_1.1", name, "bn_z_1")


def find_table(state_dict: Iterable[str]) -> tables.Table:
    """The table for a checkpoint's own depth, stage and body.

    Args:
        state_dict: the checkpoint, or its names alone.

    Returns:
        The table. A ParamRegressor of a hand that makes a body's rotations, as the
        first published files have, was never trained and is ignored.

    Raises:
        UserError: its backbones are none we have.
    """
    names = list(state_dict)
    depth = tables.find_resnet_depth(names, "pose_backbone.")
    other = tables.find_resnet_depth(names, "mesh_backbone.")
    if depth != other:
        raise UserError(
            f"checkpoint: expected mesh_backbone of depth {depth}, that of "
            f"pose_backbone, found {other}"
        )
    deconvs = [
        name
        for name in names
        if name.startswith("pose_net.deconv.") and name.endswith(".running_mean")
    ]
    parameters = _SIX in names
    if parameters and isinstance(state_dict, Mapping):
        joints = state_dict[_FIRST_LAYER].shape[1] // 3 if _FIRST_LAYER in names else 0
        rotations = state_dict[_SIX].shape[0] // _VALUES_6D
        parameters = (joints, rotations) != (21, 24)
    return i2l_table(depth, len(deconvs), parameters=parameters)


def _table_of(variables: Mapping[str, Any], depth: int) -> tables.Table:
    """The table of a model's own heads and stage."""
    params = variables["params"]
    deconvs = [n for n in params["pose_net"]["deconv"] if n.startswith("deconv")]
    return i2l_table(depth, len(deconvs), parameters="param_regressor" in params)


CHECKPOINT = tables.Checkpoint(
    find_table=find_table,
    make_table=_table_of,
    constants=CONSTANTS,
    backbones=("pose_backbone", "mesh_backbone"),
)
