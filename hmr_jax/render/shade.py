"""Shaded pictures of meshes: normals, lights, textures, antialiasing, compositing."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from hmr_jax.render.rasterize import Fragments, interpolate, rasterize


class Light(NamedTuple):
    """Uniform ambient light and one distant lamp.

    Attributes:
        ambient_rgb: ambient intensity per channel.
        direction_cam: vector of any length towards the lamp, camera frame.
        lamp_rgb: the lamp's intensity per channel.
    """

    ambient_rgb: Float[Array, "3"]
    direction_cam: Float[Array, "3"]
    lamp_rgb: Float[Array, "3"]


class HarmonicLight(NamedTuple):
    """Light around the scene in real spherical harmonics of degree 0 to 2.

    Attributes:
        coefficients: irradiance for the basis 1, y, z, x, xy, yz, 3z^2-1, xz, x^2-y^2
            of the unit normal, without the harmonics' constants; per channel.
    """

    coefficients: Float[Array, "9 3"]


class Texture(NamedTuple):
    """A picture wrapped around a mesh.

    Attributes:
        image: colours, row 0 at v = 1 (the top).
        uv: texture coordinates in [0, 1].
        face_uv: indices into ``uv`` for the corners of each face.
    """

    image: Float[Array, "rows columns 3"]
    uv: Float[Array, "texcoords 2"]
    face_uv: Int[Array, "faces 3"]


class Rendering(NamedTuple):
    """A shaded picture.

    Attributes:
        image: colours in [0, 1], composited over the background.
        mask: share of each pixel that the mesh covers.
        fragments: the rasteriser's output, on the supersampled grid.
    """

    image: Float[Array, "height width 3"]
    mask: Float[Array, "height width"]
    fragments: Fragments


def default_light() -> Light:
    """A lamp behind the camera, up and to the left, with soft ambient light."""
    return Light(jnp.full(3, 0.45), jnp.array([-0.5, -0.8, -1.0]), jnp.full(3, 0.6))


def _normalize(v: Array) -> Array:
    squared = jnp.sum(v * v, axis=-1, keepdims=True)
    return v * jax.lax.rsqrt(jnp.maximum(squared, 1e-20))


def face_normals(
    vertices_m: Float[Array, "vertices 3"], faces: Int[Array, "faces 3"]
) -> Float[Array, "faces 3"]:
    """Normals by the right-hand rule, as long as twice the faces' areas.

    Args:
        vertices_m: mesh in any frame.
        faces: vertex indices, counter-clockwise seen from outside.

    Returns:
        One vector for each face, zero for a degenerate one.
    """
    a, b, c = (vertices_m[faces[:, corner]] for corner in range(3))
    return jnp.cross(b - a, c - a)


def vertex_normals(
    vertices_m: Float[Array, "vertices 3"], faces: Int[Array, "faces 3"]
) -> Float[Array, "vertices 3"]:
    """Area-weighted mean of the normals of the faces around each vertex.

    Args:
        vertices_m: mesh in any frame.
        faces: vertex indices, counter-clockwise seen from outside.

    Returns:
        Unit vectors, zero where a vertex has no face.
    """
    normals = face_normals(vertices_m, faces)
    total = jnp.zeros_like(vertices_m)
    for corner in range(3):
        total = total.at[faces[:, corner]].add(normals)
    return _normalize(total)


def irradiance(
    light: Light | HarmonicLight, normals: Float[Array, "*batch 3"]
) -> Float[Array, "*batch 3"]:
    """Light that reaches surfaces of given normals.

    Args:
        light: in the frame of the normals.
        normals: unit vectors.

    Returns:
        Intensity per channel, not negative.
    """
    if isinstance(light, HarmonicLight):
        x, y, z = normals[..., 0], normals[..., 1], normals[..., 2]
        one = jnp.ones_like(x)
        basis = [one, y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y]
        terms = (
            term[..., None] * jnp.broadcast_to(row, (*term.shape, 3))
            for term, row in zip(basis, light.coefficients, strict=True)
        )
        return jnp.maximum(sum(terms), 0.0)
    towards = jnp.broadcast_to(_normalize(light.direction_cam), normals.shape)
    cosine = jnp.maximum(jnp.sum(normals * towards, -1, keepdims=True), 0.0)
    lamp = jnp.broadcast_to(light.lamp_rgb, normals.shape)
    return jnp.broadcast_to(light.ambient_rgb, normals.shape) + cosine * lamp


def sample_texture(
    image: Shaped[Array, "rows columns 3"],
    uv: Float[Array, "*batch 2"],
    *,
    ends: bool = False,
) -> Float[Array, "*batch 3"]:
    """Bilinear look-up, clamped at the border.

    Args:
        image: colours in [0, 1], or whole numbers up to 255; row 0 at v = 1.
        uv: coordinates in [0, 1]: u to the right, v up. NaN is taken as 0.
        ends: 0 and 1 are the centres of the corner texels, as the published textures
            have it; else their outer borders.

    Returns:
        Colours in [0, 1].
    """
    return sample_textures(image[None], jnp.zeros((), jnp.int32), uv, ends=ends)


def sample_textures(
    images: Shaped[Array, "n rows columns 3"],
    index: Int[Array, ""],
    uv: Float[Array, "*batch 2"],
    *,
    ends: bool = False,
) -> Float[Array, "*batch 3"]:
    """Bilinear look-up in one picture of many, which is never copied out of them.

    Args:
        images: see ``sample_texture``.
        index: the picture.
        uv: see ``sample_texture``.
        ends: see ``sample_texture``.

    Returns:
        Colours in [0, 1].
    """
    rows, columns = images.shape[1:3]
    uv = jnp.nan_to_num(jnp.clip(uv, 0.0, 1.0), nan=0.0)
    if ends:
        x, y = uv[..., 0] * (columns - 1), (1.0 - uv[..., 1]) * (rows - 1)
    else:
        x = jnp.clip(uv[..., 0] * columns - 0.5, 0.0, columns - 1.0)
        y = jnp.clip((1.0 - uv[..., 1]) * rows - 0.5, 0.0, rows - 1.0)
    left, top = jnp.floor(x).astype(jnp.int32), jnp.floor(y).astype(jnp.int32)
    right, bottom = jnp.minimum(left + 1, columns - 1), jnp.minimum(top + 1, rows - 1)
    along, down = (x - left)[..., None], (y - top)[..., None]
    scale = 1.0 / 255.0 if jnp.issubdtype(images.dtype, jnp.integer) else 1.0

    def read(row, column):
        return images[index, row, column].astype(uv.dtype) * scale

    upper = read(top, left) * (1 - along) + read(top, right) * along
    lower = read(bottom, left) * (1 - along) + read(bottom, right) * along
    return upper * (1 - down) + lower * down


def project_to_screen(
    vertices_cam_m: Float[Array, "vertices 3"],
    intrinsics: Float[Array, "3 3"],
    supersample: int = 1,
) -> Float[Array, "vertices 3"]:
    """Vertices as ``rasterize`` takes them.

    Args:
        vertices_cam_m: camera frame (x right, y down, z forward).
        intrinsics: pixels of the final picture, pixel centres at integers.
        supersample: samples per pixel and axis of the grid to draw on.

    Returns:
        x and y in samples and depth in metres; a vertex in the camera's plane or
        behind it gets pixel (0, 0), and ``rasterize`` drops its faces.
    """
    x, y, z = (vertices_cam_m[:, axis] for axis in range(3))
    inverse = jnp.where(z > 0, 1.0, 0.0) / jnp.where(z > 0, z, 1.0)
    rays = jnp.stack([x * inverse, y * inverse, jnp.where(z > 0, 1.0, 0.0)])
    pixels = jnp.matmul(intrinsics[:2], rays, precision=jax.lax.Precision.HIGHEST)
    samples = (pixels + 0.5) * supersample - 0.5
    return jnp.stack([samples[0], samples[1], z], axis=1)


def _pool(samples: Array, supersample: int) -> Array:
    """Mean of each block of supersample x supersample."""
    height, width, channels = samples.shape
    s = supersample
    return samples.reshape(height // s, s, width // s, s, channels).mean((1, 3))


def _surface_colours(fragments, faces, vertex_rgb, texture) -> Array:
    if texture is not None:
        uv = interpolate(fragments, texture.uv[texture.face_uv])
        return sample_texture(texture.image, uv)
    if vertex_rgb is None:
        return jnp.full((*fragments.face.shape, 3), 0.7, fragments.barycentrics.dtype)
    return interpolate(fragments, vertex_rgb[faces])


def _surface_normals(fragments, faces, vertices_cam_m, smooth) -> Array:
    if smooth:
        normals = vertex_normals(vertices_cam_m, faces)
        return _normalize(interpolate(fragments, normals[faces]))
    normals = _normalize(face_normals(vertices_cam_m, faces))
    return normals[jnp.maximum(fragments.face, 0)]


@functools.partial(
    jax.jit, static_argnames=("height", "width", "supersample", "smooth", "near_m")
)
def render_mesh(
    vertices_cam_m: Float[Array, "vertices 3"],
    faces: Int[Array, "faces 3"],
    intrinsics: Float[Array, "3 3"],
    height: int,
    width: int,
    *,
    vertex_rgb: Float[Array, "vertices 3"] | None = None,
    texture: Texture | None = None,
    light: Light | HarmonicLight | None = None,
    background: Float[Array, "height width 3"] | None = None,
    supersample: int = 1,
    smooth: bool = True,
    near_m: float = 0.01,
) -> Rendering:
    """Draw one shaded mesh over a background.

    Args:
        vertices_cam_m: camera frame (x right, y down, z forward).
        faces: vertex indices, counter-clockwise seen from outside.
        intrinsics: in pixels, pixel centres at integers.
        height: image height in pixels.
        width: image width in pixels.
        vertex_rgb: colour of each vertex in [0, 1]; grey where neither this nor a
            texture is given.
        texture: picture and coordinates, instead of vertex colours.
        light: in the camera frame; ``default_light()`` where none is given.
        background: colours in [0, 1]; black where none is given.
        supersample: samples per pixel and axis; 2 gives antialiased edges.
        smooth: interpolate vertex normals, or shade each face flat.
        near_m: faces with a vertex at this depth or nearer are dropped.

    Returns:
        ``Rendering`` of [height, width].

    Raises:
        ValueError: both vertex colours and a texture are given.
    """
    if vertex_rgb is not None and texture is not None:
        raise ValueError("expected vertex_rgb or texture, got both")
    screen = project_to_screen(vertices_cam_m, intrinsics, supersample)
    fragments = rasterize(
        screen, faces, height * supersample, width * supersample, near_m=near_m
    )
    colours = _surface_colours(fragments, faces, vertex_rgb, texture)
    normals = _surface_normals(fragments, faces, vertices_cam_m, smooth)
    shaded = colours * irradiance(default_light() if light is None else light, normals)
    covered = (fragments.face >= 0)[..., None].astype(shaded.dtype)
    premultiplied = jnp.concatenate(
        [jnp.clip(shaded, 0.0, 1.0) * covered, covered], axis=-1
    )
    pooled = _pool(premultiplied, supersample)
    mask = pooled[..., 3:]
    behind = jnp.zeros_like(pooled[..., :3]) if background is None else background
    return Rendering(pooled[..., :3] + (1.0 - mask) * behind, mask[..., 0], fragments)
