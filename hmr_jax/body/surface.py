"""A body's surface for pictures: texture coordinates and the 24 parts of its faces.

The parts are DensePose's (``body.parts``). SMPL gets them from DensePose's own file,
in which the surface is cut along the borders of parts; the open body gets them from its
blend weights, and its surface is cut along the seams of its texture.
"""

import os
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.body.model import BodyModel
from hmr_jax.outside import reader, reading

NUM_PARTS = 24
SMPL_VERTICES = 6890
ATLAS_ROWS, ATLAS_COLUMNS = 6, 4
"""How the published textures lay the parts out: down each column, then to the right."""
UV_PLACES = ("All_U_norm", "All_V_norm")
UV_FIELDS = ("All_FaceIndices", "All_Faces", "All_vertices", *UV_PLACES)

# Joints that move each region most, and its parts: in front and behind of the T-pose,
# or on the right and on the left for the head.
_REGIONS: tuple[tuple[tuple[int, ...], tuple[int, int]], ...] = (
    ((0, 3, 6, 9, 13, 14), (2, 1)),
    ((21, 23), (3, 3)),
    ((20, 22), (4, 4)),
    ((7, 10), (5, 5)),
    ((8, 11), (6, 6)),
    ((2,), (9, 7)),
    ((1,), (10, 8)),
    ((5,), (13, 11)),
    ((4,), (14, 12)),
    ((16,), (15, 17)),
    ((17,), (16, 18)),
    ((18,), (19, 21)),
    ((19,), (20, 22)),
    ((12, 15), (23, 24)),
)
_HEAD = len(_REGIONS) - 1
_ARMS = (9, 10, 11, 12)
_SLICES = 12


class Surface(NamedTuple):
    """What a renderer of parts and textures needs beside the vertices' places.

    Attributes:
        vertex: the body's vertex under each surface vertex; a body vertex on a seam
            has several.
        faces: indices of surface vertices, oriented as the body's faces.
        part: DensePose's part of each face, 1 to 24.
        uv: place of each surface vertex in the texture, in [0, 1]: u to the right, v
            up, with the centres of the picture's corner texels at 0 and 1.
    """

    vertex: Int[Array, "texcoords"]
    faces: Int[Array, "faces 3"]
    part: Int[Array, "faces"]
    uv: Float[Array, "texcoords 2"]


def surface_of(body: BodyModel, uv_path: str | os.PathLike | None = None) -> Surface:
    """The surface of any body that has one.

    Args:
        body: the open body, or SMPL.
        uv_path: DensePose's ``UV_Processed.mat`` for SMPL; empty for the open body.

    Returns:
        ``Surface``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: SMPL without its file, the open body with it, or a bad file.
    """
    if uv_path:
        return read_uv_processed(uv_path, body)
    if body.uv is None or body.face_uv is None:
        raise ValueError(
            f"body {body.name!r} ({body.num_vertices} vertices) has no texture "
            "coordinates or parts of its own: set config.data.uv_path to DensePose's "
            "UV_Processed.mat, or use the open body"
        )
    return open_surface(body)


def open_surface(body: BodyModel) -> Surface:
    """The surface of the open body, its parts taken from joints and depth.

    A face belongs to the region whose joints move it most. Torso and limbs are divided
    into front and back of the T-pose half-way through each cross-section, the head into
    right and left.

    Args:
        body: 24 joints in SMPL's order, in a T-pose with y up, facing z, with texture
            coordinates.

    Returns:
        ``Surface``, whose faces are the body's in the same order.

    Raises:
        ValueError: another tree, no texture coordinates, or a texture coordinate that
            two vertices share.
    """
    if body.parents != SMPL_PARENTS:
        raise ValueError(
            f"body {body.name!r}: parents: expected the 24-joint tree of SMPL, got "
            f"{body.num_joints} joints"
        )
    if body.uv is None or body.face_uv is None:
        raise ValueError(
            f"body {body.name!r}: uv: expected texture coordinates, got none"
        )
    faces, corners = np.asarray(body.faces), np.asarray(body.face_uv)
    vertex = np.zeros(len(body.uv), np.int32)
    vertex[corners] = faces
    if not np.array_equal(vertex[corners], faces):
        raise ValueError(
            f"body {body.name!r}: face_uv: expected one vertex for each texture "
            "coordinate, got a coordinate of several vertices"
        )
    return Surface(
        vertex=jnp.asarray(vertex),
        faces=jnp.asarray(corners, jnp.int32),
        part=jnp.asarray(_parts_by_joints(body)),
        uv=jnp.asarray(body.uv, jnp.float32),
    )


