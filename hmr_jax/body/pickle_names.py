"""What a restricted unpickler gives a pickle in place of the names that it mentions.

Stand-ins for numpy's classes remember what they were given and become numpy arrays
afterwards; stand-ins for functions are a few pure functions of this file. Nothing here
is ever looked up in the modules that the names belong to. What a stand-in makes is paid
for from the file's budget before it is made.
"""

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Global = tuple[str, str]
_DTYPE_CODE = re.compile(r"(?:b1|[iu][1248]|f[248]|c(?:8|16)|[SU]\d+|\?|O[48]?)\Z")
_MAX_KEY_PARTS, _MAX_KEY_BITS = 100, 1024
ITEM_BYTES = 8
"""What one entry of a container costs of the budget."""

_repr = reprlib.Repr()
_repr.maxlevel = 2
brief = _repr.repr
"""A short text of a value from a pickle, whose own may be as long as memory."""


@runtime_checkable
class Resolve(Protocol):
    """What a stand-in is given to become a value."""

    def __call__(self, x: Any) -> Any:
        """Turn the records inside a value into values."""

    def spend(self, size_bytes: int) -> None:
        """Pay for memory (and the time to fill it); a ValueError if it is too much."""


class StandIn:
    """What a pickle gets for a class: a record of arguments and state, no code."""

    arguments: tuple = ()
    state: Any = None

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def resolve(self, resolve: Resolve) -> Any:
        """The value that this record stands for.

        Args:
            resolve: turns the records inside this one into values.

        Returns:
            A numpy array or a plain Python object.

        Raises:
            ValueError: the record makes no sense.
        """
        raise ValueError(f"unexpected {type(self).__name__.strip('_')} object")


class Foreign(StandIn):
    """An inert placeholder for what has no meaning here, and all that is made of it.

    It takes whatever the pickle does to it and keeps nothing.

    Args:
        reason: why it is no array.

    Attributes:
        reason: the same.
    """

    def __init__(self, reason: str):
        self.reason = reason

    @classmethod
    def named(cls, module: str, name: str) -> "Foreign":
        """The placeholder for a name that a pickle mentions."""
        return cls(
            f"it refers to {module}.{name}, which is no array; it was not imported and "
            "nothing was executed"
        )

    def __call__(self, *arguments: Any) -> "Foreign":
        """What the pickle gets for calling it."""
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Ignore an item of a list; ``extend`` and ``add`` do the same."""

    extend = add = append


class Call:
    """What a pickle gets in place of a function: a call of it and nothing else."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *arguments: Any) -> Any:  # noqa: D102
        return self._function(*arguments)


class _Dtype(StandIn):
    def resolve(self, resolve):
        code = self.arguments[0] if self.arguments else None
        if not isinstance(code, str) or not _DTYPE_CODE.match(code):
            raise ValueError(f"arrays of dtype {brief(code)} are not read")
        if code.startswith("O"):
            return np.dtype(object)
        order = self.state[1] if isinstance(self.state, tuple) else "<"
        return np.dtype(code).newbyteorder(order if order in ("<", ">") else "=")


def checked_shape(shape: Any) -> tuple[int, ...]:
    """A shape of whole numbers from 0; a ValueError if it is none."""
    shape = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"expected an array shape, got {brief(shape)}")
    return shape


def _from_bytes(
    raw: Any, dtype: np.dtype, shape: Any, order: Literal["C", "F"], resolve: Resolve
) -> np.ndarray:
    if not isinstance(raw, bytes | bytearray | str):
        raise ValueError(f"expected the bytes of an array, got {type(raw).__name__}")
    shape = checked_shape(shape)
    size = math.prod(shape) * dtype.itemsize
    if size != len(raw):
        raise ValueError(
            f"array of shape {brief(shape)}: expected {brief(size)} bytes, "
            f"got {len(raw)}"
        )
    resolve.spend(size)
    raw = raw.encode("latin1") if isinstance(raw, str) else raw
    array = np.frombuffer(bytes(raw), dtype).reshape(shape, order=order)
    return array.astype(dtype.newbyteorder("="), order="C")


