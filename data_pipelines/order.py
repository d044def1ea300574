"""Which record comes when: a pure function of (seed, epoch, position).

Nothing here is a stream, so any position of any epoch can be asked for at once; that is
what makes a resumed run repeat the interrupted one. The numbers come from integer
hashes written out below, not from a library generator whose stream may change.
"""

import dataclasses
import functools

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MANTISSA_BITS = 23


def mix(value: np.ndarray) -> np.ndarray:
    """Hash 64-bit integers (the finaliser of SplitMix64).

    Args:
        value: uint64, any shape.

    Returns:
        uint64 of the same shape.
    """
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return value ^ (value >> np.uint64(31))


def stream(key: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` 64-bit numbers of the stream of each key.

    Args:
        key: uint64 [...].
        count: numbers per key.

    Returns:
        uint64 [..., count].
    """
    with np.errstate(over="ignore"):
        steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        return mix(mix(np.asarray(key, np.uint64))[..., None] + steps)


def derive(*parts: int) -> np.ndarray:
    """One key from several integers, each of which matters."""
    key = np.zeros(1, np.uint64)
    for part in parts:
        with np.errstate(over="ignore"):
            key = mix(key + _GOLDEN + np.asarray([part], np.int64).astype(np.uint64))
    return key[0]


def uniforms(key: np.ndarray, count: int) -> np.ndarray:
    """Numbers in the open interval (0, 1), exact in float32.

    Args:
        key: uint64 [...].
        count: numbers per key.

    Returns:
        float32 [..., count].
    """
    bits = stream(key, count) >> np.uint64(64 - _MANTISSA_BITS)
    return ((bits.astype(np.float64) + 0.5) / 2**_MANTISSA_BITS).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Order:
    """The order of the records of one or more sources.

    Without weights an epoch is every record once. With weights each place of an epoch
    draws a source by its weight and then, with replacement, a record of it; the epoch
    is as long as the largest source.

    Attributes:
        sizes: records per source.
        seed: of the whole run.
        shuffle: a new permutation in each epoch; without it, the order on disk.
        weights: probability of each source (scaled to sum to 1); needs ``shuffle``.

    Source: the mixture rule of IKOL's training sets (specs/ikol.md, section 13).
    """

    sizes: tuple[int, ...]
    seed: int
    shuffle: bool
    weights: tuple[float, ...] | None = None

    def __post_init__(self):
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(
                f"expected sources of one record or more, found sizes {self.sizes}"
            )
        if self.weights is None:
            return
        if len(self.weights) != len(self.sizes):
            raise ValueError(
                f"expected {len(self.sizes)} weights, one per source, "
                f"found {len(self.weights)}"
            )
        if min(self.weights) < 0 or not 0 < sum(self.weights) < float("inf"):
            raise ValueError(
                f"expected weights >= 0 with a positive sum, found {self.weights}"
            )
        if not self.shuffle:
            raise ValueError("expected shuffle=True with mixture weights, found False")

    @property
    def epoch_length(self) -> int:
        """Places in one epoch."""
        return sum(self.sizes) if self.weights is None else max(self.sizes)

    def epoch(self, epoch: int) -> np.ndarray:
        """Record at each place of an epoch.

        Args:
            epoch: from 0.

        Returns:
            int64 [epoch_length]: place in the sources laid end to end.
        """
        return _epoch(self, epoch if self.shuffle else 0)

    def keys(self, epoch: int, places: np.ndarray) -> np.ndarray:
        """A random key for each place of an epoch, for its augmentation.

        Args:
            epoch: from 0.
            places: int64 [N].

        Returns:
            uint64 [N].
        """
        base = derive(self.seed, epoch, 1)
        with np.errstate(over="ignore"):
            return mix(base + mix(places.astype(np.uint64) + _GOLDEN))


@functools.lru_cache(maxsize=2)
def _epoch(order: Order, epoch: int) -> np.ndarray:
    if not order.shuffle:
        return np.arange(order.epoch_length)
    key = derive(order.seed, epoch, 0)
    if order.weights is None:
        return np.argsort(stream(key, order.epoch_length), kind="stable")
    bits = stream(key, 2 * order.epoch_length) >> np.uint64(11)
    draws = bits.astype(np.float64).reshape(2, -1) / 2**53
    edges = np.cumsum(order.weights) / np.sum(order.weights)
    source = np.searchsorted(edges[:-1], draws[0], side="right")
    sizes = np.array(order.sizes)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return starts[source] + (draws[1] * sizes[source]).astype(np.int64)
