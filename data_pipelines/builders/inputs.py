"""What a dataset's records depend on beside its options: the files that it was made of.

Every question that a source asks of its files is noted with the answer: what it read,
what it listed, what it looked for. A finished dataset keeps these notes, and before it
is taken for up to date the same questions are asked again:

* labels, bodies and whatever else is parsed: the digest of the content (of more than
  5,000 such files as of pictures);
* pictures and videos, of which there may be a million: the size and the time of the
  last change, and only where that time is another the digest (so that a copy of the
  folder is read once and is no change); in remote folders the size alone;
* listed folders: the names;
* whole folders that others read from (``note_tree``): names and sizes, or digests;
* single files that are optional: whether they are there.
"""

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from data_pipelines import storage
from data_pipelines.schema import RecordError
from hmr_jax.files import is_hidden
from hmr_jax.outside import json_object, reading

FILE = "inputs.json.gz"
"""Lies beside the records."""
_KINDS = ("labels", "pictures", "listings", "trees", "presence")
_OFTEN = ("pictures", "presence")
"""Kinds that grow with the number of records."""
_CHUNK_BYTES = 1 << 20
_FEW_LABELS = 64
_MANY_LABELS = 5000


def digest(data: bytes) -> str:
    """Short hash of a file's content."""
    return hashlib.sha256(data).hexdigest()[:16]


def digest_of_file(path: str) -> str:
    """Short hash of a file that need not fit in memory."""
    found = hashlib.sha256()
    for chunk in storage.read_chunks(path, _CHUNK_BYTES):
        found.update(chunk)
    return found.hexdigest()[:16]


