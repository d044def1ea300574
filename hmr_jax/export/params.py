"""Parameters out and back: npz and safetensors files with flat dotted names."""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from hmr_jax._version import __version__
from hmr_jax.body.npz import read_npz
from hmr_jax.errors import UserError
from hmr_jax.files import atomic_write
from hmr_jax.outside import FileError, reading

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
"""Floating point types a file may be written in."""

CHECKSUM = "arrays_sha256"
"""Where metadata keeps the checksum of the arrays; files of before have none."""
_METADATA = "__metadata__"
_FORMAT = "hmr_jax.params"


def _flat(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts as one dict with dotted names (``params.backbone.conv1.kernel``)."""
    paths = flatten_dict(dict(variables))
    for name in (name for path in paths for name in path):
        if not isinstance(name, str) or "." in name or not name:
            raise ValueError(f"variables: expected names without dots, got {name!r}")
    return {".".join(path): leaf for path, leaf in paths.items()}


def checksum(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of names, types, shapes and values.

    Args:
        arrays: by name, in any order.
    """
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        found.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def check_checksum(arrays: Mapping[str, Any], expected: Any) -> None:
    """Compare arrays with what their metadata says of them.

    Args:
        arrays: by name.
        expected: their checksum; None where the file has none.

    Raises:
        ValueError: they differ.
    """
    if expected is not None and checksum(arrays) != expected:
        raise ValueError("the arrays do not fit their checksum")


def save_params(
    variables: Mapping[str, Any],
    path: str | os.PathLike,
    *,
    dtype: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write variables to a file that is either whole or absent.

    Args:
        variables: nested dict of arrays.
        path: ends in ``.npz`` or ``.safetensors``.
        dtype: 'float32', 'float16' or 'bfloat16' for the floating point arrays; None
            keeps theirs.
        metadata: what JSON can hold: ``system``, ``config`` and so on. The package's
            version and a checksum of the arrays are added.

    Raises:
        ValueError: another suffix or dtype, or a value too large for the dtype.
    """
    path = _checked_path(path)
    arrays = {name: np.asarray(a) for name, a in _flat(variables).items()}
    if dtype is not None:
        arrays = _cast(arrays, dtype)
    header = {
        **{"format": _FORMAT, "version": __version__},
        **(metadata or {}),
        CHECKSUM: checksum(arrays),
    }
    if path.suffix == ".safetensors":
        arrays = {name: np.array(a, order="C") for name, a in arrays.items()}
        # Its own writer makes files that nobody else may read.
        content = safetensors.numpy.save(arrays, {"hmr_jax": json.dumps(header)})
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return
    # npz knows no bfloat16: its bits travel as uint16 and the header says so.
    bfloat16 = [n for n, a in arrays.items() if a.dtype == DTYPES["bfloat16"]]
    for name in bfloat16:
        arrays[name] = arrays[name].view(np.uint16)
    entries: dict[str, Any] = dict(arrays)
    entries[_METADATA] = np.array(json.dumps({**header, "bfloat16": bfloat16}))
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **entries)


def load_params(
    path: str | os.PathLike,
    *,
    dtype: str | None = "float32",
    template: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Read variables that ``save_params`` wrote.

    Args:
        path: ends in ``.npz`` or ``.safetensors``.
        dtype: of the floating point arrays; None keeps the file's.
        template: variables or their shapes; the file must match them exactly.

    Returns:
        Nested dict of numpy arrays.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, another suffix, or names or shapes that differ from
            the template's (all listed).
    """
    arrays, _ = _read(path)
    if dtype is not None:
        with reading(path, f"numbers that {dtype} can hold"):
            arrays = _cast(arrays, dtype)
    if template is not None:
        _check_template(arrays, template, path)
    return unflatten_dict(arrays, sep=".")


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata of a file that ``save_params`` wrote.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file.
    """
    return _read(path)[1]


def _checked_path(path: str | os.PathLike) -> pathlib.Path:
    path = pathlib.Path(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise UserError(
            f"parameters {path}: expected a name ending in .npz or .safetensors"
        )
    return path


def _cast(arrays: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    if dtype not in DTYPES:
        raise ValueError(f"dtype: expected one of {list(DTYPES)}, got {dtype!r}")
    kind = DTYPES[dtype]
    out = {}
    for name, array in arrays.items():
        if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype != kind:
            with np.errstate(over="ignore"):
                cast = array.astype(kind)
            if not np.isfinite(cast).all() and np.isfinite(array).all():
                raise ValueError(f"{name}: values too large for {dtype}")
            array = cast
        out[name] = array
    return out


def _read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    path = _checked_path(path)
    if not path.is_file():
        raise FileNotFoundError(f"parameters {path}: no such file")
    with reading(path, "parameters, whole and written by this package"):
        read = _read_npz if path.suffix == ".npz" else _read_safetensors
        arrays, header = read(path)
        check_checksum(arrays, header.get(CHECKSUM))
        unflatten_dict(arrays, sep=".")  # names that contradict each other
    return arrays, header


def _read_npz(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays = {name: np.asarray(array) for name, array in read_npz(path).items()}
    header = json.loads(str(arrays.pop(_METADATA)))
    for name in header.pop("bfloat16"):
        arrays[name] = arrays[name].view(DTYPES["bfloat16"])
    return arrays, header


def _read_safetensors(
    path: pathlib.Path,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with safetensors.safe_open(path, framework="np") as file:
        header = json.loads((file.metadata() or {})["hmr_jax"])
    return safetensors.numpy.load_file(path), header


def _check_template(arrays, template, path) -> None:
    expected = {name: tuple(a.shape) for name, a in _flat(template).items()}
    found = {name: a.shape for name, a in arrays.items()}
    problems = [f"missing {name}" for name in expected if name not in found]
    problems += [f"unexpected {name}" for name in found if name not in expected]
    problems += [
        f"{name}: expected {expected[name]}, found {found[name]}"
        for name in expected
        if name in found and expected[name] != found[name]
    ]
    if problems:
        raise FileError(f"parameters {path}: " + "; ".join(problems))
