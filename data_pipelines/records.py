"""Directories of records: opened, checked against their manifest, read."""

import concurrent.futures
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import record_index, schema, storage
from data_pipelines.record_index import INDEX, MANIFEST
from data_pipelines.schema import RecordError
from hmr_jax.outside import reading

INCOMPLETE = "incomplete."
"""Begins the name of a directory that is still being written."""
_AT_ONCE = 16
"""Files whose size is asked for at the same time; a remote answer takes a while."""


@dataclasses.dataclass(frozen=True)
class Split:
    """The records of one split.

    Attributes:
        shards: file of each shard.
        shard: int32 [N], shard of each record.
        offset: int64 [N], first byte of each record in its shard.
    """

    shards: tuple[str, ...]
    shard: np.ndarray
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.offset)

    def describe(self, record: int) -> str:
        """Where a record lies, for error messages."""
        shard = int(self.shard[record])
        first = int(np.searchsorted(self.shard, shard))
        return (
            f"{self.shards[shard]}: record {record - first} "
            f"(at byte {int(self.offset[record])})"
        )


@dataclasses.dataclass(frozen=True)
class RecordDirectory:
    """A directory of records, checked against its manifest.

    Attributes:
        path: the directory, local or remote.
        manifest: content of ``records.json``.
        spec: the dataset's numbers.
        index: content of ``records.npz``.
    """

    path: str
    manifest: dict[str, Any]
    spec: schema.RecordSpec
    index: dict[str, np.ndarray]

    @property
    def fingerprint(self) -> str:
        """Hash of the configuration and of every record's checksum."""
        return self.manifest["fingerprint"]

    def split(self, name: str) -> Split:
        """The records of a split.

        Args:
            name: of the split.

        Returns:
            Its shards and the place of each record.

        Raises:
            RecordError: no such split, or a shard that is missing or cut short.
        """
        splits = self.manifest["splits"]
        if name not in splits:
            raise RecordError(
                f"{self.path}: expected a split named {name!r}, "
                f"found {', '.join(sorted(splits))}"
            )
        shards = splits[name]["shards"]
        files = tuple(storage.join(self.path, s["file"]) for s in shards)
        split = Split(files, self.index[f"{name}/shard"], self.index[f"{name}/offset"])
        with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            sizes = list(pool.map(_size, files))
        for number, (entry, size) in enumerate(zip(shards, sizes, strict=True)):
            _check_size(split, number, entry["bytes"], size)
        return split


def _size(path: str) -> int | None:
    return storage.size(path) if storage.exists(path) else None


def _check_size(split: Split, shard: int, expected: int, found: int | None) -> None:
    path = split.shards[shard]
    if found is None:
        raise RecordError(f"{path}: expected a TFRecord file, found none")
    if found == expected:
        return
    mine = np.flatnonzero(split.shard == shard)
    ends = np.append(split.offset[mine][1:], expected)
    cut = np.flatnonzero(ends > found)
    what = f"; cut off in {split.describe(mine[cut[0]])}" if len(cut) else ""
    raise RecordError(f"{path}: expected {expected} bytes, found {found}{what}")


def find_directories(folder: str | os.PathLike) -> list[str]:
    """Every directory of records at or below a folder.

    Args:
        folder: local or remote.

    Returns:
        Their paths, sorted; those still being written are left out.
    """
    found = []
    for path in storage.walk(storage.clean(folder)):
        unfinished = storage.name(path).startswith(INCOMPLETE)
        if not unfinished and storage.exists(storage.join(path, MANIFEST)):
            found.append(path)
    return sorted(found)


def find_directory(path: str | os.PathLike) -> storage.Location:
    """The directory that holds the records at or below ``path``.

    Args:
        path: a directory of records, or a parent ``data_dir/name`` of one version;
            local or remote.

    Returns:
        The directory that contains ``records.json``.

    Raises:
        RecordError: there is none, or more than one.
    """
    folder = storage.clean(path)
    if not storage.is_dir(folder):
        raise RecordError(f"{folder}: expected a directory of records, found none")
    if storage.exists(storage.join(folder, MANIFEST)):
        return storage.location(folder)
    found = find_directories(folder)
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise RecordError(f"{folder}: expected one directory with {MANIFEST}, {names}")
    return storage.location(found[0])


