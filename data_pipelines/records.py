"""Directories of records: TFRecord shards as TFDS lays them out, index, fingerprint.

Beside the shards stand ``records.json`` (schema version, joint set, configuration,
number of records and bytes of each shard, fingerprint) and ``records.npz`` (offset and
checksum of each record), so that any record is read at once and damage is named.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import struct
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema
from data_pipelines.schema import RecordError
from hmr_jax.files import atomic_write

MANIFEST = "records.json"
INDEX = "records.npz"
INCOMPLETE = "incomplete."
"""Begins the name of a directory that TFDS is still writing."""
_HEADER_BYTES, _FOOTER_BYTES = 12, 4


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
        path: the directory.
        manifest: content of ``records.json``.
        spec: the dataset's numbers.
    """

    path: pathlib.Path
    manifest: dict[str, Any]
    spec: schema.RecordSpec

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
        with np.load(self.path / INDEX) as index:
            shard, offset = index[f"{name}/shard"], index[f"{name}/offset"]
        shards = splits[name]["shards"]
        files = tuple(str(self.path / s["file"]) for s in shards)
        split = Split(files, shard, offset)
        for number, entry in enumerate(shards):
            _check_size(split, number, entry["bytes"])
        return split


def _check_size(split: Split, shard: int, expected: int) -> None:
    path = split.shards[shard]
    if not os.path.isfile(path):
        raise RecordError(f"{path}: expected a TFRecord file, found none")
    found = os.path.getsize(path)
    if found == expected:
        return
    mine = np.flatnonzero(split.shard == shard)
    ends = np.append(split.offset[mine][1:], expected)
    cut = np.flatnonzero(ends > found)
    what = f"; cut off in {split.describe(mine[cut[0]])}" if len(cut) else ""
    raise RecordError(f"{path}: expected {expected} bytes, found {found}{what}")


