"""What a restricted unpickler gives a pickle in place of the names that it mentions.

Stand-ins for numpy's, scipy's and chumpy's classes remember what they were given and
become numpy arrays afterwards; stand-ins for functions are a few pure functions of this
file. Nothing here is ever looked up in the modules that the names belong to.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

Global = tuple[str, str]
_DTYPE_CODE = re.compile(r"(?:b1|[iu][1248]|f[248]|c(?:8|16)|[SU]\d+|\?|O[48]?)\Z")


class StandIn:
    """What a pickle gets for a class: a record of arguments and state, no code."""

    arguments: tuple = ()
    state: Any = None

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def resolve(self, resolve: Callable[[Any], Any]) -> Any:
        """The value that this record stands for.

        Args:
            resolve: turns the records inside this one into values.

        Returns:
            A numpy array or a plain Python object.

        Raises:
            ValueError: the record makes no sense.
        """
        raise ValueError(f"unexpected {type(self).__name__.strip('_')} object")


class Call:
    """What a pickle gets in place of a function: a call of it and nothing else."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:  # noqa: D102
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("the pickle tries to change a function")


class _Dtype(StandIn):
    def resolve(self, resolve):
        code = self.arguments[0] if self.arguments else None
        if not isinstance(code, str) or not _DTYPE_CODE.match(code):
            raise ValueError(f"arrays of dtype {code!r} are not read")
        if code.startswith("O"):
            return np.dtype(object)
        order = self.state[1] if isinstance(self.state, tuple) else "<"
        return np.dtype(code).newbyteorder(order if order in ("<", ">") else "=")


def _from_bytes(
    raw: Any, dtype: np.dtype, shape: Any, order: Literal["C", "F"]
) -> np.ndarray:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(raw, bytes | bytearray):
        raise ValueError(f"expected the bytes of an array, got {type(raw).__name__}")
    shape = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"expected an array shape, got {shape!r}")
    size = math.prod(shape) * dtype.itemsize
    if size != len(raw):
        raise ValueError(
            f"array of shape {shape}: expected {size} bytes, got {len(raw)}"
        )
    array = np.frombuffer(bytes(raw), dtype).reshape(shape, order=order)
    return array.astype(dtype.newbyteorder("="), order="C")


def _from_items(items: Any, shape: Any) -> np.ndarray:
    """An array of objects, whose list is in C order for Fortran's arrays too."""
    shape = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not isinstance(items, list):
        raise ValueError(f"expected a list of objects, got {type(items).__name__}")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"expected an array shape, got {shape!r}")
    if math.prod(shape) != len(items):
        raise ValueError(
            f"array of shape {shape}: expected {math.prod(shape)} objects, "
            f"got {len(items)}"
        )
    array = np.empty(len(items), object)
    for i, item in enumerate(items):  # one by one: items may be arrays themselves
        array[i] = item
    return array.reshape(shape)


class _Array(StandIn):
    """State: (version, shape, dtype, is_fortran, bytes); the version may be absent."""

    def resolve(self, resolve):
        state = self.state
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise ValueError("an array without its contents")
        shape, dtype, fortran, raw = state[-4:]
        dtype = resolve(dtype)
        if not isinstance(dtype, np.dtype):
            raise ValueError("an array without its dtype")
        if dtype.hasobject:
            return _from_items(resolve(raw), shape)
        return _from_bytes(raw, dtype, shape, "F" if fortran else "C")


class _Buffer(StandIn):
    """Protocol 5 arrays: (bytes, dtype, shape, order)."""

    def resolve(self, resolve):
        raw, dtype, shape, order = self.arguments
        if order not in ("C", "F"):
            raise ValueError(f"expected array order 'C' or 'F', got {order!r}")
        dtype = resolve(dtype)
        if not isinstance(dtype, np.dtype) or dtype.hasobject:
            raise ValueError("a buffer without its dtype")
        return _from_bytes(raw, dtype, shape, order)


class _Scalar(StandIn):
    def resolve(self, resolve):
        dtype, raw = self.arguments
        dtype = resolve(dtype)
        if not isinstance(dtype, np.dtype) or dtype.hasobject:
            raise ValueError("a scalar without its dtype")
        return _from_bytes(raw, dtype, (), "C")[()]


class _Chumpy(StandIn):
    """chumpy keeps an array in ``x`` and lazy expressions of others elsewhere."""

    def resolve(self, resolve):
        state = _state_dict(self.state)
        if "x" in state:
            return np.asarray(resolve(state["x"]))
        if "a" in state and "idxs" in state:  # chumpy.reordering.Select
            flat = np.asarray(resolve(state["a"])).ravel()
            index = np.asarray(resolve(state["idxs"]))
            if index.dtype.kind not in "iu":
                index = index.astype(np.int64)
            if index.size and not 0 <= index.min() <= index.max() < flat.size:
                raise ValueError(
                    f"chumpy selection: expected indices below {flat.size}, "
                    f"got {index.min()}..{index.max()}"
                )
            taken = flat[index.ravel()]
            shape = resolve(state.get("preferred_shape", index.shape))
            return taken.reshape(tuple(int(n) for n in np.atleast_1d(shape)))
        raise ValueError(
            f"chumpy object: expected an array 'x' or a selection 'a', 'idxs'; it has "
            f"{sorted(map(str, state)) or 'nothing'}"
        )


