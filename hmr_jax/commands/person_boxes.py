"""Files that say where persons are: boxes of a detector, 2D joints of a pose network.

Boxes: a list in COCO's layout for results, ``{"bbox": [x, y, w, h], "score": s,
"category_id": 1}`` with ``file_name`` or ``image_id``; or ``{file name: [[x, y, w, h],
...]}``, each with its score as a fifth number if there is one; or an ``.npz`` with
``names`` [N] and ``boxes`` [N, 4 or 5]. Joints: ``{file name: [[x, y, confidence] x 17]
or a list of such}``; or COCO's results with ``keypoints`` (51 numbers); or an ``.npz``
with ``names`` and ``joints2d`` [N, 17, 3]. Everything in pixels of the pictures.
"""

import json
import pathlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PERSON_CATEGORY = 1
NUM_JOINTS = 17

Table = dict[str, list[np.ndarray]]


def read_boxes(path: str) -> Table:
    """Read boxes of persons.

    Args:
        path: ``.json`` or ``.npz``, see the module.

    Returns:
        Picture's name (or number, as text) -> boxes [5]: left, top, width, height,
        score; 1 where the file has no scores. Numbers are not checked further.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another layout; the error names file and entry.
    """
    return _read(path, "boxes", "bbox", _box)


def read_joints2d(path: str) -> Table:
    """Read 2D joints of persons.

    Args:
        path: ``.json`` or ``.npz``, see the module.

    Returns:
        Picture's name (or number, as text) -> joints [17, 3]: x, y, confidence. What
        is ``null`` or not a number in the file is NaN.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another layout or number of joints; the error names file and entry.
    """
    return _read(path, "joints2d", "keypoints", _joints)


def entries_of(table: Mapping[str, list[np.ndarray]], name: str) -> list[np.ndarray]:
    """What a table has for a picture.

    Args:
        table: of ``read_boxes`` or ``read_joints2d``.
        name: path of the picture. Keys match by its whole, its file name, its stem, or
            the number that the stem is (COCO's ``image_id``).

    Returns:
        Entries; none where the picture is not mentioned.
    """
    for key in names_of(name):
        if key in table:
            return table[key]
    return []


