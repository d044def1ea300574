"""Clips: frames of one person of one sequence, chosen from windows of its track.

A track is every record with the same sequence and person, in order of frames. It is
reflected at its end to a whole number of windows; a clip takes some frames of a window.
"""

import dataclasses
from typing import Any

import numpy as np

from data_pipelines import epoch_order
from hmr_jax.errors import UserError

SAMPLINGS = ("random_start", "random_per_cell", "start", "all")


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """Which frames make a clip.

    Attributes:
        length: frames of a clip, T.
        window: frames from which they are chosen, P; T by default. The step between
            frames of a clip is P // T.
        stride: frames from one window of a track to the next; by default ``overlap``
            decides.
        overlap: share of a window that the next one repeats, as in the published
            configs: the stride is int(P (1 - overlap)).
        sampling: ``random_start`` starts at a random frame of the first step,
            ``random_per_cell`` takes a random frame of each step, ``start`` the first
            of each, ``all`` the whole window (T = P).
        published_valid: call a frame of a clip valid where its record comes later than
            that of the frame before, which counts frames of tracks shorter than half a
            window repeatedly; by default each frame counts once per window.

    Source: specs/int_hmr.md, section 12.3 and defect D7.
    """

    length: int
    window: int | None = None
    stride: int | None = None
    overlap: float = 0.0
    sampling: str = "random_start"
    published_valid: bool = False

    def __post_init__(self):
        if self.sampling not in SAMPLINGS:
            raise UserError(
                f"clips: sampling: expected one of {', '.join(SAMPLINGS)}, "
                f"found {self.sampling!r}"
            )
        if self.length < 1 or self.pool < self.length:
            raise UserError(
                f"clips: expected 1 <= length <= window, found {self.length} and "
                f"{self.pool}"
            )
        if self.sampling == "all" and self.pool != self.length:
            raise UserError(
                f"clips: expected length = window to take all frames, found "
                f"{self.length} and {self.pool}"
            )
        if not 0 <= self.overlap < 1 or self.step < 1:
            raise UserError(
                f"clips: expected 0 <= overlap < 1 and stride >= 1, found "
                f"{self.overlap} and {self.stride}"
            )

    @property
    def pool(self) -> int:
        """Frames of a window."""
        return self.length if self.window is None else self.window

    @property
    def step(self) -> int:
        """Frames from one window to the next."""
        if self.stride is not None:
            return self.stride
        return max(1, int(self.pool * (1 - self.overlap)))


class Windows:
    """The windows of every track of one split.

    Args:
        track: int [N], track of each record; -1 for records that belong to none and are
            a track by themselves.
        frame: int [N], frame of each record.
        options: which frames make a clip.
    """

    def __init__(self, track: np.ndarray, frame: np.ndarray, options: ClipOptions):
        self.options = options
        padded, real, first, total = [], [], [], 0
        for members in tracks(track, frame):
            pad = -len(members) % options.pool
            padded.append(np.pad(members, (0, pad), mode="reflect"))
            length = len(padded[-1])
            real.append(np.arange(length) < len(members))
            starts = np.arange(0, length - options.pool + 1, options.step)
            first.append(total + starts)
            total += length
        self._records = np.concatenate(padded)
        self._real = np.concatenate(real)
        self._first = np.concatenate(first)

    @classmethod
    def of(cls, source: Any, options: ClipOptions) -> "Windows":
        """The windows of an opened source.

        Args:
            source: a ``lookup.Source``.
            options: which frames make a clip.
        """
        index, split = source.directory.index, source.name
        return cls(index[f"{split}/track"], index[f"{split}/frame"], options)

    def __len__(self) -> int:
        return len(self._first)

    def draw(self, window: np.ndarray, key: np.ndarray) -> tuple:
        """The frames of clips.

        Args:
            window: int [B].
            key: uint64 [B], decides what is random.

        Returns:
            Records int64 [B, T], and bool [B, T], whether each is to be counted.
        """
        options = self.options
        step = options.pool // options.length
        cells = step * np.arange(options.length)
        if options.sampling == "random_start":
            inside = cells + _integers(key, 1, step)
        elif options.sampling == "random_per_cell":
            inside = cells + _integers(key, options.length, step)
        else:
            inside = np.broadcast_to(cells, (len(window), options.length))
        places = self._first[window][:, None] + inside
        records, counts = self._records[places], self._real[places]
        if options.published_valid:
            later = np.diff(records, axis=1) > 0
            counts = np.concatenate([np.ones_like(later[:, :1]), later], axis=1)
            counts = counts if options.length > 1 else np.ones_like(records, bool)
        return records, counts


def _integers(key: np.ndarray, count: int, end: int) -> np.ndarray:
    """Integers in 0 .. end - 1, int64 [B, count]."""
    bits = epoch_order.stream(epoch_order.branch(key, 1), count) >> np.uint64(11)
    return (bits.astype(np.float64) / 2**53 * end).astype(np.int64)


def tracks(track: np.ndarray, frame: np.ndarray) -> list[np.ndarray]:
    """Records of each track, in order of frames.

    Args:
        track: int [N], as for ``Windows``.
        frame: int [N].

    Returns:
        int64 arrays, in the order in which the tracks appear.
    """
    count = len(track)
    alone = int(track.max(initial=0)) + 1 + np.arange(count)
    number = np.where(track < 0, alone, track)
    _, first, member = np.unique(number, return_index=True, return_inverse=True)
    appears = first[member]
    sorted_records = np.lexsort((np.arange(count), frame, appears))
    borders = np.flatnonzero(np.diff(appears[sorted_records])) + 1
    return np.split(sorted_records, borders)


def uniforms(key: np.ndarray, length: int, count: int, shared: int) -> np.ndarray:
    """Random numbers for the frames of clips.

    Args:
        key: uint64 [B].
        length: frames of a clip, T.
        count: numbers per frame.
        shared: how many of them, the first ones, all frames of a clip have in common.

    Returns:
        float32 [B * T, count] in (0, 1).

    Raises:
        UserError: more shared numbers than there are.
    """
    if not 0 <= shared <= count:
        raise UserError(
            f"expected num_clip_uniforms of 0 to {count} (num_uniforms), found {shared}"
        )
    together = np.repeat(epoch_order.uniforms(key, shared), length, axis=0)
    frames = epoch_order.stream(epoch_order.branch(key, 2), length).reshape(-1)
    return np.concatenate(
        [together, epoch_order.uniforms(frames, count - shared)], axis=1
    )
