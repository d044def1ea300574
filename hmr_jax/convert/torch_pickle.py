"""The pickled part of a PyTorch file, rebuilt from numpy arrays and nothing else.

Only the names of ``ALLOWED`` have a meaning, all others are inert placeholders; tensors
come out as ``LazyTensor``s that point into storages, so that a file's optimiser state
costs nothing.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from hmr_jax.body.pickle_names import dict_of
from hmr_jax.body.unpickle import (
    NUMPY_NAMES,
    Budget,
    Call,
    Foreign,
    RestrictedUnpickler,
    brief,
)

_DTYPES = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "int64": np.int64,
    "int32": np.int32,
    "int16": np.int16,
    "int8": np.int8,
    "uint8": np.uint8,
    "bool": np.bool_,
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}


class TypeName(Foreign):
    """What a pickle gets for a storage class or a dtype: its numpy type.

    Args:
        dtype: of the elements; None for a tensor class.

    Attributes:
        dtype: the same.
    """

    def __init__(self, dtype: np.dtype | None):
        super().__init__("it is the name of a type, not a tensor")
        self.dtype = dtype


@dataclasses.dataclass
class Storage:
    """One block of memory, possibly shared by several tensors.

    Attributes:
        dtype: element type in the file.
        numel: number of elements.
        read: gives the block's bytes; called once.
        big_endian: byte order of those bytes.
    """

    dtype: np.dtype
    numel: int
    read: Callable[[], bytes]
    big_endian: bool = False
    _values: np.ndarray | None = None

    def values(self, dtype: np.dtype) -> np.ndarray:
        """The block as a flat array of ``dtype`` in the machine's byte order.

        Raises:
            ValueError: the block is shorter than the file says.
        """
        if self._values is None:
            self._values = np.frombuffer(self.read(), np.uint8)
            expected = self.numel * self.dtype.itemsize
            if self._values.size < expected:
                raise ValueError(
                    f"storage of {self.numel} {self.dtype} values: expected "
                    f"{expected} bytes, found {self._values.size}"
                )
        part = 2 if dtype.kind == "c" else 1
        usable = self._values.size - self._values.size % dtype.itemsize
        words = self._values[:usable].view(f"u{dtype.itemsize // part}")
        if self.big_endian != (sys.byteorder == "big"):
            words = words.byteswap()
        return words.view(dtype)


@dataclasses.dataclass(frozen=True)
class LazyTensor:
    """A tensor whose bytes have not been read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def array(self, budget: Budget) -> np.ndarray:
        """Read the values into an array of the tensor's own.

        Args:
            budget: pays for it: strides of 0 make any shape of one number.

        Raises:
            ValueError: shape and strides reach outside the storage, or the array is
                larger than a file of this size may need.
        """
        numbers = (self.offset, *self.shape, *self.strides)
        plain = all(isinstance(n, int) and n >= 0 for n in numbers)
        if not plain or len(self.shape) != len(self.strides):
            raise ValueError(
                f"tensor of shape {brief(self.shape)}: bad strides "
                f"{brief(self.strides)} or offset {brief(self.offset)}"
            )
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        budget.spend(math.prod(self.shape) * self.dtype.itemsize)
        flat = self.storage.values(self.dtype)
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        if last >= flat.size:
            raise ValueError(
                f"tensor of shape {self.shape}: reaches element {last} of a storage "
                f"with {flat.size}"
            )
        strides = tuple(step * self.dtype.itemsize for step in self.strides)
        view = np.lib.stride_tricks.as_strided(
            flat[self.offset :], self.shape, strides, writeable=False
        )
        return view.copy()


def _rebuild_tensor(storage, offset, size, stride, *ignored) -> LazyTensor:
    del ignored  # requires_grad, backward hooks, metadata
    return LazyTensor(storage, offset, tuple(size), tuple(stride), storage.dtype)


def _rebuild_tensor_v3(storage, offset, size, stride, grad, hooks, dtype, *ignored):
    del grad, hooks, ignored
    return LazyTensor(storage, offset, tuple(size), tuple(stride), dtype.dtype)


def _rebuild_parameter(data, *ignored) -> Any:
    del ignored  # requires_grad, backward hooks, state
    return data


def _rebuild_from_type(function, kind, args, state) -> Any:
    del kind, state  # a subclass of tensor and its Python attributes
    if not isinstance(function, Call):
        raise ValueError("a tensor rebuilt by something else")
    return function(*args)


def _device(*args) -> str:
    return ":".join(brief(a) for a in args)


def _size(values: Sequence[int] = ()) -> tuple[int, ...]:
    return tuple(values)


ALLOWED: dict[tuple[str, str], Any] = {
    **NUMPY_NAMES,
    ("collections", "Counter"): Call(dict_of),
    ("collections", "defaultdict"): Call(lambda *a: dict_of(*a[1:])),
    ("torch._utils", "_rebuild_tensor"): Call(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Call(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Call(_rebuild_tensor_v3),
    ("torch._utils", "_rebuild_parameter"): Call(_rebuild_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Call(_rebuild_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Call(_rebuild_from_type),
    ("torch", "Tensor"): TypeName(None),
    ("torch.nn.parameter", "Parameter"): TypeName(None),
    ("torch", "Size"): Call(_size),
    ("torch", "device"): Call(_device),
    **{("torch", name): TypeName(np.dtype(kind)) for name, kind in _DTYPES.items()},
    **{
        (module, name): TypeName(np.dtype(_DTYPES[kind]))
        for name, kind in _STORAGES.items()
        for module in ("torch", "torch.storage", "torch.cuda")
    },
}
"""Every global a checkpoint may name; none of them is imported."""


class TorchUnpickler(RestrictedUnpickler):
    """Builds plain containers, numbers and ``LazyTensor``s.

    Args:
        data: the pickle, or a file that holds no more than its size in memory.
        persistent: turns a persistent id (a tuple) into a ``Storage``.
        budget: pays for what calls make.
        source: the file's name, for messages.
    """

    def __init__(
        self,
        data: Any,
        persistent: Callable[[tuple], Storage],
        budget: Budget,
        source: str,
    ):
        super().__init__(data, allowed=ALLOWED, budget=budget, source=source)
        self._persistent = persistent

    def persistent_load(self, pid: Any) -> Storage | Foreign:
        """Resolve a reference to a storage."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            return Foreign(f"it refers to {brief(pid)}, expected a storage of numbers")
        _, kind, name, _, numel = pid[:5]
        typed = isinstance(kind, TypeName) and kind.dtype is not None
        if not typed or not isinstance(name, str) or not isinstance(numel, int):
            return Foreign(f"it has a storage of an unknown kind: {brief(pid)}")
        return self._persistent(pid)
