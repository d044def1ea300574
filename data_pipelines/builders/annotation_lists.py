"""Annotations in lists, as COCO and HybrIK lay them out, and detectors' boxes."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.builders.boxes import valid_box
from data_pipelines.builders.label_values import is_regular, numbers
from data_pipelines.builders.published_dataset import PublishedDataset
from data_pipelines.schema import Record
from hmr_jax.pictures.names import canonical


def coco_lists(
    source: PublishedDataset,
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
    source: PublishedDataset, where: str, image: Any, keys: Sequence[str]
) -> None:
    """Check an image's keys, and spell its name with ``/``."""
    source.require(where, image, keys)
    if "file_name" in image:
        if not isinstance(image["file_name"], str):
            raise source.wrong(f"{where}: file_name", "a name", image["file_name"])
        image["file_name"] = canonical(image["file_name"])


def _is_labelled(
    source: PublishedDataset,
    split: str,
    where: str,
    annotation: dict,
    labels: Sequence[str],
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
    source: PublishedDataset, path: str, labels: Sequence[str], kept: int, number: int
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
        elif isinstance(value, list) and is_regular(value) and np.size(value) > 8:
            result[key] = np.asarray(value, np.float32)
        elif key != "segmentation":
            result[key] = value
    return result


def _check_box(source: PublishedDataset, where: str, annotation: dict) -> None:
    box = annotation.get("bbox", (0, 0, 0, 0))
    good = isinstance(box, list | tuple) and len(box) == 4
    if not good or not all(isinstance(n, int | float) for n in box):
        raise source.wrong(f"{where}: bbox", "four numbers", box)


def paired_lists(
    source: PublishedDataset,
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


def fits_by_id(source: PublishedDataset, path: str) -> dict[str, dict]:
    """A file of fitted bodies: id of an annotation -> parameters, packed."""
    return {key: packed(fit) for key, fit in source.read_json(path).items()}


def detections(
    source: PublishedDataset, path: str, key: str, unit_m: float
) -> list[dict]:
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


def usable_box(
    source: PublishedDataset, split: str, annotation: dict, image: dict
) -> bool:
    """Whether I2L-MeshNet keeps a published box; counts those it leaves out."""
    box = annotation["bbox"]
    if valid_box(box, image["width"], image["height"]) is None:
        source.drop(split, "box outside the image or empty")
        return False
    if min(box[2:]) <= 0:
        source.drop(split, "box of negative width and height")
        return False
    return True


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