class Inputs:
    """Notes of what a source asked of its files.

    Files are named by the option that says where they are, so that a dataset whose
    folder moved is the same dataset.

    Args:
        roots: name of an option -> the file or folder that it gives. Below the root
            named ``""`` files go by their path alone.

    Attributes:
        last_label: path of the file that was parsed last; errors of what is made of it
            name it.
    """

    def __init__(self, roots: Mapping[str, str]):
        self._roots = {name: str(path).rstrip("/") for name, path in roots.items()}
        self._notes: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
        self._fresh: set[str] = set()
        self.last_label = ""

    def _name(self, path: str) -> str:
        """The name under which notes keep a path."""
        for option, root in self._roots.items():
            if root and (path == root or path.startswith(f"{root}/")):
                rest = path[len(root) :].lstrip("/")
                return f"<{option}>/{rest}".rstrip("/") if option else rest
        return path

    def _path(self, name: str) -> str:
        """Inverse of ``_name``, of the roots of this source."""
        if name.startswith("<"):
            option, _, rest = name[1:].partition(">")
            return f"{self._roots.get(option, '')}{rest}"
        if self._roots.get("") and not name.startswith("/") and "://" not in name:
            return f"{self._roots['']}/{name}".rstrip("/")
        return name

    def note_label(self, path: str, data: bytes) -> None:
        """A file that was parsed, with its content."""
        name = self._name(path)
        self._notes["labels"][name] = [*storage.size_and_change(path), digest(data)]
        self._fresh.add(name)
        self.last_label = path

    def note_picture(self, path: str, data: bytes | None) -> None:
        """A picture or video that was read, with its content; None: its size alone."""
        name = self._name(path)
        if data is None and name in self._notes["pictures"]:
            return
        found = "" if data is None else digest(data)
        size, changed = storage.size_and_change(path)
        self._notes["pictures"][name] = [size, changed, found]

    def note_large_file(self, path: str) -> None:
        """A file that is read bit by bit; it is read here once more."""
        size, changed = storage.size_and_change(path)
        found = digest_of_file(path)
        self._notes["pictures"][self._name(path)] = [size, changed, found]

    def note_listing(self, pattern: str, paths: Iterable[str]) -> None:
        """What lies at a pattern."""
        self._notes["listings"][self._name(pattern)] = self._listed(paths)

    def _listed(self, paths: Iterable[str]) -> list:
        names = sorted(self._name(path) for path in paths)
        return [len(names), digest("\n".join(names).encode())]

    def note_presence(self, path: str, there: bool) -> None:
        """Whether there is a file or folder."""
        self._notes["presence"][self._name(path)] = there

    def note_tree(self, path: str, *, contents: bool) -> None:
        """A file, or a folder with all it holds.

        Args:
            path: of it.
            contents: compare digests; otherwise names and sizes.
        """
        self._notes["trees"][self._name(path)] = [contents, *_tree(path, contents)]

    def taken(self) -> dict[str, dict[str, Any]]:
        """The notes, as JSON; of what grows with the records those since the last call.

        A file of an option (a body) and any of a few labels may have been read long
        before and count for all that follows.
        """
        notes = self.notes()
        if len(notes["labels"]) > _FEW_LABELS:
            notes["labels"] = {
                name: noted
                for name, noted in notes["labels"].items()
                if name in self._fresh or name.startswith("<")
            }
        self._fresh.clear()
        for kind in _OFTEN:
            self._notes[kind].clear()
        return notes

    def notes(self) -> dict[str, dict[str, Any]]:
        """All notes, as JSON."""
        return {kind: dict(found) for kind, found in self._notes.items()}

    def differences(
        self,
        notes: Mapping[str, Mapping[str, Any]],
        known: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Iterator[str]:
        """What is not as noted any more, a line each.

        Args:
            notes: of the same source at another time, perhaps in other folders.
            known: notes of now, which need not be asked for again.
        """
        notes = {
            kind: {
                name: noted
                for name, noted in found.items()
                if (known or {}).get(kind, {}).get(name) != noted
            }
            for kind, found in notes.items()
        }
        labels = notes.get("labels", {})
        by_time = len(labels) > _MANY_LABELS
        for name, noted in labels.items():
            if reason := _change_of(self._path(name), noted, by_time):
                yield f"{name}: {reason}"
        for name, (number, names) in notes.get("listings", {}).items():
            now = self._listed(list_data(self._path(name))[0])
            if now != [number, names]:
                yield f"{name}: {number} files before, {_other(number, now[0])} now"
        for name, there in notes.get("presence", {}).items():
            if storage.exists(self._path(name)) != there:
                yield f"{name}: {'is gone' if there else 'is new'}"
        for name, (contents, number, found) in notes.get("trees", {}).items():
            now = _tree(self._path(name), contents)
            if now != [number, found]:
                yield f"{name}: {number} files before, {_other(number, now[0])} now"
        for name, noted in notes.get("pictures", {}).items():
            if reason := _change_of(self._path(name), noted, True):
                yield f"{name}: {reason}"


def _other(before: int, now: int) -> str:
    return "others" if before == now else str(now)


def _change_of(path: str, noted: Sequence[Any], by_time: bool) -> str:
    """Why a file is not the one that was noted; empty where it is."""
    size, changed, found = noted
    if not storage.exists(path):
        return "is gone"
    size_now, changed_now = storage.size_and_change(path)
    if size_now != size:
        return f"{size} bytes before, {size_now} now"
    unsure = found and not (by_time and changed_now == changed)
    return "has changed" if unsure and digest_of_file(path) != found else ""


def _tree(path: str, contents: bool) -> list:
    if not storage.is_dir(path):
        return [1, digest_of_file(path)] if storage.exists(path) else [0, ""]
    lines = []
    for file in storage.files_below(path):
        below = file[len(path.rstrip("/")) :].strip("/")
        if not any(map(is_hidden, below.split("/"))):
            fact = digest_of_file(file) if contents else storage.size(file)
            lines.append(f"{below}\t{fact}")
    return [len(lines), digest("\n".join(sorted(lines)).encode())]


def list_data(pattern: str) -> tuple[list[str], list[str]]:
    """Paths that match a pattern: those of data, and hidden ones, sorted.

    Args:
        pattern: path, local or remote, with ``*`` and ``?``.

    Returns:
        The data, and what is hidden below the first part with a ``*``.
    """
    first = _first_star(pattern)
    shown: list[str] = []
    hidden: list[str] = []
    for path in sorted(storage.glob(pattern)):
        matched = path.split("/")[first:]
        (hidden if any(map(is_hidden, matched)) else shown).append(path)
    return shown, hidden


def _first_star(pattern: str) -> int:
    """The first part of a pattern that is not a plain name."""
    for number, part in enumerate(pattern.split("/")):
        if any(sign in part for sign in "*?["):
            return number
    return pattern.count("/")


def merged(all_notes: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Notes of several sources of one dataset together."""
    result: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS}
    for notes in all_notes:
        for kind, found in notes.items():
            known = result[kind]
            for name, value in found.items():
                if kind == "pictures" and name in known and not value[2]:
                    continue  # its size alone says less than what is known
                known[name] = value
    return result


def write(folder: str, notes: Mapping[str, Any]) -> None:
    """Keep notes beside the records."""
    data = gzip.compress(json.dumps(notes).encode(), mtime=0)
    storage.write_bytes(storage.join(folder, FILE), data)


def read(folder: str) -> dict[str, Any] | None:
    """The notes beside the records; None where an older version wrote none.

    Raises:
        RecordError: they cannot be read.
    """
    path = storage.join(folder, FILE)
    if not storage.exists(path):
        return None
    expected = "the notes of a conversion"
    with reading(path, expected, RecordError):
        data = gzip.decompress(storage.read_bytes(path))
        found = json_object(data, path, expected)
        return {kind: dict(found[kind]) for kind in _KINDS}
