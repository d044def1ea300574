"""Reads .npy and .npz files, with arrays of Python objects and without running them."""

import io
import math
import os
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np

from hmr_jax.body.pickle_resolve import Unreadable
from hmr_jax.body.unpickle import largest_inflation, load_pickle
from hmr_jax.outside import reading

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npy(path_or_data: str | os.PathLike | bytes, *, source: str = "npy") -> Any:
    """The array of an .npy file; one of objects is a pickle behind the same header.

    Args:
        path_or_data: a path, or the file itself.
        source: where the file itself comes from, for messages.

    Returns:
        The array; where it is a single Python object (no axes), that object. Objects
        are read as ``unpickle.load_pickle`` reads them.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is no such file; the message names it.
    """
    if not isinstance(path_or_data, bytes):
        source = os.fspath(path_or_data)
    with reading(source, "an .npy array"), _opened(path_or_data) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return _read_array(file, size, source, size)


def read_npz(
    path_or_data: str | os.PathLike | bytes,
    *,
    names: Iterable[str] | None = None,
    source: str = "npz",
) -> dict[str, Any]:
    """The entries of an .npz file, those of Python objects included.

    Args:
        path_or_data: a path, or the file itself.
        names: entries to read, where the file has them; None reads all.
        source: where the file itself comes from, for messages.

    Returns:
        Entries by name, as ``read_npy`` gives them; what cannot be read is
        ``Unreadable``.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is no archive, or a truncated one; the message names it.
    """
    if not isinstance(path_or_data, bytes):
        source = os.fspath(path_or_data)
    with (
        reading(source, "an .npz archive"),
        _opened(path_or_data) as file,
        zipfile.ZipFile(file) as archive,
    ):
        members = {m.filename.removesuffix(".npy"): m for m in archive.infolist()}
        wanted = members if names is None else [n for n in names if n in members]
        return {n: _read_member(archive, members[n], n, source) for n in wanted}


def _opened(path_or_data: str | os.PathLike | bytes) -> Any:
    if isinstance(path_or_data, bytes):
        return io.BytesIO(path_or_data)
    return open(path_or_data, "rb")


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, source: str
) -> Any:
    where = f"{source}: field {name!r}"
    try:
        with reading(where, "an array"), archive.open(member) as file:
            return _read_array(file, member.file_size, where, member.compress_size)
    except ValueError as error:
        return Unreadable(source, (name,), str(error).removeprefix(f"{where}: "))


def _read_array(file: Any, size_bytes: int, source: str, stored_bytes: int) -> Any:
    """An array from a file that is read once, from its beginning."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format is not read")
    shape, fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        if size_bytes > largest_inflation(stored_bytes):
            raise ValueError(f"a pickle of {size_bytes} bytes in {stored_bytes}")
        content = load_pickle(file.read(), source=source, stored_bytes=stored_bytes)
        return np.asarray(content, dtype=object).reshape(shape) if shape else content
    expected = math.prod(shape) * dtype.itemsize
    left = size_bytes - file.tell()
    if left != expected:
        raise ValueError(
            f"an array of shape {shape} and {dtype}: expected {expected} bytes, "
            f"got {left}"
        )
    data = np.frombuffer(bytearray(file.read(expected)), dtype)
    return data.reshape(shape, order="F" if fortran else "C")