def find_directory(path: str | os.PathLike) -> pathlib.Path:
    """The directory that holds the records at or below ``path``.

    Args:
        path: a directory of records, or a parent ``data_dir/name`` of one version.

    Returns:
        The directory that contains ``records.json``.

    Raises:
        RecordError: there is none, or more than one.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_dir():
        raise RecordError(f"{path}: expected a directory of records, found none")
    found = [path] if (path / MANIFEST).is_file() else []
    found = found or sorted(p.parent for p in path.glob(f"*/{MANIFEST}"))
    found = found or sorted(p.parent for p in path.glob(f"*/*/{MANIFEST}"))
    found = [p for p in found if not p.name.startswith(INCOMPLETE)]
    if len(found) != 1:
        names = ", ".join(str(p) for p in found) or "none"
        raise RecordError(f"{path}: expected one directory with {MANIFEST}, {names}")
    return found[0]


def open_directory(path: str | os.PathLike) -> RecordDirectory:
    """Open a directory of records.

    Args:
        path: as in ``find_directory``.

    Returns:
        The directory; its splits are checked when asked for.

    Raises:
        RecordError: missing or unreadable directory, or another schema version.
    """
    path = find_directory(path)
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        version = manifest["schema_version"]
        spec = schema.RecordSpec.from_json(manifest["spec"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path / MANIFEST}: not a manifest of records: {error!r}"
        ) from error
    if version != schema.SCHEMA_VERSION:
        raise RecordError(
            f"{path / MANIFEST}: expected schema version {schema.SCHEMA_VERSION}, "
            f"found {version}; convert the dataset again"
        )
    found = _fingerprint(manifest, *_load_index(path, manifest))
    if found != manifest["fingerprint"]:
        raise RecordError(
            f"{path}: expected fingerprint {manifest['fingerprint']} as in {MANIFEST}, "
            f"found {found} from {INDEX}"
        )
    return RecordDirectory(path, manifest, spec)


def _load_index(path: pathlib.Path, manifest: dict) -> tuple[dict, dict]:
    if not (path / INDEX).is_file():
        raise RecordError(f"{path / INDEX}: expected the index of records, found none")
    names = sorted(manifest["splits"])
    try:
        with np.load(path / INDEX) as index:
            offsets = {name: index[f"{name}/offset"] for name in names}
            checksums = {name: index[f"{name}/checksum"] for name in names}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RecordError(
            f"{path / INDEX}: not an index of records: {error!r}"
        ) from error
    return offsets, checksums


def _fingerprint(manifest: dict, offsets: dict, checksums: dict) -> str:
    keep = {k: v for k, v in manifest.items() if k != "fingerprint"}
    digest = hashlib.sha256(json.dumps(keep, sort_keys=True).encode())
    for name in sorted(offsets):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(offsets[name], "<i8").tobytes())
        digest.update(np.ascontiguousarray(checksums[name], "<u4").tobytes())
    return digest.hexdigest()[:32]


def scan_shard(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Offset and stored checksum of each record of a TFRecord file.

    Args:
        path: the file; only record headers and footers are read.

    Returns:
        int64 [N] offsets and uint32 [N] masked CRC-32C of the data.

    Raises:
        RecordError: a record reaches beyond the end of the file.
    """
    size = os.path.getsize(path)
    offsets: list[int] = []
    checksums: list[int] = []
    position = 0
    with open(path, "rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(_HEADER_BYTES)
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else size
            end = position + _HEADER_BYTES + length + _FOOTER_BYTES
            if end > size:
                raise RecordError(
                    f"{path}: record {len(offsets)} (at byte {position}): expected it "
                    f"to end at byte {end}, found the end of the file at {size}"
                )
            file.seek(end - _FOOTER_BYTES)
            checksums.append(struct.unpack("<I", file.read(_FOOTER_BYTES))[0])
            offsets.append(position)
            position = end
    return np.array(offsets, np.int64), np.array(checksums, np.uint32)


def write_index(
    path: str | os.PathLike,
    shards: dict[str, list[str]],
    spec: schema.RecordSpec,
    metadata: dict[str, Any],
) -> str:
    """Write the manifest and the index beside finished shards.

    Args:
        path: the directory.
        shards: split -> names of its TFRecord files in order.
        spec: the dataset's numbers.
        metadata: name, configuration and traits; must be JSON.

    Returns:
        The fingerprint.
    """
    path = pathlib.Path(path)
    arrays, splits, offsets, checksums = {}, {}, {}, {}
    for split, names in shards.items():
        scanned = [scan_shard(path / name) for name in names]
        offsets[split] = np.concatenate([o for o, _ in scanned])
        checksums[split] = np.concatenate([c for _, c in scanned])
        counts = [len(o) for o, _ in scanned]
        arrays[f"{split}/offset"] = offsets[split]
        arrays[f"{split}/checksum"] = checksums[split]
        arrays[f"{split}/shard"] = np.repeat(np.arange(len(names)), counts).astype("i4")
        entries = [
            {"file": name, "bytes": os.path.getsize(path / name), "records": count}
            for name, count in zip(names, counts, strict=True)
        ]
        splits[split] = {"records": sum(counts), "shards": entries}
    manifest = {
        "schema_version": schema.SCHEMA_VERSION,
        "spec": dataclasses.asdict(spec),
        **metadata,
        "splits": splits,
    }
    manifest = json.loads(json.dumps(manifest))
    manifest["fingerprint"] = _fingerprint(manifest, offsets, checksums)
    with atomic_write(path / INDEX) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
    with atomic_write(path / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest["fingerprint"]


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
    files = np.array(split.shards)[split.shard[chosen]]
    # Only inside a mapped function: TensorFlow cannot rebuild a top-level dataset that
    # has byte offsets.
    places = tf.data.Dataset.from_tensor_slices((files, split.offset[chosen]))
    data = iter(places.flat_map(record_at))
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
    counts = {}
    for name in directory.manifest["splits"]:
        split = directory.split(name)
        for index, data in enumerate(read_serialized(split, range(len(split)))):
            schema.validate(
                schema.decode(data, directory.spec),
                directory.spec,
                split.describe(index),
            )
        counts[name] = len(split)
    return counts
