"""Banks of textures: the published ones, or outfits painted on a body's texture map."""

import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from hmr_jax import sample_keys
from hmr_jax.body.model import BodyModel
from hmr_jax.body.npz import read_npz
from hmr_jax.body.surface import Surface
from hmr_jax.errors import UserError
from hmr_jax.outside import reading
from hmr_jax.render.rasterize import interpolate, rasterize
from hmr_jax.synthetic.clothing import (
    Clothes,
    Figure,
    dress,
    figure,
    sample_clothes,
)

ROWS, COLUMNS = 1200, 800
"""Size of the published textures."""
TEXTURE_KEYS = ("grey", "nongrey")
GREY_PROBABILITY = 0.05


class TextureBank(NamedTuple):
    """Textures to draw from.

    Attributes:
        images: row 0 at v = 1, corner texels' centres at u and v of 0 and 1.
        num_grey: the first so many are the grey ones, which are drawn rarely.
    """

    images: UInt8[Array, "textures rows columns 3"]
    num_grey: Int[Array, ""]


def read_textures(path: str | os.PathLike, limit: int = 0) -> TextureBank:
    """Textures in the published layout.

    Args:
        path: an ``.npz`` with ``grey`` and ``nongrey``, uint8 [N, 1200, 800, 3].
        limit: keep at most so many of each, evenly spaced; 0 keeps all. One texture
            takes 2.9 MB.

    Returns:
        The bank, the grey ones first.

    Raises:
        FileNotFoundError: no such file.
        UserError: a negative limit, or an array is missing or has a wrong type or
            size, or both are empty; the file and the array are named.

    Source: specs/hierprob.md section 11.1.
    """
    if limit < 0:
        raise UserError(f"limit: expected 0 or more textures, got {limit}")
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: expected an .npz of textures with 'grey' and 'nongrey'"
        )
    with reading(path, "an .npz of textures with 'grey' and 'nongrey'"):
        groups = [_read_group(path, key, limit) for key in TEXTURE_KEYS]
    if not sum(map(len, groups)):
        raise UserError(f"{path}: grey, nongrey: expected textures, got none")
    num_grey = jnp.asarray(len(groups[0]), jnp.int32)
    return TextureBank(jnp.asarray(np.concatenate(groups)), num_grey)


def _read_group(path: pathlib.Path, key: str, limit: int) -> np.ndarray:
    """One array of textures, checked and thinned."""
    data = read_npz(path, names=[key])
    if key not in data:
        found = sorted(read_npz(path))
        raise UserError(f"{path}: {key}: missing; the file has {found}")
    images = np.asarray(data[key])
    if images.dtype != np.uint8:
        raise UserError(f"{path}: {key}: expected uint8, got {images.dtype}")
    if images.ndim != 4 or images.shape[1:] != (ROWS, COLUMNS, 3):
        raise UserError(
            f"{path}: {key}: texture of the wrong size: expected (N, {ROWS}, "
            f"{COLUMNS}, 3), got {images.shape}"
        )
    if limit and len(images) > limit:
        kept = np.linspace(0, len(images) - 1, limit).round().astype(int)
        images = images[kept]
    return images


def procedural_textures(
    body: BodyModel,
    surface: Surface,
    count: int,
    size_px: int = 256,
    seed: int = 0,
    suit_share: float = 0.0,
) -> TextureBank:
    """Random outfits on a body's texture map.

    Args:
        body: of the 24-joint tree, in a T-pose.
        surface: of that body, its islands apart on the map.
        count: number of outfits.
        size_px: side of the square textures; the open body's fingers are thinner than a
            texel below about 200.
        seed: of the outfits; the first ones do not depend on ``count``.
        suit_share: share of people in the suit of parts.

    Returns:
        The bank; none of its textures is grey.

    Raises:
        UserError: a count or size that is not positive, a body with another tree, or
            a surface that leaves no texel covered.
    """
    if count < 1 or size_px < 2:
        raise UserError(
            f"expected at least 1 texture of 2 pixels, got {count} of {size_px}"
        )
    texels = texel_figure(body, surface, size_px)
    outfits = [
        sample_clothes(np.random.default_rng((seed, number)), suit_share)
        for number in range(count)
    ]
    clothes = jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *outfits)
    images = _paint(texels, clothes).reshape(count, size_px, size_px, 3)
    return TextureBank(images, jnp.asarray(0, jnp.int32))


