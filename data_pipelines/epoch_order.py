"""Which record comes when: a pure function of (seed, epoch, position).

Nothing here is a stream, so any position of any epoch can be asked for at once; that is
what makes a resumed run repeat the interrupted one. The numbers come from integer
hashes written out below, not from a library generator whose stream may change.
"""

import dataclasses
import functools

import numpy as np

from hmr_jax.errors import UserError

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


def branch(key: np.ndarray, number: int) -> np.ndarray:
    """Another key for each key; those of different numbers are unrelated.

    Args:
        key: uint64 [...].
        number: of the branch.

    Returns:
        uint64 [...].
    """
    return mix(mix(np.asarray(key, np.uint64)) ^ derive(number))


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
    """The order of the records (or clips) of one or more sources.

    Without a rule an epoch is every record once. With weights each place of an epoch
    draws a source by its weight and then, with replacement, a record of it; the epoch
    is as long as the largest source. With groups every group of sources has an equal
    share, as long as the largest group: a smaller one is gone through as often as it
    fits and then drawn from. With caps a source gives at most so many records to an
    epoch, a new random choice each time.

    Attributes:
        sizes: records per source.
        seed: of the whole run.
        shuffle: a new permutation in each epoch; without it, the order on disk. The
            rules need it.
        weights: probability of each source (scaled to sum to 1).
        groups: number of each source's group, from 0.
        caps: of each source; None for all of its records.

    Source: weights, IKOL's training sets (specs/ikol.md, section 13); groups,
        I2L-MeshNet's 2D and 3D sets (specs/i2l_meshnet.md, section 8.1); caps, the
        fusion of 2D and 3D sets in pose_hg (specs/pose_hg.md, section 8.5); no rule,
        INT (specs/int_hmr.md, section 9).
    """

    sizes: tuple[int, ...]
    seed: int
    shuffle: bool
    weights: tuple[float, ...] | None = None
    groups: tuple[int, ...] | None = None
    caps: tuple[int | None, ...] | None = None

    def __post_init__(self):
        if not self.sizes or min(self.sizes) < 1:
            raise UserError(
                f"expected sources of one record or more, found sizes {self.sizes}"
            )
        rules = {"weights": self.weights, "groups": self.groups, "caps": self.caps}
        given = {name: rule for name, rule in rules.items() if rule is not None}
        if len(given) > 1:
            raise UserError(f"expected one rule for epochs, found {', '.join(given)}")
        for name, rule in given.items():
            if len(rule) != len(self.sizes):
                raise UserError(
                    f"expected {len(self.sizes)} {name}, one per source, "
                    f"found {len(rule)}"
                )
            if not self.shuffle:
                raise UserError(f"expected shuffle=True with {name}, found False")
        self._check_values()

    def _check_values(self) -> None:
        weights, groups = self.weights, self.groups
        if weights is not None and (
            min(weights) < 0 or not 0 < sum(weights) < float("inf")
        ):
            raise UserError(
                f"expected weights >= 0 with a positive sum, found {weights}"
            )
        if groups is not None and set(groups) != set(range(max(groups) + 1)):
            raise UserError(f"expected groups numbered 0, 1, ..., found {groups}")
        if self.caps is not None and any(c is not None and c < 1 for c in self.caps):
            raise UserError(f"expected caps of 1 or more, or None, found {self.caps}")

    @property
    def rule(self) -> dict[str, list | None]:
        """The rule of an epoch, as JSON values."""
        rules = {"weights": self.weights, "groups": self.groups, "caps": self.caps}
        return {n: None if rule is None else list(rule) for n, rule in rules.items()}

    def _group_sizes(self) -> list[int]:
        groups = self.groups or ()
        return [
            sum(s for s, g in zip(self.sizes, groups, strict=True) if g == number)
            for number in range(max(groups) + 1)
        ]

    @property
    def epoch_length(self) -> int:
        """Places in one epoch."""
        if self.weights is not None:
            return max(self.sizes)
        if self.groups is not None:
            sizes = self._group_sizes()
            return len(sizes) * max(sizes)
        caps = self.caps or (None,) * len(self.sizes)
        pairs = zip(self.sizes, caps, strict=True)
        return sum(size if cap is None else min(size, cap) for size, cap in pairs)

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
    if order.weights is not None:
        return _weighted(order, order.weights, key)
    shuffled = np.argsort(stream(key, order.epoch_length), kind="stable")
    if order.groups is not None:
        return _balanced(order, order.groups, epoch)[shuffled]
    if order.caps is not None:
        return _capped(order, order.caps, epoch)[shuffled]
    return shuffled


def _starts(order: Order) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(order.sizes)[:-1]])


def _fractions(key: np.ndarray, count: int) -> np.ndarray:
    """Numbers in [0, 1), float64 [count]."""
    return (stream(key, count) >> np.uint64(11)).astype(np.float64) / 2**53


def _balanced(order: Order, groups: tuple[int, ...], epoch: int) -> np.ndarray:
    sizes = order._group_sizes()
    longest, starts = max(sizes), _starts(order)
    found = []
    for group, size in enumerate(sizes):
        members = [
            start + np.arange(count)
            for start, count, g in zip(starts, order.sizes, groups, strict=True)
            if g == group
        ]
        whole = size * (longest // size)
        key = derive(order.seed, epoch, 2, group)
        drawn = (_fractions(key, longest - whole) * size).astype(np.int64)
        places = np.concatenate([np.arange(whole) % size, drawn])
        found.append(np.concatenate(members)[places])
    return np.concatenate(found)


def _capped(order: Order, caps: tuple[int | None, ...], epoch: int) -> np.ndarray:
    found = []
    sources = zip(_starts(order), order.sizes, caps, strict=True)
    for source, (start, size, cap) in enumerate(sources):
        chosen = np.arange(size)
        if cap is not None and cap < size:
            key = derive(order.seed, epoch, 2, source)
            chosen = np.argsort(stream(key, size), kind="stable")[:cap]
        found.append(start + chosen)
    return np.concatenate(found)


def _weighted(order: Order, weights: tuple[float, ...], key: np.ndarray) -> np.ndarray:
    draws = _fractions(key, 2 * order.epoch_length).reshape(2, -1)
    edges = np.cumsum(weights) / np.sum(weights)
    source = np.searchsorted(edges[:-1], draws[0], side="right")
    sizes = np.array(order.sizes)
    return _starts(order)[source] + (draws[1] * sizes[source]).astype(np.int64)
