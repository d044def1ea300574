"""A dataset that its owners publish: a list of entries, each made into a record."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_pipelines.builders.published_files import PublishedFiles, join
from data_pipelines.builders.record_source import Key
from data_pipelines.schema import Record
from hmr_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Entry:
    """One record to be.

    Attributes:
        key: unique in its split; becomes the record's ``sample_id``.
        data: whatever ``record`` needs; picklable.
    """

    key: Key
    data: Any


class PublishedDataset(PublishedFiles):
    """A dataset that its owners publish, read from the folder that holds it.

    A subclass gives ``splits``, ``entries`` and ``record``; or, where its labels do not
    fit in memory or records have keys of their own, ``keys`` and ``example``. The
    ``has_*`` flags of a record follow from the fields that it holds.

    Args:
        raw: folder, local or remote, with the files of ``needs``.

    Attributes:
        needs: lines that say which files ``raw`` must hold.
        origin: where the files come from.
        licence: terms in a few words.
        counts: number of records of each split of the public release.
        dropped: (split, reason) -> number of persons or frames left out, filled by
            ``keys``.
    """

    needs: Sequence[str] = ()
    origin: str = ""
    licence: str = ""
    counts: dict[str, int] = {}

    def __init__(self, raw: str):
        super().__init__(raw)
        self._entries: dict[str, dict[Key, Any]] = {}
        self._shared: dict[str, dict[Key, Any]] = {}

    def entries(self, split: str) -> Iterable[Entry]:
        """The records to be of a split in order; counts what it leaves out."""
        raise NotImplementedError(f"{type(self).__name__} defines no entries")

    def record(self, split: str, key: Any, data: Any) -> Record:
        """The record of an entry, without ``sample_id`` and the flags of its fields."""
        raise NotImplementedError(f"{type(self).__name__} defines no record")

    def _entries_of(self, split: str) -> dict[Key, Any]:
        if split not in self.splits():
            raise UserError(
                f"{self.name}: split: expected one of {', '.join(self.splits())}, "
                f"got {split!r}"
            )
        if split not in self._entries:
            found: dict[Key, Any] = {}
            for entry in self.entries(split):
                if entry.key in found:
                    place = f"split {split}"
                    raise self.wrong(place, "names that are unique", entry.key)
                found[entry.key] = entry.data
            self._entries[split] = found
        return self._entries[split]

    def keys(self, split: str) -> Sequence[Key]:
        """Names of the records in the order of the annotations."""
        return list(self._entries_of(split))

    def example(self, split: str, key: Key) -> Record:
        """One record."""
        shared = self._shared.get(split, {})
        data = shared[key] if key in shared else self._entries_of(split)[key]
        return {"sample_id": str(key), **self.record(split, key, data)}

    def examples(self, split: str, keys: Sequence[Key]) -> Iterable[Record]:
        """Records of several keys in their order, with their flags."""
        return (with_flags(self.example(split, key)) for key in keys)

    def labels_of(self, split: str, keys: Sequence[Key]) -> Any:
        """The entries of some keys, where they are listed already."""
        found = self._entries.get(split)
        return found and {key: found[key] for key in keys}

    def take_labels(self, split: str, labels: Any) -> None:
        """Keep entries that another process listed; those of the shard before go."""
        self._shared = {split: labels}

    def same_size(self, record: Record, image: Mapping[str, Any], where: str) -> Record:
        """The fields of a picture that is as large as its annotation says.

        Args:
            record: holds ``image_width`` and ``image_height`` as read.
            image: the annotation's ``width`` and ``height``.
            where: the picture's file.

        Returns:
            ``record``.

        Raises:
            RecordError: another size.
        """
        found = record["image_width"], record["image_height"]
        expected = image["width"], image["height"]
        if found != expected:
            wanted = "{} x {} pixels as annotated".format(*expected)
            raise self.wrong(where, wanted, "{} x {}".format(*found))
        return record

    def sized_image(self, folder: str, name: str, image: Mapping[str, Any]) -> Record:
        """The fields of a picture that an annotation names, with its size.

        Args:
            folder: in which the name begins.
            name: of the picture.
            image: the annotation's ``width`` and ``height``.

        Raises:
            UnreadableImageError: it is missing or no picture.
            RecordError: another size.
        """
        record = self.read_named(folder, name, (image["width"], image["height"]))
        return self.same_size(record, image, join(folder, name))

    def folder_of(self, *choices: str) -> str:
        """The first of several folders below the raw folder that is there.

        Raises:
            RecordError: none is.
        """
        for choice in choices:
            if self.exists(self.path(choice)):
                return self.path(choice)
        raise self.wrong(self.raw, f"a folder {' or '.join(choices)}", "none")


_FLAG_OF = {
    "has_smpl": "pose_aa",
    "has_keypoints": "keypoints_px",
    "has_joints_3d": "joints_cam_m",
    "has_camera": "intrinsics",
    "has_twist": "twist_cos_sin",
    "has_mask": "mask",
}


def with_flags(record: Record) -> Record:
    """The record with the ``has_*`` flags of the fields that it holds."""
    return {flag: int(name in record) for flag, name in _FLAG_OF.items()} | record
