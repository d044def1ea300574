"""Comparing trees of arrays: their names, their shapes, their bytes."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hmr_jax.errors import UserError

_NUM_NAMED = 6  # parameters an error lists before it counts the rest


def flat_names(tree: Any) -> dict[str, Any]:
    """Leaves by slash-joined names, for messages and comparisons.

    Args:
        tree: any pytree of dicts, sequences and named tuples.

    Returns:
        For example ``{'params/conv1/kernel': leaf}``.
    """
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in pairs
    }


def check_matches(expected: Any, found: Any, where: str) -> None:
    """Compare the names and shapes of two trees of arrays.

    Args:
        expected: arrays or shapes of the model at hand.
        found: arrays or metadata of a file.
        where: the file, for the message.

    Raises:
        UserError: names and shapes of what differs, the first few of them.
    """
    ours = {name: tuple(leaf.shape) for name, leaf in _comparable(expected).items()}
    theirs = {name: tuple(leaf.shape) for name, leaf in _comparable(found).items()}
    problems = [
        f"{name}: expected {ours.get(name, 'nothing')}, "
        f"found {theirs.get(name, 'nothing')}"
        # Parameters first: they say most.
        for name in sorted(
            ours.keys() | theirs.keys(), key=lambda n: (not n.startswith("params"), n)
        )
        if ours.get(name) != theirs.get(name)
    ]
    if problems:
        # The optimiser's arrays follow the parameters: only alone are they news.
        problems = [p for p in problems if not p.startswith("opt_state")] or problems
        more = len(problems) - _NUM_NAMED
        rest = [f"and {more} more"] if more > 0 else []
        raise UserError(
            f"{where} does not fit this model: "
            + "; ".join(problems[:_NUM_NAMED] + rest)
        )


def _comparable(tree: Any) -> dict[str, Any]:
    """Leaves by name; the optimiser's, which files keep as lists, by position."""
    leaves = {}
    for name, part in tree.items():
        if name == "opt_state":
            for index, leaf in enumerate(jax.tree.leaves(part)):
                leaves[f"opt_state/{index}"] = leaf
        else:
            leaves.update(flat_names({name: part}))
    return leaves


def shapes_checksum(tree: Any) -> int:
    """CRC-32 of the names and shapes of a tree of arrays, or of a file's metadata."""
    found = {name: tuple(leaf.shape) for name, leaf in _comparable(tree).items()}
    return zlib.crc32(repr(sorted(found.items())).encode())


def checksums(tree: Mapping[str, Any]) -> dict[str, int]:
    """CRC-32 of all bytes below each name of a dict, in the order of the leaves.

    Args:
        tree: arrays of the host by name; containers may be lists or named tuples.

    Returns:
        One number for each name.
    """
    sums = {}
    for name, part in tree.items():
        total = 0
        for leaf in jax.tree.leaves(part):
            flat = np.ascontiguousarray(np.atleast_1d(leaf))
            total = zlib.crc32(flat.view(np.uint8).reshape(-1).data, total)
        sums[name] = total
    return sums
