"""Reads PyTorch checkpoints, and safetensors files, without PyTorch."""

import io
import mmap
import os
import pathlib
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from hmr_jax.body.unpickle import (
    Budget,
    Foreign,
    StandIn,
    largest_inflation,
    resolve,
)
from hmr_jax.convert.torch_pickle import LazyTensor, Storage, TorchUnpickler
from hmr_jax.outside import reading

WRAPPER_KEYS = ("state_dict", "model_state_dict", "model", "net", "network")
"""Where checkpoints that hold more than a state dict keep it."""

BEST_KEY = "best_model_state_dict"
"""Where some also keep the weights of their best epoch; these come first."""

WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel, torch.compile and Lightning put before every name."""

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read_torch_checkpoint(
    path: str | os.PathLike, *, key: str | None = None
) -> dict[str, np.ndarray]:
    """Read the state dict of a checkpoint as numpy arrays.

    Nothing in the file is executed: a restricted unpickler builds containers, numbers
    and arrays. Optimiser states and other entries are skipped unread.

    Args:
        path: a file of ``torch.save`` (zip format, or the format before 1.6), or
            safetensors.
        key: where a wrapped state dict lies, with dots between levels; found by
            ``BEST_KEY`` and ``WRAPPER_KEYS`` when omitted.

    Returns:
        Name to array, without the prefixes of ``WRAPPERS`` that all names have, in any
        order and number, and without ``_orig_mod`` anywhere. bfloat16 stays bfloat16.

    Raises:
        FileNotFoundError: no such file.
        UserError: a truncated file, another format, an entry of the state dict that is
            no tensor (its class is named), no single state dict inside, or arrays much
            larger than the file.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    with reading(f"checkpoint {path}", "a whole, undamaged file of PyTorch"):
        if path.suffix == ".safetensors":
            return without_wrappers(safetensors.numpy.load_file(path))
        budget = Budget(path.stat().st_size)
        with open(path, "rb") as file:
            content = _read_container(file, path, budget)
            tensors = _select(content, key, path)
            arrays = {
                name: _array(value, name, path, budget)
                for name, value in tensors.items()
            }
    return without_wrappers(arrays)


def _read_container(file: io.BufferedReader, path: pathlib.Path, budget: Budget) -> Any:
    magic = file.read(4)
    file.seek(0)
    if magic[:2] == b"PK":
        return _read_zip(file, path, budget)
    if magic[:1] == b"\x80":
        # A read from mapped memory never asks for more than it has.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _read_legacy(mapped, path, budget)
    if tarfile.is_tarfile(path):
        raise ValueError(
            f"checkpoint {path}: the tar format of PyTorch before 0.1.10 is not "
            "supported; load and save it again with a newer PyTorch"
        )
    raise ValueError(
        f"checkpoint {path}: expected a PyTorch zip or pickle file, or the suffix "
        f".safetensors; the file starts with {magic!r}"
    )


def _read_zip(file: io.BufferedReader, path: pathlib.Path, budget: Budget) -> Any:
    archive = zipfile.ZipFile(file)
    names = set(archive.namelist())
    roots = [n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl")]
    if len(roots) != 1:
        raise ValueError(
            f"checkpoint {path}: expected one data.pkl in the archive, found "
            f"{len(roots)}"
        )
    root = roots[0]
    if f"{root}constants.pkl" in names:
        raise ValueError(
            f"checkpoint {path}: a TorchScript archive, expected a state dict"
        )
    order = b"little"
    if f"{root}byteorder" in names:
        order = archive.read(f"{root}byteorder").strip()
    storages: dict[str, Storage] = {}

    def storage(pid: tuple) -> Storage:
        _, kind, name, _, numel = pid[:5]
        member = f"{root}data/{name}"
        if member not in names:
            raise ValueError(f"checkpoint {path}: storage {member} is missing")
        if name not in storages:
            storages[name] = Storage(
                kind.dtype, numel, lambda: stored(member), order == b"big"
            )
        return storages[name]

    def stored(member: str) -> bytes:
        budget.spend(archive.getinfo(member).file_size)
        return archive.read(member)

    pickled = archive.getinfo(f"{root}data.pkl")
    if pickled.file_size > largest_inflation(pickled.compress_size):
        raise ValueError(f"a pickle of {pickled.file_size} bytes, highly compressed")
    return TorchUnpickler(
        archive.read(pickled), storage, budget, f"checkpoint {path}"
    ).load()


def _read_legacy(file: mmap.mmap, path: pathlib.Path, budget: Budget) -> Any:
    """Five pickles, then the storages one after the other: a count, then values."""
    storages: dict[str, Storage] = {}

    def storage(pid: tuple) -> Storage:
        _, kind, name, _, numel = pid[:5]
        view = pid[5] if len(pid) > 5 else None
        if view is not None:
            raise ValueError(
                f"checkpoint {path}: storage views (PyTorch before 0.4) are not "
                "supported; load and save it again with a newer PyTorch"
            )
        if name not in storages:
            storages[name] = Storage(kind.dtype, numel, lambda: b"")
        return storages[name]

    def load() -> Any:
        return TorchUnpickler(file, storage, budget, f"checkpoint {path}").load()

    if load() != _LEGACY_MAGIC:
        raise ValueError(f"checkpoint {path}: a pickle, but not one of torch.save")
    protocol = load()
    if protocol != _LEGACY_PROTOCOL:
        raise ValueError(
            f"checkpoint {path}: expected protocol {_LEGACY_PROTOCOL}, got {protocol}"
        )
    load()  # sizes of C types on the writing machine; storages are little-endian
    content = load()
    for name in load():
        if name not in storages:
            raise ValueError(f"checkpoint {path}: unknown storage {name!r}")
        _fill(storages[name], file, path)
    return content


def _fill(storage: Storage, file: mmap.mmap, path: pathlib.Path) -> None:
    """Note where a storage's bytes lie, and step over them."""
    (numel,) = struct.unpack("<q", file.read(8))
    start, size = file.tell(), numel * storage.dtype.itemsize
    total = file.size()
    if numel != storage.numel or start + size > total:
        raise ValueError(
            f"checkpoint {path}: truncated or damaged: a storage of {storage.numel} "
            f"values announces {numel}, and {total - start} bytes are left"
        )

    def read() -> bytes:
        file.seek(start)
        return file.read(size)

    storage.read = read
    file.seek(start + size)


def _is_tensor(value: Any) -> bool:
    # a StandIn is a numpy array or scalar that has not been built yet
    numpys = isinstance(value, StandIn) and not isinstance(value, Foreign)
    return numpys or isinstance(value, LazyTensor)


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and all(isinstance(name, str) for name in value)
        and any(_is_tensor(entry) for entry in value.values())
        and not any(isinstance(entry, Mapping) for entry in value.values())
    )


