"""The table of the published HRNet pose networks."""

from collections.abc import Iterable

from hmr_jax.convert import tables
from hmr_jax.errors import UserError

# modules and branches of stages 2 to 4
STAGES = {2: (1, 2), 3: (4, 3), 4: (3, 4)}
BLOCKS = 4

Entries = dict[str, tables.Entry]


def _conv_norm(name: str, *path: str) -> Entries:
    """A convolution and its normalisation, as PyTorch numbers them in a sequence."""
    return tables.conv(f"{name}.0", *path, "conv") | tables.batch_norm(
        f"{name}.1", *path, "bn"
    )


def _module(name: str, ours: str, branches: int, outputs: int) -> Entries:
    """Branches of basic blocks and their fusion."""
    entries: Entries = {}
    for branch in range(branches):
        for block in range(BLOCKS):
            theirs, place = (
                f"{name}.branches.{branch}.{block}",
                f"branch{branch}_{block}",
            )
            for i in (1, 2):
                entries |= tables.conv(f"{theirs}.conv{i}", ours, place, f"conv{i}")
                entries |= tables.batch_norm(f"{theirs}.bn{i}", ours, place, f"bn{i}")
    for to in range(outputs):
        for source in range(branches):
            theirs, place = f"{name}.fuse_layers.{to}.{source}", f"fuse{to}_{source}"
            if source > to:
                entries |= _conv_norm(theirs, ours, place)
            for step in range(to - source):
                entries |= _conv_norm(f"{theirs}.{step}", ours, f"{place}_{step}")
    return entries


def hrnet_table() -> tables.Table:
    """Names of an HRNet pose checkpoint, of any width.

    Returns:
        The table.

    Source: specs/hierprob.md section 16.
    """
    entries: Entries = {}
    for i in (1, 2):
        entries |= tables.conv(f"conv{i}", f"conv{i}")
        entries |= tables.batch_norm(f"bn{i}", f"bn{i}")
    for block in range(4):
        name, ours = f"layer1.{block}", f"layer1_{block}"
        for i in (1, 2, 3):
            entries |= tables.conv(f"{name}.conv{i}", ours, f"conv{i}")
            entries |= tables.batch_norm(f"{name}.bn{i}", ours, f"bn{i}")
    down = "layer1.0.downsample"
    entries |= tables.conv(f"{down}.0", "layer1_0", "downsample_conv")
    entries |= tables.batch_norm(f"{down}.1", "layer1_0", "downsample_bn")
    entries |= _conv_norm("transition1.0", "transition1_0")
    for stage in (1, 2, 3):
        name = f"transition{stage}"
        entries |= _conv_norm(f"{name}.{stage}.0", f"{name}_{stage}")
    for stage, (modules, branches) in STAGES.items():
        for index in range(modules):
            last = stage == 4 and index == modules - 1
            entries |= _module(
                f"stage{stage}.{index}",
                f"stage{stage}_{index}",
                branches,
                1 if last else branches,
            )
    entries |= tables.conv("final_layer", "final_layer")
    entries |= tables.bias("final_layer", "final_layer")
    return tables.Table(
        entries, ignored=(tables.COUNTER_PATTERN,), counters=tables.counters(entries)
    )


def find_table(names: Iterable[str]) -> tables.Table:
    """The table for a checkpoint; there is one for all widths.

    Args:
        names: the checkpoint's; they must be an HRNet's.

    Raises:
        UserError: it is no HRNet.
    """
    if "transition1.0.0.weight" not in set(names):
        raise UserError("checkpoint: expected an HRNet, found no transition1.0.0")
    return hrnet_table()


CHECKPOINT = tables.Checkpoint(
    find_table=find_table, make_table=lambda *_: hrnet_table(), has_depth=False
)
