"""Boxes of a person through a video, smoothed over time.

Source: specs/int_hmr.md, section 15 (smooth box); specs/pose_hg.md, section 8.8.
"""

import numpy as np

_MEDIAN = 11
_SIGMA = 8.0
_SMALLEST_PX = 0.5
_MARGIN = 1.1
MIN_CONFIDENCE = 0.3


def _median(values: np.ndarray, zero_ends: bool) -> np.ndarray:
    half = _MEDIAN // 2
    mode = {"mode": "constant"} if zero_ends else {"mode": "edge"}
    padded = np.pad(values, (half, half), **mode)  # type: ignore[call-overload]
    windows = np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN)
    return np.median(windows, axis=-1)


def _gaussian(values: np.ndarray) -> np.ndarray:
    radius = int(4 * _SIGMA + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    padded = np.pad(values, radius, mode="symmetric")
    return np.convolve(padded, weights / weights.sum(), mode="valid")


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
    columns = [
        _gaussian(_median(np.interp(frames, seen, column), zero_ends))
        for column in np.asarray(rows).T
    ]
    x, y, scale = columns
    side = _MARGIN * 150 / scale
    boxes[frames] = np.stack([x - side / 2, y - side / 2, side, side], axis=-1)
    return boxes
