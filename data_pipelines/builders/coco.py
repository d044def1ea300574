"""MS-COCO: people with 17 keypoints, optionally with SMPL fits."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import record_fields, schema
from data_pipelines.builders import annotation_lists
from data_pipelines.builders.cameras import pinhole
from data_pipelines.builders.label_values import numbers, smpl_fields
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import Record
from hmr_jax.errors import UserError

_RULES = ("labelled", "all", "ikol", "i2l", "pose_hg")
_LEFT_HIP, _RIGHT_HIP = 11, 12
_MADE_UP_FOCAL_PX = 1500.0


class Coco(PublishedDataset):
    """MS-COCO's person keypoints of 2014 or 2017.

    Args:
        raw: folder with ``annotations`` and the pictures, in ``train2017`` and
            ``val2017`` or in ``images/train2017`` and ``images/val2017``.
        people: whom to keep. ``labelled``: not a crowd, one labelled keypoint or more,
            a box with positive sides. ``all``: whoever has a box with positive sides.
            ``ikol``: category person, no crowd, positive area, a keypoint other than
            zero, a box that is not empty once cut to the image. ``i2l``: no crowd,
            a labelled keypoint, and a box that I2L-MeshNet's rule keeps. ``pose_hg``:
            positive area, a labelled keypoint, a box that is not empty once cut.
        fits: add body pose, shape and camera of
            ``annotations/coco_smplifyx_train.json``.
        pelvis: an 18th keypoint midway between the hips, labelled where both are.
        rootnet: the val split is the list of boxes and root depths of
            ``rootnet_output/bbox_root_coco_output.json``, with a made-up camera (focal
            length 1500 px, centre of the image) and no labels.
        year: 2017 or 2014.

    Source: specs/ikol.md 15.1; specs/i2l_meshnet.md 11.3; specs/pose_hg.md 8.4.
    """

    name = "coco"
    description = "MS-COCO: people in everyday pictures with 17 2D keypoints."
    citation = "Lin et al., Microsoft COCO: common objects in context, ECCV 2014"
    needs = (
        "annotations/person_keypoints_{train,val}2017.json",
        "train2017/ and val2017/, or the same below images/",
        "annotations/coco_smplifyx_train.json (option fits)",
        "rootnet_output/bbox_root_coco_output.json (option rootnet)",
    )
    origin = "cocodataset.org; fits and boxes from the I2L-MeshNet repository"
    licence = "annotations CC BY 4.0; pictures under Flickr's terms"
    counts = {"train": 149813, "val": 6352}
    traits = {"crop_padding": 1.25}

    def __init__(
        self,
        raw: str,
        *,
        people: str = "labelled",
        fits: bool = False,
        pelvis: bool = False,
        rootnet: bool = False,
        year: int = 2017,
    ):
        if people not in _RULES:
            raise UserError(f"people: expected one of {_RULES}, got {people!r}")
        super().__init__(raw)
        self._people, self._with_pelvis, self._rootnet = people, pelvis, rootnet
        self._year = year
        self._with_fits = fits
        if people != "labelled" or year != 2017 or rootnet:
            self.counts = {}
        extras = (record_fields.ROOT_DEPTH, record_fields.BOX_IS_CROP)
        joint_set, number = ("coco_18", 18) if pelvis else ("coco_17", 17)
        self.spec = schema.RecordSpec(joint_set, number, extras=extras)

    def splits(self) -> Sequence[str]:
        """Names of the splits whose annotations are there."""
        splits = ("train", "val")
        found = tuple(s for s in splits if self.exists(self._file(s)))
        if not found:
            expected = " or ".join(self._file(s).rpartition("/")[2] for s in splits)
            raise self.wrong(self.path("annotations"), expected, "none")
        return found

    def _file(self, split: str) -> str:
        return self.path("annotations", f"person_keypoints_{split}{self._year}.json")

    def entries(self, split: str) -> Iterator[Entry]:
        """People in the order of the annotations, or of the detector's list."""
        images, annotations = annotation_lists.coco_lists(
            self,
            split,
            self._file(split),
            ("file_name", "width", "height"),
            ("id",),
            ("bbox", "keypoints"),
        )
        if self._rootnet and split == "val":
            yield from self._detected(split, images)
            return
        fits = {}
        if self._with_fits and split == "train":
            fits = annotation_lists.fits_by_id(self, self._fits)
        for annotation in annotations:
            image = images[annotation["image_id"]]
            reason = self._reason(split, annotation, image)
            if reason is None:
                key = f"{annotation['image_id']:012d}_{annotation['id']}"
                fit = fits.get(str(annotation["id"]))
                yield Entry(key, (image, annotation, fit, None))
            elif reason:
                self.drop(split, reason)

    def _detected(self, split: str, images: dict) -> Iterator[Entry]:
        path = self.path("rootnet_output", "bbox_root_coco_output.json")
        found = annotation_lists.detections(self, path, "image_id", 1e-3)
        for number, item in enumerate(found):
            if item["image_id"] not in images:
                self.drop(split, "box of an image that is not in the annotations")
                continue
            key = f"{item['image_id']:012d}_box{number}"
            yield Entry(key, (images[item["image_id"]], None, None, item))

    def _reason(self, split: str, annotation: dict, image: dict) -> str | None:
        """Why someone is left out: None to keep; empty where already counted."""
        rule, box = self._people, annotation["bbox"]
        crowd = rule in ("labelled", "ikol", "i2l") and annotation.get("iscrowd", 0)
        flags = annotation["keypoints"][2::3]
        labelled = annotation.get("num_keypoints", sum(f > 0 for f in flags))
        if rule == "ikol":
            labelled = max(annotation["keypoints"], default=0) > 0
        low = np.maximum(box[:2], 0)
        high = np.minimum(
            [image["width"] - 1, image["height"] - 1], np.add(low, box[2:]) - 1
        )
        if crowd:
            return "crowd"
        if rule == "ikol" and annotation.get("category_id", 1) != 1:
            return "not a person"
        if rule != "all" and not labelled:
            return "no labelled keypoint"
        if rule in ("ikol", "pose_hg") and annotation.get("area", 1) <= 0:
            return "no area"
        if min(box[2:]) <= 0:
            return "box without width or height"
        if rule in ("ikol", "pose_hg") and np.any(high <= low):
            return "box empty in the image"
        if rule == "i2l" and not annotation_lists.usable_box(
            self, split, annotation, image
        ):
            return ""
        return None

    def _image(self, split: str, image: dict) -> Record:
        name = f"{split}{self._year}"
        folder = self.folder_of(name, f"images/{name}")
        return self.sized_image(folder, image["file_name"], image)

    def record(self, split: str, key: str, data: Any) -> Record:
        """One person in one picture."""
        image, annotation, fit, detection = data
        record = self._image(split, image) | {"frame_id": int(image["id"])}
        if annotation is None:
            centre = np.array([image["width"], image["height"]]) / 2
            return record | {
                "person_id": int(key.rpartition("box")[2]),
                "intrinsics": pinhole(_MADE_UP_FOCAL_PX, centre),
                **annotation_lists.detected_fields(detection),
            }
        where = f"{self._file(split)}: annotation {annotation['id']}: keypoints"
        keypoints = numbers(self, where, annotation["keypoints"], (17, 3))
        if self._with_pelvis:
            hips = keypoints[[_LEFT_HIP, _RIGHT_HIP]]
            middle = [*hips[:, :2].mean(0), hips[:, 2].min()]
            keypoints = np.concatenate([keypoints, [middle]])
        record |= {
            "person_id": int(annotation["id"]),
            "bbox_xywh_px": np.asarray(annotation["bbox"], np.float64),
            "keypoints_px": keypoints,
        }
        return record if fit is None else record | self._fit(annotation, fit)

    @property
    def _fits(self) -> str:
        return self.path("annotations", "coco_smplifyx_train.json")

    def _fit(self, annotation: dict, fit: dict) -> Record:
        where = f"{self._fits}: {annotation['id']}"
        self.require(where, fit, ("smpl_param", "cam_param"))
        camera = fit["cam_param"]
        self.require(f"{where}: cam_param", camera, ("focal", "princpt"))
        return {
            "intrinsics": pinhole(camera["focal"], camera["princpt"]),
            **smpl_fields(self, f"{where}: smpl_param", fit["smpl_param"]),
        }
