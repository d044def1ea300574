"""Means kept as (sum, count): any split of the samples gives the same number."""

from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean that merges exactly.

    Attributes:
        total: weighted sum of the values, in float64 on the host.
        weight: sum of the weights.
    """

    total: np.float64
    weight: np.float64

    @classmethod
    def of(cls, values, weights=None) -> "Mean":
        """The mean of ``values`` under ``weights`` (same shape, or None for ones).

        A value under a zero weight never counts, not even a NaN.

        Raises:
            ValueError: the shapes differ.
        """
        values = np.asarray(values, np.float64)
        weights = np.ones_like(values) if weights is None else np.asarray(weights)
        if weights.shape != values.shape:
            raise ValueError(
                f"weights: expected the values' shape {values.shape}, "
                f"got {weights.shape}"
            )
        counted = np.where(weights > 0, values, 0.0)
        return cls(np.sum(counted * weights), np.sum(weights, dtype=np.float64))

    def merge(self, other: "Mean") -> "Mean":
        """The mean of both sets of samples together."""
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> float:
        """The mean, or NaN where nothing was counted."""
        return float(self.total / self.weight) if self.weight > 0 else float("nan")


def merge_all(
    first: dict[str, Mean] | None, second: dict[str, Mean]
) -> dict[str, Mean]:
    """Merge two dicts of means by name; a name in one of them alone is kept."""
    if first is None:
        return dict(second)
    merged = dict(first)
    for name, mean in second.items():
        merged[name] = merged[name].merge(mean) if name in merged else mean
    return merged
