"""Upright crops of pictures around boxes, and the way back.

Boxes are a centre (x, y) and a size (width, height) in pixels. Two conventions of what
a pixel's coordinate means are in use, and differ by up to half a pixel:

    ``area``    the map ``(x - centre) * out / size + out / 2`` acts on areas, pixel i
                being from i to i + 1 (PyTorch's sampling grid);
    ``point``   it acts on the indices themselves (OpenCV's affine warp).
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Convention = Literal["area", "point"]
Sampling = Literal["bilinear", "nearest"]


class Box(NamedTuple):
    """Boxes around persons.

    Attributes:
        centre_px: (x, y) [..., 2].
        size_px: (width, height) [..., 2].
    """

    centre_px: Array
    size_px: Array


def box_of_corners(corners_px: Float[Array, "*batch 4"]) -> Box:
    """Boxes of (left, top, right, bottom), as detectors give them.

    Args:
        corners_px: pixels.
    """
    low, high = corners_px[..., :2], corners_px[..., 2:]
    return Box(0.5 * (low + high), high - low)


def box_of_image(height: int, width: int, batch: tuple[int, ...] = ()) -> Box:
    """The whole picture as a box, for persons that were already cut out.

    Args:
        height: of the picture.
        width: of the picture.
        batch: leading axes.
    """
    size = jnp.broadcast_to(jnp.array([width, height], jnp.float32), (*batch, 2))
    return Box(0.5 * size, size)


def box_of_mask(mask: Bool[Array, "*batch height width"]) -> Box:
    """Tight boxes in pixel indices: from the first to the last true pixel.

    Args:
        mask: the person's pixels.

    Returns:
        Boxes whose size is the difference of indices. An empty mask gives the whole
        picture.

    Source: specs/hierprob.md section 11.4.
    """
    height, width = mask.shape[-2:]
    ends = []
    for size, axis in ((width, -2), (height, -1)):
        touched = mask.any(axis)
        first = jnp.argmax(touched, -1)
        last = size - 1 - jnp.argmax(touched[..., ::-1], -1)
        ends.append((first, last))
    low = jnp.stack([first for first, _ in ends], -1).astype(jnp.float32)
    high = jnp.stack([last for _, last in ends], -1).astype(jnp.float32)
    whole = box_of_image(height, width, mask.shape[:-2])
    found = mask.any((-2, -1))[..., None]
    return Box(
        jnp.where(found, 0.5 * (low + high), whole.centre_px),
        jnp.where(found, high - low, whole.size_px),
    )


def fit_box(
    box: Box,
    out_height: int,
    out_width: int,
    scale: float | Float[Array, "*batch"] = 1.0,
) -> Box:
    """Enlarge the shorter side to the aspect of a crop, then both by a factor.

    Args:
        box: of any aspect. One of zero size becomes a pixel.
        out_height: of the crop.
        out_width: of the crop.
        scale: margin around the box; 1.2 as published.

    Returns:
        Boxes of the crop's aspect with the same centres.
    """
    wanted = jnp.array([out_width, out_height], box.size_px.dtype)
    wanted = wanted.reshape((1,) * (box.size_px.ndim - 1) + (2,))
    unit = jnp.max(jnp.maximum(box.size_px, 1) / wanted, -1)
    factor = jnp.broadcast_to(jnp.asarray(scale, unit.dtype), unit.shape)
    return Box(box.centre_px, factor[..., None] * (unit[..., None] * wanted))


def crop_points(
    points_px: Float[Array, "*batch n 2"], box: Box, out_height: int, out_width: int
) -> Float[Array, "*batch n 2"]:
    """Places in the crop of points in the picture.

    Args:
        points_px: (x, y) in the picture.
        box: what the crop shows, of its aspect.
        out_height: of the crop.
        out_width: of the crop.
    """
    out = jnp.array([out_width, out_height], points_px.dtype)
    out = out.reshape((1,) * (points_px.ndim - 1) + (2,))
    centre, size = box.centre_px[..., None, :], box.size_px[..., None, :]
    return (points_px - centre) * (out / size) + 0.5 * out


def uncrop_points(
    points_px: Float[Array, "*batch n 2"], box: Box, out_height: int, out_width: int
) -> Float[Array, "*batch n 2"]:
    """Places in the picture of points in the crop; inverse of ``crop_points``.

    Args:
        points_px: (x, y) in the crop.
        box: what the crop shows.
        out_height: of the crop.
        out_width: of the crop.
    """
    out = jnp.array([out_width, out_height], points_px.dtype)
    out = out.reshape((1,) * (points_px.ndim - 1) + (2,))
    centre, size = box.centre_px[..., None, :], box.size_px[..., None, :]
    return (points_px - 0.5 * out) * (size / out) + centre


def crop_images(
    images: Float[Array, "batch height width channels"],
    box: Box,
    out_height: int,
    out_width: int,
    *,
    sampling: Sampling = "bilinear",
    convention: Convention = "area",
    fill: float = 0.0,
) -> Float[Array, "batch rows columns channels"]:
    """Cut boxes out of pictures and scale them.

    Args:
        images: pictures.
        box: what each crop shows [batch, 2]; see ``fit_box``.
        out_height: of the crops.
        out_width: of the crops.
        sampling: ``bilinear``, or ``nearest`` for labels (halves to even).
        convention: of pixel coordinates, see the module.
        fill: value of pixels outside the picture; bilinear sampling mixes it in at the
            border.

    Source: specs/hierprob.md sections 11.4 and 14.
    """
    out = jnp.array([out_width, out_height], jnp.float32)
    scale = box.size_px / out[None]
    shift = 0.5 if convention == "area" else 0.0
    offset = box.centre_px + (shift - 0.5 * out)[None] * scale - shift
    return resample(images, scale, offset, out_height, out_width, sampling, fill)


def uncrop_images(
    crops: Float[Array, "batch rows columns channels"],
    box: Box,
    height: int,
    width: int,
    *,
    sampling: Sampling = "bilinear",
    convention: Convention = "area",
    fill: float = 0.0,
) -> Float[Array, "batch height width channels"]:
    """Put crops back where they were cut out.

    Args:
        crops: of ``crop_images``.
        box: what each crop shows [batch, 2].
        height: of the pictures.
        width: of the pictures.
        sampling: see ``crop_images``.
        convention: see ``crop_images``.
        fill: value of pixels outside the boxes.
    """
    out = jnp.array([crops.shape[2], crops.shape[1]], jnp.float32)
    scale = out[None] / box.size_px
    shift = 0.5 if convention == "area" else 0.0
    offset = (shift - box.centre_px) * scale + (0.5 * out - shift)[None]
    return resample(crops, scale, offset, height, width, sampling, fill)


def resample(
    images: Float[Array, "batch height width channels"],
    scale: Float[Array, "batch 2"],
    offset: Float[Array, "batch 2"],
    out_height: int,
    out_width: int,
    sampling: Sampling = "bilinear",
    fill: float = 0.0,
) -> Float[Array, "batch rows columns channels"]:
    """Read pictures at ``scale * (column, row) + offset``, rows first, then columns.

    Args:
        images: pictures.
        scale: (x, y) input pixels per output pixel.
        offset: (x, y) place in the input of output pixel (0, 0).
        out_height: of the output.
        out_width: of the output.
        sampling: ``bilinear`` or ``nearest``.
        fill: value outside the picture.
    """
    # With the fill as zero, weights of places outside simply vanish.
    values = images - fill
    for axis, (component, size) in ((1, (1, out_height)), (2, (0, out_width))):
        steps = jnp.arange(size, dtype=scale.dtype)[None]
        place = scale[:, component, None] * steps + offset[:, component, None]
        values = _read_along(values, axis, place, sampling)
    return values + fill


def _read_along(values: Array, axis: int, place: Array, sampling: Sampling) -> Array:
    """Read ``values`` at ``place`` [batch, n] along one axis, zero outside."""
    size = values.shape[axis]
    # Far outside is as good as further outside, and fits an integer.
    place = jnp.clip(place, -2.0, size + 1.0)
    shape = [1] * values.ndim
    shape[0], shape[axis] = place.shape

    def read(index: Int[Array, "batch n"], weight: Array) -> Array:
        inside = (index >= 0) & (index < size)
        held = jnp.clip(index, 0, size - 1).reshape(shape)
        taken = jnp.take_along_axis(values, held, axis=axis)
        kept = jnp.where(inside, weight, 0).astype(values.dtype).reshape(shape)
        return taken * kept

    if sampling == "nearest":
        return read(jnp.round(place).astype(jnp.int32), jnp.ones_like(place))
    first = jnp.floor(place)
    index, share = first.astype(jnp.int32), place - first
    return read(index, 1 - share) + read(index + 1, share)
