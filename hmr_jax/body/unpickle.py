"""Reads pickles of arrays without running anything that is in them.

A pickle is a program: it may name any importable function and call it. Here every name
is looked up in a table instead of being imported, and the table holds stand-ins alone:
records that remember what they were given, and a few pure functions. numpy, scipy and
chumpy are never called by the pickle, and need not be installed. After the pickle has
ended, the records become numpy arrays. Any other name becomes an inert placeholder, and
the entry that it stands in ``Unreadable``: an error for whoever uses it, and for nobody
else. Memory and time are bounded by a ``Budget`` in proportion to the file.
"""

import io
import os
import pathlib
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from hmr_jax.body.pickle_body_names import BODY_NAMES
from hmr_jax.body.pickle_names import (
    ITEM_BYTES,
    NUMPY_NAMES,
    Call,
    Foreign,
    Global,
    StandIn,
    brief,
    checked_key,
)
from hmr_jax.body.pickle_resolve import (
    Budget,
    Unreadable,
    largest_inflation,
    resolve,
)
from hmr_jax.outside import reading

__all__ = [
    "BODY_NAMES",
    "NUMPY_NAMES",
    "Budget",
    "Call",
    "Foreign",
    "RestrictedUnpickler",
    "StandIn",
    "Unreadable",
    "brief",
    "largest_inflation",
    "load_pickle",
    "resolve",
]

_BINARY = b"\x80"
_CHANGED = "its line ends were changed in transfer (each \\n is now \\r\\n)"
_AGAIN = "copy it again in binary mode (with git: core.autocrlf=false)"
# The interpreter in Python: of the one in C nothing can be counted or refused, and an
# index of its memo alone may ask for all memory.
_PythonUnpickler: Any = vars(pickle)["_Unpickler"]


def _counted(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """An instruction that the budget counts."""

    def counted(self: Any) -> None:
        self._budget.make()
        load(self)

    return counted


def _counting() -> dict[int, Callable[[Any], None]]:
    """The instructions; what makes a container or an entry of the memo is counted."""
    found = dict(_PythonUnpickler.dispatch)
    for code in (
        *(pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_SET, pickle.MARK),
        *(pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.MEMOIZE),
        *(pickle.BINPUT, pickle.LONG_BINPUT, pickle.PUT),
    ):
        found[code[0]] = _counted(found[code[0]])
    return found


class RestrictedUnpickler(_PythonUnpickler):
    """An unpickler that takes every global from a table and imports nothing.

    Args:
        data: the pickle, or a binary file that holds no more than its size in memory.
        allowed: (module, name) to stand-in: a subclass of ``StandIn`` or a ``Call``.
        budget: pays for what calls make.
        source: the file's name, for messages.
        encoding: of Python 2 strings.
    """

    dispatch = _counting()

    def __init__(
        self,
        data: Any,
        *,
        allowed: Mapping[Global, Any],
        budget: Budget,
        source: str = "pickle",
        encoding: str = "latin1",
    ):
        file = io.BytesIO(data) if isinstance(data, bytes) else data
        super().__init__(file, encoding=encoding)
        self._allowed = dict(allowed)
        self._budget = budget
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global.

        Args:
            module: module that the pickle names.
            name: name in it.

        Returns:
            The table's entry; an inert placeholder where it has none.
        """
        if name.endswith("\r"):
            raise ValueError(f"a name that ends in a carriage return: {brief(name)}")
        if (module, name) not in self._allowed:
            self._allowed[module, name] = Foreign.named(module, name)
        return self._allowed[module, name]

    def get_extension(self, code: int) -> None:
        """Refuse a number that stands for a global of this process.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the pickle refers to the extension code {code}")

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to objects outside the pickle.

        Args:
            pid: what the pickle says about the object.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the pickle refers to an outside object {brief(pid)}")

    def call(self, function: Any, arguments: Any) -> Any:
        """What the pickle gets for a call: only stand-ins are ever called.

        Raises:
            ValueError: it calls something else.
        """
        if isinstance(function, Foreign):
            return function
        known = isinstance(function, type) and issubclass(function, StandIn)
        if not known and not isinstance(function, Call):
            raise ValueError(f"the pickle calls a {type(function).__name__}")
        try:
            result = function(*arguments)
            if isinstance(result, bytes | list | dict | set | tuple):
                size = 1 if isinstance(result, bytes) else ITEM_BYTES
                self._budget.spend(size * len(result))
        # Arguments are as the file has them; what makes no sense blocks nothing else.
        except Exception as error:  # noqa: BLE001
            return Foreign(str(error) or type(error).__name__)
        return result

    def build(self, target: Any, state: Any) -> Any:
        """What an object becomes that the pickle gives a state.

        Raises:
            ValueError: it is no stand-in's record.
        """
        if isinstance(target, StandIn):
            target.__setstate__(state)
        elif not isinstance(target, dict):  # an OrderedDict's attributes are not kept
            raise ValueError(f"the pickle tries to change a {type(target).__name__}")
        return target

    def _load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], arguments)

    def _load_newobj_ex(self) -> None:
        self.stack.pop()  # keywords
        self._load_reduce()

    def _load_obj(self) -> None:
        function, *arguments = self.pop_mark()
        self.append(self.call(function, arguments))

    def _load_inst(self) -> None:
        module, name = (self.readline()[:-1].decode("ascii") for _ in range(2))
        self.append(self.call(self.find_class(module, name), self.pop_mark()))

    def _load_build(self) -> None:
        state = self.stack.pop()
        self.stack[-1] = self.build(self.stack[-1], state)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._target(dict | Foreign)[checked_key(key)] = value

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        target = self._target(dict | Foreign)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def _load_dict(self) -> None:
        items = self.pop_mark()
        pairs = zip(items[::2], items[1::2], strict=True)
        self.append({checked_key(key): value for key, value in pairs})

    def _load_additems(self) -> None:
        items = self.pop_mark()
        target = self._target(set | Foreign)
        for item in items:
            target.add(checked_key(item))

    def _load_frozenset(self) -> None:
        self.append(frozenset(map(checked_key, self.pop_mark())))

    def _load_append(self) -> None:
        item = self.stack.pop()
        self._target(list | Foreign).append(item)

    def _load_appends(self) -> None:
        items = self.pop_mark()
        self._target(list | Foreign).extend(items)

    def _load_bytearray(self) -> None:
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))

    def _target(self, kinds: Any) -> Any:
        target = self.stack[-1]
        if not isinstance(target, kinds):
            raise ValueError(f"the pickle tries to fill a {type(target).__name__}")
        return target

    dispatch |= {
        pickle.REDUCE[0]: _load_reduce,
        pickle.NEWOBJ[0]: _load_reduce,
        pickle.NEWOBJ_EX[0]: _load_newobj_ex,
        pickle.OBJ[0]: _load_obj,
        pickle.INST[0]: _load_inst,
        pickle.BUILD[0]: _load_build,
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
        pickle.DICT[0]: _load_dict,
        pickle.ADDITEMS[0]: _load_additems,
        pickle.FROZENSET[0]: _load_frozenset,
        pickle.APPEND[0]: _load_append,
        pickle.APPENDS[0]: _load_appends,
        pickle.BYTEARRAY8[0]: _load_bytearray,
    }