class _Sparse(StandIn):
    compressed_axis = 1

    def resolve(self, resolve):
        state = {k: resolve(v) for k, v in _state_dict(self.state).items()}
        shape = state.get("_shape", state.get("shape"))
        missing = [k for k in ("data", "indices", "indptr") if k not in state]
        if missing or shape is None or len(shape) != 2:
            raise ValueError(f"sparse matrix without {', '.join(missing) or 'shape'}")
        data, indices, indptr = (state[k] for k in ("data", "indices", "indptr"))
        rows, columns = (int(n) for n in shape)
        count = (rows, columns)[self.compressed_axis]
        other = (rows, columns)[1 - self.compressed_axis]
        lengths = np.diff(indptr)
        if (
            *(len(indptr) != count + 1, len(indptr) and indptr[0] != 0),
            *((lengths < 0).any(), len(data) != len(indices)),
            len(indptr) and indptr[-1] != len(data),
            len(indices) and not 0 <= indices.min() <= indices.max() < other,
        ) != (False,) * 6:
            raise ValueError(f"sparse matrix of shape {shape}: its indices disagree")
        dense = np.zeros((count, other), data.dtype)
        np.add.at(dense, (np.repeat(np.arange(count), lengths), indices), data)
        return dense if self.compressed_axis == 0 else dense.T.copy()


class _SparseRows(_Sparse):
    compressed_axis = 0


class _Placeholder(StandIn):
    """Names that a pickle mentions and never builds: ``numpy.ndarray``, ``object``."""


def _state_dict(state: Any) -> dict:
    """The attributes in a pickled state, which may also be (attributes, slots)."""
    parts = state if isinstance(state, tuple) else (state,)
    merged: dict = {}
    for part in parts:
        if part is not None and not isinstance(part, dict):
            raise ValueError(f"expected attributes by name, got {type(part).__name__}")
        merged.update(part or {})
    return merged


def _reconstructor(cls: Any, base: Any = None, state: Any = None) -> StandIn:
    """``copyreg._reconstructor`` of protocols 0 and 1, for stand-ins alone."""
    if not (isinstance(cls, type) and issubclass(cls, StandIn)):
        raise ValueError(f"the pickle tries to build {cls!r}")
    return cls()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("expected text in latin1")
    return text.encode("latin1")


def _bytes(*arguments: Any) -> bytes:
    if len(arguments) == 2:
        return _encode(*arguments)
    if arguments and not isinstance(arguments[0], bytes):
        raise ValueError("expected bytes")
    return arguments[0] if arguments else b""


def _items(*arguments: Any) -> list:
    return list(arguments[0]) if arguments else []


def _numpy_names() -> dict[Global, Any]:
    table: dict[Global, Any] = {}
    for package in ("numpy.core", "numpy._core"):
        table[package + ".multiarray", "_reconstruct"] = Call(lambda *a: _Array(*a))
        table[package + ".multiarray", "scalar"] = Call(lambda *a: _Scalar(*a))
        table[package + ".numeric", "_frombuffer"] = Call(lambda *a: _Buffer(*a))
    return table | {("numpy", "ndarray"): _Placeholder, ("numpy", "dtype"): _Dtype}


def _builtin_names() -> dict[Global, Any]:
    table: dict[Global, Any] = {
        ("_codecs", "encode"): Call(_encode),
        ("collections", "OrderedDict"): Call(lambda *a: dict(_items(*a))),
    }
    for module in ("__builtin__", "builtins"):
        table[module, "object"] = _Placeholder
        table[module, "bytes"] = Call(_bytes)
        table[module, "bytearray"] = Call(_bytes)
        table[module, "set"] = Call(lambda *a: set(_items(*a)))
    for module in ("copy_reg", "copyreg"):
        table[module, "_reconstructor"] = Call(_reconstructor)
    return table


def _sparse_names() -> dict[Global, Any]:
    table: dict[Global, Any] = {}
    for kind, record in (("csc", _Sparse), ("csr", _SparseRows)):
        for module in (f"scipy.sparse.{kind}", f"scipy.sparse._{kind}", "scipy.sparse"):
            table[module, f"{kind}_matrix"] = record
            table[module, f"{kind}_array"] = record
    return table


NUMPY_NAMES: Mapping[Global, Any] = _numpy_names() | _builtin_names()
"""Arrays, scalars, and the helpers that pickles of them mention."""

BODY_NAMES: Mapping[Global, Any] = {
    **NUMPY_NAMES,
    **_sparse_names(),
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _Chumpy,
}
"""What the published SMPL and MANO files contain."""