def _from_items(items: Any, shape: Any) -> Any:
    """An array of objects, whose list is in C order for Fortran's arrays too.

    One without axes is the object that it holds.
    """
    shape = checked_shape(shape)
    if not isinstance(items, list):
        raise ValueError(f"expected a list of objects, got {type(items).__name__}")
    if math.prod(shape) != len(items):
        raise ValueError(
            f"array of shape {brief(shape)}: expected {brief(math.prod(shape))} "
            f"objects, got {len(items)}"
        )
    if not shape:
        return items[0]
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
            items = resolve(raw)
            resolve.spend(ITEM_BYTES * len(items))
            return _from_items(items, shape)
        return _from_bytes(raw, dtype, shape, "F" if fortran else "C", resolve)


class _Buffer(StandIn):
    """Protocol 5 arrays: (bytes, dtype, shape, order)."""

    def resolve(self, resolve):
        raw, dtype, shape, order = self.arguments
        if order not in ("C", "F"):
            raise ValueError(f"expected array order 'C' or 'F', got {brief(order)}")
        dtype = resolve(dtype)
        if not isinstance(dtype, np.dtype) or dtype.hasobject:
            raise ValueError("a buffer without its dtype")
        return _from_bytes(raw, dtype, shape, order, resolve)


class _Scalar(StandIn):
    def resolve(self, resolve):
        dtype, raw = self.arguments
        dtype = resolve(dtype)
        if not isinstance(dtype, np.dtype) or dtype.hasobject:
            raise ValueError("a scalar without its dtype")
        return _from_bytes(raw, dtype, (), "C", resolve)[()]


class _Named(StandIn):
    """Names that a pickle mentions and never builds: ``numpy.ndarray``, ``object``."""


def _reconstructor(cls: Any, base: Any = None, state: Any = None) -> StandIn:
    """``copyreg._reconstructor`` of protocols 0 and 1, for stand-ins alone."""
    if isinstance(cls, Foreign):
        return cls()
    if not (isinstance(cls, type) and issubclass(cls, StandIn)):
        raise ValueError(f"the pickle tries to build {brief(cls)}")
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


def checked_key(key: Any) -> Any:
    """A key that is hashed in little time: tuples of tuples may unfold without end.

    Raises:
        ValueError: it is none.
    """
    parts, left = [key], _MAX_KEY_PARTS
    while parts:
        part = parts.pop()
        if isinstance(part, int) and part.bit_length() > _MAX_KEY_BITS:
            raise ValueError("the pickle has a number of many digits as key")
        if isinstance(part, tuple | frozenset):
            left -= len(part)
            if left < 0:
                raise ValueError("the pickle has a key of many parts")
            parts += part
    return key


def dict_of(content: Any = ()) -> dict:
    """A dictionary of nothing, another one, or pairs."""
    pairs = content.items() if isinstance(content, dict) else content
    return {checked_key(key): value for key, value in pairs}


def _set(items: Any = ()) -> set:
    return set(map(checked_key, items))


def _numpy_names() -> dict[Global, Any]:
    table: dict[Global, Any] = {}
    for package in ("numpy.core", "numpy._core"):
        table[package + ".multiarray", "_reconstruct"] = Call(lambda *a: _Array(*a))
        table[package + ".multiarray", "scalar"] = Call(lambda *a: _Scalar(*a))
        table[package + ".numeric", "_frombuffer"] = Call(lambda *a: _Buffer(*a))
    return table | {("numpy", "ndarray"): _Named, ("numpy", "dtype"): _Dtype}


def _builtin_names() -> dict[Global, Any]:
    table: dict[Global, Any] = {
        ("_codecs", "encode"): Call(_encode),
        ("collections", "OrderedDict"): Call(dict_of),
    }
    for module in ("__builtin__", "builtins"):
        table[module, "object"] = _Named
        table[module, "bytes"] = Call(_bytes)
        table[module, "bytearray"] = Call(_bytes)
        table[module, "set"] = Call(_set)
    for module in ("copy_reg", "copyreg"):
        table[module, "_reconstructor"] = Call(_reconstructor)
    return table


NUMPY_NAMES: Mapping[Global, Any] = _numpy_names() | _builtin_names()
"""Arrays, scalars, and the helpers that pickles of them mention."""