def load_pickle(
    path_or_data: str | os.PathLike | bytes,
    *,
    allowed: Mapping[Global, Any] = BODY_NAMES,
    source: str = "pickle",
    stored_bytes: int | None = None,
) -> Any:
    """Read a pickle of arrays and plain Python objects.

    A text pickle whose line ends were changed in transfer is read as it was.

    Args:
        path_or_data: a path, or the pickle itself.
        allowed: (module, name) to stand-in; every other name is a placeholder.
        source: where the pickle itself comes from, for messages.
        stored_bytes: its size on the disk, where it is compressed there.

    Returns:
        numpy arrays in plain containers; sparse matrices are dense, chumpy objects are
        arrays, Python 2 strings are read as latin1. What is damaged or refers to
        anything else is ``Unreadable``.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file is no such pickle; the message names it and says why.
    """
    if isinstance(path_or_data, bytes):
        data = path_or_data
    else:
        source = os.fspath(path_or_data)
        data = pathlib.Path(path_or_data).read_bytes()
    if _line_ends_changed(data) and data[:1] != _BINARY:
        logging.warning("%s: %s; read as it was before", source, _CHANGED)
        data = data.replace(b"\r\n", b"\n")
    with reading(source, "a pickle of arrays"):
        return _load(data, allowed, source, Budget(len(data), stored_bytes))


def _load(
    data: bytes, allowed: Mapping[Global, Any], source: str, budget: Budget
) -> Any:
    unpickler = RestrictedUnpickler(data, allowed=allowed, budget=budget)
    try:
        content = unpickler.load()
    except Exception as error:
        if _line_ends_changed(data):
            raise ValueError(f"{_CHANGED}; {_AGAIN}") from error
        raise
    return resolve(content, budget, source)


def _line_ends_changed(data: bytes) -> bool:
    """Whether each \\n was made \\r\\n, as transfers in text mode do."""
    return 0 < data.count(b"\n") == data.count(b"\r\n")