def _select(content: Any, key: str | None, path: pathlib.Path) -> dict[str, Any]:
    """The state dict inside whatever the file holds, tensors only."""
    if key is not None:
        for part in key.split("."):
            if not isinstance(content, Mapping) or part not in content:
                raise ValueError(
                    f"checkpoint {path}: no entry {key!r}; found {_describe(content)}"
                )
            content = content[part]
    elif not _is_state_dict(content) and isinstance(content, Mapping):
        found = [k for k in WRAPPER_KEYS if _is_state_dict(content.get(k))]
        if _is_state_dict(content.get(BEST_KEY)):
            found = [BEST_KEY]
        if len(found) != 1:
            raise ValueError(
                f"checkpoint {path}: expected a state dict, or one under a name of "
                f"{list(WRAPPER_KEYS)}; found {_describe(content)}. Name it by key="
            )
        content = content[found[0]]
    if not _is_state_dict(content):
        raise ValueError(
            f"checkpoint {path}: expected a dict of tensors, found {_describe(content)}"
        )
    numbers = (bool, int, float)
    bad = [
        f"{name} ({_describe(value)})"
        for name, value in content.items()
        if not (_is_tensor(value) or isinstance(value, numbers))
    ]
    if bad:
        raise ValueError(
            f"checkpoint {path}: entries that are neither tensors nor numbers: "
            f"{', '.join(bad)}"
        )
    return dict(content)


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        inside = f"a dict with {sorted(map(str, content))[:12]}"
        for key in (*WRAPPER_KEYS, BEST_KEY):
            if isinstance(content.get(key), Foreign):
                inside += f", in which {key!r} is {_describe(content[key])}"
        return inside
    if isinstance(content, Foreign):
        return f"something else: {content.reason}; save a module's state_dict() instead"
    return f"a {type(content).__name__}"


def _array(value: Any, name: str, path: pathlib.Path, budget: Budget) -> np.ndarray:
    if isinstance(value, LazyTensor):
        with reading(f"checkpoint {path}: {name}", "a tensor"):
            return value.array(budget)
    array = np.asarray(resolve(value, budget, f"checkpoint {path}: {name}"))
    if array.dtype.hasobject:
        raise ValueError(f"checkpoint {path}: {name}: expected numbers, found objects")
    return array


def without_wrappers(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names as the network itself has them.

    Args:
        arrays: by names that may begin with any of ``WRAPPERS``, repeated and mixed.

    Returns:
        The same arrays. A prefix is dropped while every name has one: a network of a
        single child ``model`` beside others keeps it.
    """
    compiled = "_orig_mod."
    names = {n: n.replace(f".{compiled}", ".").removeprefix(compiled) for n in arrays}
    while names and all(n.startswith(WRAPPERS) for n in names.values()):
        names = {key: n.partition(".")[2] for key, n in names.items()}
    if len(set(names.values())) < len(arrays):  # two networks under one name
        return arrays
    return {names[key]: array for key, array in arrays.items()}
