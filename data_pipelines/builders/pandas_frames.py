"""Pickled pandas tables as plain columns, without pandas and without running anything.

Reads tables whose columns are numbers or Python objects, as pandas 0.25 to 3 pickles
them: a manager of blocks, each an array of some columns.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hmr_jax.body import unpickle
from hmr_jax.body.unpickle import NUMPY_NAMES, Call, StandIn
from hmr_jax.outside import reading


class _Index(StandIn):
    """``_new_Index(class, {"data": ...})`` or ``{"start", "stop", "step"}``."""

    def resolve(self, resolve):
        content = resolve(self.arguments[0])
        if not isinstance(content, dict):
            raise ValueError("an index without its contents")
        if "data" in content:
            return np.asarray(content["data"], dtype=object).ravel().tolist()
        if {"start", "stop", "step"} <= content.keys():
            return range(content["start"], content["stop"], content["step"])
        raise ValueError(f"an index of {sorted(content)}: expected data or a range")


class _Block(StandIn):
    """(values [columns, rows], places of the columns, dimensions)."""

    def resolve(self, resolve):
        values, places = (resolve(a) for a in self.arguments[:2])
        return {"values": values, "mgr_locs": places}


class _Blocks(StandIn):
    """The manager: (blocks, axes), or as state (axes, ..., {"0.14.1": ...})."""

    def resolve(self, resolve):
        if len(self.arguments) >= 2:
            blocks, axes = (resolve(a) for a in self.arguments[:2])
            return {"blocks": list(blocks), "axes": list(axes)}
        state = self.state
        if isinstance(state, tuple) and len(state) >= 4:
            content = resolve(state[3])
            if isinstance(content, dict) and "0.14.1" in content:
                return content["0.14.1"]
        raise ValueError("a table without its blocks")


class _Frame(StandIn):
    def resolve(self, resolve):
        state = self.state if isinstance(self.state, dict) else {}
        manager = state.get("_mgr", state.get("_data"))
        if manager is None:
            raise ValueError("a table without its data")
        return _columns(resolve(manager))


class _Name(StandIn):
    """A class that is named and never made."""


def _columns(manager: dict[str, Any]) -> dict[str, Any]:
    names, rows = manager["axes"][0], len(manager["axes"][1])
    columns: dict[str, Any] = {}
    taken = 0
    for block in manager["blocks"]:
        values = np.asarray(block["values"])
        places = _places(block["mgr_locs"], names)
        values = values.reshape(len(places), rows)
        for place, column in zip(places, values, strict=True):
            columns[str(names[int(place)])] = column
        taken += len(places)
    if taken != len(names):  # ranges: names may number more than memory holds
        raise ValueError(f"a table of {len(names)} columns with contents for {taken}")
    missing = [n for n in names if str(n) not in columns]
    if missing:
        raise ValueError(f"a table without the columns {missing}")
    return columns


def _places(places: Any, names: Sequence[Any]) -> Any:
    if isinstance(places, slice):
        return range(len(names))[places]
    if not isinstance(places, np.ndarray | list | tuple):
        raise ValueError(f"places of columns: got {type(places).__name__}")
    return places


def _slice(*arguments: Any) -> slice:
    if not all(a is None or isinstance(a, int) for a in arguments):
        raise ValueError(f"expected a slice of numbers, got {arguments!r}")
    return slice(*arguments)


def _names() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("pandas._libs.internals", "_unpickle_block"): Call(lambda *a: _Block(*a)),
        ("pandas.core.indexes.base", "_new_Index"): Call(lambda _, d: _Index(d)),
    }
    for module in ("pandas", "pandas.core.frame"):
        table[module, "DataFrame"] = _Frame
    for module in ("pandas.core.internals", "pandas.core.internals.managers"):
        table[module, "BlockManager"] = _Blocks
    for module in ("builtins", "__builtin__"):
        table[module, "slice"] = Call(_slice)
    places = ("", ".core.indexes.base", ".core.indexes.range", ".core.indexes.numeric")
    for place in places:
        for kind in ("Index", "RangeIndex", "Int64Index"):
            table[f"pandas{place}", kind] = _Name
    return table


def read_frame(data: bytes, *, source: str = "table") -> dict[str, Any]:
    """The columns of a pickled table.

    Args:
        data: the pickle.
        source: the file's name, for messages.

    Returns:
        Column name -> array [rows], of numbers or of objects.

    Raises:
        UserError: it is no such pickle; the message names it.
    """
    names = {**NUMPY_NAMES, **_names()}
    with reading(source, "a pickled table of pandas"):
        content = unpickle.load_pickle(data, allowed=names, source=source)
        if not isinstance(content, dict):
            raise ValueError(f"expected a table, got {type(content).__name__}")
        return content
