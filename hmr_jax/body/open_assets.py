"""The open body and the open right hand that ship with the package (CC0 1.0).

Both are in the layout of SMPL's and MANO's model files: same joints, parents, number of
shape coefficients and meaning of the arrays. They are *not* SMPL or MANO: vertices are
other ones, so regressors and vertex lists made for those files do not apply, and their
vertex counts differ on purpose so that mixing them up is an error.
``scripts/build_open_body.py`` and ``scripts/build_open_hand.py`` make the files.
"""

import functools
import importlib.resources
import os
from collections.abc import Mapping

import numpy as np

from hmr_jax.body.model import BodyModel
from hmr_jax.files import atomic_write

BODY_FILE = "open_body.npz"
HAND_FILE = "open_hand.npz"
_ROOT = 2**32 - 1


def load_open_body() -> BodyModel:
    """The open body: 24 joints in SMPL's order, 10 shape coefficients.

    The rest pose is SMPL's T-pose, y up, facing +z, pelvis at the origin. Coefficients
    are in standard deviations of adults; the first is stature. It has texture
    coordinates, the extra regressor ``h36m_17`` and no pose correctives.

    Returns:
        The body.

    Raises:
        FileNotFoundError: the installation lacks the asset.
    """
    return _to_model(open_body_arrays(), "open_body", "neutral")


def load_open_hand() -> BodyModel:
    """The open right hand: 16 joints in MANO's order, 10 shape coefficients.

    The rest pose is flat, wrist at the origin, fingers along -x, palm down, thumb
    towards +z. ``hand_components`` and ``hand_mean`` come from sampled finger flexions,
    not from captured hands.

    Returns:
        The hand.

    Raises:
        FileNotFoundError: the installation lacks the asset.
    """
    return _to_model(open_hand_arrays(), "open_hand", "")


def open_body_arrays() -> dict[str, np.ndarray]:
    """The open body's arrays under the names of SMPL's files, and a few more.

    Returns:
        ``v_template`` [V, 3], ``shapedirs`` [V, 3, 10], ``J_regressor`` [24, V],
        ``weights`` [V, 24], ``kintree_table`` [2, 24], ``f`` [F, 3], ``vt`` [T, 2],
        ``ft`` [F, 3] and ``J_regressor_h36m`` [17, V].
    """
    return _expand(_read(BODY_FILE))


def open_hand_arrays() -> dict[str, np.ndarray]:
    """The open hand's arrays under the names of MANO's files, and a few more.

    Returns:
        As ``open_body_arrays`` with 16 joints, without the Human3.6M regressor, and
        ``hands_components`` [45, 45], ``hands_mean`` [45] and ``tip_vertices`` [5]
        (index, middle, little, ring finger, thumb: the order of the joints).
    """
    return _expand(_read(HAND_FILE))


def open_hand_tip_vertices() -> tuple[int, ...]:
    """Vertices at the fingertips of the open hand.

    Returns:
        Index, middle, little, ring finger, thumb.
    """
    return tuple(int(v) for v in _read(HAND_FILE)["tip_vertices"])


def write_smpl_npz(path: str | os.PathLike, asset: str = "body") -> None:
    """Write the open body or hand as a file in SMPL's or MANO's npz layout.

    Args:
        path: the file to write.
        asset: "body" or "hand".

    Raises:
        ValueError: ``asset`` is another word.
    """
    arrays = {"body": open_body_arrays, "hand": open_hand_arrays}
    if asset not in arrays:
        raise ValueError(f"asset: expected 'body' or 'hand', got {asset!r}")
    out = arrays[asset]()
    num_vertices, num_joints = out["weights"].shape
    out["posedirs"] = np.zeros((num_vertices, 3, 9 * (num_joints - 1)), np.float32)
    with atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **out)


@functools.cache
def _read(name: str) -> Mapping[str, np.ndarray]:
    """The arrays of a packed asset."""
    asset = importlib.resources.files("hmr_jax.body") / "assets" / name
    if not asset.is_file():
        raise FileNotFoundError(
            f"{asset}: not found; the package was installed without its assets "
            "(reinstall hmr_jax, or build the file with scripts/build_"
            f"{name.removesuffix('.npz')}.py)"
        )
    with asset.open("rb") as stream, np.load(stream, allow_pickle=False) as packed:
        return {key: packed[key] for key in packed.files}


def _expand(packed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Dense arrays of a packed asset; fresh copies."""
    num_vertices = len(packed["v_template"])
    num_joints = packed["kintree_table"].shape[1]
    weights = np.zeros((num_vertices, num_joints), np.float32)
    vertex = np.arange(num_vertices)[:, None]
    np.add.at(weights, (vertex, packed["weights_index"]), packed["weights_value"])
    out = {
        "v_template": packed["v_template"].copy(),
        "shapedirs": packed["shapedirs"].astype(np.float32),
        "weights": weights,
        "J_regressor": _dense(packed, "J_regressor", num_joints),
    }
    if "J_regressor_h36m_row" in packed:
        out["J_regressor_h36m"] = _dense(packed, "J_regressor_h36m", 17)
    copied = ("f", "kintree_table", "vt", "ft", "tip_vertices")
    for key in (*copied, "hands_components", "hands_mean"):
        if key in packed:
            out[key] = packed[key].copy()
    return out


def _dense(packed: Mapping[str, np.ndarray], key: str, rows: int) -> np.ndarray:
    """A regressor [rows, V] from its coordinates and values."""
    out = np.zeros((rows, len(packed["v_template"])), np.float32)
    out[packed[f"{key}_row"], packed[f"{key}_column"]] = packed[f"{key}_value"]
    return out


def _to_model(arrays: dict[str, np.ndarray], name: str, gender: str) -> BodyModel:
    parents = tuple(-1 if p == _ROOT else int(p) for p in arrays["kintree_table"][0])
    extra = {}
    if "J_regressor_h36m" in arrays:
        extra["h36m_17"] = arrays["J_regressor_h36m"]
    return BodyModel.create(
        template_m=arrays["v_template"],
        shape_dirs_m=arrays["shapedirs"],
        joint_regressor=arrays["J_regressor"],
        skin_weights=arrays["weights"],
        faces=arrays["f"],
        parents=parents,
        extra_joint_regressors=extra,
        hand_components=arrays.get("hands_components"),
        hand_mean=arrays.get("hands_mean"),
        uv=arrays["vt"],
        face_uv=arrays["ft"],
        name=name,
        gender=gender,
    )
