"""Backgrounds: procedural pictures, or crops of a user's own images."""

import os
import pathlib
from collections.abc import Callable

import numpy as np
from absl import logging
from PIL import Image, ImageDraw

from hmr_jax import pictures
from hmr_jax.errors import UserError
from hmr_jax.files import is_hidden

MAX_UNREADABLE = 20

Backgrounds = Callable[[np.random.Generator, int], np.ndarray]
"""(randomness, size_px) -> uint8 picture [size_px, size_px, 3]."""


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A colour that is seldom vivid: grey plus some hue."""
    return np.clip(rng.uniform(0, 255) + rng.normal(0, 32, 3), 0, 255)


def _resize(pixels: np.ndarray, size_px: int) -> np.ndarray:
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    smooth = Image.Resampling.BICUBIC
    return np.asarray(image.resize((size_px, size_px), smooth), np.float32)


def gradient(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """A bilinear blend of four corner colours, as float32 [size, size, 3]."""
    corners = np.stack([_colour(rng) for _ in range(4)]).reshape(2, 2, 3)
    t = np.linspace(0, 1, size_px, dtype=np.float32)[:, None]
    ends = corners[:, 0][:, None] * (1 - t) + corners[:, 1][:, None] * t
    return (ends[0][None] * (1 - t[:, None]) + ends[1][None] * t[:, None]).astype("f4")


def smooth_noise(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """Clouds: noise of two coarse grids, as float32 [size, size, 3]."""
    base = _colour(rng)
    total = np.zeros((size_px, size_px, 3), np.float32)
    for cells, spread in ((rng.integers(3, 7), 45.0), (rng.integers(10, 30), 25.0)):
        coarse = base + rng.normal(0, spread, (cells, cells, 1))
        coarse = coarse + rng.normal(0, spread / 3, (cells, cells, 3))
        total += _resize(coarse, size_px) / 2
    return total


def room(rng: np.random.Generator, size_px: int) -> np.ndarray:
    """A wall above a floor, each a gradient, as float32 [size, size, 3]."""
    wall, floor = gradient(rng, size_px), gradient(rng, size_px)
    horizon = rng.uniform(0.45, 0.9) + rng.normal(0, 0.05) * np.linspace(-1, 1, size_px)
    below = np.arange(size_px)[:, None] > (horizon * size_px)[None]
    return np.where(below[..., None], floor, wall)


def clutter(rng: np.random.Generator, pixels: np.ndarray, count: int) -> np.ndarray:
    """Paint rectangles, ellipses, limbs and stripes over a picture.

    Args:
        rng: source of randomness.
        pixels: [size, size, 3] in 0 to 255.
        count: shapes to paint.

    Returns:
        float32 picture.
    """
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    canvas = ImageDraw.Draw(image)
    size = image.size[0]
    for _ in range(count):
        kind = rng.integers(4)
        colour = tuple(int(c) for c in _colour(rng))
        centre = rng.uniform(0, size, 2)
        half = size * np.exp(rng.uniform(np.log(0.03), np.log(0.3), 2))
        corners = [*(centre - half), *(centre + half)]
        if kind == 0:
            canvas.rectangle(corners, fill=colour)
        elif kind == 1:
            canvas.ellipse(corners, fill=colour)
        elif kind == 2:  # a thick line, like a limb or a pole
            end = centre + rng.normal(0, 0.35 * size, 2)
            width = max(1, int(size * rng.uniform(0.01, 0.08)))
            canvas.line([*centre, *end], fill=colour, width=width)
        else:
            _stripes(canvas, corners, colour, rng)
    return np.asarray(image, np.float32)


def _stripes(canvas, corners, colour, rng) -> None:
    left, top, right, bottom = corners
    step = max(2.0, (right - left) * rng.uniform(0.1, 0.4))
    for x in np.arange(left, right, step):
        canvas.rectangle([x, top, x + step / 2, bottom], fill=colour)


class ProceduralBackgrounds:
    """Gradients, clouds and rooms with clutter and pixel noise; needs no files.

    Args:
        clutter_share: share of pictures with shapes painted over them.
    """

    def __init__(self, clutter_share: float = 0.8):
        self._clutter_share = clutter_share

    def __call__(self, rng: np.random.Generator, size_px: int) -> np.ndarray:
        """A background.

        Args:
            rng: source of randomness.
            size_px: side of the square.

        Returns:
            uint8 [size_px, size_px, 3].
        """
        base = (gradient, smooth_noise, room)[rng.integers(3)]
        pixels = base(rng, size_px)
        if rng.uniform() < self._clutter_share:
            pixels = clutter(rng, pixels, int(rng.integers(1, 16)))
        if rng.uniform() < 0.5:
            spread = rng.uniform(2.0, 16.0)
            cells = size_px // int(rng.integers(1, 4))
            grain = rng.standard_normal((cells, cells, 1), np.float32) * spread
            repeat = -(-size_px // cells)
            grain = grain.repeat(repeat, 0).repeat(repeat, 1)[:size_px, :size_px]
            pixels = pixels + grain
        return np.clip(pixels, 0, 255).astype(np.uint8)


class FolderBackgrounds:
    """The pictures in a folder and its subfolders: random square parts, or whole."""

    def __init__(self, folder: str | os.PathLike, *, stretch: bool = False):
        """List the pictures.

        Args:
            folder: searched for ``pictures.SUFFIXES``, hidden files left out.
            stretch: whole pictures without keeping their aspect, never mirrored.

        Raises:
            UserError: the folder does not exist or holds no picture.
        """
        self.folder, self._stretch = pathlib.Path(folder), stretch
        self.paths = sorted(
            path
            for path in self.folder.rglob("*")
            if path.suffix.lower() in pictures.SUFFIXES and path.is_file()
            if not any(map(is_hidden, path.relative_to(self.folder).parts))
        )
        if not self.paths:
            raise UserError(
                f"backgrounds: expected pictures ({', '.join(pictures.SUFFIXES)}) in "
                f"{self.folder}, found none"
            )

    def __call__(self, rng: np.random.Generator, size_px: int) -> np.ndarray:
        """A background.

        Args:
            rng: source of randomness.
            size_px: side of the square.

        Returns:
            uint8 [size_px, size_px, 3].

        Raises:
            UserError: many pictures in a row cannot be read. One that cannot is left
                out with a warning.
        """
        for attempt in range(MAX_UNREADABLE):
            path = self.paths[rng.integers(len(self.paths))]
            try:
                return self._read(path, rng, size_px)
            except pictures.UnreadablePictureError as error:
                reason = f"backgrounds: {error}"
            if attempt == 0:
                logging.warning("%s; another one is taken", reason)
        raise UserError(f"{reason} (the last of {MAX_UNREADABLE} in a row)")

    def _read(
        self, path: pathlib.Path, rng: np.random.Generator, size_px: int
    ) -> np.ndarray:
        share, across, down = rng.uniform((0.5, 0.0, 0.0), 1.0)
        flip = rng.uniform() < 0.5
        image = Image.fromarray(pictures.read_picture(path))
        width, height = image.size
        side = share * min(image.size)
        left, top = across * (width - side), down * (height - side)
        box = (left, top, left + side, top + side)
        if self._stretch:
            box, flip = (0.0, 0.0, width, height), False
        smooth = Image.Resampling.BILINEAR
        pixels = np.asarray(image.resize((size_px, size_px), smooth, box=box))
        return pixels[:, ::-1].copy() if flip else pixels.copy()