def _parts_by_joints(body: BodyModel) -> np.ndarray:
    """The part of each face of a T-posed body, int32 [F]."""
    faces = np.asarray(body.faces)
    places = np.asarray(body.template_m, np.float64)
    weights = np.asarray(body.blend_weights)
    shares = np.stack([weights[list(joints)].sum(0) for joints, _ in _REGIONS])
    region = shares[:, faces].sum(-1).argmax(0)
    centres = places[faces].mean(1)
    part = np.zeros(len(faces), np.int32)
    for index, (_, (first, second)) in enumerate(_REGIONS):
        mine = region == index
        if index == _HEAD:
            is_first = centres[mine, 0] < places[faces[mine], 0].mean()
        else:
            along = 0 if index in _ARMS else 1
            middle = _middle_depth(places[faces[mine]].reshape(-1, 3), along)
            is_first = centres[mine, 2] > middle(centres[mine, along])
        part[mine] = np.where(is_first, first, second)
    return part


def _middle_depth(places_m: np.ndarray, along: int):
    """Half-way between front and back, as a function of the place along a limb."""
    at, depth = places_m[:, along], places_m[:, 2]
    if not len(at):
        return np.zeros_like
    edges = np.linspace(at.min(), at.max(), _SLICES + 1)
    number = np.clip(np.searchsorted(edges, at) - 1, 0, _SLICES - 1)
    used = np.unique(number)
    middle = [(depth[number == i].min() + depth[number == i].max()) / 2 for i in used]
    centres = (edges[:-1] + edges[1:])[used] / 2
    return lambda x: np.interp(x, centres, middle)


@reader("DensePose's UV_Processed.mat")
def read_uv_processed(path: str | os.PathLike, body: BodyModel) -> Surface:
    """The surface of SMPL from DensePose's file.

    Args:
        path: ``UV_Processed.mat`` with ``All_FaceIndices`` (part of each face),
            ``All_Faces`` and ``All_vertices`` (counted from 1), ``All_U_norm`` and
            ``All_V_norm`` (place in the part's own square).
        body: SMPL.

    Returns:
        ``Surface``; ``uv`` refers to the whole picture of the published textures, in
        which the parts fill squares in 6 rows and 4 columns.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the body is not SMPL, or a field is missing or wrong; the file and
            the field are named.

    Source: specs/hierprob.md sections 11.1 and 11.3.
    """
    if body.num_vertices != SMPL_VERTICES:
        raise ValueError(
            f"{path}: is for SMPL's {SMPL_VERTICES} vertices, but body {body.name!r} "
            f"has {body.num_vertices}: load SMPL, or leave config.data.uv_path empty "
            "for a body with texture coordinates of its own"
        )
    fields = _load_fields(pathlib.Path(path))
    faces = _indices(path, "All_Faces", fields["All_Faces"], 1)
    vertex = _indices(path, "All_vertices", fields["All_vertices"], 1).reshape(-1)
    part = _indices(path, "All_FaceIndices", fields["All_FaceIndices"], 0).reshape(-1)
    places = [np.asarray(fields[key], np.float32).reshape(-1) for key in UV_PLACES]
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"{path}: All_Faces: expected shape (F, 3), got {faces.shape}")
    sizes: dict[str, tuple[int, int]] = {
        "All_FaceIndices": (len(part), len(faces)),
        **{key: (fields[key].size, len(vertex)) for key in UV_PLACES},
    }
    for key, (found, expected) in sizes.items():
        if found != expected:
            raise ValueError(f"{path}: {key}: expected {expected} values, got {found}")
    _check_range(path, "All_Faces", faces, 0, len(vertex) - 1, 1)
    _check_range(path, "All_vertices", vertex, 0, body.num_vertices - 1, 1)
    _check_range(path, "All_FaceIndices", part, 1, NUM_PARTS, 0)
    for key, values in zip(UV_PLACES, places, strict=True):
        _check_range(path, key, values, 0.0, 1.0, 0)
    vertex_part = _part_of_vertices(path, faces, part, len(vertex))
    return Surface(
        vertex=jnp.asarray(vertex),
        faces=jnp.asarray(faces),
        part=jnp.asarray(part),
        uv=jnp.asarray(atlas_uv(vertex_part, *places)),
    )


