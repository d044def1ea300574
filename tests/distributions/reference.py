"""The normaliser's integrals by brute force in float64, independent of the package."""

import numpy as np
from scipy.special import i0e

_STEPS = np.concatenate([[0.0], np.geomspace(1e-7, 1, 40)])
_EDGES = np.concatenate([_STEPS, 2 - _STEPS[-2::-1]])  # fine at both ends
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def _integral(high, low, pivot, moment):
    """1/2 of the scaled integral with one value as pivot; x = 1 - u."""
    half = np.diff(_EDGES) / 2
    x = ((_EDGES[1:] + _EDGES[:-1]) / 2)[:, None] + half[:, None] * _POINTS
    weight = (half[:, None] * _WEIGHTS).ravel()
    x = x.ravel()
    high, low, pivot = (
        np.asarray(v, np.float64)[..., None] for v in (high, low, pivot)
    )
    high, low = np.maximum(high, low), np.minimum(high, low)
    values = i0e((high - low) * x / 2) * i0e((high + low) * (2 - x) / 2)
    values = values * np.exp(-(low + pivot) * x) * weight / 2
    return (values * x if moment else values).sum(-1)


def log_scaled(s):
    """Log c - sum(s) for proper singular values [..., 3]."""
    s = np.asarray(s, np.float64)
    return np.log(_integral(s[..., 1], s[..., 2], s[..., 0], False))


def mean_deficit(s):
    """1 - d log c / d s, each with its own value as pivot (spec section 7.2)."""
    s = np.asarray(s, np.float64)
    parts = []
    for k, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        args = (s[..., i], s[..., j], s[..., k])
        parts.append(_integral(*args, True) / _integral(*args, False))
    return np.stack(parts, -1)


def many_singular_values(seed=0, random=300):
    """A grid and random proper singular values from 0 to 1000, of all signs."""
    grid = [0, 1e-3, 0.1, 0.19, 0.21, 1, 3, 8, 20, 100, 1000]
    rows = [
        (a, b, sign * c)
        for a in grid
        for b in grid
        for c in grid
        for sign in (1, -1)
        if a >= b >= c
    ]
    rng = np.random.default_rng(seed)
    for _ in range(random):
        s = np.sort(np.exp(rng.uniform(np.log(0.01), np.log(1000), 3)))[::-1]
        s[1] = s[1] if rng.random() < 0.6 else s[0] * (1 - rng.random() ** 4)
        s[2] = min(s[2], s[1]) if rng.random() < 0.6 else s[1] * (1 - rng.random() ** 4)
        rows.append((s[0], s[1], s[2] * rng.choice([-1, 1])))
    return np.array(rows)
