"""A conversion's unit of work: one shard, written whole or not at all.

A shard holds the records of a contiguous range of a split's keys. It is written to a
temporary name, renamed, and then vouched for by a small part file, so that a conversion
killed at any moment loses the shards in progress and no more.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging

from data_pipelines import record_index, schema, storage
from data_pipelines.builders.inputs import Inputs, merged
from data_pipelines.builders.record_source import Key, RecordSource, examples_or_errors
from data_pipelines.schema import RecordError
from hmr_jax.body import npz
from hmr_jax.errors import UserError
from hmr_jax.outside import reading

PARTS = ".parts"
"""Folder of the part files; it goes when the whole conversion is done."""
RECORDS_PER_SHARD = 1000
_FEW_RECORDS = 64
_SOME_SHARDS = 8


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records that is to be written.

    Attributes:
        split: it belongs to.
        file: its name.
        keys: of its records.
    """

    split: str
    file: str
    keys: Sequence[Key]


@dataclasses.dataclass(frozen=True)
class Bad:
    """A record that was left out.

    Attributes:
        split: of the record.
        key: its name in the source.
        error: what is wrong with it.
    """

    split: str
    key: Key
    error: str


@dataclasses.dataclass(frozen=True)
class Part:
    """A finished shard.

    Attributes:
        index: its file, offsets and checksums.
        bad: records that it should have and lacks.
        inputs: notes of the files that it was made of (``builders.inputs``).
    """

    index: record_index.ShardIndex
    bad: tuple[Bad, ...]
    inputs: dict[str, Any]


class TooManyBadError(RecordError):
    """More bad records than may be left out."""

    def __init__(self, name: str, allowed: int, bad: Sequence[Bad]):
        lines = "; ".join(item.error for item in bad[: allowed + 1])
        super().__init__(
            f"{name}: expected at most {allowed} bad records (skip_bad), found "
            f"{len(bad)} or more: {lines}"
            if allowed
            else bad[0].error
        )
        self._arguments = (name, allowed, tuple(bad))

    def __reduce__(self):
        return type(self), self._arguments


