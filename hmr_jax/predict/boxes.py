"""Files that say where persons are: boxes of a detector, 2D joints of a pose network.

Boxes: a list in COCO's layout for results, ``{"bbox": [x, y, w, h], "score": s,
"category_id": 1}`` with ``file_name`` or ``image_id``; or ``{file name: [[x, y, w, h],
...]}``, each with its score as a fifth number if there is one; or an ``.npz`` with
``names`` [N] and ``boxes`` [N, 4 or 5]. Joints: ``{file name: [[x, y, confidence] x 17]
or a list of such}``; or COCO's results with ``keypoints`` (51 numbers); or an ``.npz``
with ``names`` and ``joints2d`` [N, 17, 3]. Everything in pixels of the pictures.
"""

import collections
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hmr_jax.body.npz import read_npz
from hmr_jax.errors import UserError
from hmr_jax.outside import reading
from hmr_jax.pictures import names

PERSON_CATEGORY = 1
NUM_JOINTS = 17


class Table(dict[str, list[np.ndarray]]):
    """What a file says of pictures, by the names that it gives them.

    Attributes:
        file: that says it, for messages.
        others: name -> number of entries that are no persons but of other categories.
        assignment: which name means which picture, where all pictures are known.
    """

    def __init__(
        self,
        entries: Mapping[str, list[np.ndarray]] | None = None,
        file: str = "the file",
    ):
        """Start with entries.

        Args:
            entries: by name.
            file: that says it, for messages.
        """
        super().__init__(entries or {})
        self.file = file
        self.others: collections.Counter[str] = collections.Counter()
        self.assignment: names.Assignment | None = None

    def for_pictures(self, pictures: Iterable[str]) -> "Table":
        """The same, with every name given to the one picture that it means.

        Args:
            pictures: paths of all that are looked at.
        """
        table = Table(self, self.file)
        table.others = self.others
        table.assignment = names.assign(pictures, self)
        return table


def read_boxes(path: str) -> Table:
    """Read boxes of persons.

    Args:
        path: ``.json`` or ``.npz``, see the module.

    Returns:
        Picture's name (or number, as text) -> boxes [5]: left, top, width, height,
        score; 1 where the file has no scores. All finite, of some size.

    Raises:
        FileNotFoundError: no such file.
        UserError: another layout, a number that is not finite, a box of no size; the
            error names file and entry.
    """
    return _read(path, "boxes", "bbox", _box)


def read_joints2d(path: str) -> Table:
    """Read 2D joints of persons.

    Args:
        path: ``.json`` or ``.npz``, see the module.

    Returns:
        Picture's name (or number, as text) -> joints [17, 3]: x, y, confidence. What
        is ``null`` or not a number in the file is NaN; nothing is infinite.

    Raises:
        FileNotFoundError: no such file.
        UserError: another layout or number of joints, an infinite number; the error
            names file and entry.
    """
    return _read(path, "joints2d", "keypoints", _joints)


class Found(NamedTuple):
    """What a table has for a picture.

    Attributes:
        entries: boxes or joints.
        reason: why there are none; empty where there are.
        where: file and name in it, for messages; empty where it is not mentioned.
    """

    entries: list[np.ndarray]
    reason: str
    where: str


def find(table: Mapping[str, list[np.ndarray]], picture: str) -> Found:
    """What a table has for a picture.

    Args:
        table: of ``read_boxes`` or ``read_joints2d``; or the like.
        picture: its path; names match by ``pictures.names``.

    Returns:
        Entries, or why there are none.

    Raises:
        UserError: nothing tells which entries are meant.
    """
    table = table if isinstance(table, Table) else Table(table)
    given = table.assignment or names.assign([picture], table)
    if picture in given.problems:
        raise UserError(
            f"{picture}: expected one name for it in {table.file}, but "
            f"{given.problems[picture]}"
        )
    name = given.names.get(picture)
    if name is None:
        return Found([], f"{table.file} does not mention it", "")
    where = f"{table.file}: {name}"
    reason = "" if table[name] else f"{table.file} has no person for {name}"
    if reason and table.others[name]:
        reason = (
            f"{table.file} has {table.others[name]} entries for {name}, none of "
            f"category {PERSON_CATEGORY} (a person)"
        )
    return Found(table[name], reason, where)


def entries_of(table: Mapping[str, list[np.ndarray]], picture: str) -> list[np.ndarray]:
    """The entries of ``find`` alone."""
    return find(table, picture).entries


