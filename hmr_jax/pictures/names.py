"""The one rule by which files of boxes, joints and labels mean a picture by its name.

Files are written on other machines, by other programs. So for names, here:

- ``\\`` separates folders as ``/`` does; ``./`` and a byte order mark say nothing; an
  accent is the same letter composed or decomposed (macOS stores the latter).
- Of the folders, as many count as both names have, from the file's name on: where
  ``a.jpg`` is mentioned once, it may stand in any folder.
- A name without suffix (``a``) means the picture of that stem.
- A whole number (COCO's ``image_id``) means the picture whose stem is that number, or
  is it with COCO's prefix of the year; and COCO's names with and without that prefix
  (``COCO_val2014_000000000139.jpg``, ``000000000139.jpg``) are the same name.

Of several rules the first that finds a name decides.
"""

import collections
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

_COCO = re.compile(r"COCO_[a-z]+\d{4}_(\d{12})|(\d{12})")


def canonical(name: str) -> str:
    """A name as it is compared: composed, with ``/``, without ``./``.

    Args:
        name: of a picture, with any folders.

    Returns:
        The name; the same for all spellings of one place.
    """
    text = unicodedata.normalize("NFC", name.removeprefix("\ufeff")).replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    return "/" * text.startswith("/") + "/".join(parts)


def _split(name: str) -> tuple[str, str]:
    """A name without its suffix, and the suffix in lower case."""
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    if not stem:
        return name, ""
    return folder + slash + stem, (dot + suffix).lower()


def _number(stem: str) -> int | None:
    """The number that a file name without suffix is, COCO's prefix left out."""
    last = stem.rpartition("/")[2]
    if found := _COCO.fullmatch(last):
        return int(found[1] or found[2])
    is_number = last.isascii() and last.isdecimal() and len(last) <= 18
    return int(last) if is_number else None


def _tails(name: str) -> list[str]:
    """The name, and what is left of it without its first folders, longest first."""
    parts = name.lstrip("/").split("/")
    return [name] + [
        "/".join(parts[i:]) for i in range(0 if name[:1] == "/" else 1, len(parts))
    ]


class Match(NamedTuple):
    """Which names a picture may be meant by.

    Attributes:
        rank: smaller is more certain; the same for equally good names.
        names: as they were given; several where nothing tells them apart.
    """

    rank: tuple[int, ...]
    names: list[str]


class NameIndex:
    """Names of pictures in a file, and which of them mean a given picture."""

    def __init__(self, names: Iterable[str]):
        """Sort the names in.

        Args:
            names: as the file has them.
        """
        self._same: dict[str, list[str]] = collections.defaultdict(list)
        self._tails: dict[str, list[str]] = collections.defaultdict(list)
        self._numbers: dict[tuple[int, str], list[str]] = collections.defaultdict(list)
        for name in names:
            plain = canonical(name)
            self._same[plain].append(name)
            for tail in _tails(plain):
                self._tails[tail].append(name)
            stem, suffix = _split(plain)
            number = _number(stem)
            if number is not None and (not suffix or _is_coco(stem)):
                self._numbers[number, suffix].append(name)

    def find(self, picture: str) -> Match | None:
        """The names that mean a picture.

        Args:
            picture: its path.

        Returns:
            By the first rule that finds any; None where the picture is not mentioned.
        """
        plain = canonical(picture)
        stem, suffix = _split(plain)
        number = _number(stem)
        found = self._by_folders(plain, 0)
        if found is None and suffix:
            found = self._by_folders(stem, 1)
        if found is None and number is not None:
            ids = self._numbers.get((number, ""), [])
            if suffix and _is_coco(stem):
                ids = ids + self._numbers.get((number, suffix), [])
            found = Match((2,), ids) if ids else None
        return found

    def _by_folders(self, name: str, rank: int) -> Match | None:
        """The names that share the most folders with a name, from its end on."""
        for tail in _tails(name):
            shared = -1 - tail.count("/")
            if tail in self._same:  # all of a name in the file
                return Match((rank, shared, 0), self._same[tail])
            if tail in self._tails:
                return Match((rank, shared, 1), self._tails[tail])
        return None


def _is_coco(stem: str) -> bool:
    return _COCO.fullmatch(stem.rpartition("/")[2]) is not None


class Assignment(NamedTuple):
    """Which name of a file means which of some pictures.

    Attributes:
        names: picture -> the name that means it.
        problems: picture -> why no name does, though there are some; in words.
        unused: names that mean none of the pictures.
    """

    names: dict[str, str]
    problems: dict[str, str]
    unused: list[str]


def assign(pictures: Iterable[str], names: Iterable[str]) -> Assignment:
    """Give every picture the name that means it, and every name one picture at most.

    Args:
        pictures: paths, all different.
        names: as a file has them.

    Returns:
        Which name means which picture. A name that means two pictures equally well, or
        a picture that two names mean, is a problem of the picture; a name that means
        one of two pictures better is not the other's.
    """
    names = list(dict.fromkeys(names))
    index = NameIndex(names)
    found = [(picture, index.find(picture)) for picture in pictures]
    matches = {picture: match for picture, match in found if match is not None}
    problems: dict[str, str] = {}
    claims: dict[str, list[str]] = collections.defaultdict(list)
    unclear: dict[int, list[str]] = {}  # one list may be that of many pictures
    for picture, match in matches.items():
        if len(match.names) == 1:
            claims[match.names[0]].append(picture)
        else:
            problems[picture] = f"several names fit it: {_list(match.names)}"
            unclear[id(match.names)] = match.names
    given: dict[str, str] = {}
    for name, claimants in claims.items():
        best = min(matches[picture].rank for picture in claimants)
        first = [picture for picture in claimants if matches[picture].rank == best]
        if len(first) == 1:
            given[first[0]] = name
        else:
            said = f"{name!r} fits several pictures: {_list(first)}"
            problems |= dict.fromkeys(first, said)
    used = set(claims).union(*unclear.values())
    return Assignment(given, problems, [name for name in names if name not in used])


def _list(names: list[str], limit: int = 4) -> str:
    shown = ", ".join(names[:limit])
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