def plan(
    name: str, split: str, keys: Sequence[Key], num_shards: int | None = None
) -> list[Shard]:
    """Cut a split into shards of nearly equal numbers of records.

    Args:
        name: of the dataset.
        split: of the keys.
        keys: in the order of the records on disk.
        num_shards: by default one for every thousand records, and several for a small
            dataset too, so that worker processes can share it.

    Returns:
        The shards, named as TFDS names them.

    Raises:
        RecordError: a key that comes twice.
    """
    count = len(keys)
    if len(set(keys)) != count:
        raise RecordError(
            f"{name}: split {split}: expected unique keys, found "
            f"{count - len(set(keys))} repeated"
        )
    if num_shards is None:
        few = min(_SOME_SHARDS, math.ceil(count / _FEW_RECORDS))
        num_shards = max(few, math.ceil(count / RECORDS_PER_SHARD))
    num_shards = max(1, min(num_shards, count))
    edges = [(i * count + num_shards // 2) // num_shards for i in range(num_shards + 1)]
    return [
        Shard(split, f"{name}-{split}.tfrecord-{i:05d}-of-{num_shards:05d}", keys[a:b])
        for i, (a, b) in enumerate(zip(edges, edges[1:], strict=False))
    ]


def identity(shards: Sequence[Shard]) -> list[dict[str, Any]]:
    """What the content of shards depends on beside the source's description, as JSON.

    Args:
        shards: from ``plan``.
    """
    return [
        {"file": s.file, "records": len(s.keys), "keys": _hash(s.keys)} for s in shards
    ]


def _hash(keys: Sequence[Key]) -> str:
    return hashlib.sha256("\n".join(map(str, keys)).encode()).hexdigest()[:32]


def write(
    source: RecordSource,
    shard: Shard,
    folder: str,
    *,
    skip_bad: int = 0,
    on_record: Callable[[], None] = lambda: None,
    labels: Any = None,
) -> None:
    """Convert the records of a shard and put it and its part file into place.

    Args:
        source: the dataset.
        shard: from ``plan``.
        folder: where the shard goes; it holds ``PARTS``.
        skip_bad: bad records that may be left out.
        on_record: called after each record.
        labels: of its keys, where another process has read them (``labels_of``).

    Raises:
        TooManyBadError: there are more, naming them.
    """
    import tensorflow as tf

    if labels is not None:
        source.take_labels(shard.split, labels)
    bad: list[Bad] = []
    log = record_index.TrackLog()
    path = storage.join(folder, shard.file)
    with _local_file(folder, path) as temporary:
        with storage.reported(path), tf.io.TFRecordWriter(temporary) as writer:
            found = examples_or_errors(source, shard.split, shard.keys)
            for key, record in zip(shard.keys, found, strict=True):
                if isinstance(record, RecordError):
                    bad.append(Bad(shard.split, key, str(record)))
                    if len(bad) > skip_bad:
                        raise TooManyBadError(source.name, skip_bad, bad)
                else:
                    writer.write(schema.encode(record, source.spec.extras))
                    log.add(record)
                on_record()
        offset, checksum = record_index.scan_shard(temporary)
        size = os.path.getsize(temporary)
        if storage.is_local(path):
            storage.move(temporary, path)
        else:
            storage.copy_in(temporary, path)
    index = record_index.ShardIndex(shard.file, size, offset, checksum, *log.arrays())
    _write_part(folder, Part(index, tuple(bad), source.inputs.taken()))


@contextlib.contextmanager
def _local_file(folder: str, path: str) -> Iterator[str]:
    """A temporary file of this machine, beside the parts where those are local."""
    if storage.is_local(path):
        parts = storage.join(folder, PARTS, storage.name(path))
        temporary = storage.temporary_name(parts)
        try:
            yield temporary
        finally:
            if os.path.exists(temporary):
                os.remove(temporary)
        return
    with tempfile.TemporaryDirectory() as elsewhere:
        yield storage.join(elsewhere, "shard")


def _part_path(folder: str, file: str) -> str:
    return storage.join(folder, PARTS, f"{file}.npz")


def _write_part(folder: str, part: Part) -> None:
    facts = {
        "size": part.index.size,
        "bad": [dataclasses.asdict(item) for item in part.bad],
        "inputs": part.inputs,
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        offset=part.index.offset,
        checksum=part.index.checksum,
        tracks=np.array(part.index.tracks, np.str_),
        track=part.index.track,
        frame=part.index.frame,
        facts=np.array(json.dumps(facts)),
    )
    storage.write_bytes(_part_path(folder, part.index.file), buffer.getvalue())


def finished(folder: str, shard: Shard) -> Part | None:
    """What became of a shard, where it is finished.

    Args:
        folder: as for ``write``.
        shard: from ``plan``.

    Returns:
        None where it is missing, cut short or not vouched for.
    """
    path, shard_path = _part_path(folder, shard.file), storage.join(folder, shard.file)
    if not (storage.exists(path) and storage.exists(shard_path)):
        return None
    try:
        with reading(path, "what is known of a shard"):
            content = npz.read_npz(storage.read_bytes(path), source=path)
            facts = {"inputs": {}} | json.loads(str(content["facts"]))
            names = ("offset", "checksum", "tracks", "track", "frame")
            arrays = (np.asarray(content[name]) for name in names)
            offset, checksum, tracks, track, frame = arrays
            bad = tuple(Bad(**item) for item in facts["bad"])
            inputs, size = dict(facts["inputs"]), int(facts["size"])
    except UserError:
        return None
    whole = len(offset) + len(bad) == len(shard.keys)
    if not whole or storage.size(shard_path) != size:
        return None
    named = tuple(str(name) for name in tracks)
    index = record_index.ShardIndex(
        shard.file, size, offset, checksum, named, track, frame
    )
    return Part(index, bad, inputs)


class Ledger:
    """Finished shards, and how many bad records they may have together.

    Args:
        name: of the dataset.
        working: folder of the unfinished conversion.
        planned: all shards.
        skip_bad: bad records that may be left out.
        inputs: of the dataset; a shard whose files have changed is done again.

    Attributes:
        parts: file -> finished shard.
    """

    def __init__(
        self,
        name: str,
        working: str,
        planned: list[Shard],
        skip_bad: int,
        inputs: Inputs,
    ):
        self._name, self._working, self._skip_bad = name, working, skip_bad
        self.parts: dict[str, Part] = {}
        known = inputs.notes()
        for shard in planned:
            part = finished(working, shard)
            if part is None:
                continue
            change = next(inputs.differences(part.inputs, known), None)
            if change is None:
                self.parts[shard.file] = part
                known = merged([known, part.inputs | {"pictures": {}}])
            else:
                logging.warning("%s: is done again: %s", shard.file, change)
        if len(self._bad()) > skip_bad:
            # The files may have been mended since: these shards are done again.
            self.parts = {f: p for f, p in self.parts.items() if not p.bad}

    def _bad(self) -> list[Bad]:
        return [bad for part in self.parts.values() for bad in part.bad]

    def add(self, shard: Shard) -> None:
        """Take note of a shard that was written.

        Raises:
            RecordError: it is not there, or the bad records have become too many.
        """
        part = finished(self._working, shard)
        if part is None:
            raise RecordError(
                f"{storage.join(self._working, shard.file)}: expected a finished "
                "shard, found none; does every worker see this folder?"
            )
        self.parts[shard.file] = part
        bad = self._bad()
        if len(bad) > self._skip_bad:
            raise TooManyBadError(self._name, self._skip_bad, bad)
