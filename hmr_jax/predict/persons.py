"""The reading half of predict: pictures, and the persons in them."""

import dataclasses
import pathlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from hmr_jax.errors import UserError
from hmr_jax.files import is_hidden
from hmr_jax.pictures import SUFFIXES, read_picture
from hmr_jax.predict import boxes as person_boxes
from hmr_jax.predict import names as predict_names
from hmr_jax.predict.names import shown

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

    boxes: Mapping[str, list[np.ndarray]] | None = None
    joints: Mapping[str, list[np.ndarray]] | None = None
    threshold: float = 0.95
    visibility_threshold: float = 0.75
    nearest_centre: bool = False
    whole_if_none: bool = False
    cropped: bool = False


def list_pictures(given: Sequence[str]) -> list[pathlib.Path]:
    """The pictures that a command line names.

    Args:
        given: files and folders; of folders, files with a picture's suffix that are
            not hidden.

    Returns:
        Files, each once, in the order given, sorted within folders.

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
                if file.suffix.lower() in SUFFIXES
                and not is_hidden(file.name)
                and file.is_file()
            )
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"--images: no such file or folder: {path}")
    if not found:
        raise FileNotFoundError(
            f"--images: no pictures ({', '.join(SUFFIXES)}) in {', '.join(given)}"
        )
    unique: dict[str, pathlib.Path] = {}
    for path in found:
        unique.setdefault(predict_names.place_of(path), path)
    return list(unique.values())


def check_known(table: person_boxes.Table, what: str) -> None:
    """Say which entries of a file belong to no picture.

    Args:
        table: of ``person_boxes.Table.for_pictures``.
        what: the flag, for the message.

    Raises:
        UserError: there are entries, and none belongs to a picture.
    """
    unknown = table.assignment.unused if table.assignment else []
    if not unknown:
        return
    named = ", ".join(unknown[:_NAMED])
    if len(unknown) == len(table):
        raise UserError(
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
        UserError: boxes and joints of different numbers, or such as cannot be this
            picture's; or several entries that may be.
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
        joints, reason = _usable(
            choice.joints, path, person_boxes.joints_problem, (width, height)
        )
        if not joints:
            return f"no 2D joints: {reason}"
    if choice.cropped:
        return [(whole, points, "") for points in joints]
    if choice.boxes is None:
        if choice.joints is None:
            return [(whole, None, "")]
        threshold = choice.visibility_threshold
        return [_around(j, whole, threshold) for j in joints if j is not None]
    boxes, reason = _usable(
        choice.boxes, path, person_boxes.box_problem, (width, height)
    )
    if choice.joints is not None and boxes and len(boxes) != len(joints):
        raise UserError(
            f"{path}: expected as many boxes as persons with 2D joints, found "
            f"{len(boxes)} and {len(joints)}"
        )
    if choice.joints is None:
        joints = [None] * len(boxes)
    kept: list[_Candidate] = [
        (box, points, "")
        for box, points in zip(boxes, joints, strict=False)
        if box[4] > choice.threshold
    ]
    if kept:
        return kept
    if choice.whole_if_none and len(joints) <= 1:
        points = joints[0] if joints else None
        return [(whole, points, "no box: the whole picture")]
    if not boxes:
        return f"no box: {reason}"
    return f"none of {len(boxes)} boxes has a score above {choice.threshold:g}"


def _usable(
    table: Mapping[str, list[np.ndarray]],
    path: pathlib.Path,
    problem_of: Callable[[np.ndarray, int, int], str],
    size: tuple[int, int],
) -> tuple[list[np.ndarray], str]:
    """A picture's entries, or why there are none; none that cannot be its own."""
    found = person_boxes.find(table, str(path))
    for index, entry in enumerate(found.entries):
        if problem := problem_of(entry, *size):
            raise UserError(f"{path}: {found.where}: person {index}: {problem}")
    return found.entries, found.reason


def _around(joints: np.ndarray, whole: np.ndarray, threshold: float) -> _Candidate:
    """A person whose box comes from the joints."""
    import jax.numpy as jnp

    from hmr_jax.nn.pose2d import usable_joints

    rows = jnp.asarray(joints[None], jnp.float32)
    visible = np.asarray(usable_joints(rows[..., :2], rows[..., 2], threshold)[0])
    box = person_boxes.tight_box(joints, visible, JOINT_BOX_SCALE)
    if not np.isfinite(box).all():
        return whole, joints, "no two joints visible: the whole picture"
    return np.append(box, 1.0), joints, ""


def told(path: pathlib.Path) -> dict[str, str]:
    """What ``predictions.json`` says of which picture is meant."""
    return {"file": shown(path.name), "picture": shown(path)}


def walk(
    paths: Sequence[pathlib.Path],
    names: predict_names.Names,
    choice: Choice,
    skipped: list[dict],
    failed: list[dict],
) -> Iterator[tuple[np.ndarray, list[Person]]]:
    """Pictures and the persons in them, one picture in memory at a time.

    Args:
        paths: of the pictures.
        names: of ``predict_names.plan``.
        choice: how to choose persons.
        skipped: gets what pictures have no person, and why.
        failed: gets what pictures could not be read or named, or have boxes or joints
            that cannot be theirs, and why.

    Yields:
        uint8 picture and its persons; without persons, too, so that all can be counted.
    """
    for path in paths:
        try:
            if path in names.problems:
                raise UserError(f"{shown(path)}: {names.problems[path]}")
            picture = read_picture(path)
            height, width = picture.shape[:2]
            people, reason = persons_in(path, names.of[path], width, height, choice)
        except UserError as error:
            logging.error("%s", error)
            failed.append({**told(path), "reason": str(error)})
            yield np.zeros((1, 1, 3), np.uint8), []
            continue
        if not people:
            logging.warning("%s: skipped: %s", path, reason)
            skipped.append({**told(path), "reason": reason})
        crc = zlib.crc32(picture.tobytes(), height)
        yield picture, [dataclasses.replace(who, picture_crc=crc) for who in people]