def atlas_uv(part: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Places in the published textures from places in the parts' own squares.

    Args:
        part: 1 to 24, [N].
        u: to the right in the part's square, in [0, 1], [N].
        v: DensePose's V, in [0, 1], [N].

    Returns:
        float32 [N, 2]: to the right and up, in [0, 1] over the whole picture.

    Source: specs/hierprob.md section 11.3.
    """
    column, row = (part - 1) // ATLAS_ROWS, (part - 1) % ATLAS_ROWS
    across = (u + column) / ATLAS_COLUMNS
    up = 1.0 - ((1.0 - v) + row) / ATLAS_ROWS
    return np.stack([across, up], -1).astype(np.float32)


def _part_of_vertices(path: Any, faces, part, num_vertices: int) -> np.ndarray:
    """The one part that each vertex is in; a vertex without faces is in part 1."""
    vertex_part = np.ones(num_vertices, np.int32)
    vertex_part[faces] = part[:, None]
    if np.any(vertex_part[faces] != part[:, None]):
        raise ValueError(
            f"{path}: All_FaceIndices: expected each vertex of the surface in one "
            "part, got a vertex with faces of several parts"
        )
    return vertex_part


def _load_fields(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The fields of a file that holds all of them as numbers."""
    # It takes a while to import, and only users of SMPL need it.
    import scipy.io

    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected DensePose's UV_Processed.mat there")
    with reading(path, "a MATLAB file of version 5 (DensePose's UV_Processed)"):
        loaded: dict[str, Any] = scipy.io.loadmat(str(path))
    missing = [key for key in UV_FIELDS if key not in loaded]
    if missing:
        found = sorted(key for key in loaded if not key.startswith("__"))
        raise ValueError(f"{path}: missing {', '.join(missing)}; it has {found}")
    for key in UV_FIELDS:
        value = loaded[key]
        if not np.issubdtype(value.dtype, np.number) or value.size == 0:
            raise ValueError(
                f"{path}: {key}: expected numbers, got {value.dtype} of shape "
                f"{value.shape}"
            )
    return {key: loaded[key] for key in UV_FIELDS}


def _indices(path: Any, key: str, values: np.ndarray, first: int) -> np.ndarray:
    """Whole numbers of any type, counted from 0 instead of ``first``."""
    whole = np.rint(values.astype(np.float64))
    if not np.array_equal(whole, values):
        raise ValueError(f"{path}: {key}: expected whole numbers, got fractions or NaN")
    return (whole - first).astype(np.int32)


def _check_range(path, key, values, low, high, first) -> None:
    """Values outside of [low, high] are an error; messages count from ``first``."""
    if not np.all((values >= low) & (values <= high)):
        raise ValueError(
            f"{path}: {key}: expected values in {low + first}..{high + first}, got "
            f"{values.min() + first}..{values.max() + first}"
        )
