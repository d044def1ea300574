"""The picture of all persons: predicted bodies in their places in the whole picture."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.cameras import to_camera_axes, weak_perspective_project
from hmr_jax.predict.persons import Person
from hmr_jax.predict.pictures import OVERLAY_OPACITY, vertex_colours
from hmr_jax.render import draw, uncertainty

LONGEST_PX = 1600
"""Larger pictures are drawn smaller."""

_WINDOWS_PX = (128, 256, 512, 1024, LONGEST_PX + 64)
"""Sides of the squares that bodies are drawn in: few sizes, few compilations."""
_SMOOTH_UP_TO_PX = 1024
_MARGIN_PX = 2


def fitting(picture: np.ndarray, longest_px: int = LONGEST_PX) -> np.ndarray:
    """A picture, made smaller where it is too large.

    Args:
        picture: uint8 [height, width, 3].
        longest_px: of its longer side.

    Returns:
        uint8 image.
    """
    height, width = picture.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return picture
    return draw.resized(
        picture, max(1, round(height * scale)), max(1, round(width * scale))
    )


def draw_people(
    picture: np.ndarray,
    people: Sequence[Mapping[str, Any]],
    body: BodyModel,
    scale: float = 1.0,
) -> np.ndarray:
    """Draw predicted bodies over the picture that they were found in.

    Args:
        picture: uint8 [height, width, 3], of ``fitting``.
        people: results of ``predict_outputs``; their boxes are in pixels of the
            picture as it was.
        body: for its faces.
        scale: of the picture, from what it was.

    Returns:
        uint8 image of the same size; whoever appears larger is in front.

    Source: specs/hierprob.md section 15.
    """

    def size(person: Mapping[str, Any]) -> float:
        return float(person["crop_box_px"][3] * abs(person["camera"][0]))

    bodies = picture
    for person in sorted(people, key=size):
        bodies = _draw_person(bodies, person, body, scale)
    # The picture shows through bodies, but bodies do not through each other.
    mixed = OVERLAY_OPACITY * bodies.astype(np.float32)
    mixed += (1 - OVERLAY_OPACITY) * picture.astype(np.float32)
    return np.round(mixed).astype(np.uint8)


def _draw_person(picture, person, body, scale):
    # Pixels of the picture are unit * (x + shift), with pixel centres at integers.
    camera = np.asarray(person["camera"], np.float64)
    box = np.asarray(person["crop_box_px"], np.float64)
    unit = 0.5 * scale * box[3] * camera[0]
    if not np.isfinite([unit, *camera, *box]).all() or abs(unit) < 1e-6:
        return picture
    shift = camera[1:] + (scale * (box[:2] + 0.5) - 0.5) / unit
    vertices = to_camera_axes(jnp.asarray(person["vertices_m"]))
    flat = np.asarray(
        weak_perspective_project(vertices, jnp.float32(unit), jnp.float32(shift))
    )
    low, high = flat.min(0) - _MARGIN_PX, flat.max(0) + _MARGIN_PX
    size = np.array([picture.shape[1], picture.shape[0]])
    low, high = np.clip(low, 0, size), np.clip(high, 0, size)
    if not (high > low).all():
        return picture
    left, top = (math.floor(place) for place in low)
    needed = max(math.ceil(high[0]) - left, math.ceil(high[1]) - top)
    side = next(s for s in _WINDOWS_PX if s >= needed)
    middle = np.array([left, top]) + 0.5 * side
    window = np.array([2 * unit / side, *(shift - middle / unit)], np.float32)
    mesh = uncertainty.render_weak_perspective(
        vertices,
        body.faces,
        jnp.asarray(window),
        side,
        vertex_rgb=vertex_colours(person),
        supersample=2 if side <= _SMOOTH_UP_TO_PX else 1,
    )
    behind = picture[top : top + side, left : left + side]
    rows, columns = behind.shape[:2]
    mesh = uncertainty.MeshPicture(
        mesh.rgb[:rows, :columns], mesh.mask[:rows, :columns]
    )
    shown = picture.copy()
    shown[top : top + rows, left : left + columns] = uncertainty.over(behind, mesh)
    return shown


@dataclasses.dataclass
class _Waiting:
    """A picture, not all of whose persons are done."""

    picture: np.ndarray
    scale: float
    missing: set[int]
    people: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    new: bool = False


class Overlays:
    """Keeps pictures until all their persons are done, then draws them."""

    def __init__(self, out: pathlib.Path, body: BodyModel, *, drawn: bool = True):
        """Start without pictures.

        Args:
            out: folder to write ``NAME_overlay.png`` to.
            body: for its faces.
            drawn: false to do nothing at all.
        """
        self._out, self._body, self._drawn = out, body, drawn
        self._waiting: dict[str, _Waiting] = {}

    def begin(self, picture: np.ndarray, people: Sequence[Person]) -> None:
        """A picture comes up.

        Args:
            picture: uint8 [height, width, 3].
            people: all its persons; each is to be added.
        """
        if not people or not self._drawn:
            return
        small = fitting(picture)
        scale = max(small.shape[:2]) / max(picture.shape[:2])
        missing = {person.index for person in people}
        self._waiting[people[0].name] = _Waiting(small, scale, missing)

    def forget(self, person: Person) -> None:
        """Remove what was drawn before a person's new result.

        Args:
            person: who is to be predicted.
        """
        if self._drawn:
            self._path(person).unlink(missing_ok=True)

    def add(
        self, person: Person, arrays: Mapping[str, Any] | None, *, new: bool
    ) -> None:
        """A person is done; with the last one the picture is written.

        Args:
            person: who.
            arrays: the result; None where there is none.
            new: false for results that were there already. A picture with no new
                ones is only drawn where it is missing.
        """
        if not self._drawn:
            return
        picture = self._waiting[person.name]
        picture.missing.discard(person.index)
        picture.new |= new
        if arrays is not None:
            picture.people.append(arrays)
        if picture.missing:
            return
        del self._waiting[person.name]
        if picture.people and (picture.new or not self._path(person).is_file()):
            shown = draw_people(
                picture.picture, picture.people, self._body, picture.scale
            )
            draw.save_png(self._path(person), shown)

    def _path(self, person: Person) -> pathlib.Path:
        return self._out / f"{person.name}_overlay.png"
