"""The index of a directory of records: what each shard holds, and its fingerprint.

Beside the shards stand ``records.json`` (schema version, joint set, configuration,
number of records and bytes of each shard, fingerprint) and ``records.npz`` (offset and
checksum of each record), so that any record is read at once and damage is named. The
index also says to which track (a person in a sequence) and frame each record belongs.
"""

import dataclasses
import hashlib
import io
import json
import os
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import schema, storage
from data_pipelines.schema import RecordError
from hmr_jax.body.npz import read_npz
from hmr_jax.outside import reading

MANIFEST = "records.json"
INDEX = "records.npz"
_HEADER_BYTES, _FOOTER_BYTES = 12, 4


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """What one shard holds.

    Attributes:
        file: its name.
        size: bytes.
        offset: int64 [N], first byte of each record.
        checksum: uint32 [N], masked CRC-32C of each record's data.
        tracks: names of the tracks that the shard touches.
        track: int32 [N], which of them each record belongs to; -1 for none.
        frame: int64 [N], frame of each record.
    """

    file: str
    size: int
    offset: np.ndarray
    checksum: np.ndarray
    tracks: tuple[str, ...]
    track: np.ndarray
    frame: np.ndarray


class TrackLog:
    """Collects the tracks and frames of records one by one."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._track: list[int] = []
        self._frame: list[int] = []

    def add(self, record: schema.Record) -> None:
        """Note a record; one without a sequence is no part of any track."""
        number = -1
        if record["sequence_id"]:
            name = f"{record['sequence_id']}\n{int(record['person_id'])}"
            number = self._numbers.setdefault(name, len(self._numbers))
        self._track.append(number)
        self._frame.append(int(record["frame_id"]))

    def arrays(self) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """``tracks``, ``track`` and ``frame`` of a ``ShardIndex``."""
        track = np.array(self._track, np.int32)
        return tuple(self._numbers), track, np.array(self._frame, np.int64)


def _merged_tracks(shards: Sequence[ShardIndex]) -> np.ndarray:
    """Numbers of the tracks of a split, in the order in which they appear."""
    numbers: dict[str, int] = {}
    found = []
    for shard in shards:
        mine = [numbers.setdefault(name, len(numbers)) for name in shard.tracks]
        # The last entry stands for -1.
        found.append(np.array([*mine, -1], np.int32)[shard.track])
    return np.concatenate(found)


def scan_shard(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Offset and stored checksum of each record of a TFRecord file on this machine.

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
    folder: str,
    shards: Mapping[str, Sequence[ShardIndex]],
    spec: schema.RecordSpec,
    metadata: Mapping[str, Any],
) -> str:
    """Write the index and, last of all, the manifest beside finished shards.

    Args:
        folder: the directory.
        shards: split -> its shards in order.
        spec: the dataset's numbers.
        metadata: name, configuration and traits; must be JSON.

    Returns:
        The fingerprint.
    """
    arrays, splits, offsets, checksums = {}, {}, {}, {}
    for split, found in shards.items():
        counts = [len(s.offset) for s in found]
        offsets[split] = np.concatenate([s.offset for s in found])
        checksums[split] = np.concatenate([s.checksum for s in found])
        arrays[f"{split}/offset"] = offsets[split]
        arrays[f"{split}/checksum"] = checksums[split]
        arrays[f"{split}/track"] = _merged_tracks(found)
        arrays[f"{split}/frame"] = np.concatenate([s.frame for s in found])
        arrays[f"{split}/shard"] = np.repeat(np.arange(len(found)), counts).astype("i4")
        entries = [
            {"file": s.file, "bytes": s.size, "records": len(s.offset)} for s in found
        ]
        splits[split] = {"records": sum(counts), "shards": entries}
    manifest = {
        "schema_version": schema.SCHEMA_VERSION,
        "spec": dataclasses.asdict(spec),
        **metadata,
        "splits": splits,
    }
    manifest = json.loads(json.dumps(manifest))
    manifest["fingerprint"] = fingerprint(manifest, offsets, checksums)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    storage.write_bytes(storage.join(folder, INDEX), buffer.getvalue())
    text = json.dumps(manifest, indent=1) + "\n"
    storage.write_bytes(storage.join(folder, MANIFEST), text.encode())
    return manifest["fingerprint"]


def load_index(folder: str, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of the index.

    Args:
        folder: the directory.
        manifest: content of ``records.json``.

    Returns:
        ``SPLIT/offset``, ``checksum``, ``shard``, ``track`` and ``frame`` -> array.

    Raises:
        RecordError: missing or damaged, naming the file.
    """
    path = storage.join(folder, INDEX)
    if not storage.exists(path):
        raise RecordError(f"{path}: expected the index of records, found none")
    kinds = ("offset", "checksum", "shard", "track", "frame")
    with reading(path, "an index of records", RecordError):
        found = read_npz(storage.read_bytes(path), source=path)
        index: dict[str, np.ndarray] = {}
        for split, content in manifest["splits"].items():
            for kind in kinds:
                array = np.asarray(found[f"{split}/{kind}"])
                expected = (content["records"],)
                if array.shape != expected or array.dtype.kind not in "iu":
                    raise ValueError(
                        f"{split}/{kind}: expected whole numbers of shape {expected}, "
                        f"got {array.dtype} of shape {array.shape}"
                    )
                index[f"{split}/{kind}"] = array
            shard, shards = index[f"{split}/shard"], len(content["shards"])
            if shard.size and not 0 <= shard.min() <= shard.max() < shards:
                raise ValueError(f"{split}/shard: expected numbers below {shards}")
        return index


def fingerprint(
    manifest: Mapping[str, Any],
    offsets: Mapping[str, np.ndarray],
    checksums: Mapping[str, np.ndarray],
) -> str:
    """Hash of the configuration and of every record's checksum and place.

    Equal records in other shards are another data set: a place in one means nothing in
    the other.

    Args:
        manifest: content of ``records.json``, with or without the fingerprint.
        offsets: split -> int64 [N].
        checksums: split -> uint32 [N].

    Returns:
        32 hexadecimal digits.
    """
    keep = {k: v for k, v in manifest.items() if k != "fingerprint"}
    digest = hashlib.sha256(json.dumps(keep, sort_keys=True).encode())
    for name in sorted(offsets):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(offsets[name], "<i8").tobytes())
        digest.update(np.ascontiguousarray(checksums[name], "<u4").tobytes())
    return digest.hexdigest()[:32]
