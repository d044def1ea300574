"""Reads SMPL and MANO files as published (.pkl) or as .npz, and writes .npz.

The arrays of a file are the user's own; nothing is downloaded and nothing is shipped.
"""

import os
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from hmr_jax.body.model import BodyModel
from hmr_jax.body.unpickle import Broken, load_pickle
from hmr_jax.files import atomic_write

DEFAULT_NUM_BETAS = 10

_SMPL_FILES = (
    "basicmodel_{letter}_lbs_10_207_0_v1.0.0",
    "basicmodel_{letter}_lbs_10_207_0_v1.1.0",
    "basicmodel_{gender}_lbs_10_207_0_v1.0.0",
    "basicmodel_{gender}_lbs_10_207_0_v1.1.0",
    "smpl_{gender}",
)
_SUFFIXES = (".pkl", ".npz")
_SUBFOLDERS = ("", "smpl", "mano", "models")
_GENDER_WORDS = {
    "neutral": "neutral",
    **{"m": "male", "male": "male", "f": "female", "female": "female"},
}
_ROOT_PARENT = 2**31
"""Published files store the root's parent -1 as an unsigned 2^32 - 1."""


def load_body(
    path: str | os.PathLike,
    *,
    name: str | None = None,
    gender: str | None = None,
    extra_regressors: Mapping[str, str | os.PathLike] | None = None,
    num_betas: int | None = None,
    dtype: Any = np.float32,
) -> BodyModel:
    """Read a body or hand from the user's model file.

    Args:
        path: an SMPL-like ``.pkl`` or ``.npz`` file, or a folder of them under their
            published names.
        name: what to call the body; in a folder, "mano_right" or "mano_left" asks for a
            hand and anything else for SMPL. Default: the file's name.
        gender: "neutral", "female" or "male"; chooses the file in a folder (default
            "neutral"). Default for a file: taken from its name.
        extra_regressors: joint set name to a ``.npy`` file [K, V], for example
            ``{"h36m_17": "J_regressor_h36m.npy"}``.
        num_betas: number of shape directions to keep; default 10, or all where the file
            has fewer.
        dtype: floating point type of the body.

    Returns:
        The body. Pose correctives that are all zero are left out, which makes the
        forward faster.

    Raises:
        FileNotFoundError: no such file, or none of the published names in the folder.
        ValueError: a file is damaged or of another kind; the message names file, field,
            expected and found.
    """
    path = pathlib.Path(path)
    if gender is not None and gender not in ("neutral", "female", "male"):
        raise ValueError(f"gender: expected neutral, female or male, got {gender!r}")
    if path.is_dir():
        path = _find(path, name, gender or "neutral")
    arrays = read_arrays(path)
    fields = _check_fields(path, arrays)
    fields["shape_dirs_m"] = _first_betas(path, fields["shape_dirs_m"], num_betas)
    vertices = fields["template_m"].shape[0]
    extra = {
        key: _read_regressor(pathlib.Path(file), vertices)
        for key, file in (extra_regressors or {}).items()
    }
    is_hand = fields["hand_mean"] is not None
    return BodyModel.create(
        **fields,
        extra_joint_regressors=extra,
        name=name or path.stem,
        gender=gender or ("" if is_hand else _gender_of(path.stem)),
        dtype=dtype,
    )


def _find(folder: pathlib.Path, name: str | None, gender: str) -> pathlib.Path:
    """The model file of a folder, by its published names in any case."""
    asked = (name or "").lower()
    if asked.startswith("mano"):
        side = "left" if "left" in asked else "right"
        wanted = [f"mano_{side}"]
    else:
        letter = {"neutral": "neutral", "male": "m", "female": "f"}[gender]
        wanted = [f.format(letter=letter, gender=gender) for f in _SMPL_FILES]
    files: dict[str, pathlib.Path] = {}
    for sub in _SUBFOLDERS:
        if (folder / sub).is_dir():
            for file in sorted((folder / sub).iterdir()):
                files.setdefault(file.name.lower(), file)
    for stem in wanted:
        for suffix in _SUFFIXES:
            if stem + suffix in files:
                return files[stem + suffix]
    raise FileNotFoundError(
        f"{folder}: expected one of {', '.join(wanted)} with suffix .pkl or .npz (any "
        f"case); found {', '.join(sorted(f.name for f in files.values())[:20]) or '-'}"
    )


def _gender_of(stem: str) -> str:
    words = re.split(r"[^a-z]+", stem.lower())
    return next((_GENDER_WORDS[w] for w in words if w in _GENDER_WORDS), "neutral")


