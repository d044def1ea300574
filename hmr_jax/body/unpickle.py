"""Reads pickles of arrays without running anything that is in them.

A pickle is a program: it may name any importable function and call it. Here every name
is looked up in a table instead of being imported, and the table holds stand-ins alone:
records that remember what they were given, and a few pure functions. numpy, scipy and
chumpy are never called by the pickle, and need not be installed. After the pickle has
ended, the records become numpy arrays. Any other name is an error.
"""

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from hmr_jax.body.pickle_names import (
    BODY_NAMES,
    NUMPY_NAMES,
    Call,
    Global,
    StandIn,
)
from hmr_jax.errors import UserError

__all__ = [
    "BODY_NAMES",
    "NUMPY_NAMES",
    "Broken",
    "Call",
    "ForbiddenGlobalError",
    "RestrictedUnpickler",
    "StandIn",
    "load_pickle",
    "read_npy",
    "read_npz",
    "resolve",
]

ReadableFile = Any  # anything with read and readline that give bytes
_BROKEN = (
    *(pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError),
    *(KeyError, MemoryError, OverflowError, RecursionError, TypeError, ValueError),
)


class RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that takes every global from a table and imports nothing.

    Args:
        file: opened in binary mode.
        allowed: (module, name) to stand-in: a subclass of ``StandIn`` or a ``Call``.
        source: the file's name, for messages.
        encoding: of Python 2 strings.
    """

    def __init__(
        self,
        file: ReadableFile,
        *,
        allowed: Mapping[Global, Any],
        source: str = "pickle",
        encoding: str = "latin1",
    ):
        super().__init__(file, encoding=encoding)
        self._allowed = dict(allowed)
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global.

        Args:
            module: module that the pickle names.
            name: name in it.

        Returns:
            The table's entry.

        Raises:
            ForbiddenGlobalError: the table has none.
        """
        if (module, name) not in self._allowed:
            raise ForbiddenGlobalError(
                f"{self._source}: the pickle refers to {module}.{name}, expected "
                "arrays only; it was not imported and nothing was executed"
            )
        return self._allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to objects outside the pickle.

        Args:
            pid: what the pickle says about the object.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"{self._source}: the pickle refers to an outside object {pid!r}"
        )


class ForbiddenGlobalError(UserError):
    """A pickle names something that is not in the table."""


def resolve(value: Any) -> Any:
    """Turn the stand-ins inside plain containers into arrays and Python objects.

    Args:
        value: what an unpickler returned.

    Returns:
        The same with dicts, lists, tuples and sets rebuilt.

    Raises:
        ValueError: a record makes no sense, or the structure contains itself.
    """
    done: dict[int, Any] = {}
    active: set[int] = set()

    def inner(x: Any) -> Any:
        if isinstance(x, type | Call):
            raise ValueError(f"unexpected {getattr(x, '__name__', 'function')} object")
        if not isinstance(x, dict | list | tuple | set | StandIn):
            return x
        if id(x) in done:
            return done[id(x)]
        if id(x) in active:
            raise ValueError("the pickled structure contains itself")
        active.add(id(x))
        if isinstance(x, StandIn):
            result = x.resolve(inner)
        elif isinstance(x, dict):
            result = {inner(k): inner(v) for k, v in x.items()}
        else:
            result = type(x)(map(inner, x))
        active.discard(id(x))
        done[id(x)] = result
        return result

    return inner(value)


class Broken:
    """An entry of a file that could not be read, and why."""

    def __init__(self, reason: str):
        self.reason = reason


def _resolve_entries(content: Any) -> Any:
    """Resolve entry by entry; entries that make no sense become ``Broken``."""
    if not isinstance(content, dict):
        return resolve(content)
    result = {}
    for key, value in content.items():
        try:
            result[resolve(key)] = resolve(value)
        except _BROKEN as error:
            result[resolve(key)] = Broken(str(error) or type(error).__name__)
    return result


def load_pickle(
    path_or_file: str | os.PathLike | ReadableFile,
    *,
    allowed: Mapping[Global, Any] = BODY_NAMES,
    keep_going: bool = False,
) -> Any:
    """Read a pickle of arrays and plain Python objects.

    Args:
        path_or_file: a path, or a file opened in binary mode.
        allowed: (module, name) to stand-in; every other name is refused.
        keep_going: make unreadable entries of a dictionary ``Broken`` instead of an
            error: files hold entries that nobody needs.

    Returns:
        numpy arrays in plain containers; sparse matrices are dense, chumpy objects are
        arrays, Python 2 strings are read as latin1.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such pickle; the message names it and says why.
    """
    if isinstance(path_or_file, str | os.PathLike):
        source = os.fspath(path_or_file)
        with open(source, "rb") as file:
            return _load(io.BytesIO(file.read()), source, allowed, keep_going)
    source = str(getattr(path_or_file, "name", "pickle"))
    return _load(path_or_file, source, allowed, keep_going)


def _load(
    file: ReadableFile, source: str, allowed: Mapping[Global, Any], keep_going: bool
) -> Any:
    try:
        content = RestrictedUnpickler(file, allowed=allowed, source=source).load()
        return _resolve_entries(content) if keep_going else resolve(content)
    except ForbiddenGlobalError:
        raise
    except _BROKEN as error:
        reason = str(error) or type(error).__name__
        message = f"{source}: not a readable pickle of arrays: {reason}"
        raise ValueError(message) from error


def read_npy(data: bytes) -> np.ndarray:
    """The array of an .npy file; one of objects is a pickle behind the same header.

    Args:
        data: the file's bytes.

    Returns:
        The array. Objects are read as ``load_pickle`` reads them.

    Raises:
        ValueError: it is no such file.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = readers[version](file)
    if dtype.hasobject:
        content = load_pickle(file)
        return np.asarray(content, dtype=object).reshape(shape)
    return np.load(io.BytesIO(data), allow_pickle=False)


def read_npz(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, those of objects included.

    Args:
        data: the file's bytes.

    Returns:
        Arrays by name.

    Raises:
        ValueError: an array cannot be read.
        zipfile.BadZipFile: it is no archive, or a truncated one.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {
            name.removesuffix(".npy"): read_npy(archive.read(name))
            for name in archive.namelist()
        }
