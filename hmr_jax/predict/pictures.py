"""The drawing half of predict: a sheet for each person, samples, one overview."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.cameras import to_camera_axes
from hmr_jax.render import draw, uncertainty

TILE_PX = 256
SAMPLE_COLUMNS = 6
OVERVIEW_LIMIT = 64
OVERLAY_OPACITY = 0.85
_LABEL_PX = (32, 9)
_SHOWN_SETS = {17: "coco_17", 24: "smpl_24"}
"""Number of 2D joints to their joint set."""


def vertex_colours(prediction: Mapping[str, Any]) -> Any:
    """Colours by uncertainty [verts, 3]; None where there is none."""
    if "vertex_uncertainty_m" not in prediction:
        return None
    return _coloured(jnp.asarray(prediction["vertex_uncertainty_m"]))


_coloured = jax.jit(uncertainty.uncertainty_colours)


def crop_tile(prediction: Mapping[str, Any], size_px: int = TILE_PX) -> np.ndarray:
    """A person's square crop, as the network's frame has it.

    Args:
        prediction: of ``predict_engine.Predictor``.
        size_px: side of the picture.

    Returns:
        uint8 image.
    """
    return draw.resized(draw.to_uint8(prediction["crop"]), size_px, size_px)


def overlay_tile(
    prediction: Mapping[str, Any], body: BodyModel, size_px: int = TILE_PX
) -> np.ndarray:
    """The most likely body over the crop, coloured by its uncertainty.

    Args:
        prediction: of ``predict_engine.Predictor``.
        body: for its faces.
        size_px: side of the picture.

    Returns:
        uint8 image.
    """
    return _overlay(
        prediction, prediction["vertices_m"], body, size_px, vertex_colours(prediction)
    )


def _overlay(prediction, vertices_m, body, size_px, colours):
    picture = uncertainty.render_weak_perspective(
        to_camera_axes(jnp.asarray(vertices_m)),
        body.faces,
        jnp.asarray(prediction["camera"]),
        size_px,
        vertex_rgb=colours,
    )
    return uncertainty.over(crop_tile(prediction, size_px), picture, OVERLAY_OPACITY)


def proxy_tile(prediction: Mapping[str, Any], size_px: int = TILE_PX) -> np.ndarray:
    """What the network saw, with numbered joints and how sure they were.

    Args:
        prediction: of ``predict_engine.Predictor``.
        size_px: side of the picture.

    Returns:
        uint8 image: edges and heatmaps; joints that count green, others red with
        their place, where it is known.
    """
    shown = np.clip(np.asarray(prediction["proxy"]), 0.0, 1.0)
    # Dimmed, so that the labels can be read.
    grey = draw.resized(draw.to_uint8(0.7 * shown), size_px, size_px)
    canvas = np.repeat(grey[..., None], 3, -1)
    scale = size_px / shown.shape[0]
    places = np.asarray(prediction["proxy_joints_px"], np.float64) * scale
    rows = zip(
        places,
        np.asarray(prediction["joints2d_visible"]),
        np.asarray(prediction["joints2d_confidence"]),
        strict=True,
    )
    taken: list[tuple[float, float]] = []
    for number, (place, visible, confidence) in enumerate(rows):
        if np.isfinite(place).all() and (visible or confidence > 0):
            x, y = np.clip(place, -1e4, 1e4)
            colour = (90, 255, 90) if visible else (255, 80, 80)
            draw.draw_dot(canvas, place, colour, 1.5)
            corner = _free_place(x + 4, y - 5, taken)
            text = f"{number}:{confidence:.2f}"
            # To the label's nearer end, not through it.
            end = corner[0] if corner[0] > x else corner[0] + _LABEL_PX[0]
            draw.draw_line(canvas, np.array([[x, y], [end, corner[1] + 5]]), colour)
            draw.draw_text(canvas, text, corner[0], corner[1] + 8, colour, 9)
    return canvas


def _free_place(
    x: float, y: float, taken: list[tuple[float, float]]
) -> tuple[float, float]:
    """The nearest place for a label that leaves the others readable; it is taken."""
    width, height = _LABEL_PX
    steps = [(dx, dy) for dy in (0, -9, 9, -18, 18, -27, 27) for dx in (0, -40, 36)]
    for dx, dy in sorted(steps, key=lambda step: abs(step[0]) / 2 + abs(step[1])):
        place = (x + dx, y + dy)
        if all(
            abs(place[0] - u) >= width or abs(place[1] - v) >= height for u, v in taken
        ):
            break
    taken.append(place)
    return place


def person_sheet(
    prediction: Mapping[str, Any], body: BodyModel, size_px: int = TILE_PX
) -> np.ndarray:
    """All about one person: crop, body from all sides, shape, the network's input.

    Args:
        prediction: of ``predict_engine.Predictor``.
        body: for its faces.
        size_px: side of each tile.

    Returns:
        uint8 image of 2 x 4 tiles, with a legend where there is an uncertainty.

    Source: specs/hierprob.md section 15.
    """
    colours = vertex_colours(prediction)
    posed = to_camera_axes(jnp.asarray(prediction["vertices_m"]))

    def seen(vertices, degrees, rgb=None):
        return uncertainty.view(
            vertices, body.faces, size_px, degrees=degrees, vertex_rgb=rgb
        )

    tiles = {
        "crop": crop_tile(prediction, size_px),
        "body" if colours is None else "body, uncertainty": _overlay(
            prediction, prediction["vertices_m"], body, size_px, colours
        ),
        "turned by 180 degrees": seen(posed, 180, colours),
        "turned by 90 degrees": seen(posed, 90, colours),
        "turned by 270 degrees": seen(posed, 270, colours),
    }
    if "proxy" in prediction:
        tiles["edges, joints and confidence"] = proxy_tile(prediction, size_px)
    if "reposed_vertices_m" in prediction:
        rest = to_camera_axes(jnp.asarray(prediction["reposed_vertices_m"]))
        tiles["shape"] = seen(rest, 0)
        tiles["shape, from the side"] = seen(rest, 90)
    sheet = draw.contact_sheet(list(tiles.values()), 4, list(tiles))
    if colours is None:
        return sheet
    return np.concatenate([sheet, uncertainty.colour_bar(sheet.shape[1])], 0)


def sample_sheet(
    prediction: Mapping[str, Any], body: BodyModel, size_px: int = TILE_PX
) -> np.ndarray:
    """The most likely body and the samples that fit the 2D joints best, in pairs.

    Args:
        prediction: of ``predict_engine.Predictor``, with samples.
        body: for its faces.
        size_px: side of each tile.

    Returns:
        uint8 image of 3 x 6 tiles: each body over the crop and from its side.

    Source: specs/hierprob.md section 15.
    """
    tiles, captions = [], []
    bodies = [prediction["vertices_m"], *prediction["shown_vertices_m"]]
    for number, vertices_m in enumerate(bodies):
        posed = to_camera_axes(jnp.asarray(vertices_m))
        name = f"sample {number}" if number else "most likely"
        colours = None if number else vertex_colours(prediction)
        tiles += [
            _overlay(prediction, vertices_m, body, size_px, colours),
            uncertainty.view(
                posed, body.faces, size_px, degrees=90, vertex_rgb=colours
            ),
        ]
        captions += [name, f"{name}, turned by 90 degrees"]
    return draw.contact_sheet(tiles, SAMPLE_COLUMNS, captions)


def overview_tile(
    crop: np.ndarray,
    arrays: Mapping[str, Any],
    body: BodyModel,
    size_px: int = TILE_PX // 2,
) -> np.ndarray:
    """Crop, joints and body side by side.

    Args:
        crop: of ``predict_engine.Cut``.
        arrays: of the person's result, new or read back.
        body: for its faces.
        size_px: height, and half the width, of the picture.

    Returns:
        uint8 image.
    """
    prediction = {**arrays, "crop": crop}
    # From pixels of the picture to the tile's.
    box = np.asarray(arrays["crop_box_px"], np.float64)
    places = (np.asarray(arrays["joints2d_px"], np.float64) - box[:2]) / box[2:]
    joint_set = JOINT_SETS[_SHOWN_SETS[len(places)]]
    skeleton = draw.draw_skeleton(
        crop_tile(prediction, size_px),
        (places + 0.5) * size_px,
        joint_set.parents,
        visible=np.asarray(arrays["joints2d_visible"]),
        joints=joint_set.joints,
    )
    return np.concatenate([skeleton, overlay_tile(prediction, body, size_px)], 1)