def read_arrays(path: str | os.PathLike) -> dict[str, Any]:
    """The named entries of a ``.pkl`` or ``.npz`` file; no code in it is run.

    Args:
        path: the file.

    Returns:
        Entries by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds something else than arrays.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a .pkl or .npz body")
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    if path.suffix.lower() != ".pkl":
        raise ValueError(f"{path}: expected suffix .pkl or .npz, got {path.suffix!r}")
    content = load_pickle(path, keep_going=True)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a dictionary of arrays, got {type(content).__name__}"
        )
    return {
        k.decode("latin1") if isinstance(k, bytes) else k: content[k] for k in content
    }


def _read_npz(path: pathlib.Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: _npz_entry(path, file, key) for key in file.files}
    except (zipfile.BadZipFile, EOFError, OSError, KeyError) as error:
        raise ValueError(f"{path}: not a readable .npz file: {error}") from error


def _npz_entry(path: pathlib.Path, file: Any, key: str) -> np.ndarray:
    try:
        return file[key]
    except ValueError as error:
        raise ValueError(
            f"{path}: field {key!r}: expected an array of numbers, found one of Python "
            f"objects or a damaged one ({error})"
        ) from error


def _check_fields(path: pathlib.Path, arrays: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``BodyModel.create``, checked under the file's field names."""
    template = _array(path, arrays, "v_template", ("V", 3))
    verts = template.shape[0]
    parents = _read_parents(path, arrays)
    joints = len(parents)
    fingers = 3 * (joints - 1)
    faces = _array(path, arrays, "f", ("F", 3))
    if faces.size and not 0 <= faces.min() <= faces.max() < verts:
        raise ValueError(
            f"{path}: field 'f': expected vertex indices 0..{verts - 1}, found "
            f"{faces.min()}..{faces.max()}"
        )
    uv_name, face_uv_name = ("uv", "face_uv") if "uv" in arrays else ("vt", "ft")
    pose_dirs = _optional(path, arrays, "posedirs", (verts, 3, 9 * (joints - 1)))
    if pose_dirs is not None and not pose_dirs.any():
        pose_dirs = None
    return {
        "template_m": template,
        "shape_dirs_m": _array(path, arrays, "shapedirs", (verts, 3, "S")),
        "pose_dirs_m": pose_dirs,
        "joint_regressor": _array(path, arrays, "J_regressor", (joints, verts)),
        "skin_weights": _array(path, arrays, "weights", (verts, joints)),
        "faces": faces.astype(np.int32),
        "parents": parents,
        "hand_components": _optional(path, arrays, "hands_components", ("C", fingers)),
        "hand_mean": _optional(path, arrays, "hands_mean", (fingers,)),
        "uv": _optional(path, arrays, uv_name, ("T", 2)),
        "face_uv": _optional(path, arrays, face_uv_name, (len(faces), 3)),
    }


def _optional(
    path: pathlib.Path,
    arrays: dict[str, Any],
    field: str,
    shape: tuple[int | str, ...],
) -> np.ndarray | None:
    """One field as a checked array, or None where the file has none."""
    return _array(path, arrays, field, shape) if field in arrays else None


def _array(
    path: pathlib.Path,
    arrays: dict[str, Any],
    field: str,
    shape: tuple[int | str, ...],
) -> np.ndarray:
    """One field as a finite array of the expected shape (names fit any size)."""
    where = f"{path}: field {field!r}"
    if field not in arrays:
        raise ValueError(
            f"{where} is missing; the file has {', '.join(sorted(map(str, arrays)))}"
        )
    value = arrays[field]
    if isinstance(value, Broken):
        raise ValueError(f"{where}: {value.reason}")
    array = np.asarray(value) if isinstance(value, np.ndarray | list | tuple) else None
    if array is None or array.dtype.kind not in "biuf":
        found = type(value).__name__ if array is None else f"dtype {array.dtype}"
        raise ValueError(f"{where}: expected an array of numbers, found {found}")
    fits = array.ndim == len(shape) and all(
        isinstance(want, str) or want == got
        for want, got in zip(shape, array.shape, strict=True)
    )
    if not fits:
        text = "(" + ", ".join(map(str, shape)) + ")"
        raise ValueError(f"{where}: expected shape {text}, found {array.shape}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise ValueError(
            f"{where}: expected finite numbers, found {bad} NaN or infinite of "
            f"{array.size}"
        )
    return array


def _read_parents(path: pathlib.Path, arrays: dict[str, Any]) -> tuple[int, ...]:
    table = _array(path, arrays, "kintree_table", (2, "J"))
    where = f"{path}: field 'kintree_table'"
    column = {int(joint): i for i, joint in enumerate(table[1])}
    parents = []
    for i, parent in enumerate(int(p) for p in table[0]):
        if parent < 0 or parent >= _ROOT_PARENT:
            parents.append(-1)
        elif parent in column:
            parents.append(column[parent])
        else:
            raise ValueError(f"{where}: joint {i} has unknown parent {parent}")
    for i, parent in enumerate(parents):
        if (i == 0) != (parent == -1) or parent >= i:
            raise ValueError(
                f"{where}: expected the root first and parents before children, found "
                f"parent {parent} of joint {i}"
            )
    return tuple(parents)


def _first_betas(
    path: pathlib.Path, shape_dirs: np.ndarray, num_betas: int | None
) -> np.ndarray:
    available = shape_dirs.shape[2]
    if num_betas is None:
        num_betas = min(DEFAULT_NUM_BETAS, available)
    if not 0 < num_betas <= available:
        raise ValueError(
            f"{path}: field 'shapedirs': expected at least {num_betas} shape "
            f"directions (num_betas), found {available}"
        )
    return shape_dirs[:, :, :num_betas]


def _read_regressor(path: pathlib.Path, vertices: int) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such joint regressor file")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a readable .npy array: {error}") from error
    return _array(path, {"regressor": array}, "regressor", ("K", vertices))


def save_body(path: str | os.PathLike, body: BodyModel) -> None:
    """Write a body as ``.npz`` under the published field names, for ``load_body``.

    Args:
        path: file to write, suffix .npz.
        body: the body; extra joint regressors are not stored.

    Raises:
        ValueError: the suffix is not .npz.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected suffix .npz, got {path.suffix!r}")
    parents = np.array(body.parents, np.int64)
    arrays = {
        "v_template": body.template_m,
        "shapedirs": body.shape_dirs_m,
        "posedirs": body.pose_dirs_m,
        "J_regressor": body.joint_regressor,
        "weights": body.skin_weights,
        "f": body.faces,
        "kintree_table": np.stack([parents, np.arange(len(parents))]),
        "hands_components": body.hand_components,
        "hands_mean": body.hand_mean,
        "uv": body.uv,
        "face_uv": body.face_uv,
    }
    present: dict[str, Any] = {
        k: np.asarray(v) for k, v in arrays.items() if v is not None
    }
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **present)