def names_of(name: str) -> list[str]:
    """Keys under which a file may mention a picture, the most exact first."""
    path = pathlib.Path(name)
    keys = [str(name), path.name, path.stem]
    return keys + ([str(int(path.stem))] if path.stem.isdecimal() else [])


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
        box: left, top, width, height first, pixels.
        width: of the picture.
        height: of the picture.
    """
    if not np.isfinite(box[:4]).all():
        return "a number that is not finite"
    if box[2] <= 0 or box[3] <= 0:
        return f"a size of {box[2]:g} x {box[3]:g}"
    right, bottom = box[:2] + box[2:4]
    if right <= 0 or bottom <= 0 or box[0] >= width or box[1] >= height:
        return f"no place in the picture of {width} x {height}"
    return ""


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


def _read(path: str, array: str, field: str, parse: Any) -> Table:
    file = pathlib.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{array}: no such file: {file}")
    if file.suffix == ".npz":
        pairs = _npz_pairs(file, array)
    elif file.suffix == ".json":
        pairs = _json_pairs(file, field)
    else:
        raise ValueError(f"{file}: expected a .json or .npz file of {array}")
    table: Table = {}
    for name, entry, found in pairs:
        places = table.setdefault(name, [])
        if entry is not None:
            places += parse(entry, found)
    return table


def _npz_pairs(path: pathlib.Path, array: str) -> list[tuple[str, Any, str]]:
    arrays = _npz_arrays(path, ("names", array))
    names, rows = arrays["names"], arrays[array]
    if names.dtype.kind not in "SUiu":
        raise ValueError(
            f"{path}: names: expected text or whole numbers, found {names.dtype}"
        )
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8", "replace")
    if names.ndim != 1 or names.shape != rows.shape[:1]:
        raise ValueError(
            f"{path}: expected as many names as rows of {array}, found {names.shape} "
            f"and {rows.shape}"
        )
    found = [f"{path}: row {i} ({name})" for i, name in enumerate(names)]
    return [(str(n), r, f) for n, r, f in zip(names, rows, found, strict=True)]


def _npz_arrays(path: pathlib.Path, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    name = ""
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as file:
            if set(wanted) - set(file.files):
                raise ValueError(
                    f"expected the arrays {' and '.join(wanted)}, found "
                    f"{', '.join(sorted(file.files)) or 'none'}"
                )
            arrays = {}
            for name in wanted:
                arrays[name] = file[name]
            return arrays
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:  # NumPy's, for Python objects, says not where
        said = f"{name}: expected an array of text or numbers, found: " if name else ""
        raise ValueError(f"{path}: {said}{error}") from error


def _json_pairs(path: pathlib.Path, field: str) -> list[tuple[str, Any, str]]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON: {error}") from error
    if isinstance(content, dict):
        return [
            (name, rows if len(rows) else None, f"{path}: {name}")
            for name, rows in content.items()
            if _is_list(rows, f"{path}: {name}")
        ]
    if not isinstance(content, list):
        raise ValueError(
            f"{path}: expected a list or an object, found {type(content).__name__}"
        )
    return [
        pair
        for i, item in enumerate(content)
        if (pair := _coco_pair(item, field, f"{path}: entry {i}")) is not None
    ]


def _is_list(rows: Any, found: str) -> bool:
    if not isinstance(rows, list):
        raise ValueError(f"{found}: expected a list, found {type(rows).__name__}")
    return True


def _coco_pair(item: Any, field: str, found: str) -> tuple[str, Any, str] | None:
    """One of COCO's results; None for things that are no persons."""
    if not isinstance(item, dict) or field not in item:
        has = ", ".join(item) if isinstance(item, dict) else type(item).__name__
        raise ValueError(f"{found}: expected an object with {field!r}, found {has}")
    category = item.get("category_id", PERSON_CATEGORY)
    if not _is_number(category):
        raise ValueError(
            f"{found}: category_id: expected a number ({PERSON_CATEGORY} for persons), "
            f"found {category!r}"
        )
    if category != PERSON_CATEGORY:
        return None
    named = [item.get("file_name"), item.get("image_id")]
    name = next((given for given in named if given is not None), None)
    if not isinstance(name, str | int) or isinstance(name, bool):
        raise ValueError(
            f"{found}: expected file_name or image_id, text or a whole number, found "
            f"{name!r}"
        )
    row = item[field]
    if not isinstance(row, list):
        raise ValueError(
            f"{found}: {field}: expected a list of numbers, found {type(row).__name__}"
        )
    if field == "bbox":
        score = item.get("score", 1.0)
        if not _is_number(score):
            raise ValueError(f"{found}: score: expected a number, found {score!r}")
        row = [[*row, score]]
    return str(name), row, found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(entry: Any, found: str) -> np.ndarray:
    try:
        return np.asarray(entry, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{found}: expected numbers in rows of one length ({error})"
        ) from error


def _box(entry: Any, found: str) -> list[np.ndarray]:
    rows = _numbers(entry, found)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[1] not in (4, 5):
        raise ValueError(
            f"{found}: expected boxes [x, y, width, height] or with a score, found "
            f"shape {rows.shape}"
        )
    if rows.shape[1] == 4:
        rows = np.concatenate([rows, np.ones((len(rows), 1))], 1)
    return list(rows)


def _joints(entry: Any, found: str) -> list[np.ndarray]:
    rows = _numbers(entry, found)
    if rows.ndim == 1 and rows.size % 3 == 0:  # COCO's x, y, confidence in a row
        rows = rows.reshape(-1, 3)
    rows = rows[None] if rows.ndim == 2 else rows
    if rows.ndim != 3 or rows.shape[1:] != (NUM_JOINTS, 3):
        raise ValueError(
            f"{found}: expected {NUM_JOINTS} joints [x, y, confidence], found shape "
            f"{rows.shape[1:] if rows.ndim == 3 else rows.shape}"
        )
    return list(rows)
