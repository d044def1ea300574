"""Datasets whose annotations fit in memory: a list of entries per split.

Also what the datasets of COCO's layout share: parallel lists of images and
annotations, detectors' boxes for testing, and the flags of a record.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.builders import rigid
from data_pipelines.builders.raw import RawSource, gender_of, join
from data_pipelines.builders.source import Key
from data_pipelines.schema import Record
from hmr_jax.body.joint_sets import JOINT_SETS, get_joint_set
from hmr_jax.errors import UserError
from hmr_jax.pictures.names import canonical


@dataclasses.dataclass(frozen=True)
class Entry:
    """One record to be.

    Attributes:
        key: unique in its split; becomes the record's ``sample_id``.
        data: whatever ``record`` needs.
    """

    key: str
    data: Any


class IndexedSource(RawSource):
    """A dataset that lists its records from annotations held in memory.

    A subclass gives ``splits``, ``entries`` and ``record``.

    Args:
        raw: folder, local or remote, with the files of ``needs``.
    """

    def __init__(self, raw: str):
        super().__init__(raw)
        self._entries: dict[str, dict[Key, Any]] = {}

    def entries(self, split: str) -> Iterable[Entry]:
        """The records to be of a split in order; counts what it leaves out."""
        raise NotImplementedError(f"{type(self).__name__} defines no entries")

    def record(self, split: str, key: str, data: Any) -> Record:
        """The record of an entry, without ``sample_id`` and the flags of its fields."""
        raise NotImplementedError(f"{type(self).__name__} defines no record")

    def _index(self, split: str) -> dict[Key, Any]:
        if split not in self.splits():
            raise UserError(
                f"{self.name}: split: expected one of {', '.join(self.splits())}, "
                f"got {split!r}"
            )
        if split not in self._entries:
            index: dict[Key, Any] = {}
            for entry in self.entries(split):
                if entry.key in index:
                    place = f"split {split}"
                    raise self.wrong(place, "names that are unique", entry.key)
                index[entry.key] = entry.data
            self._entries[split] = index
        return self._entries[split]

    def keys(self, split: str) -> Sequence[Key]:
        """Names of the records in the order of the annotations."""
        return list(self._index(split))

    def example(self, split: str, key: Key) -> Record:
        """One record."""
        record = self.record(split, str(key), self._index(split)[key])
        return with_flags({"sample_id": str(key), **record})


def same_size(
    source: RawSource, record: Record, image: Mapping[str, Any], where: str
) -> Record:
    """The fields of a picture that is as large as its annotation says.

    Args:
        source: names the dataset in the error.
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
        raise source.wrong(where, wanted, "{} x {}".format(*found))
    return record


def sized_image(
    source: RawSource, folder: str, name: str, image: Mapping[str, Any]
) -> Record:
    """The fields of a picture that an annotation names, with its size.

    Args:
        source: reads it.
        folder: in which the name begins.
        name: of the picture.
        image: the annotation's ``width`` and ``height``.

    Raises:
        UnreadableImageError: it is missing or no picture.
        RecordError: another size.
    """
    size = (image["width"], image["height"])
    record = source.read_named(folder, name, size)
    return same_size(source, record, image, join(folder, name))


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


def folder_of(source: RawSource, *choices: str) -> str:
    """The first of several folders below the raw folder that is there.

    Raises:
        RecordError: none is.
    """
    for choice in choices:
        if source.exists(source.path(choice)):
            return source.path(choice)
    raise source.wrong(source.raw, f"a folder {' or '.join(choices)}", "none")


def coco_lists(
    source: RawSource,
    split: str,
    path: str,
    image_keys: Sequence[str],
    ids: Sequence[str],
    labels: Sequence[str],
) -> tuple[dict[Any, dict], list[dict]]:
    """Images by id and annotations of a file in COCO's layout.

    Args:
        source: reads it.
        split: among whose dropped things annotations without labels count.
        path: of the JSON file.
        image_keys: that every image must have beside ``id``.
        ids: that every annotation must have beside ``image_id``.
        labels: that an annotation must have to be kept; ``None`` and what is empty is
            none.

    Returns:
        The images, their ``file_name`` with ``/`` between folders; and the annotations
        in order, each with its ``position`` in the file.

    Raises:
        RecordError: a list, a key, or the image of an annotation is missing, or no
            annotation has the labels.
    """
    content = source.read_json(path)
    source.require(path, content, ("images", "annotations"))
    for name in ("images", "annotations"):
        if not isinstance(content[name], list):
            raise source.wrong(path, f"a list {name!r}", type(content[name]).__name__)
    for number, image in enumerate(content["images"]):
        _check_image(source, f"{path}: images[{number}]", image, ("id", *image_keys))
    images = {image["id"]: image for image in content["images"]}
    if len(images) != len(content["images"]):
        repeated = len(content["images"]) - len(images)
        raise source.wrong(path, "image ids that are unique", f"{repeated} repeated")
    kept = []
    for number, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotations[{number}]"
        source.require(where, annotation, ("image_id", *ids))
        if annotation["image_id"] not in images:
            raise source.wrong(where, "image_id of an image", annotation["image_id"])
        if _is_labelled(source, split, where, annotation, labels):
            kept.append(packed(annotation) | {"position": number})
        content["annotations"][number] = None  # its outlines need not be held on
    _check_any_kept(source, path, labels, len(kept), len(content["annotations"]))
    return images, kept


