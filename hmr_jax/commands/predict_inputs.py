"""The reading half of predict: pictures, and the persons in them."""

import dataclasses
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from absl import logging
from PIL import Image, ImageOps

from hmr_jax.commands import person_boxes
from hmr_jax.commands.person_boxes import Table

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for damaged files."""
JOINT_BOX_SCALE = 1.2
"""From the box of the joints to that of the body around them."""
_NAMED = 5


@dataclasses.dataclass(frozen=True)
class Person:
    """One person to look at.

    Attributes:
        path: of the picture.
        name: of the results, unique.
        index: among the picture's persons.
        box_xywh_px: left, top, width, height in the picture.
        score: of the detector; 1 where there is none.
        joints: [17, 3] x, y, confidence in the picture; None where a network is to
            find them.
        note: what is unusual about it.
        picture_crc: checksum of the picture's pixels.
    """

    path: pathlib.Path
    name: str
    index: int
    box_xywh_px: np.ndarray
    score: float
    joints: np.ndarray | None
    note: str = ""
    picture_crc: int = 0


@dataclasses.dataclass(frozen=True)
class Choice:
    """How persons are chosen.

    Attributes:
        boxes: of ``person_boxes.read_boxes``; None where no file is given.
        joints: of ``person_boxes.read_joints2d``; None where no file is given.
        threshold: a box must have a larger score.
        visibility_threshold: of joints that make up a box.
        nearest_centre: only the person nearest the picture's centre.
        whole_if_none: a picture without a box counts as one person.
        cropped: every person's box is the whole picture.
    """

    boxes: Table | None = None
    joints: Table | None = None
    threshold: float = 0.95
    visibility_threshold: float = 0.75
    nearest_centre: bool = False
    whole_if_none: bool = False
    cropped: bool = False


def list_pictures(given: Sequence[str]) -> list[pathlib.Path]:
    """The pictures that a command line names.

    Args:
        given: files and folders; of folders, files with a picture's suffix.

    Returns:
        Files, in the order given, sorted within folders.

    Raises:
        FileNotFoundError: one does not exist, or there is no picture at all.
    """
    found: list[pathlib.Path] = []
    for word in given:
        path = pathlib.Path(word)
        if path.is_dir():
            found += sorted(
                file
                for file in path.iterdir()
                if file.suffix.lower() in SUFFIXES and file.is_file()
            )
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"--images: no such file or folder: {path}")
    if not found:
        raise FileNotFoundError(
            f"--images: no pictures ({', '.join(SUFFIXES)}) in {', '.join(given)}"
        )
    return list(dict.fromkeys(found))


def result_names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
    """Names for the results of pictures.

    Args:
        paths: of the pictures.

    Returns:
        The stem; with its suffix where two pictures share the stem.

    Raises:
        ValueError: two pictures of the same name, in two folders.
    """
    seen: dict[str, pathlib.Path] = {}
    for path in paths:
        if path.name in seen:
            raise ValueError(
                "--images: expected different file names, found "
                f"{seen[path.name]} and {path}"
            )
        seen[path.name] = path
    stems = [path.stem for path in paths]
    return {
        path: path.stem if stems.count(path.stem) == 1 else path.name.replace(".", "_")
        for path in paths
    }


def read_picture(path: pathlib.Path) -> np.ndarray:
    """A picture's pixels, turned upright as its camera noted.

    Args:
        path: the file.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: it cannot be read whole; the error names it.
    """
    try:
        with Image.open(path) as picture:
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except UNREADABLE as error:
        raise ValueError(f"{path}: not a whole picture: {error}") from error


def warn_of_unknown(table: Table, paths: Iterable[pathlib.Path], what: str) -> None:
    """Say which entries of a file belong to no picture.

    Args:
        table: of ``person_boxes``.
        paths: of all pictures.
        what: the flag, for the message.

    Raises:
        ValueError: there are entries, and none belongs to a picture.
    """
    known = {key for path in paths for key in person_boxes.names_of(str(path))}
    unknown = [name for name in table if name not in known]
    if not unknown:
        return
    named = ", ".join(unknown[:_NAMED])
    if len(unknown) == len(table):
        raise ValueError(
            f"{what}: none of its {len(table)} entries belongs to a picture ({named})"
        )
    logging.warning(
        "%s: %d of %d entries belong to no picture: %s",
        what,
        len(unknown),
        len(table),
        named,
    )


def persons_in(
    path: pathlib.Path, name: str, width: int, height: int, choice: Choice
) -> tuple[list[Person], str]:
    """The persons of one picture.

    Args:
        path: of the picture.
        name: of its results.
        width: pixels.
        height: pixels.
        choice: how to choose.

    Returns:
        Persons, and where there are none the reason.

    Raises:
        ValueError: boxes and joints of different numbers.
    """
    found = _candidates(path, width, height, choice)
    if isinstance(found, str):
        return [], found
    if choice.nearest_centre and len(found) > 1:
        centre = person_boxes.nearest_centre([f[0] for f in found], width, height)
        found = [found[centre]]
    return [
        Person(path, name, index, box[:4], float(box[4]), joints, note)
        for index, (box, joints, note) in enumerate(found)
    ], ""


_Candidate = tuple[np.ndarray, np.ndarray | None, str]


def _candidates(
    path: pathlib.Path, width: int, height: int, choice: Choice
) -> list[_Candidate] | str:
    """(box with score, joints, note) of each person, or why there is none."""
    whole = np.array([0.0, 0.0, width, height, 1.0])
    joints: Sequence[np.ndarray | None] = [None]
    if choice.joints is not None:
        joints = person_boxes.entries_of(choice.joints, str(path))
        if not joints:
            return "no 2D joints in the file"
    if choice.cropped:
        return [(whole, points, "") for points in joints]
    if choice.boxes is None:
        if choice.joints is None:
            return [(whole, None, "")]
        threshold = choice.visibility_threshold
        return [_around(j, whole, threshold) for j in joints if j is not None]
    boxes = person_boxes.entries_of(choice.boxes, str(path))
    if choice.joints is not None and boxes and len(boxes) != len(joints):
        raise ValueError(
            f"{path}: expected as many boxes as persons with 2D joints, found "
            f"{len(boxes)} and {len(joints)}"
        )
    if choice.joints is None:
        joints = [None] * len(boxes)
    kept: list[_Candidate] = []
    for box, points in zip(boxes, joints, strict=False):
        problem = person_boxes.box_problem(box, width, height)
        if problem:
            logging.warning("%s: left out a box with %s", path, problem)
        elif box[4] > choice.threshold:
            kept.append((box, points, ""))
    if kept:
        return kept
    if choice.whole_if_none and len(joints) <= 1:
        points = joints[0] if joints else None
        return [(whole, points, "no box: the whole picture")]
    return f"none of {len(boxes)} boxes with a score above {choice.threshold:g}"


def _around(joints: np.ndarray, whole: np.ndarray, threshold: float) -> _Candidate:
    """A person whose box comes from the joints."""
    import jax.numpy as jnp

    from hmr_jax.models.hierprob.predicting import usable_joints

    rows = jnp.asarray(joints[None], jnp.float32)
    visible = np.asarray(usable_joints(rows[..., :2], rows[..., 2], threshold)[0])
    box = person_boxes.tight_box(joints, visible, JOINT_BOX_SCALE)
    if not np.isfinite(box).all():
        return whole, joints, "no two joints visible: the whole picture"
    return np.append(box, 1.0), joints, ""


def walk(
    paths: Sequence[pathlib.Path],
    names: Mapping[pathlib.Path, str],
    choice: Choice,
    skipped: list[dict],
    failed: list[dict],
) -> Iterator[tuple[np.ndarray, list[Person]]]:
    """Pictures and the persons in them, one picture in memory at a time.

    Args:
        paths: of the pictures.
        names: of ``result_names``.
        choice: how to choose persons.
        skipped: gets what pictures have no person, and why.
        failed: gets what pictures could not be read, or have other numbers of boxes
            and joints, and why.

    Yields:
        uint8 picture and its persons; without persons, too, so that all can be counted.
    """
    for path in paths:
        try:
            picture = read_picture(path)
            height, width = picture.shape[:2]
            people, reason = persons_in(path, names[path], width, height, choice)
        except ValueError as error:
            logging.error("%s", error)
            failed.append({"file": path.name, "reason": str(error)})
            yield np.zeros((1, 1, 3), np.uint8), []
            continue
        if not people:
            logging.warning("%s: skipped: %s", path, reason)
            skipped.append({"file": path.name, "reason": reason})
        crc = zlib.crc32(picture.tobytes(), height)
        yield picture, [dataclasses.replace(who, picture_crc=crc) for who in people]