def tight_box(joints: np.ndarray, visible: np.ndarray, scale: float) -> np.ndarray:
    """A box around visible joints.

    Args:
        joints: [17, 2 or 3], x and y first, pixels.
        visible: [17].
        scale: of its sides about its centre; joints lie within the body.

    Returns:
        Left, top, width, height; NaN with fewer than two distinct places.
    """
    points = np.asarray(joints, np.float64)[np.asarray(visible, bool), :2]
    if len(points) < 2:
        return np.full(4, np.nan)
    low, high = points.min(0), points.max(0)
    if not (high - low).max() > 0:
        return np.full(4, np.nan)
    centre, size = 0.5 * (low + high), scale * (high - low)
    return np.concatenate([centre - 0.5 * size, size])


def box_problem(box: np.ndarray, width: int, height: int) -> str:
    """Why a box cannot be used; empty where it can.

    Args:
        box: left, top, width, height, score, pixels.
        width: of the picture.
        height: of the picture.
    """
    if not np.isfinite(box).all():
        return f"expected finite numbers, found {_said(box)}"
    if box[2] <= 0 or box[3] <= 0:
        return f"expected a size, found {box[2]:g} x {box[3]:g}"
    right, bottom = box[:2] + box[2:4]
    if right <= 0 or bottom <= 0 or box[0] >= width or box[1] >= height:
        return (
            f"expected a place in the picture of {width} x {height}, found {_said(box)}"
        )
    if _is_far(np.array([box[:2], [right, bottom]]), width, height).any():
        return (
            f"expected a box about as large as the picture of {width} x {height} at "
            f"most, found {_said(box)}"
        )
    return ""


def joints_problem(joints: np.ndarray, width: int, height: int) -> str:
    """Why joints cannot be used; empty where they can.

    Args:
        joints: [17, 3] x, y, confidence, pixels; NaN where one is missing.
        width: of the picture.
        height: of the picture.
    """
    if np.isinf(joints).any():
        return "expected finite numbers, found infinite ones"
    seen = np.isfinite(joints).all(1) & (np.nan_to_num(joints[:, 2]) > 0)
    far = seen & _is_far(joints[:, :2], width, height)
    if not far.any():
        return ""
    first = int(far.argmax())
    return (
        f"expected joints in the picture of {width} x {height} or near it, found joint "
        f"{first} at {_said(joints[first, :2])}"
    )


