"""Image to vertices as one StableHLO program that runs without this package's code.

A bundle is a folder: ``program.bin`` (``jax.export``, any batch size), weights in
``weights.safetensors`` and ``manifest.json``, which describes both. Weights and body
are arguments of the program, so that it stays small and they can be replaced.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from hmr_jax._version import __version__
from hmr_jax.body.model import BodyModel
from hmr_jax.export.params import CHECKSUM, check_checksum, checksum
from hmr_jax.files import atomic_directory
from hmr_jax.outside import json_digest, json_object, reading

PROGRAM, WEIGHTS, MANIFEST = "program.bin", "weights.safetensors", "manifest.json"
_FORMAT = "hmr_jax.stablehlo"
_OWN_CHECKSUM = "manifest_sha256"
_BODY = "body."

Predict = Callable[[Any, Mapping[str, jax.Array], BodyModel], Mapping[str, jax.Array]]


def export_program(
    predict_fn: Predict,
    variables: Mapping[str, Any],
    body: BodyModel,
    inputs: Mapping[str, tuple[int, ...]],
    path: str | os.PathLike,
    *,
    metadata: Mapping[str, Any] | None = None,
    include_body: bool = True,
    platforms: Sequence[str] | None = None,
) -> None:
    """Write a bundle that turns crops into posed vertices.

    Args:
        predict_fn: ``predict_fn(variables, batch, body) -> dict`` of arrays with the
            batch first; every entry becomes an output.
        variables: of the model.
        body: the body model.
        inputs: of the program, float32: name to its shape after the batch axis.
        path: folder to write; an existing one is replaced as a whole.
        metadata: what JSON can hold, for the manifest.
        include_body: store the body's arrays; off, ``load_exported`` needs a body (a
            licensed one must not be passed on).
        platforms: 'cpu', 'cuda', ...; this machine's where None.

    Raises:
        ValueError: the program fixes the batch size somewhere.
    """
    tree = {"variables": dict(variables), "body": body}
    leaves, outline = jax.tree.flatten(tree)
    names = [
        jax.tree_util.keystr(key, simple=True, separator=".")
        for key, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]

    def program(weights, arrays):
        rebuilt = jax.tree.unflatten(outline, weights)
        return dict(predict_fn(rebuilt["variables"], arrays, rebuilt["body"]))

    (batch,) = jax.export.symbolic_shape("b")
    arguments = {
        name: jax.ShapeDtypeStruct((batch, *shape), jnp.float32)
        for name, shape in inputs.items()
    }
    weights = [jax.ShapeDtypeStruct(np.shape(a), jnp.result_type(a)) for a in leaves]
    exported = jax.export.export(jax.jit(program), platforms=platforms)(
        weights, arguments
    )
    outputs = jax.tree.unflatten(exported.out_tree, exported.out_avals)
    serialized = bytes(exported.serialize())
    manifest = {
        "format": _FORMAT,
        "version": __version__,
        "jax": jax.__version__,
        "platforms": list(exported.platforms),
        "program_sha256": hashlib.sha256(serialized).hexdigest(),
        "inputs": {name: ["b", *shape] for name, shape in inputs.items()},
        "outputs": {
            name: {"shape": [_size(n) for n in aval.shape], "dtype": aval.dtype.name}
            for name, aval in outputs.items()
        },
        "weights": names,
        "body": {
            "name": body.name,
            "vertices": body.num_vertices,
            "included": include_body,
        },
        "metadata": dict(metadata or {}),
    }
    arrays = {
        name: np.array(leaf, order="C")
        for name, leaf in zip(names, leaves, strict=True)
        if include_body or not name.startswith(_BODY)
    }
    manifest[CHECKSUM] = checksum(arrays)
    manifest[_OWN_CHECKSUM] = json_digest(manifest)
    with atomic_directory(path) as folder:
        (folder / PROGRAM).write_bytes(serialized)
        (folder / WEIGHTS).write_bytes(safetensors.numpy.save(arrays))
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2))


def _size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)


class ExportedModel:
    """A reloaded bundle: call it with the inputs its manifest names.

    Attributes:
        manifest: the parsed ``manifest.json``.
        weights: what the program computes with, in the manifest's order.
    """

    def __init__(self, exported: jax.export.Exported, weights: list, manifest: dict):
        self.manifest = manifest
        self.weights = [jnp.asarray(a) for a in weights]
        self._call = jax.jit(exported.call)

    def __call__(self, **inputs: Any) -> dict[str, jax.Array]:
        """Run the program.

        Args:
            inputs: arrays by name, one batch size for all.

        Returns:
            Output name to array.

        Raises:
            ValueError: an input is missing, unknown, or has another shape.
        """
        expected = self.manifest["inputs"]
        if set(inputs) != set(expected):
            raise ValueError(
                f"inputs: expected {sorted(expected)}, got {sorted(inputs)}"
            )
        arrays = {name: jnp.asarray(a, jnp.float32) for name, a in inputs.items()}
        sizes = {a.shape[:1] for a in arrays.values()}
        for name, array in arrays.items():
            if list(array.shape[1:]) != expected[name][1:] or len(sizes) != 1:
                raise ValueError(
                    f"{name}: expected shape {expected[name]}, got {array.shape}"
                )
        return self._call(self.weights, arrays)


def load_exported(
    path: str | os.PathLike, *, body: BodyModel | None = None
) -> ExportedModel:
    """Reload a bundle.

    Args:
        path: the folder.
        body: the body model, where the bundle does not include it.

    Raises:
        FileNotFoundError: a file of the bundle is missing.
        ValueError: a damaged file, or a body that is needed and missing, or that
            differs in shape.
    """
    folder = pathlib.Path(path)
    for name in (MANIFEST, PROGRAM, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"bundle {folder}: no file {name}")
    file, expected = folder / MANIFEST, "the manifest of a bundle"
    manifest = json_object(file.read_bytes(), file, expected)
    with reading(file, expected):
        _check_manifest(manifest)
    with reading(f"bundle {folder}: {WEIGHTS}", "the weights of a bundle"):
        stored = safetensors.numpy.load_file(folder / WEIGHTS)
        check_checksum(stored, manifest.get(CHECKSUM))
    with reading(f"bundle {folder}", "a bundle whose files fit together"):
        program = (folder / PROGRAM).read_bytes()
        if hashlib.sha256(program).hexdigest() != manifest["program_sha256"]:
            raise ValueError(f"{PROGRAM} is damaged (checksum)")
        exported = jax.export.deserialize(bytearray(program))
        weights = _weights(manifest, stored, body)
        names = manifest["weights"]
        for name, array, aval in zip(names, weights, exported.in_avals, strict=False):
            if tuple(aval.shape) != np.shape(array):
                raise ValueError(
                    f"{name}: expected shape {aval.shape}, got {np.shape(array)}"
                )
    return ExportedModel(exported, weights, manifest)


def _check_manifest(manifest: dict[str, Any]) -> None:
    rest = {key: value for key, value in manifest.items() if key != _OWN_CHECKSUM}
    if manifest.get(_OWN_CHECKSUM, json_digest(rest)) != json_digest(rest):
        raise ValueError("it does not fit its checksum")
    if manifest["format"] != _FORMAT:
        raise ValueError(f"format: expected {_FORMAT!r}, got {manifest['format']!r}")
    kinds = {"inputs": dict, "outputs": dict, "weights": list, "body": dict}
    for field, kind in kinds.items():
        if not isinstance(manifest[field], kind):
            raise ValueError(f"{field}: got {manifest[field]!r}")
    for name, shape in manifest["inputs"].items():
        if not isinstance(shape, list) or shape[:1] != ["b"]:
            raise ValueError(f"inputs: {name}: expected a shape, got {shape!r}")


def _weights(
    manifest: dict[str, Any], stored: dict[str, Any], body: BodyModel | None
) -> list[Any]:
    """What the program computes with, in its order; the body's from the caller."""
    names = manifest["weights"]
    if not manifest["body"]["included"]:
        if body is None:
            raise ValueError(f"holds no body; pass {manifest['body']['name']!r}")
        wanted = [name for name in names if name.startswith(_BODY)]
        leaves = jax.tree.leaves(body)
        if len(leaves) != len(wanted):
            raise ValueError(
                f"expected a body with the arrays {wanted}, got {len(leaves)} arrays"
            )
        stored = stored | dict(zip(wanted, leaves, strict=True))
    missing = [name for name in names if name not in stored]
    if missing:
        raise ValueError(f"weights lack {missing}")
    return [stored[name] for name in names]