def open_directory(path: str | os.PathLike) -> RecordDirectory:
    """Open a directory of records.

    Args:
        path: as in ``find_directory``.

    Returns:
        The directory; its splits are checked when asked for.

    Raises:
        RecordError: missing or unreadable directory, or another schema version.
    """
    folder = storage.clean(find_directory(path))
    file = storage.join(folder, MANIFEST)
    with reading(file, "a manifest of records", RecordError):
        manifest = json.loads(storage.read_bytes(file))
        version = manifest["schema_version"]
        if version != schema.SCHEMA_VERSION:
            raise ValueError(
                f"{file}: expected schema version {schema.SCHEMA_VERSION}, "
                f"found {version}; convert the dataset again"
            )
        spec = schema.RecordSpec.from_json(manifest["spec"])
        splits = {name: int(s["records"]) for name, s in manifest["splits"].items()}
    index = record_index.load_index(folder, manifest)
    with reading(file, "a manifest of records", RecordError):
        parts = [
            {split: index[f"{split}/{kind}"] for split in splits}
            for kind in ("offset", "checksum")
        ]
        found = record_index.fingerprint(manifest, *parts)
        if found != manifest["fingerprint"]:
            raise ValueError(
                f"{file}: expected fingerprint {manifest['fingerprint']} as it says, "
                f"found {found} from it and {INDEX}"
            )
    return RecordDirectory(folder, manifest, spec, index)


def read_serialized(split: Split, indices: Sequence[int]) -> Iterator[bytes]:
    """Serialised records one by one, with their checksums verified.

    Args:
        split: from ``RecordDirectory.split``.
        indices: records of the split.

    Yields:
        bytes of a ``tf.train.Example``.

    Raises:
        RecordError: naming the shard and the record that is damaged.
    """
    import tensorflow as tf

    chosen = np.asarray(indices, np.int64)
    files = tf.constant(split.shards)
    # Only inside a mapped function: TensorFlow cannot rebuild a top-level dataset that
    # has byte offsets.
    places = (split.shard[chosen], split.offset[chosen])
    data = iter(
        tf.data.Dataset.from_tensor_slices(places).flat_map(
            lambda shard, offset: record_at(tf.gather(files, shard), offset)
        )
    )
    for index in chosen:
        try:
            yield next(data).numpy()
        except (tf.errors.OpError, StopIteration) as error:
            raise damaged_record(split, index, error) from error


def damaged_record(split: Split, index: int, error: Exception) -> RecordError:
    """The error for a record that TensorFlow could not read."""
    reason = str(error).split("[Op:")[0].split("}}")[-1].strip()
    return RecordError(
        f"{split.describe(index)}: expected a record whose checksum fits, found "
        f"damaged bytes: {reason}"
    )


def record_at(file, offset):
    """A ``tf.data.Dataset`` of the one record at a byte of a TFRecord file."""
    import tensorflow as tf

    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=tf.reshape(file, [1]),
        compression_type="",
        buffer_size=tf.constant(0, tf.int64),
        byte_offsets=tf.reshape(tf.cast(offset, tf.int64), [1]),
    )
    element = tf.TensorSpec([], tf.string)
    return tf.data.experimental.from_variant(variant, element).take(1)


def read_records(
    path: str | os.PathLike, split: str, indices=None
) -> Iterator[schema.Record]:
    """Whole records as numpy values, for looking at and for tests.

    Args:
        path: directory of records.
        split: its name.
        indices: which records; all in order by default.

    Yields:
        Field name -> value, as in ``schema.decode``.
    """
    directory = open_directory(path)
    found = directory.split(split)
    indices = range(len(found)) if indices is None else indices
    for serialized in read_serialized(found, indices):
        yield schema.decode(serialized, directory.spec)


def verified(
    directory: RecordDirectory, split: str
) -> Iterator[tuple[str, schema.Record]]:
    """Read a split and check every record against its checksum and the schema.

    Args:
        directory: from ``open_directory``.
        split: its name.

    Yields:
        Where the record lies, and the record.

    Raises:
        RecordError: naming the shard, the record and what is wrong.
    """
    found = directory.split(split)
    for index, data in enumerate(read_serialized(found, range(len(found)))):
        where = found.describe(index)
        record = schema.decode(data, directory.spec)
        yield where, schema.validate(record, directory.spec, where)


def verify(path: str | os.PathLike) -> dict[str, int]:
    """Read every record and check its bytes against its checksum and the schema.

    Args:
        path: directory of records.

    Returns:
        Split -> number of records, all good.

    Raises:
        RecordError: naming the shard, the record and what is wrong.
    """
    directory = open_directory(path)
    return {
        name: sum(1 for _ in verified(directory, name))
        for name in directory.manifest["splits"]
    }
