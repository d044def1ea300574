"""The table of the published IKOL network."""

from collections.abc import Iterable, Mapping
from typing import Any

from hmr_jax.convert import tables

PREFIX = "preact."


def ikol_table(depth: int, num_deconvs: int = 3) -> tables.Table:
    """Names of an IKOL checkpoint.

    Args:
        depth: of the ResNet, 18, 34, 50 or 101.
        num_deconvs: transposed convolutions of the head.

    Returns:
        The table. ``smpl.*``, the body model's own arrays, is ignored: the body comes
        from its model file. ``init_shape`` may be missing from a published file.

    Source: the state dict of the original, spec section 2.5.
    """
    entries = {"init_shape": tables.Entry(("batch_stats", "init_shape"))}
    entries |= tables.resnet(depth, PREFIX, "backbone")
    for index in range(num_deconvs):
        name, norm = f"deconv_layers.{3 * index}", f"deconv_layers.{3 * index + 1}"
        entries |= tables.conv(name, "deconv", f"deconv{index}", layout="deconv")
        entries |= tables.batch_norm(norm, "deconv", f"bn{index}")
    entries |= tables.conv("final_layer", "final_layer")
    entries |= tables.bias("final_layer", "final_layer")
    for name in ("fc1", "fc2", "decshape", "decphi", "decleaf"):
        entries |= tables.linear(name, name)
    return tables.Table(
        entries,
        optional={"init_shape": "decshape.bias"},
        ignored=(r"smpl\..*", tables.COUNTER_PATTERN),
        counters=tables.counters(entries),
    )


def find_table(names: Iterable[str]) -> tables.Table:
    """The table for a checkpoint's own depth and number of deconvolutions.

    Raises:
        ValueError: its backbone is none we have.
    """
    names = list(names)
    depth = tables.find_resnet_depth(names, PREFIX)
    deconvs = [
        name
        for name in names
        if name.startswith("deconv_layers.") and name.endswith(".running_mean")
    ]
    return ikol_table(depth, len(deconvs))


def _table_of(variables: Mapping[str, Any], depth: int) -> tables.Table:
    """The table of a model's own number of deconvolutions."""
    deconvs = [n for n in variables["params"]["deconv"] if n.startswith("deconv")]
    return ikol_table(depth, len(deconvs))


CHECKPOINT = tables.Checkpoint(find_table=find_table, make_table=_table_of)