def _is_far(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Whether points [N, 2] lie further outside than the picture's longer side."""
    size = np.array([width, height])
    middle, reach = 0.5 * size, 0.5 * size + size.max()
    return (np.abs(points - middle) > reach).any(-1)


def _said(numbers: np.ndarray) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def nearest_centre(boxes: Sequence[np.ndarray], width: int, height: int) -> int:
    """The box whose centre is nearest the picture's.

    Args:
        boxes: left, top, width, height first.
        width: of the picture.
        height: of the picture.

    Returns:
        Its index.

    Source: specs/hierprob.md section 15.
    """
    table = np.stack([np.asarray(box, np.float64)[:4] for box in boxes])
    offset = table[:, :2] + 0.5 * table[:, 2:] - 0.5 * np.array([width, height])
    return int((offset**2).sum(1).argmin())


class _Entry(NamedTuple):
    """One entry of a file.

    Attributes:
        name: of its picture.
        value: what is to be parsed; None where there is nothing.
        found: names file and entry.
        other: is something else than a person.
    """

    name: str
    value: Any
    found: str
    other: bool = False


def _read(path: str, array: str, field: str, parse: Any) -> Table:
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{array}: no such file: {file}")
    entries = {".npz": _npz_entries, ".json": _json_entries}.get(file.suffix)
    if entries is None:
        raise UserError(f"{file}: expected a .json or .npz file of {array}")
    table = Table(file=str(file))
    with reading(file, f"{array} in a {file.suffix} file"):
        for entry in entries(file, array, field):
            name = names.canonical(entry.name)
            places = table.setdefault(name, [])
            table.others[name] += entry.other
            if entry.value is not None:
                places += parse(entry.value, entry.found)
    return table


def _npz_entries(path: pathlib.Path, array: str, field: str) -> Iterator[_Entry]:
    del field
    arrays = read_npz(path)
    if not {"names", array} <= arrays.keys():
        raise UserError(
            f"{path}: expected the arrays names and {array}, found "
            f"{', '.join(sorted(arrays)) or 'none'}"
        )
    for name in ("names", array):
        if not isinstance(arrays[name], np.ndarray):
            raise UserError(
                f"{path}: {name}: expected an array of text or numbers, found "
                f"{arrays[name]!r:.200}"
            )
    texts, rows = arrays["names"], arrays[array]
    if rows.dtype.kind not in "fiu":
        raise UserError(f"{path}: {array}: expected numbers, found {rows.dtype}")
    if texts.ndim != 1 or texts.shape != rows.shape[:1]:
        raise UserError(
            f"{path}: expected as many names as rows of {array}, found {texts.shape} "
            f"and {rows.shape}"
        )
    for i, (text, row) in enumerate(zip(texts.tolist(), rows, strict=True)):
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        if not isinstance(text, str | int) or isinstance(text, bool):
            raise UserError(
                f"{path}: names: expected text or whole numbers, found {text!r:.200} "
                f"in row {i}"
            )
        yield _Entry(str(text), row, f"{path}: row {i} ({text})")


def _json_entries(path: pathlib.Path, array: str, field: str) -> Iterator[_Entry]:
    # Bytes: a byte order mark and UTF-16 are understood.
    content = json.loads(path.read_bytes())
    if isinstance(content, dict):
        for name, rows in content.items():
            if not isinstance(rows, list):
                raise UserError(
                    f"{path}: {name}: expected a list, found {type(rows).__name__}"
                )
            yield _Entry(name, rows or None, f"{path}: {name}")
    elif isinstance(content, list):
        for i, item in enumerate(content):
            yield _coco_entry(item, field, f"{path}: entry {i}")
    else:
        raise UserError(
            f"{path}: expected a list or an object of {array}, found "
            f"{type(content).__name__}"
        )


def _coco_entry(item: Any, field: str, found: str) -> _Entry:
    """One of COCO's results."""
    if not isinstance(item, dict) or field not in item:
        has = ", ".join(item) if isinstance(item, dict) else type(item).__name__
        raise UserError(f"{found}: expected an object with {field!r}, found {has:.200}")
    category = item.get("category_id", PERSON_CATEGORY)
    if not _is_number(category):
        raise UserError(
            f"{found}: category_id: expected a number ({PERSON_CATEGORY} for persons), "
            f"found {category!r:.200}"
        )
    named = [item.get("file_name"), item.get("image_id")]
    name = next((given for given in named if given is not None), None)
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise UserError(
            f"{found}: expected file_name or image_id, text or a whole number, found "
            f"{name!r:.200}"
        )
    if category != PERSON_CATEGORY:
        return _Entry(str(name), None, found, other=True)
    row = item[field]
    if not isinstance(row, list):
        raise UserError(
            f"{found}: {field}: expected a list of numbers, found {type(row).__name__}"
        )
    if field == "bbox":
        score = item.get("score", 1.0)
        if not _is_number(score):
            raise UserError(f"{found}: score: expected a number, found {score!r:.200}")
        row = [[*row, score]]
    return _Entry(str(name), row, found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(entry: Any, found: str) -> np.ndarray:
    try:
        return np.asarray(entry, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{found}: expected numbers in rows of one length ({error})"
        ) from error


def _box(entry: Any, found: str) -> list[np.ndarray]:
    rows = _numbers(entry, found)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] not in (4, 5):
        raise UserError(
            f"{found}: expected boxes [x, y, width, height] or with a score, found "
            f"shape {rows.shape}"
        )
    if rows.shape[1] == 4:
        rows = np.concatenate([rows, np.ones((len(rows), 1))], 1)
    if not np.isfinite(rows).all():
        bad = rows[~np.isfinite(rows).all(1)][0]
        raise UserError(f"{found}: expected finite numbers, found {_said(bad)}")
    if (rows[:, 2:4] <= 0).any():
        bad = rows[(rows[:, 2:4] <= 0).any(1)][0]
        raise UserError(
            f"{found}: expected a width and a height above 0, found {_said(bad[:4])}"
        )
    return list(rows)


def _joints(entry: Any, found: str) -> list[np.ndarray]:
    rows = _numbers(entry, found)
    if rows.ndim == 1 and rows.size % 3 == 0:  # COCO's x, y, confidence in a row
        rows = rows.reshape(-1, 3)
    rows = rows[None] if rows.ndim == 2 else rows
    if rows.ndim != 3 or rows.shape[1:] != (NUM_JOINTS, 3):
        raise UserError(
            f"{found}: expected {NUM_JOINTS} joints [x, y, confidence], found shape "
            f"{rows.shape[1:] if rows.ndim == 3 else rows.shape}"
        )
    if np.isinf(rows).any():
        raise UserError(f"{found}: expected finite numbers, found infinite ones")
    return list(rows)
