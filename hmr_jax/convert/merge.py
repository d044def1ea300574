"""Strict transfer between PyTorch state dicts and our variables."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from hmr_jax.convert.tables import LAYOUTS, Table
from hmr_jax.errors import UserError

Variables = dict[str, Any]


def to_variables(
    state_dict: Mapping[str, np.ndarray],
    table: Table,
    *,
    template: Mapping[str, Any] | None = None,
) -> Variables:
    """Put every tensor of a state dict in its place.

    Args:
        state_dict: PyTorch name to array; any float type.
        table: the system's table.
        template: variables, or their shapes, of the model to be filled; without one
            shapes are not checked.

    Returns:
        Nested dict of float32 arrays. An optional entry that the checkpoint lacks is
        the template's, or zeros where the template has shapes alone.

    Raises:
        UserError: names missing, names the table does not know, or shapes that differ
            from the template's: all of them listed.
    """
    missing = [
        name
        for name in table.entries
        if name not in state_dict and name not in table.optional
    ]
    extra = [
        name
        for name in state_dict
        if name not in table.entries and not table.is_ignored(name)
    ]
    shapes = None if template is None else flatten_dict(dict(template))
    flat, problems = {}, []
    for name, (path, layout) in table.entries.items():
        if name in state_dict:
            array = np.asarray(state_dict[name])
            try:
                flat[path] = _to_ours(array, layout)
            except ValueError as error:
                problems.append(f"{name}: {error}")
                continue
            problems += _compare(name, path, flat[path], shapes)
        elif name in table.optional:
            known = None if shapes is None else shapes.get(path)
            like = state_dict.get(table.optional[name])
            if isinstance(known, np.ndarray | jax.Array):
                flat[path] = np.asarray(known, np.float32)
                kind = "the model's value stays"
            elif like is not None:
                flat[path] = np.zeros(np.shape(like), np.float32)
                kind = "taken as zeros"
            else:
                continue
            logging.warning("checkpoint: optional %s is missing, %s", name, kind)
    if shapes is not None:
        unset = sorted(set(shapes) - {e.path for e in table.entries.values()})
        problems += [f"{'.'.join(path)}: not in the table" for path in unset]
    _raise_on(missing, extra, problems)
    return unflatten_dict(flat)


def to_state_dict(variables: Mapping[str, Any], table: Table) -> dict[str, np.ndarray]:
    """The inverse of ``to_variables``: our variables under PyTorch's names.

    Args:
        variables: nested dict of arrays.
        table: the system's table.

    Returns:
        PyTorch name to array, with zero update counters; ignored entries (a body
        model's arrays, say) are not among them.

    Raises:
        UserError: variables missing, or without a place in the table.
    """
    flat = flatten_dict(dict(variables))
    names = {entry.path: name for name, entry in table.entries.items()}
    missing = [
        ".".join(path)
        for path, name in names.items()
        if path not in flat and name not in table.optional
    ]
    extra = [".".join(path) for path in flat if path not in names]
    _raise_on(missing, extra, [])
    out = {}
    for name, (path, layout) in table.entries.items():
        if path in flat:
            array = LAYOUTS[layout].to_torch(np.asarray(flat[path]))
            out[name] = np.ascontiguousarray(array)
    out.update({name: np.zeros((), np.int64) for name in table.counters})
    return out


def _to_ours(array: np.ndarray, layout: str) -> np.ndarray:
    wanted = LAYOUTS[layout].ndim
    if wanted is not None and array.ndim != wanted:
        raise ValueError(f"expected {wanted} axes, got shape {array.shape}")
    return np.ascontiguousarray(LAYOUTS[layout].to_ours(array.astype(np.float32)))


def _compare(name, path, array, shapes) -> list[str]:
    if shapes is None:
        return []
    if path not in shapes:
        return [f"{name}: the model has no {'.'.join(path)}"]
    expected = tuple(shapes[path].shape)
    if expected != array.shape:
        return [f"{name}: expected {expected} as {'.'.join(path)}, got {array.shape}"]
    return []


def _raise_on(missing: list[str], extra: list[str], problems: list[str]) -> None:
    parts = [
        f"{title}: {', '.join(names)}"
        for title, names in (
            ("missing", missing),
            ("unexpected", extra),
            ("wrong", problems),
        )
        if names
    ]
    if parts:
        raise UserError("checkpoint does not fit the table; " + "; ".join(parts))
