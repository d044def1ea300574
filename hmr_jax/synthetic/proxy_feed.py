"""What training on rendered pictures needs: its assets, and its stream of batches."""

import concurrent.futures
import os
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from hmr_jax import progress
from hmr_jax.body.model import BodyModel
from hmr_jax.body.surface import surface_of
from hmr_jax.errors import UserError
from hmr_jax.synthetic.backgrounds import (
    Backgrounds,
    ProceduralBackgrounds,
)
from hmr_jax.synthetic.pose_bank import PoseBank, PoseOrder
from hmr_jax.synthetic.proxies import ProxyAssets
from hmr_jax.synthetic.textures import TextureBank, procedural_textures, read_textures


def background_bank(
    count: int, size_px: int, *, seed: int = 0, clutter_share: float = 0.8
) -> np.ndarray:
    """Procedural backgrounds.

    Args:
        count: pictures.
        size_px: their side.
        seed: of everything random.
        clutter_share: see ``ProceduralBackgrounds``.

    Returns:
        uint8 [count, size_px, size_px, 3].
    """
    if count < 0:
        raise UserError(f"count: expected 0 or more backgrounds, got {count}")
    draw = ProceduralBackgrounds(clutter_share)
    bank = np.zeros((count, size_px, size_px, 3), np.uint8)
    for index in progress.bar(range(count), desc="backgrounds", leave=False):
        bank[index] = draw(np.random.default_rng([seed, index]), size_px)
    return bank


def make_assets(
    body: BodyModel,
    poses: PoseBank,
    *,
    image_size_px: int,
    uv_path: str | os.PathLike | None = None,
    textures: TextureBank | str | os.PathLike | None = None,
    texture_limit: int = 0,
    num_textures: int = 512,
    texture_size_px: int = 256,
    suit_share: float = 0.0,
    num_backgrounds: int = 1024,
    clutter_share: float = 0.8,
    seed: int = 0,
) -> ProxyAssets:
    """Everything that pictures are made of.

    Args:
        body: the open body, or SMPL.
        poses: of ``synthetic.pose_bank``.
        image_size_px: side of the pictures.
        uv_path: DensePose's ``UV_Processed.mat``, for SMPL.
        textures: a bank, the original's npz, or None for procedural ones.
        texture_limit: read at most so many of each kind from the npz; 0 for all.
        num_textures: procedural ones.
        texture_size_px: their side.
        suit_share: of people in a suit with a colour for each part.
        num_backgrounds: procedural ones; 0 where batches bring theirs.
        clutter_share: see ``ProceduralBackgrounds``.
        seed: of everything random.

    Returns:
        The arrays and the body.

    Raises:
        FileNotFoundError: a named file is missing.
        UserError: a file is not as expected, or the body has no known surface.
    """
    surface = surface_of(body, None if not uv_path else os.fspath(uv_path))
    if textures is None:
        textures = procedural_textures(
            body, surface, num_textures, texture_size_px, seed, suit_share
        )
    elif not isinstance(textures, TextureBank):
        textures = read_textures(textures, texture_limit)
    backgrounds = background_bank(
        num_backgrounds, image_size_px, seed=seed, clutter_share=clutter_share
    )
    arrays = jnp.asarray(backgrounds), jnp.asarray(poses.poses_aa)
    return ProxyAssets(body, surface, textures, *arrays)


class ProxyFeed:
    """Batches of pose indices, with a user's pictures as backgrounds where given.

    Args:
        order: of the poses.
        backgrounds: (rng, size_px) -> picture, for each sample; None where the
            accelerator has a bank of them.
        size_px: side of the pictures.
        seed: of the choice of backgrounds.
        num_threads: readers of pictures.

    The stream is resumable: a background depends on the seed, the batch and its place
    in the batch that all processes share.
    """

    def __init__(
        self,
        order: PoseOrder,
        backgrounds: Backgrounds | None = None,
        *,
        size_px: int = 256,
        seed: int = 0,
        num_threads: int | None = None,
    ):
        self._order, self._backgrounds = order, backgrounds
        self._size_px, self._seed = size_px, seed
        self._pool = None
        if backgrounds is not None:
            threads = num_threads or min(os.cpu_count() or 1, 16)
            self._pool = concurrent.futures.ThreadPoolExecutor(threads)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the poses."""
        return self._order.steps_per_epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        """``pose_index`` [B], and ``background`` uint8 where there are any."""
        place = self._order.state()["batches"]
        batch: dict[str, Any] = next(self._order)
        if self._pool is not None:
            first = self._order.first_row
            rows = range(first, first + len(batch["pose_index"]))
            pictures = self._pool.map(lambda row: self._picture(place, row), rows)
            batch["background"] = np.stack(list(pictures))
        return batch

    def _picture(self, place: int, row: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, place, row])
        assert self._backgrounds is not None
        return self._backgrounds(rng, self._size_px)

    def state(self) -> dict[str, int]:
        """Where the stream is."""
        return self._order.state()

    def restore(self, state: dict[str, int]) -> None:
        """Go to where ``state`` was taken."""
        self._order.restore(state)
