"""Writes files in PyTorch's two formats with numpy alone, for the reader's tests.

The pickles name PyTorch's globals; for the length of a write, stand-ins of those names
are importable.
"""

import collections
import contextlib
import dataclasses
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

_KINDS = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "complex64": "ComplexFloatStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


@dataclasses.dataclass(eq=False)
class Storage:
    """A flat block of values."""

    values: np.ndarray


@dataclasses.dataclass(eq=False)
class Tensor:
    """A strided view of a storage, pickled as PyTorch pickles a tensor."""

    storage: Storage
    offset: int
    shape: tuple
    strides: tuple
    parameter: bool = False

    @classmethod
    def of(cls, array, parameter=False):
        array = np.asarray(array)
        strides = tuple(s // array.itemsize for s in np.empty(array.shape, "b").strides)
        flat = np.ascontiguousarray(array).reshape(-1)
        strides = tuple(
            int(np.prod(array.shape[i + 1 :], dtype=int)) for i in range(array.ndim)
        )
        return cls(Storage(flat), 0, array.shape, strides, parameter)


def _module(name, **content):
    module = types.ModuleType(name)
    for key, value in content.items():
        value.__module__, value.__qualname__, value.__name__ = name, key, key
        setattr(module, key, value)
    return module


def _functions(*names):
    return {name: types.FunctionType((lambda *a: a).__code__, {}) for name in names}


@contextlib.contextmanager
def _stand_ins():
    storages = {kind: type(kind, (), {}) for kind in _KINDS.values()}
    modules = {
        "torch": _module("torch", **storages),
        "torch._utils": _module(
            "torch._utils", **_functions("_rebuild_tensor_v2", "_rebuild_parameter")
        ),
    }
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield modules
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _Pickler(pickle._Pickler):
    def __init__(self, file, modules, storages):
        super().__init__(file, protocol=2)
        self.modules, self.storages = modules, storages

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        keys = [key for key, known in self.storages.items() if known is obj]
        key = keys[0] if keys else str(len(self.storages))
        self.storages[key] = obj
        kind = getattr(self.modules["torch"], _KINDS[obj.values.dtype.name])
        return ("storage", kind, key, "cpu", obj.values.size)

    def reducer_override(self, obj):
        if not isinstance(obj, Tensor):
            return NotImplemented
        utils = self.modules["torch._utils"]
        rest = (False, collections.OrderedDict())
        if obj.parameter:
            inner = dataclasses.replace(obj, parameter=False)
            return utils._rebuild_parameter, (inner, True, collections.OrderedDict())
        view = (obj.storage, obj.offset, obj.shape, obj.strides)
        return utils._rebuild_tensor_v2, (*view, *rest)


def _pickled(content, modules, storages):
    stream = io.BytesIO()
    _Pickler(stream, modules, storages).dump(content)
    return stream.getvalue()


def _bytes(storage, order):
    values = storage.values
    words = values.view(f"u{values.itemsize}")
    return words.astype(words.dtype.newbyteorder(order)).tobytes()


def write_zip(path, content, *, big_endian=False, name="archive", skip=()):
    """Write the format of PyTorch 1.6 and later."""
    storages = {}
    with _stand_ins() as modules, zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data.pkl", _pickled(content, modules, storages))
        archive.writestr(f"{name}/byteorder", "big" if big_endian else "little")
        for key, storage in storages.items():
            if key not in skip:
                data = _bytes(storage, ">" if big_endian else "<")
                archive.writestr(f"{name}/data/{key}", data)
        archive.writestr(f"{name}/version", "3\n")


def write_legacy(path, content):
    """Write the format before PyTorch 1.6."""
    storages = {}
    with _stand_ins() as modules, open(path, "wb") as file:
        pickle.dump(MAGIC, file, protocol=2)
        pickle.dump(PROTOCOL, file, protocol=2)
        sizes = {"short": 2, "int": 4, "long": 4}
        info = {"protocol_version": PROTOCOL, "little_endian": True}
        pickle.dump({**info, "type_sizes": sizes}, file, protocol=2)
        file.write(_pickled(content, modules, storages))
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            file.write(struct.pack("<q", storages[key].values.size))
            file.write(_bytes(storages[key], "<"))


def tensors(arrays, parameter=False):
    """A state dict of arrays, as PyTorch would hold it."""
    return collections.OrderedDict(
        (name, Tensor.of(array, parameter)) for name, array in arrays.items()
    )
