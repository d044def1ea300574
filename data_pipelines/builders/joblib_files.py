"""Reads joblib's dumps of arrays (``.pt`` databases) without joblib.

Such a file is a pickle in which every array is a small wrapper object, followed in the
same stream by the array's bytes; the whole may be compressed. The pickle goes through
the restricted unpickler: nothing in it is ever run.
"""

import bz2
import io
import lzma
import math
import zlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from hmr_jax.body import unpickle
from hmr_jax.outside import reading

_GZIP = 16 + zlib.MAX_WBITS
_DECOMPRESSORS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(_GZIP)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\x00", lzma.LZMADecompressor),
    (b"]\x00\x00", lzma.LZMADecompressor),
    *((magic, zlib.decompressobj) for magic in (b"\x78\x01", b"\x78\x5e")),
    *((magic, zlib.decompressobj) for magic in (b"\x78\x9c", b"\x78\xda")),
)
_OLD_ZLIB_HEADER = len(b"ZF0x") + 17


class _Wrapper(unpickle.StandIn):
    """``joblib.numpy_pickle.NumpyArrayWrapper``: what the bytes after it mean."""


_ALLOWED = {
    **unpickle.NUMPY_NAMES,
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
    ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
}


class _Unpickler(unpickle.RestrictedUnpickler):
    """Reads the array that follows a wrapper where the wrapper ends."""

    def __init__(self, file: io.BytesIO, budget: unpickle.Budget, source: str):
        super().__init__(file, allowed=_ALLOWED, budget=budget, source=source)
        self._file = file

    def build(self, target: Any, state: Any) -> Any:
        """As in ``RestrictedUnpickler``; a wrapper becomes its array."""
        target = super().build(target, state)
        return self._array(target) if isinstance(target, _Wrapper) else target

    def _array(self, wrapper: _Wrapper) -> Any:
        """The array behind a wrapper; of objects, a pickle of its own."""
        state = wrapper.state
        if not isinstance(state, dict) or not {"shape", "dtype", "order"} <= set(state):
            raise ValueError("a joblib array without shape, dtype and order")
        dtype = unpickle.resolve(state["dtype"], self._budget, self._source)
        shape = state["shape"]
        if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
            raise ValueError("a joblib array without shape and dtype")
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"expected an array shape, got {unpickle.brief(shape)}")
        if dtype.hasobject:
            return _Unpickler(self._file, self._budget, self._source).load()
        if state.get("numpy_array_alignment_bytes") is not None:
            self._file.read(self._file.read(1)[0])
        size = math.prod(shape) * dtype.itemsize
        raw = self._file.read(size)
        if len(raw) != size:
            raise ValueError(
                f"array of shape {unpickle.brief(shape)}: expected "
                f"{unpickle.brief(size)} bytes, got {len(raw)}"
            )
        order: Literal["C", "F"] = "F" if state["order"] == "F" else "C"
        array = np.frombuffer(raw, dtype).reshape(shape, order=order)
        return array.astype(dtype.newbyteorder("="), order="C")


def _decompressed(data: bytes) -> bytes:
    if data.startswith(b"ZF"):
        return _inflated(zlib.decompressobj(), data[_OLD_ZLIB_HEADER:])
    for magic, make in _DECOMPRESSORS:
        if data.startswith(magic):
            return _inflated(make(), data)
    return data


def _inflated(decompressor: Any, data: bytes) -> bytes:
    """The content of compressed data; a few bytes may stand for gigabytes."""
    limit = unpickle.largest_inflation(len(data))
    content = decompressor.decompress(data, limit)
    if not decompressor.eof:
        more = "more than such a file holds" if len(content) >= limit else "no end"
        raise ValueError(f"compressed data with {more}")
    return content


def read_joblib(data: bytes, *, source: str = "joblib file") -> Any:
    """The content of a file that ``joblib.dump`` wrote.

    Args:
        data: the file, plain or compressed with zlib, gzip, bz2, lzma or xz.
        source: the file's name, for messages.

    Returns:
        Arrays and plain Python objects; Python 2's strings are read as latin1. What
        refers to anything else is ``unpickle.Unreadable``.

    Raises:
        UserError: it is no such file, or its end is missing; the message names it.
    """
    with reading(source, "a joblib file of arrays"):
        plain = _decompressed(data)
        budget = unpickle.Budget(len(plain), len(data))
        content = _Unpickler(io.BytesIO(plain), budget, source).load()
        return unpickle.resolve(content, budget, source)