def _check_image(
    source: RawSource, where: str, image: Any, keys: Sequence[str]
) -> None:
    """Check an image's keys, and spell its name with ``/``."""
    source.require(where, image, keys)
    if "file_name" in image:
        if not isinstance(image["file_name"], str):
            raise source.wrong(f"{where}: file_name", "a name", image["file_name"])
        image["file_name"] = canonical(image["file_name"])


def _is_labelled(
    source: RawSource, split: str, where: str, annotation: dict, labels: Sequence[str]
) -> bool:
    """Whether an annotation has all labels; counts it where it has not."""
    for name in labels:
        if not _is_given(annotation.get(name)):
            source.drop(split, f"annotation without {name}")
            return False
    _check_box(source, where, annotation)
    return True


def _is_given(label: Any) -> bool:
    return label is not None and (not hasattr(label, "__len__") or len(label) > 0)


def _check_any_kept(
    source: RawSource, path: str, labels: Sequence[str], kept: int, number: int
) -> None:
    """Refuse a file of other annotations than the wanted ones."""
    if number and not kept:
        wanted = f"annotations with {', '.join(map(repr, labels))}"
        raise source.wrong(path, wanted, f"{number} without one of them")


def packed(annotation: dict) -> dict:
    """The annotation with long lists of numbers as arrays, a tenth of their size.

    Outlines are left out: no record holds them, and they are most of COCO's file.
    """
    result: dict[str, Any] = {}
    for key, value in annotation.items():
        if isinstance(value, dict):
            result[key] = packed(value)
        elif isinstance(value, list) and _is_regular(value) and np.size(value) > 8:
            result[key] = np.asarray(value, np.float32)
        elif key != "segmentation":
            result[key] = value
    return result


def _check_box(source: RawSource, where: str, annotation: dict) -> None:
    box = annotation.get("bbox", (0, 0, 0, 0))
    good = isinstance(box, list | tuple) and len(box) == 4
    if not good or not all(isinstance(n, int | float) for n in box):
        raise source.wrong(f"{where}: bbox", "four numbers", box)


def paired_lists(
    source: RawSource,
    split: str,
    path: str,
    image_keys: Sequence[str],
    labels: Sequence[str],
) -> list[tuple[dict, dict]]:
    """Images and annotations of a HybrIK file: lists that go side by side.

    Args:
        source: reads it.
        split: among whose dropped things annotations without labels count.
        path: of the JSON file.
        image_keys: that every image must have.
        labels: as in ``coco_lists``.

    Returns:
        (image, annotation) pairs.

    Raises:
        RecordError: lists of unequal length, a missing key, or ids that disagree.
    """
    content = source.read_json(path)
    source.require(path, content, ("images", "annotations"))
    images, annotations = content["images"], content["annotations"]
    if len(images) != len(annotations):
        raise source.wrong(
            path, "as many images as annotations", f"{len(images)}, {len(annotations)}"
        )
    kept = []
    for number, (image, annotation) in enumerate(zip(images, annotations, strict=True)):
        where = f"{path}: record {number}"
        _check_image(source, f"{where}: image", image, image_keys)
        source.require(f"{where}: annotation", annotation, ())
        ids = image.get("id"), annotation.get("image_id")
        if None not in ids and ids[0] != ids[1]:
            raise source.wrong(where, f"image_id {ids[0]}", ids[1])
        if _is_labelled(source, split, where, annotation, labels):
            kept.append((image, packed(annotation)))
    _check_any_kept(source, path, labels, len(kept), len(annotations))
    return kept


def detections(source: RawSource, path: str, key: str, unit_m: float) -> list[dict]:
    """Boxes and root depths that a detector made for testing (RootNet's files).

    Args:
        source: reads it.
        path: of the JSON file: a list of ``bbox``, ``root_cam`` and an id.
        key: name of the id.
        unit_m: metres per unit of ``root_cam``.

    Returns:
        Records of ``key``, ``box`` [4] (the square crop, pixels) and ``depth_m``.

    Raises:
        RecordError: a key is missing.
    """
    found = []
    for number, item in enumerate(source.read_json(path)):
        where = f"{path}: record {number}"
        source.require(where, item, (key, "bbox", "root_cam"))
        box = numbers(source, f"{where}: bbox", item["bbox"], (4,))
        root = numbers(source, f"{where}: root_cam", item["root_cam"], (3,))
        found.append({key: item[key], "box": box, "depth_m": root[2] * unit_m})
    return found


