"""Reads SMPL and MANO files as published (.pkl) or as .npz, and writes .npz.

The arrays of a file are the user's own; nothing is downloaded and nothing is shipped.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from hmr_jax.body.genders import GENDERS
from hmr_jax.body.mending import mend_left_hand
from hmr_jax.body.model import BodyModel
from hmr_jax.body.npz import read_npy, read_npz
from hmr_jax.body.published_names import find_body, stated_gender
from hmr_jax.body.tree import check_parents
from hmr_jax.body.unpickle import Unreadable, load_pickle
from hmr_jax.errors import UserError
from hmr_jax.files import atomic_write
from hmr_jax.outside import reader, reading

DEFAULT_NUM_BETAS = 10

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
    mend: bool = True,
) -> BodyModel:
    """Read a body or hand from the user's model file.

    Args:
        path: an SMPL-like ``.pkl`` or ``.npz`` file, or a folder of them under their
            published names.
        name: what to call the body; in a folder, "mano_right" or "mano_left" asks for a
            hand and anything else for SMPL. Default: the file's name.
        gender: "neutral", "female" or "male"; chooses the file in a folder (default
            "neutral"). Default for a file: what its name states, or its folder's
            (``smplh/female/model.npz``), else "neutral".
        extra_regressors: joint set name to a ``.npy`` file [K, V], for example
            ``{"h36m_17": "J_regressor_h36m.npy"}``.
        num_betas: number of shape directions to keep; default 10, or all where the file
            has fewer.
        dtype: floating point type of the body.
        mend: correct the known error of MANO_LEFT as published (its shape directions
            are the right hand's) and log it; off, the file is taken as it is.

    Returns:
        The body. Pose correctives that are all zero are left out, which makes the
        forward faster.

    Raises:
        FileNotFoundError: no such file, or none of the published names in the folder.
        ValueError: a file is damaged or of another kind; the message names file, field,
            expected and found.
    """
    path = pathlib.Path(path)
    if gender is not None and gender not in GENDERS:
        raise UserError(f"gender: expected neutral, female or male, got {gender!r}")
    if path.is_dir():
        path = find_body(path, name, gender or "neutral")
    with reading(path, "a body model"):
        fields = _check_fields(path, read_arrays(path))
        fields["shape_dirs_m"] = _first_betas(path, fields["shape_dirs_m"], num_betas)
    if mend:
        fields["shape_dirs_m"] = mend_left_hand(
            str(path),
            fields["template_m"],
            fields["shape_dirs_m"],
            len(fields["parents"]),
        )
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
        gender=gender or ("" if is_hand else stated_gender(path) or "neutral"),
        dtype=dtype,
    )


@reader("a .pkl or .npz body model")
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
        return read_npz(path)
    if path.suffix.lower() != ".pkl":
        raise ValueError(f"{path}: expected suffix .pkl or .npz, got {path.suffix!r}")
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected a dictionary of arrays, got {type(content).__name__}"
        )
    return {
        k.decode("latin1") if isinstance(k, bytes) else k: content[k] for k in content
    }


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
    if isinstance(value, Unreadable):
        raise value.error()
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
    check_parents(parents, f"{where} (the root first, parents before children)")
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
    with reading(path, "a joint regressor"):
        array = read_npy(path)
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
