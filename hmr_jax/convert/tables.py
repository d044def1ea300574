"""Key tables: which PyTorch tensor becomes which of our variables, and in what layout.

A table is data. Each system has one; ``merge`` applies it in both directions.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hmr_jax.errors import UserError


class Layout(NamedTuple):
    """A change of axes and its inverse."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]
    ndim: int | None


LAYOUTS = {
    "same": Layout(lambda a: a, lambda a: a, None),
    # (out, in) <-> (in, out)
    "linear": Layout(lambda a: a.T, lambda a: a.T, 2),
    # (out, in, 1) <-> (in, out)
    "conv1d": Layout(lambda a: a.squeeze(2).T, lambda a: a.T[:, :, None], 3),
    # (out, in, rows, columns) <-> (rows, columns, in, out)
    "conv": Layout(
        lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1), 4
    ),
    # (in, out, rows, columns), a scatter <-> (rows, columns, in, out), a correlation
    "deconv": Layout(
        lambda a: a[:, :, ::-1, ::-1].transpose(2, 3, 0, 1),
        lambda a: a.transpose(2, 3, 0, 1)[:, :, ::-1, ::-1],
        4,
    ),
}
"""Layout changes by name."""


class Entry(NamedTuple):
    """Where one tensor goes: a path in our variables, and a name of ``LAYOUTS``."""

    path: tuple[str, ...]
    layout: str = "same"


@dataclasses.dataclass(frozen=True)
class Table:
    """All tensors of one system.

    Attributes:
        entries: PyTorch name to its place.
        optional: names that a checkpoint may lack, each with the name of a tensor of
            its shape; the template's value stays, or zeros stand in, with a warning.
        ignored: patterns of names that a checkpoint may hold and that have no place.
        counters: integer scalars PyTorch expects in a strict load; written as zero.
    """

    entries: Mapping[str, Entry]
    optional: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()

    def is_ignored(self, name: str) -> bool:
        """Whether a checkpoint's entry has no place by declaration."""
        return any(re.fullmatch(pattern, name) for pattern in self.ignored)


COUNTER_PATTERN = r".*\.num_batches_tracked"
"""PyTorch's count of updates of a running average; nothing reads it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A kind of checkpoint, as the authors of a network wrote it.

    Attributes:
        find_table: the names in a state dict (or it) to the table of what they become.
        make_table: variables and the depth of their ResNet to that table.
        has_depth: whether the depth is needed.
        backbones: names of the network's ResNets, which can begin with ImageNet's
            weights. One without a first convolution takes the layers after it.
        constants: further entries of their state dicts.
    """

    find_table: Callable[[Mapping[str, np.ndarray]], Table]
    make_table: Callable[[Mapping[str, Any], Any], Table]
    has_depth: bool = True
    backbones: tuple[str, ...] = ("backbone",)
    constants: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def conv(name: str, *path: str, layout: str = "conv") -> dict[str, Entry]:
    """A convolution's weight."""
    return {f"{name}.weight": Entry(("params", *path, "kernel"), layout)}


def bias(name: str, *path: str) -> dict[str, Entry]:
    """A layer's bias."""
    return {f"{name}.bias": Entry(("params", *path, "bias"))}


def linear(name: str, *path: str) -> dict[str, Entry]:
    """A dense layer's weight and bias."""
    return conv(name, *path, layout="linear") | bias(name, *path)


def batch_norm(name: str, *path: str) -> dict[str, Entry]:
    """A batch normalisation's scale, bias and running statistics."""
    return {
        f"{name}.weight": Entry(("params", *path, "scale")),
        f"{name}.bias": Entry(("params", *path, "bias")),
        f"{name}.running_mean": Entry(("batch_stats", *path, "mean")),
        f"{name}.running_var": Entry(("batch_stats", *path, "var")),
    }


def counters(entries: Iterable[str]) -> tuple[str, ...]:
    """The update counters that accompany a table's running statistics."""
    ending = ".running_mean"
    return tuple(
        name.removesuffix(ending) + ".num_batches_tracked"
        for name in entries
        if name.endswith(ending)
    )


RESNET_BLOCKS = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}
"""Depth to blocks per stage and whether they are bottlenecks."""


def resnet(depth: int, prefix: str = "", *path: str) -> dict[str, Entry]:
    """A torchvision ResNet without its classifier.

    Args:
        depth: 18, 34, 50 or 101.
        prefix: what precedes torchvision's names, with its dot.
        path: where the backbone lies in our variables.

    Raises:
        UserError: for another depth.
    """
    if depth not in RESNET_BLOCKS:
        raise UserError(
            f"ResNet depth: expected one of {list(RESNET_BLOCKS)}, got {depth}"
        )
    blocks, bottleneck = RESNET_BLOCKS[depth]
    entries = conv(f"{prefix}conv1", *path, "conv1")
    entries |= batch_norm(f"{prefix}bn1", *path, "bn1")
    for stage, count in enumerate(blocks, start=1):
        for index in range(count):
            name, ours = f"{prefix}layer{stage}.{index}", f"layer{stage}_{index}"
            for i in range(1, 4 if bottleneck else 3):
                entries |= conv(f"{name}.conv{i}", *path, ours, f"conv{i}")
                entries |= batch_norm(f"{name}.bn{i}", *path, ours, f"bn{i}")
            if index == 0 and (stage > 1 or bottleneck):
                down = f"{name}.downsample"
                entries |= conv(f"{down}.0", *path, ours, "downsample_conv")
                entries |= batch_norm(f"{down}.1", *path, ours, "downsample_bn")
    return entries


def find_resnet_depth(names: Iterable[str], prefix: str = "") -> int:
    """The depth whose number of blocks a checkpoint has.

    Args:
        names: the checkpoint's names.
        prefix: what precedes torchvision's names, with its dot.

    Raises:
        UserError: no supported depth has these blocks.
    """
    pattern = re.compile(re.escape(prefix) + r"layer(\d)\.(\d+)\.conv(\d)\.weight")
    found = [match.groups() for name in names if (match := pattern.fullmatch(name))]
    blocks = tuple(
        len({index for stage, index, _ in found if stage == str(wanted)})
        for wanted in range(1, 5)
    )
    bottleneck = any(conv_index == "3" for _, _, conv_index in found)
    for depth, layout in RESNET_BLOCKS.items():
        if layout == (blocks, bottleneck):
            return depth
    raise UserError(
        f"checkpoint: expected the blocks of a ResNet {list(RESNET_BLOCKS)} under "
        f"{prefix!r}, found {blocks} per stage"
    )
