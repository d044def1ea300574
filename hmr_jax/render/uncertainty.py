"""Pictures of bodies under a weak-perspective camera, coloured by their uncertainty.

Meshes are in camera axes: x right, y down, z away. A camera is (scale, tx, ty): the
scale multiplies the shifted x and y, and gives [-1, 1] over the picture.
Source: specs/hierprob.md sections 10.3 and 15.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from hmr_jax.geometry.cameras import weak_perspective_project
from hmr_jax.render import draw
from hmr_jax.render.rasterize import interpolate, rasterize
from hmr_jax.render.shade import Light, irradiance, vertex_normals

LARGEST_M = 0.2
"""Uncertainty that gets the last colour."""
PLAIN_RGB = 0.7

# Corners of the colour map named jet: position and value for each channel.
_JET = (
    ((0.0, 0.35, 0.66, 0.89, 1.0), (0.0, 0.0, 1.0, 1.0, 0.5)),
    ((0.0, 0.125, 0.375, 0.64, 0.91, 1.0), (0.0, 0.0, 1.0, 1.0, 0.0, 0.0)),
    ((0.0, 0.11, 0.34, 0.65, 1.0), (0.5, 1.0, 1.0, 0.0, 0.0)),
)
# From here the rasteriser's perspective is as good as none: 1 m changes depth by 1 %.
_DISTANCE_M = 100.0
_VIEW_FILL = 0.9


class MeshPicture(NamedTuple):
    """A mesh without a background.

    Attributes:
        rgb: colours in [0, 1], not premultiplied.
        mask: share of each pixel that the mesh covers.
    """

    rgb: Float[Array, "size size 3"]
    mask: Float[Array, "size size"]


def jet(values: Float[Array, "*batch"]) -> Float[Array, "*batch 3"]:
    """The colour map jet: dark blue, cyan, yellow, dark red.

    Args:
        values: in [0, 1], clipped outside; NaN is as 1.

    Returns:
        RGB in [0, 1].
    """
    held = jnp.clip(jnp.where(jnp.isnan(values), 1.0, values), 0.0, 1.0)
    channels = [
        jnp.interp(held, jnp.array(places), jnp.array(levels))
        for places, levels in _JET
    ]
    return jnp.stack(channels, -1)


def uncertainty_colours(
    uncertainty_m: Float[Array, "*batch verts"], largest_m: float = LARGEST_M
) -> Float[Array, "*batch verts 3"]:
    """Colours of vertices by how far they may be off.

    Args:
        uncertainty_m: see ``models.hierprob.vertex_uncertainty``, metres.
        largest_m: gets the last colour, as does all above.

    Returns:
        RGB in [0, 1].

    Raises:
        ValueError: ``largest_m`` is not positive.

    Source: specs/hierprob.md section 15.
    """
    if not largest_m > 0:
        raise ValueError(f"largest_m: expected a positive length, got {largest_m}")
    return jet(uncertainty_m / largest_m)


def turned(
    vertices_cam_m: Float[Array, "verts 3"], degrees: float | int
) -> Float[Array, "verts 3"]:
    """Turn a mesh about its vertical axis.

    Args:
        vertices_cam_m: camera axes.
        degrees: 90 shows a person that faces the camera from the person's left side.

    Returns:
        The mesh; the centre of its bounding box keeps its place.
    """
    low, high = vertices_cam_m.min(0), vertices_cam_m.max(0)
    centre = (0.5 * (low + high))[None]
    # Exact at quarter turns, so that those views have no rounding.
    quarter, rest = divmod(degrees, 90)
    angle = np.deg2rad(rest)
    turn = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), int(quarter) % 4)
    slant = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[np.ix_([0, 2], [0, 2])] = turn @ slant
    rotation = jnp.asarray(matrix, vertices_cam_m.dtype)
    offset = vertices_cam_m - centre
    return centre + jnp.matmul(offset, rotation.T, precision=jax.lax.Precision.HIGHEST)


def fitted_camera(
    vertices_cam_m: Float[Array, "verts 3"], fill: float = _VIEW_FILL
) -> Float[Array, "3"]:
    """A camera that shows a whole mesh, at the same scale from all sides.

    Args:
        vertices_cam_m: camera axes.
        fill: share of the picture that the longest side of the mesh's box takes.

    Returns:
        (scale, tx, ty).
    """
    low, high = vertices_cam_m.min(0), vertices_cam_m.max(0)
    scale = 2.0 * fill / jnp.maximum(jnp.max(high - low), 1e-6)
    shift = -0.5 * (low + high)[:2]
    return jnp.concatenate([scale[None], shift])


def default_light() -> Light:
    """A lamp above and behind the camera; even enough to leave colours readable."""
    return Light(jnp.full(3, 0.55), jnp.array([0.0, -0.8, -2.0]), jnp.full(3, 0.45))


@functools.partial(jax.jit, static_argnames=("size_px", "supersample"))
def render_weak_perspective(
    vertices_cam_m: Float[Array, "verts 3"],
    faces: Int[Array, "faces 3"],
    camera: Float[Array, "3"],
    size_px: int,
    *,
    vertex_rgb: Float[Array, "verts 3"] | None = None,
    light: Light | None = None,
    supersample: int = 2,
) -> MeshPicture:
    """Draw a shaded mesh under a weak-perspective camera.

    Args:
        vertices_cam_m: camera axes, metres. Faces with a vertex that is not finite are
            left out.
        faces: vertex indices, counter-clockwise seen from outside.
        camera: (scale, tx, ty).
        size_px: side of the picture; a point at 0 comes to pixel ``size_px / 2``, as
            joints do in heatmaps.
        vertex_rgb: colours in [0, 1]; plain grey where none are given.
        light: in camera axes; ``default_light()`` where none is given.
        supersample: samples per pixel and axis.

    Returns:
        ``MeshPicture``.
    """
    flat = weak_perspective_project(vertices_cam_m, camera[0], camera[1:])
    pixels = 0.5 * size_px * (flat + 1)
    samples = (pixels + 0.5) * supersample - 0.5
    depth = vertices_cam_m[:, 2:] + _DISTANCE_M
    side = size_px * supersample
    screen = jnp.concatenate([samples, depth], -1)
    fragments = rasterize(screen, faces, side, side)
    if vertex_rgb is None:
        vertex_rgb = jnp.full_like(vertices_cam_m, PLAIN_RGB)
    normals = vertex_normals(vertices_cam_m, faces)
    corners = jnp.concatenate([vertex_rgb, normals], -1)[faces]
    values = interpolate(fragments, corners)
    length = jnp.sqrt(jnp.maximum(jnp.sum(values[..., 3:] ** 2, -1), 1e-20))
    lit = irradiance(
        default_light() if light is None else light, values[..., 3:] / length[..., None]
    )
    covered = (fragments.face >= 0)[..., None].astype(values.dtype)
    shaded = jnp.clip(values[..., :3] * lit, 0.0, 1.0) * covered
    blocks = jnp.concatenate([shaded, covered], -1).reshape(
        size_px, supersample, size_px, supersample, 4
    )
    pooled = blocks.mean((1, 3))
    mask = pooled[..., 3]
    return MeshPicture(pooled[..., :3] / jnp.maximum(mask, 1e-6)[..., None], mask)


def over(
    background: np.ndarray, picture: MeshPicture, opacity: float = 1.0
) -> np.ndarray:
    """Lay a mesh over a picture.

    Args:
        background: [size, size, 3], bytes or in [0, 1].
        picture: of the same size.
        opacity: of the mesh.

    Returns:
        uint8 image.
    """
    mask = np.asarray(picture.mask)[..., None]
    rgba = np.concatenate([np.clip(np.asarray(picture.rgb), 0.0, 1.0), mask], -1)
    return draw.overlay_mesh(background, rgba, opacity)


@functools.partial(jax.jit, static_argnames="degrees")
def _placed(vertices_cam_m: Array, degrees: float | int) -> tuple[Array, Array]:
    return turned(vertices_cam_m, degrees), fitted_camera(vertices_cam_m)


def view(
    vertices_cam_m: Array,
    faces: Array,
    size_px: int,
    *,
    degrees: float | int = 0.0,
    vertex_rgb: Array | None = None,
) -> np.ndarray:
    """A mesh on white, whole, from one side.

    Args:
        vertices_cam_m: [verts, 3] camera axes, metres.
        faces: [faces, 3] vertex indices.
        size_px: side of the picture.
        degrees: see ``turned``.
        vertex_rgb: [verts, 3]; grey where none are given.

    Returns:
        uint8 image.
    """
    vertices, camera = _placed(jnp.asarray(vertices_cam_m), degrees)
    picture = render_weak_perspective(
        vertices, faces, camera, size_px, vertex_rgb=vertex_rgb
    )
    return over(np.full((size_px, size_px, 3), 255, np.uint8), picture)


def colour_bar(
    width_px: int, height_px: int = 28, largest_m: float = LARGEST_M
) -> np.ndarray:
    """A legend of ``uncertainty_colours``.

    Args:
        width_px: of the picture.
        height_px: of the picture, at least 20.
        largest_m: uncertainty of the last colour.

    Returns:
        uint8 [height, width, 3] with centimetres under the colours.
    """
    row = np.asarray(jet(jnp.linspace(0.0, 1.0, width_px)))
    bar = np.full((height_px, width_px, 3), 255, np.uint8)
    bar[: height_px - 14] = draw.to_uint8(row)[None]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        text = f"{100 * largest_m * share:g} cm"
        left = 2 + share * (width_px - 4 - draw.text_width(text))
        draw.draw_text(bar, text, left, height_px - 3, (0, 0, 0))
    return bar
