"""What the results of each picture are called, and which files predict may write over.

``pictures.json`` in the folder of results says which picture each NAME belongs to. It
is written before any result is: so a picture keeps its names whatever else is predicted
later, no two pictures ever share one, and a file that was there before is known to be
somebody else's.
"""

import json
import os
import pathlib
import re
import unicodedata
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from hmr_jax.errors import UserError
from hmr_jax.files import atomic_write
from hmr_jax.outside import reading

LEDGER, SUMMARY, OVERVIEW = "pictures.json", "predictions.json", "overview.png"
MAX_BYTES = 255 - len("._99999_samples.12345678.tmp.png")
"""Of a name, so that file systems take what is written, its temporary name too."""
_MAKER = "hmr-jax predict"
_RESULT = re.compile(
    r"(.*?)(_\d+(\.npz|\.png|\.obj|\.ply|\.glb|_samples\.png)|_overlay\.png)", re.DOTALL
)


class Names(NamedTuple):
    """Names of results.

    Attributes:
        of: picture -> name, unique whatever the case of its letters.
        problems: picture -> why it can have none.
        ledger: name -> picture, relative to the folder; of earlier runs, too.
    """

    of: dict[pathlib.Path, str]
    problems: dict[pathlib.Path, str]
    ledger: dict[str, str]


def shown(path: pathlib.Path | str) -> str:
    """A path as text that can be printed: what is not UTF-8 as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def plan(out: pathlib.Path, paths: Sequence[pathlib.Path]) -> Names:
    """Names for the results of pictures; nothing is written.

    Args:
        out: folder of results, which need not exist.
        paths: of the pictures, all different.

    Returns:
        The name that a picture had in an earlier run; else its stem; where that is
        taken, also its suffix, its folders, at last a checksum of its path. A name is
        taken by another picture, or by files in the folder that predict did not write.

    Raises:
        UserError: the folder holds a picture that is to be read, or ``SUMMARY``,
            ``OVERVIEW`` or ``LEDGER`` that predict did not write.
    """
    _check_folder(out, paths)
    ledger = _read_ledger(out)
    places = {path: _seen_from(out, path) for path in paths}
    known = {place: name for name, place in ledger.items()}
    problems = {path: said for path in paths if (said := _problem(path))}
    names = {p: known[places[p]] for p in paths if places[p] in known}
    new = [path for path in paths if path not in names and path not in problems]
    taken = {_folded(name) for name in ledger} | _foreign(out, ledger)
    found = _allocate(new, taken)
    for path in new:
        if path not in found:
            problems[path] = "no free name for its results: too long with its folder"
    names |= found
    ledger = ledger | {name: places[path] for path, name in found.items()}
    return Names({p: names[p] for p in paths if p in names}, problems, ledger)


def write_ledger(out: pathlib.Path, names: Names) -> None:
    """Note whose the names are, before any result is written.

    Args:
        out: folder of results.
        names: of ``plan``.
    """
    content = {"made_by": _MAKER, "pictures": dict(sorted(names.ledger.items()))}
    with atomic_write(out / LEDGER) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


def _check_folder(out: pathlib.Path, paths: Sequence[pathlib.Path]) -> None:
    folder = os.path.realpath(out)
    for path in paths:
        if os.path.realpath(path.parent) == folder:
            raise UserError(
                f"--out: expected another folder than that of the pictures, found "
                f"{out}, which holds {shown(path)}"
            )


def _read_ledger(out: pathlib.Path) -> dict[str, str]:
    path = out / LEDGER
    if not path.exists():
        for name in (SUMMARY, OVERVIEW):
            if (out / name).exists():
                raise UserError(
                    f"--out: {out / name} was not written by predict (there is no "
                    f"{LEDGER} beside it): give another folder"
                )
        return {}
    with reading(path, "JSON"):
        content = json.loads(path.read_bytes())
    pictures = content.get("pictures") if isinstance(content, dict) else None
    if not isinstance(pictures, dict) or content.get("made_by") != _MAKER:
        raise UserError(
            f"{path}: was not written by predict: give another folder as --out"
        )
    return {str(name): str(place) for name, place in pictures.items()}


def place_of(path: pathlib.Path) -> str:
    """The path of a picture in its real folder, however the folder is reached."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def _seen_from(out: pathlib.Path, path: pathlib.Path) -> str:
    """Where a picture is, seen from the folder: the same after both are moved."""
    return os.path.relpath(place_of(path), os.path.realpath(out))


def _problem(path: pathlib.Path) -> str:
    """Why a picture's results can have no name."""
    if shown(path.name) != path.name:
        return f"expected a name in UTF-8, found {shown(path.name)}"
    size = len(os.fsencode(path.stem))
    if size > MAX_BYTES:
        return (
            f"expected a name of at most {MAX_BYTES} bytes without its suffix, so "
            f"that its results can be named after it, found {size}"
        )
    return ""


def _folded(name: str) -> str:
    """Equal for names that some file systems take for the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _foreign(out: pathlib.Path, ledger: Mapping[str, str]) -> set[str]:
    """Names whose results would meet files that predict did not write."""
    if not out.is_dir():
        return set()
    found = (_RESULT.fullmatch(name) for name in os.listdir(out))
    return {_folded(m[1]) for m in found if m is not None and m[1] not in ledger}


def _usable(name: str) -> bool:
    return len(os.fsencode(name)) <= MAX_BYTES and shown(name) == name


def _options(path: pathlib.Path) -> Iterator[str]:
    """Names for a picture, from the shortest on."""
    yield path.stem
    name = path.name.replace(".", "_")
    yield name
    folders = pathlib.Path(place_of(path)).parts[1:-1]
    for first in reversed(range(len(folders))):
        yield "_".join([*folders[first:], name])
    yield f"{name}_{zlib.crc32(os.fsencode(place_of(path))):08x}"


def _allocate(
    paths: Sequence[pathlib.Path], taken: set[str]
) -> dict[pathlib.Path, str]:
    """The first name of each picture that is no other's; none where all are taken."""
    options = {path: [o for o in _options(path) if _usable(o)] for path in paths}
    while True:
        claims: dict[str, list[pathlib.Path]] = {}
        for path, names in options.items():
            if names:
                claims.setdefault(_folded(names[0]), []).append(path)
        clashing = [
            path
            for name, those in claims.items()
            if len(those) > 1 or name in taken
            for path in those
        ]
        if not clashing:
            return {path: names[0] for path, names in options.items() if names}
        for path in clashing:
            del options[path][0]
