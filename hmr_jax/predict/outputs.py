"""The writing half of predict: a person as arrays, as a mesh, as a line of a list."""

import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hmr_jax.body.npz import read_npz
from hmr_jax.errors import UserError
from hmr_jax.files import atomic_write
from hmr_jax.predict.persons import Person, told

KEPT = {
    "shape_mean": "betas_mean",
    "shape_std": "betas_std",
    "pose_fisher_matrix": "pose_fisher_matrix",
    "pose_u": "pose_u",
    "pose_s": "pose_s",
    "pose_v": "pose_v",
    "pose_mode": "pose_rotmats",
    "global_rotmat": "global_rotmat",
    "betas": "betas",
    "local_rotmats": "local_rotmats",
    "camera": "camera",
    "camera_translation_m": "camera_translation_m",
    "vertices_m": "vertices_m",
    "reposed_vertices_m": "reposed_vertices_m",
    "joints_m": "joints_m",
    "root_cam_m": "root_cam_m",
    "joints_coco_m": "joints_coco_m",
    "vertex_uncertainty_m": "vertex_uncertainty_m",
    "box_xywh_px": "box_xywh_px",
    "box_score": "box_score",
    "crop_box_px": "crop_box_px",
    "joints2d_px": "joints2d_px",
    "joints2d_confidence": "joints2d_confidence",
    "joints2d_visible": "joints2d_visible",
    "joints2d_body_px": "joints2d_body_px",
}
"""Arrays of a prediction and their names in the result's file."""
SAMPLES = ("sample_rotmats", "sample_betas", "sample_order")
"""Also written, where bodies were drawn and samples are asked for."""
MESH_FORMATS = ("obj", "ply", "glb")
"""That ``write_mesh`` writes: text, binary, and what browsers and tools show."""
_ENTRIES = "entries"
"""The array of a result that names the others, by which a whole one is known."""
_MUST_BE_FINITE = (
    *("vertices_m", "camera", "pose_rotmats", "local_rotmats"),
    *("betas", "betas_mean", "betas_std"),
)
_SUMMARY = ("betas", "betas_mean", "betas_std", "camera", "root_cam_m")


def result_stem(person: Person) -> str:
    """The name of a person's files, without suffix."""
    return f"{person.name}_{person.index}"


def fingerprint(settings: Mapping[str, Any], person: Person) -> str:
    """What a person's result depends on, as text.

    Args:
        settings: of the whole run; JSON can hold it.
        person: with its box and joints, and the checksum of its picture.
    """
    joints = b"" if person.joints is None else np.float32(person.joints).tobytes()
    inputs = {
        "box": [round(float(x), 3) for x in person.box_xywh_px],
        "joints": zlib.crc32(joints),
        "picture": person.picture_crc,
    }
    return json.dumps({**settings, **inputs}, sort_keys=True)


def checksum(tree: Any) -> int:
    """A checksum of arrays: their names, types, shapes and contents.

    Args:
        tree: of parameters, or a body.
    """
    crc = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.asarray(leaf)
        said = f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}"
        crc = zlib.crc32(said.encode(), crc)
        crc = zlib.crc32(array.tobytes(), crc)
    return crc


def arrays_of(
    prediction: Mapping[str, Any], *, with_samples: bool
) -> dict[str, np.ndarray]:
    """The arrays of a result's file.

    Args:
        prediction: of ``predict_engine.Predictor``.
        with_samples: also ``SAMPLES``.

    Returns:
        Arrays by name; the predicted ones are finite.

    Raises:
        FloatingPointError: the network gave something that is not finite.
    """
    arrays = {
        ours: np.asarray(prediction[name])
        for name, ours in KEPT.items()
        if name in prediction
    }
    if with_samples and "sample_rotmats" in prediction:
        arrays |= {name: np.asarray(prediction[name]) for name in SAMPLES}
    bad = [
        name
        for name in _MUST_BE_FINITE
        if name in arrays and not np.isfinite(arrays[name]).all()
    ]
    if bad:
        raise FloatingPointError(f"the network's {', '.join(bad)} is not finite")
    return arrays


def write_result(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], made_with: str
) -> None:
    """Write a person's result, whole or not at all.

    Args:
        path: ``.npz``.
        arrays: of ``arrays_of``.
        made_with: of ``fingerprint``.
    """
    entries = {**arrays, "made_with": np.array(made_with)}
    entries[_ENTRIES] = np.array(sorted(entries))
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **entries)


def read_result(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    """Read a person's result back.

    Args:
        path: ``.npz``.

    Returns:
        Its arrays; None where there is no file, or none that is whole.
    """
    if not path.is_file():
        return None
    try:
        arrays = read_npz(path)
    except UserError:  # cut off or damaged: it is made again
        return None
    entries = arrays.pop(_ENTRIES, None)
    found = {name for name, array in arrays.items() if isinstance(array, np.ndarray)}
    whole = isinstance(entries, np.ndarray) and set(entries.reshape(-1)) == found
    return arrays if whole else None


def summary_row(person: Person, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What ``predictions.json`` says of a person.

    Args:
        person: who.
        arrays: of ``arrays_of`` or ``read_result``.
    """

    def numbers(name: str) -> list[float]:
        return [round(float(x), 5) for x in arrays[name].reshape(-1)]

    row = {
        **told(person.path),
        "person": person.index,
        "result": f"{result_stem(person)}.npz",
        "box_xywh_px": numbers("box_xywh_px"),
        "box_score": round(float(arrays["box_score"]), 5),
        "num_joints_visible": int(arrays["joints2d_visible"].sum()),
        **{name: numbers(name) for name in _SUMMARY if name in arrays},
    }
    if "vertex_uncertainty_m" in arrays:
        row["mean_uncertainty_m"] = round(
            float(arrays["vertex_uncertainty_m"].mean()), 5
        )
    if person.note:
        row["note"] = person.note
    return row


def write_mesh(path: pathlib.Path, vertices_m: np.ndarray, faces: np.ndarray) -> None:
    """Write a mesh in the format of the path's suffix, whole or not at all.

    Args:
        path: with one of the suffixes ``MESH_FORMATS``.
        vertices_m: [verts, 3] metres, y up, which is also glTF's convention.
        faces: [faces, 3] indices of vertices.
    """
    import trimesh

    kind = path.suffix.removeprefix(".")
    mesh = trimesh.Trimesh(vertices_m, faces, process=False)
    options: dict[str, Any] = {}
    if kind == "obj":
        options = {"digits": 6, "header": ""}
    elif kind == "glb":
        options = {"include_normals": True}  # a viewer shades flat without them
    with atomic_write(path) as temporary:
        mesh.export(temporary, file_type=kind, **options)
