"""Where the records of each batch lie: opened sources, laid end to end, by step."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import clips, epoch_order, records, schema
from data_pipelines.schema import RecordError
from hmr_jax.body.joint_sets import map_joints

DEFAULT_TRAITS = {"crop_padding": 1.25, "occlude": 1.0}
"""Facts about a dataset that every transform receives; its ``traits`` override them."""
STATE_VERSION = 2


@dataclasses.dataclass(frozen=True)
class Source:
    """One opened split and how its joints map to the transform's.

    Attributes:
        name: of the split.
        directory: the records and their metadata.
        split: the records of the split.
        joint_index: int32 [T], the dataset's joint for each joint of the transform.
        joint_present: float32 [T], 1 where the dataset has that joint.
        traits: those that the transform knows, with the dataset's own values.
    """

    name: str
    directory: records.RecordDirectory
    split: records.Split
    joint_index: np.ndarray
    joint_present: np.ndarray
    traits: dict[str, float]


def open_sources(
    paths: Sequence[str | os.PathLike],
    split: str,
    joint_set: str,
    traits: Mapping[str, float] | None = None,
) -> list[Source]:
    """Open one split of each directory for reading.

    Args:
        paths: directories of records.
        split: its name.
        joint_set: into which joints are mapped by name.
        traits: of the transform beside ``DEFAULT_TRAITS``, with their defaults; others
            of a dataset are not for it.

    Returns:
        The sources.

    Raises:
        RecordError: as ``records.open_directory`` and ``RecordDirectory.split``; or two
            body models, of which one batch cannot hold the parameters.
    """
    known = {**DEFAULT_TRAITS, **(traits or {})}
    opened = [_open_source(path, split, joint_set, known) for path in paths]
    first = opened[0].directory
    for found in (source.directory for source in opened[1:]):
        sizes = [(d.spec.num_pose_joints, d.spec.num_betas) for d in (first, found)]
        if sizes[0] != sizes[1]:
            raise RecordError(
                f"{found.path}: expected {sizes[0]} pose joints and betas as in "
                f"{first.path}, found {sizes[1]}"
            )
    return opened


def _open_source(
    path: str | os.PathLike, split: str, joint_set: str, traits: Mapping[str, float]
) -> Source:
    directory = records.open_directory(path)
    index, present = map_joints(directory.spec.joint_set, joint_set)
    own = directory.manifest["traits"]
    return Source(
        split,
        directory,
        directory.split(split),
        np.where(present, index, 0).astype(np.int32),
        present.astype(np.float32),
        {name: own.get(name, default) for name, default in traits.items()},
    )


class RecordLookup:
    """The records of each batch of one process.

    Args:
        sources: opened splits.
        record_order: of their records, or of their clips, laid end to end.
        batch_size: records or clips per batch of this process.
        process_index: of this process.
        process_count: processes that share each global batch.
        drop_remainder: leave out the incomplete last batch of an epoch.
        windows: of each source, to read clips.

    Attributes:
        steps_per_epoch: batches in one epoch.
        files: every shard of every source.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        record_order: epoch_order.Order,
        *,
        batch_size: int,
        process_index: int,
        process_count: int,
        drop_remainder: bool,
        windows: Sequence[clips.Windows] | None = None,
    ):
        self._sources = tuple(sources)
        self._order = record_order
        self._batch_size = batch_size
        self._process_index = process_index
        self._process_count = process_count
        self._windows = windows
        self._starts = np.cumsum([0, *(len(s.split) for s in self._sources)])
        self._sample_starts = np.cumsum([0, *record_order.sizes])
        length, together = record_order.epoch_length, batch_size * process_count
        full, rest = divmod(length, together)
        self.steps_per_epoch = full + (rest > 0 and not drop_remainder)
        if not self.steps_per_epoch:
            raise RecordError(
                f"expected at least one batch of {together} samples (batch_size "
                f"{batch_size} x {process_count} processes), found {length}"
            )
        self.files = [name for s in self._sources for name in s.split.shards]
        first = np.cumsum([0] + [len(s.split.shards) for s in self._sources])
        shards = [s.split.shard + first[i] for i, s in enumerate(self._sources)]
        self._file = np.concatenate(shards).astype(np.int32)
        self._offset = np.concatenate([s.split.offset for s in self._sources])

    @property
    def fingerprint(self) -> str:
        """Of all sources."""
        return "+".join(s.directory.fingerprint for s in self._sources)

    def identity(self) -> dict[str, Any]:
        """What a position in the stream depends on, as JSON values."""
        options = self._windows[0].options if self._windows else None
        return {
            "version": STATE_VERSION,
            "seed": self._order.seed,
            "shuffle": self._order.shuffle,
            "rule": self._order.rule,
            "clips": None if options is None else dataclasses.asdict(options),
            "global_batch_size": self._batch_size * self._process_count,
            "steps_per_epoch": self.steps_per_epoch,
            "fingerprint": self.fingerprint,
        }

    def _places(self, step: int) -> tuple[int, np.ndarray, np.ndarray]:
        """Epoch, places in it and validity of one batch of this process."""
        epoch, step = divmod(step, self.steps_per_epoch)
        first = (step * self._process_count + self._process_index) * self._batch_size
        places = first + np.arange(self._batch_size)
        valid = places < self._order.epoch_length
        return epoch, np.where(valid, places, 0), valid

    def _drawn(self, epoch: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Records [B * T] of the samples at some places, and which count [B * T]."""
        sample = self._order.epoch(epoch)[places]
        if self._windows is None:
            return sample, np.ones(len(sample), bool)
        keys = self._order.keys(epoch, places)
        owner = np.searchsorted(self._sample_starts, sample, side="right") - 1
        shape = (len(sample), self._windows[0].options.length)
        found, counts = np.zeros(shape, np.int64), np.zeros(shape, bool)
        for number, windows in enumerate(self._windows):
            mine = owner == number
            inside = sample[mine] - self._sample_starts[number]
            found[mine], counts[mine] = windows.draw(inside, keys[mine])
            found[mine] += self._starts[number]
        return found.reshape(-1), counts.reshape(-1)

    def plan(
        self, step: int, num_uniforms: int, num_clip_uniforms: int = 0
    ) -> dict[str, np.ndarray]:
        """What to read for a batch, and the random numbers of each record.

        Args:
            step: from the start of the first epoch.
            num_uniforms: random numbers per record.
            num_clip_uniforms: how many of these, the first ones, all frames of a clip
                share.

        Returns:
            ``sample_index``, ``source``, ``file``, ``at``, ``uniforms``, ``valid`` and
            ``weight`` (0 in samples that only fill the batch up) of each record, frames
            of a clip one after the other.
        """
        epoch, places, there = self._places(step)
        record, counts = self._drawn(epoch, places)
        length = len(record) // len(places)
        source = np.searchsorted(self._starts, record, side="right") - 1
        keys = self._order.keys(epoch, places)
        weight = np.repeat(there, length)
        uniforms = (
            epoch_order.uniforms(keys, num_uniforms)
            if self._windows is None
            else clips.uniforms(keys, length, num_uniforms, num_clip_uniforms)
        )
        return {
            "sample_index": record.astype(np.int32),
            "source": source.astype(np.int32),
            "file": self._file[record],
            "at": self._offset[record],
            "uniforms": uniforms,
            "valid": (weight & counts).astype(np.float32),
            "weight": weight.astype(np.float32),
        }

    def read(self, sample_index: Sequence[int]) -> list[schema.Record]:
        """Whole records, in the order asked for.

        Args:
            sample_index: places in the sources laid end to end, of any shape.

        Returns:
            Records as in ``schema.decode``, in one list.

        Raises:
            RecordError: naming the shard and record that is damaged.
        """
        places = np.asarray(sample_index, np.int64).reshape(-1)
        owner = np.searchsorted(self._starts, places, side="right") - 1
        found: dict[int, schema.Record] = {}
        for number, source in enumerate(self._sources):
            mine = np.flatnonzero(owner == number)
            inside = places[mine] - self._starts[number]
            serialized = records.read_serialized(source.split, inside)
            for position, data in zip(mine.tolist(), serialized, strict=True):
                found[position] = schema.decode(data, source.directory.spec)
        return [found[position] for position in range(len(places))]

    def check(self, step: int) -> None:
        """Read the records of a batch again.

        Args:
            step: of the batch.

        Raises:
            RecordError: naming the first that is damaged or breaks the schema.
        """
        epoch, places, _ = self._places(step)
        for place in self._drawn(epoch, places)[0]:
            number = int(np.searchsorted(self._starts, place, side="right")) - 1
            source = self._sources[number]
            where = source.split.describe(int(place - self._starts[number]))
            schema.validate(self.read([place])[0], source.directory.spec, where)
