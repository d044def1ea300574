"""Errors of published body files that are known, found by their content and mended."""

from typing import Any

import numpy as np
from absl import logging

_HAND_JOINTS = 16
_CLEAR = 0.2  # correlations below say nothing


def mend_left_hand(
    source: str, template_m: np.ndarray, shape_dirs_m: np.ndarray, num_joints: int
) -> np.ndarray:
    """The shape directions of a left hand, mirrored where the file has the right one's.

    MANO_LEFT as published holds the mirrored template with the right hand's shape
    directions: their x has the wrong sign, and a larger hand becomes a distorted one.
    The file shows it alone: the first direction mostly scales the hand, so it goes with
    the template along x as it does along y and z.

    Args:
        source: the file, for the note that is logged.
        template_m: [V, 3].
        shape_dirs_m: [V, 3, S].
        num_joints: of the body; only hands of 16 are looked at.

    Returns:
        The directions, x negated where the sign was wrong.
    """
    if num_joints != _HAND_JOINTS or not shape_dirs_m.shape[2]:
        return shape_dirs_m
    along_x = _correlation(template_m[:, :1], shape_dirs_m[:, :1, 0])
    across = _correlation(template_m[:, 1:], shape_dirs_m[:, 1:, 0])
    if along_x * across >= 0 or min(abs(along_x), abs(across)) < _CLEAR:
        return shape_dirs_m
    logging.warning(
        "%s: field 'shapedirs': x has the sign of the other hand, as in MANO_LEFT as "
        "published; mirrored (mend=False keeps the file as it is)",
        source,
    )
    mirror: Any = np.array([-1, 1, 1], shape_dirs_m.dtype)
    return shape_dirs_m * mirror[:, None]


def _correlation(places_m: np.ndarray, moves_m: np.ndarray) -> float:
    """How much moves [V, C] go with places [V, C], -1 to 1."""
    places, moves = places_m - places_m.mean(0), moves_m - moves_m.mean(0)
    size = np.sqrt((places**2).sum() * (moves**2).sum())
    return float((places * moves).sum() / size) if size > 0 else 0.0
