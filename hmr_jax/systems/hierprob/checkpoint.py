"""The table of the published network of hierarchical distributions."""

from collections.abc import Iterable, Mapping

import numpy as np

from hmr_jax.convert import tables
from hmr_jax.errors import UserError

PREFIX = "image_encoder."

CONSTANTS = {
    "init_glob": np.array([[1, 0, 0, 1, 0, 0]], np.float32),
    "init_cam": np.array([0.9, 0, 0], np.float32),
}
"""Buffers of the original that are part of our network's definition."""


def hierprob_table(depth: int = 18, num_joints: int = 23) -> tables.Table:
    """Names of a checkpoint of the hierarchical distribution network.

    Args:
        depth: of the ResNet, 18 as published.
        num_joints: joints with a distribution.

    Returns:
        The table. The constant buffers have no place; see ``find_table``.

    Source: specs/hierprob.md section 6.
    """
    entries = tables.resnet(depth, PREFIX, "backbone")
    for name in ("fc1", "fc_shape", "fc_glob", "fc_cam", "fc_embed"):
        entries |= tables.linear(name, name)
    for joint in range(num_joints):
        name, ours = f"fc_pose.{joint}", f"joint_{joint}"
        entries |= tables.linear(f"{name}.0", "pose", ours, "hidden")
        entries |= tables.linear(f"{name}.2", "pose", ours, "out")
    return tables.Table(
        entries,
        ignored=(*CONSTANTS, tables.COUNTER_PATTERN),
        counters=tables.counters(entries),
    )


def find_table(state_dict: Iterable[str]) -> tables.Table:
    """The table for a checkpoint's own depth and number of joints.

    Args:
        state_dict: the checkpoint, or its names alone.

    Raises:
        UserError: its backbone is none we have, or a constant has another value than
            our network's.
    """
    names = set(state_dict)
    if isinstance(state_dict, Mapping):
        _check_constants(state_dict)
    depth = tables.find_resnet_depth(names, PREFIX)
    joints = {name.split(".")[1] for name in names if name.startswith("fc_pose.")}
    return hierprob_table(depth, len(joints))


def _check_constants(state_dict: Mapping[str, np.ndarray]) -> None:
    for name, expected in CONSTANTS.items():
        if name not in state_dict:
            raise UserError(f"checkpoint: expected the constant {name}, found none")
        found = np.asarray(state_dict[name], np.float32)
        if found.shape != expected.shape or not np.allclose(found, expected, atol=1e-6):
            raise UserError(
                f"checkpoint: expected {name} = {expected.tolist()}, found "
                f"{found.tolist()}: weights of another network"
            )


CHECKPOINT = tables.Checkpoint(
    find_table=find_table,
    make_table=lambda variables, depth: hierprob_table(
        depth, len(variables["params"]["pose"])
    ),
    constants=CONSTANTS,
)