def detected_fields(detection: Mapping[str, Any]) -> Record:
    """A detection as the fields of a record."""
    return {
        "bbox_xywh_px": detection["box"],
        "box_is_crop": 1,
        "root_depth_m": detection["depth_m"],
    }


def numbers(
    source: RawSource, where: str, value: Any, shape: tuple[int, ...]
) -> np.ndarray:
    """A list of the JSON as an array.

    Args:
        source: names the dataset in the error.
        where: file and field.
        value: nested lists; a flat one of the same size also counts.
        shape: expected.

    Returns:
        float64.

    Raises:
        RecordError: another size, or no numbers.
    """
    try:
        array = np.asarray(value, np.float64)
        return array.reshape(shape)
    except (TypeError, ValueError) as error:
        found = f"shape {list(np.shape(value))}" if _is_regular(value) else str(error)
        expected = f"numbers of shape {list(shape)}"
        raise source.wrong(where, expected, found) from error


def _is_regular(value: Any) -> bool:
    """Whether nested lists of numbers have one length at each depth."""
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except ValueError:
        return False


def usable_box(source: RawSource, split: str, annotation: dict, image: dict) -> bool:
    """Whether I2L-MeshNet keeps a published box; counts those it leaves out."""
    box = annotation["bbox"]
    if rigid.valid_box(box, image["width"], image["height"]) is None:
        source.drop(split, "box outside the image or empty")
        return False
    if min(box[2:]) <= 0:
        source.drop(split, "box of negative width and height")
        return False
    return True


def smpl_fields(source: RawSource, where: str, fit: Mapping[str, Any]) -> Record:
    """Published ``pose``, ``shape`` and ``trans`` (metres, camera) as fields.

    Args:
        source: names the dataset in errors; its spec gives the number of rotations.
        where: file and entry.
        fit: the published parameters.
    """
    source.require(where, fit, ("pose", "shape", "trans"))
    joints = source.spec.num_pose_joints
    return {
        "pose_aa": numbers(source, f"{where}: pose", fit["pose"], (joints, 3)),
        "betas": numbers(source, f"{where}: shape", fit["shape"], (10,)),
        "translation_m": numbers(source, f"{where}: trans", fit["trans"], (3,)),
        "gender": gender_of(source, f"{where}: gender", fit.get("gender", "neutral")),
        "has_smpl": 1,
    }


def select_joints(
    points: np.ndarray,
    source_set: str,
    target_set: str,
    names: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Points of one joint set in the order of another, by name.

    Args:
        points: [..., S, C], last column validity or visibility.
        source_set: their joint set.
        target_set: wanted.
        names: target name -> source name where they differ.

    Returns:
        [..., T, C]; zeros where the source has no such joint.
    """
    found = JOINT_SETS[source_set].joints
    names = names or {}
    wanted = [names.get(name, name) for name in get_joint_set(target_set).joints]
    index = np.array([found.index(n) if n in found else -1 for n in wanted])
    return points[..., index, :] * (index >= 0)[:, None]


def orders_in_images(annotations: Iterable[Mapping[str, Any]]) -> list[int]:
    """Of each annotation, how many before it have the same ``image_id``."""
    seen: collections.Counter[Any] = collections.Counter()
    orders = []
    for annotation in annotations:
        orders.append(seen[annotation["image_id"]])
        seen[annotation["image_id"]] += 1
    return orders


def frame_number(file_name: str) -> int:
    """The number at the end of a picture's name; 0 where there is none."""
    stem = file_name.rpartition("/")[2].partition(".")[0]
    digits = stem[len(stem.rstrip("0123456789")) :]
    return int(digits) if digits else 0


def twist_fields(source: RawSource, where: str, twist: Mapping[str, Any]) -> Record:
    """HybrIK's ``angle_twist``: -999 marks bones whose twist is not known.

    Args:
        source: names the dataset in errors.
        where: file and entry.
        twist: ``angle``, ``cos`` and ``sin``, 23 numbers each.
    """
    source.require(where, twist, ("angle", "cos", "sin"))
    angle, cosine, sine = (
        numbers(source, f"{where}: {name}", twist[name], (23,))
        for name in ("angle", "cos", "sin")
    )
    weight = (angle > -10).astype(np.float64)
    return {
        "twist_cos_sin": np.stack([cosine, sine], axis=-1) * weight[:, None],
        "twist_weight": weight,
    }