@jax.jit
def _paint(texels: Figure, clothes: Clothes) -> UInt8[Array, "count texels 3"]:
    """The colours of each outfit, one outfit at a time to save memory."""

    def paint(outfit):
        return jnp.round(dress(texels, outfit) * 255.0).astype(jnp.uint8)

    return jax.lax.map(paint, clothes)


def texel_figure(body: BodyModel, surface: Surface, size_px: int) -> Figure:
    """The figure whose vertices are the texels of a body's texture map.

    Texels outside the islands repeat the nearest one inside, so that a bilinear look-up
    at a seam never mixes in a foreign colour.

    Args:
        body: of the 24-joint tree.
        surface: of that body.
        size_px: side of the square map.

    Returns:
        ``Figure`` with ``size_px**2`` places, row by row from the top.

    Raises:
        UserError: another tree, or no texel is covered.
    """
    worn = figure(body)
    steps = size_px - 1
    screen = jnp.stack(
        [
            surface.uv[:, 0] * steps,
            (1.0 - surface.uv[:, 1]) * steps,
            jnp.ones_like(surface.uv[:, 0]),
        ],
        -1,
    )
    fragments = rasterize(screen, surface.faces, size_px, size_px)
    corners = surface.vertex[surface.faces]
    inside = np.asarray(fragments.face >= 0)
    if not inside.any():
        raise UserError("surface: expected faces on the texture map, got none")
    nearest = jnp.asarray(_nearest_inside(inside))
    # The joint that moves a texel most, from the corner that is nearest to it.
    closest = jnp.argmax(fragments.barycentrics, -1)
    face = jnp.maximum(fragments.face, 0)
    owner = jnp.take_along_axis(corners[face], closest[..., None], -1)[..., 0]
    places_m = interpolate(fragments, worn.places_m[corners])
    return Figure(
        places_m=places_m.reshape(-1, 3)[nearest],
        joints_m=worn.joints_m,
        part=worn.part[owner.reshape(-1)[nearest]],
    )


def _nearest_inside(inside: np.ndarray) -> np.ndarray:
    """For each pixel the index of a nearby pixel of the set, int32 [pixels].

    The set grows by its neighbours until it fills the picture; diagonal neighbours come
    in every other step, so that it grows like an octagon.
    """
    height, width = inside.shape
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    index = np.pad(np.where(inside, index, -1), 1, constant_values=-1)
    straight = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    diagonal = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
    core = index[1:-1, 1:-1]
    diagonally = False
    while (core < 0).any():
        before = index.copy()
        for down, right in straight + (diagonal if diagonally else []):
            shifted = before[
                1 + down : 1 + down + height, 1 + right : 1 + right + width
            ]
            core[...] = np.where(core < 0, shifted, core)
        diagonally = not diagonally
    return core.reshape(-1)


def sample_texture_indices(
    key: Array, bank: TextureBank, count: int
) -> Int[Array, "count"]:
    """Textures to wear: a grey one with probability 0.05 where the bank has both kinds.

    Args:
        key: of the draw, or one for each picture.
        bank: the textures.
        count: how many to draw, with replacement; uniform within each kind.

    Returns:
        Indices of the bank's images.

    Source: specs/hierprob.md section 11.1.
    """
    kind_key, which_key = sample_keys.split(key, 2)
    total = bank.images.shape[0]
    chance = sample_keys.draw(jax.random.uniform, kind_key, (count,))
    grey = chance < GREY_PROBABILITY
    grey = (grey & (bank.num_grey > 0)) | (bank.num_grey >= total)
    low = jnp.where(grey, 0, bank.num_grey)
    high = jnp.where(grey, bank.num_grey, total)
    return sample_keys.draw(jax.random.randint, which_key, (count,), low, high)
