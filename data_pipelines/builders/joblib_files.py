"""Reads joblib's dumps of arrays (``.pt`` databases) without joblib.

Such a file is a pickle in which every array is a small wrapper object, followed in the
same stream by the array's bytes; the whole may be compressed. The pickle goes through
the restricted unpickler: nothing in it is ever run.
"""

import bz2
import gzip
import io
import lzma
import math
import pickle
import struct
import zlib
from typing import Any, Literal

import numpy as np

from hmr_jax.body import unpickle

_DECOMPRESS = (
    (b"\x1f\x8b", gzip.decompress),
    (b"BZh", bz2.decompress),
    (b"\xfd7zXZ\x00", lzma.decompress),
    (b"]\x00\x00", lzma.decompress),
)
_ZLIB_MAGIC = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_OLD_ZLIB_HEADER = len(b"ZF0x") + 17


class _Wrapper(unpickle.StandIn):
    """``joblib.numpy_pickle.NumpyArrayWrapper``: what the bytes after it mean."""


_JOBLIB_NAMES = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
    ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper"): _Wrapper,
}
_ALLOWED = {**unpickle.NUMPY_NAMES, **_JOBLIB_NAMES}
_BROKEN = (
    *(pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError),
    *(OverflowError, RecursionError, TypeError, ValueError, MemoryError),
    *(AssertionError, struct.error),
)


_PythonUnpickler: Any = vars(pickle)["_Unpickler"]


class _Unpickler(_PythonUnpickler):
    """The interpreter in Python, which alone can be stopped where an array follows.

    Args:
        file: positioned at the pickle; left behind its end.
    """

    dispatch = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="latin1")
        self._file = file

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name; see ``unpickle.RestrictedUnpickler``."""
        if (module, name) not in _ALLOWED:
            raise unpickle.ForbiddenGlobalError(
                f"the joblib file refers to {module}.{name}, expected arrays only; it "
                "was not imported and nothing was executed"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to objects outside the file."""
        raise ValueError(f"the joblib file refers to an outside object {pid!r}")

    def load_build(self) -> None:
        """The BUILD instruction; of a wrapper, with the array that follows it."""
        target = self.stack[-2]
        if not isinstance(target, unpickle.StandIn | unpickle.Call):
            raise ValueError(f"the pickle tries to change a {type(target).__name__}")
        super().load_build()
        if isinstance(target, _Wrapper):
            self.stack[-1] = _read_array(target, self._file)

    dispatch[pickle.BUILD[0]] = load_build


def _read_array(wrapper: _Wrapper, file: io.BytesIO) -> Any:
    """The array behind a wrapper; of objects, a pickle of its own."""
    state = wrapper.state
    if not isinstance(state, dict) or not {"shape", "dtype", "order"} <= set(state):
        raise ValueError("a joblib array without shape, dtype and order")
    dtype, shape = unpickle.resolve(state["dtype"]), state["shape"]
    if not isinstance(dtype, np.dtype) or not isinstance(shape, tuple):
        raise ValueError("a joblib array without shape and dtype")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"expected an array shape, got {shape!r}")
    if dtype.hasobject:
        return _Unpickler(file).load()
    if state.get("numpy_array_alignment_bytes") is not None:
        file.read(file.read(1)[0])
    size = math.prod(shape) * dtype.itemsize
    raw = file.read(size)
    if len(raw) != size:
        raise ValueError(
            f"array of shape {shape}: expected {size} bytes, got {len(raw)}"
        )
    order: Literal["C", "F"] = "F" if state["order"] == "F" else "C"
    array = np.frombuffer(raw, dtype).reshape(shape, order=order)
    return array.astype(dtype.newbyteorder("="), order="C")


def _decompressed(data: bytes) -> bytes:
    if data.startswith(b"ZF"):
        return zlib.decompress(data[_OLD_ZLIB_HEADER:])
    if data.startswith(_ZLIB_MAGIC):
        return zlib.decompress(data)
    for magic, decompress in _DECOMPRESS:
        if data.startswith(magic):
            return decompress(data)
    return data


def read_joblib(data: bytes) -> Any:
    """The content of a file that ``joblib.dump`` wrote.

    Args:
        data: the file, plain or compressed with zlib, gzip, bz2, lzma or xz.

    Returns:
        Arrays and plain Python objects; Python 2's strings are read as latin1.

    Raises:
        ForbiddenGlobalError: the file names something that is no array.
        ValueError: it is no such file, or its end is missing.
    """
    try:
        content = _Unpickler(io.BytesIO(_decompressed(data))).load()
        return unpickle.resolve(content)
    except unpickle.ForbiddenGlobalError:
        raise
    except (*_BROKEN, OSError, zlib.error, lzma.LZMAError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"not a readable joblib file of arrays: {reason}") from error
