"""Which variables a stage moves: parts of nested dicts chosen by their names."""

import re
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from hmr_jax.errors import UserError

EVERYTHING = ".*"
"""The pattern that all names match."""


def split(tree: Mapping[str, Any], pattern: str) -> tuple[Any, dict[str, Any]]:
    """The part of a tree whose names match, and the rest.

    Args:
        tree: nested dicts.
        pattern: regular expression of whole dotted names, for example
            ``head\\..*`` or ``head.fc.kernel``.

    Returns:
        Both parts as nested dicts; the tree itself where everything matches.
    """
    if pattern == EVERYTHING:
        return tree, {}
    chosen: dict[tuple[str, ...], Any] = {}
    rest: dict[tuple[str, ...], Any] = {}
    for path, leaf in flatten_dict(dict(tree)).items():
        (chosen if re.fullmatch(pattern, ".".join(path)) else rest)[path] = leaf
    return unflatten_dict(chosen), unflatten_dict(rest)


def join(one: Any, other: Mapping[str, Any]) -> Any:
    """The tree that ``split`` cut; ``one`` itself where there is nothing to add."""
    if not other:
        return one
    return unflatten_dict(flatten_dict(dict(one)) | flatten_dict(dict(other)))


def trained(params: Mapping[str, Any], pattern: str) -> tuple[Any, dict[str, Any]]:
    """``split`` of parameters, some of which must match.

    Raises:
        UserError: none does.
    """
    parts = split(params, pattern)
    if not parts[0]:
        raise UserError(
            f"trainable {pattern!r}: expected the names of some parameters, "
            f"found none among {', '.join(sorted(params))}"
        )
    return parts
