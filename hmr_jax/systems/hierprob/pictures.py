"""Pictures of predicted distributions."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.typing import ArrayLike

from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.cameras import to_camera_axes
from hmr_jax.remote import Location
from hmr_jax.render import draw, uncertainty
from hmr_jax.systems.hierprob import vertex_spread

TILE_PX = 192
OPACITY = 0.85


def draw_examples(
    results: Iterable[Any], body: BodyModel, count: int, out: Location
) -> None:
    """Picture, input, body over the picture, side view and truth of some samples.

    Args:
        results: batches with ``image`` and ``proxy``, predictions, targets, and how
            many samples of each count.
        body: the predicted body.
        count: at most so many samples are drawn.
        out: folder of ``predictions.png``.
    """
    tiles: list[np.ndarray] = []
    for made, prediction, target, valid in results:
        for index in range(min(valid, count - len(tiles))):
            found = (made, prediction, target)
            made_one, guess, truth = jax.tree.map(lambda x, i=index: x[i], found)
            tiles.append(_row(made_one, guess, truth, body))
        if len(tiles) >= count:
            break
    path = out / "predictions.png"
    draw.save_png(path, draw.contact_sheet(tiles, columns=2))
    logging.info("pictures: %s", path)


def _resized(image: ArrayLike) -> np.ndarray:
    return draw.resized(draw.to_uint8(np.asarray(image)), TILE_PX, TILE_PX)


def _row(made, prediction, target, body) -> np.ndarray:
    spread = None
    if prediction.samples:
        spread = uncertainty.uncertainty_colours(
            vertex_spread(prediction.samples["vertices_m"])
        )
    image = _resized(made["image"])
    proxy = np.asarray(made["proxy"])
    seen = np.repeat(np.clip(proxy[..., :1], 0.0, 1.0), 3, -1)
    seen[..., 2] = np.maximum(seen[..., 2], proxy[..., 1:].max(-1))
    mode = to_camera_axes(jnp.asarray(prediction.mode["vertices_m"]))
    truth = to_camera_axes(jnp.asarray(target["vertices_m"]))
    picture = uncertainty.render_weak_perspective(
        mode,
        body.faces,
        jnp.asarray(prediction.raw["camera"]),
        TILE_PX,
        vertex_rgb=spread,
    )
    over = uncertainty.over(image, picture, OPACITY)
    side = uncertainty.view(mode, body.faces, TILE_PX, degrees=90, vertex_rgb=spread)
    true_side = uncertainty.view(truth, body.faces, TILE_PX, degrees=90)
    names = ("picture", "input", "prediction", "its side", "true side")
    tiles = [image, _resized(seen), over, side, true_side]
    return draw.contact_sheet(tiles, columns=5, captions=names, gap_px=2)
