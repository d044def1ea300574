"""Boxes of people in pictures, and smoothed over time in videos.

Source: specs/int_hmr.md, section 15 (smooth box); specs/pose_hg.md, section 8.8.
"""

from typing import Any

import numpy as np
from scipy import ndimage

_MEDIAN = 11
_SIGMA = 8.0
_SMALLEST_PX = 0.5
_MARGIN = 1.1
MIN_CONFIDENCE = 0.3


def smooth_boxes(points: np.ndarray, zero_ends: bool = False) -> np.ndarray:
    """One square box per frame around the confident points.

    Args:
        points: [F, J, 3] x, y (pixels) and confidence.
        zero_ends: pad the median filter with zeros, as published, which pulls the
            first and last five boxes; otherwise the ends are repeated.

    Returns:
        Left, top, width, height [F, 4], pixels; NaN before the first and after the
        last frame in which the person is seen. Between them gaps are interpolated.
    """
    boxes = np.full((len(points), 4), np.nan)
    rows, seen = [], []
    for frame, person in enumerate(points):
        confident = person[person[:, 2] > MIN_CONFIDENCE, :2]
        if not len(confident):
            continue
        low, high = confident.min(0), confident.max(0)
        diagonal = np.linalg.norm(high - low)
        if diagonal >= _SMALLEST_PX:
            seen.append(frame)
            rows.append([*(low + high) / 2, 150 / diagonal])
    if not seen:
        return boxes
    frames = np.arange(seen[0], seen[-1] + 1)
    filled = np.stack(
        [np.interp(frames, seen, column) for column in np.transpose(rows)]
    )
    ends = "constant" if zero_ends else "nearest"
    steady = ndimage.median_filter(filled, (1, _MEDIAN), mode=ends)
    x, y, scale = ndimage.gaussian_filter1d(steady, _SIGMA, axis=1)
    side = _MARGIN * 150 / scale
    boxes[frames] = np.stack([x - side / 2, y - side / 2, side, side], axis=-1)
    return boxes


def box_of_points(points_px: np.ndarray, growth: float = 1.0) -> np.ndarray:
    """The tight box of points, grown about its centre.

    Args:
        points_px: [N, 2], at least one.
        growth: factor of both sides.

    Returns:
        Left, top, width, height [4], pixels.
    """
    low, high = points_px.min(0), points_px.max(0)
    middle, sides = (low + high) / 2, (high - low) * growth
    return np.concatenate([middle - sides / 2, sides])


def box_of_centre(centre_px: Any, side_px: Any) -> np.ndarray:
    """The box of a centre and a side or a width and height, pixels."""
    sides = np.broadcast_to(np.asarray(side_px, np.float64), (2,))
    return np.concatenate([np.asarray(centre_px, np.float64) - sides / 2, sides])


def valid_box(box_xywh: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """I2L-MeshNet's reading of a published box: moved and cut into the image.

    Args:
        box_xywh: left, top, width, height [4], pixels.
        width: of the image, pixels.
        height: of the image, pixels.

    Returns:
        The box [4] before it is made square; None where the sample is left out.

    Source: specs/i2l_meshnet.md, section 10.2.
    """
    x, y, w, h = np.asarray(box_xywh, np.float64)
    low = np.maximum([x, y], 0)
    high = np.minimum([width - 1, height - 1], low + np.maximum([w - 1, h - 1], 0))
    if not w * h > 0 or np.any(high < low):
        return None
    return np.concatenate([low, high - low])
