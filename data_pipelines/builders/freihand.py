"""FreiHAND: right hands with MANO parameters, in two published layouts."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import record_fields, schema
from data_pipelines.builders import annotation_lists
from data_pipelines.builders.boxes import box_of_points
from data_pipelines.builders.cameras import pinhole, project
from data_pipelines.builders.label_values import (
    mask_png,
    numbers,
    smpl_fields,
    with_validity,
)
from data_pipelines.builders.numpy_body import NumpyBody
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from data_pipelines.schema import FieldSpec, Record
from hmr_jax.errors import UserError

_LAYOUTS = ("published", "i2l")
_NAMES = {"train": "training", "eval": "evaluation"}
_SIDE_PX = 224
_HAND_SCALE = FieldSpec(
    "hand_scale_m",
    "float32",
    (),
    "m",
    doc="length of the middle finger's proximal bone where it is published, else 0",
)


class FreiHand(PublishedDataset):
    """FreiHAND's 4 x 32,560 training and 3,960 evaluation pictures.

    Poses are relative to MANO's mean hand. The published layout has no translation in
    metres: give ``mano_model``, or place the wrist where ``joints_cam_m`` has it. It
    has no boxes either: they are the tight box of the joints times 1.2, or the whole
    picture where no joints are.

    Args:
        raw: the folder of the release (``training``, ``training_xyz.json``, ...), or
            I2L-MeshNet's folder ``FreiHAND`` with ``data``.
        layout: ``published`` or ``i2l``.
        rootnet: boxes and root depths of the evaluation pictures from
            ``rootnet_output/bbox_root_freihand_output.json`` (layout ``i2l``).
        backgrounds: of the published layout: 4 takes the green-screen pictures and
            their three re-coloured copies, 1 the first alone.
        masks: of the published layout: add the hand's mask, published for the first
            32,560 pictures.
        mano_model: file of the right hand, for exact translations in the published
            layout.

    Source: specs/i2l_meshnet.md, section 11.5; the layout of FreiHAND_pub_v2.
    """

    name = "freihand"
    file_options = ("mano_model",)
    description = "FreiHAND: right hands with 21 joints and MANO parameters."
    citation = "Zimmermann et al., FreiHAND, ICCV 2019"
    needs = (
        "published: training/rgb/%08d.jpg, training_{K,mano,xyz}.json, "
        "evaluation/rgb/%08d.jpg, evaluation_K.json",
        "published, optional: training/mask/%08d.jpg, *_scale.json, "
        "evaluation_{mano,xyz}.json",
        "i2l: data/freihand_{train,eval}_{coco,data}.json, data/training/..., "
        "data/evaluation/..., rootnet_output/bbox_root_freihand_output.json",
    )
    origin = "lmb.informatik.uni-freiburg.de/projects/freihand"
    licence = "research only"
    counts = {"train": 130240, "eval": 3960}
    traits = {"crop_padding": 1.25}
    spec = schema.RecordSpec(
        "mano_21",
        21,
        num_pose_joints=16,
        extras=(
            record_fields.ROOT_DEPTH,
            record_fields.BOX_IS_CROP,
            record_fields.TRANSLATION_KNOWN,
            _HAND_SCALE,
        ),
    )

    def __init__(
        self,
        raw: str,
        *,
        layout: str = "published",
        rootnet: bool = False,
        backgrounds: int = 4,
        masks: bool = False,
        mano_model: str = "",
    ):
        if layout not in _LAYOUTS:
            raise UserError(f"layout: expected one of {_LAYOUTS}, got {layout!r}")
        if backgrounds not in (1, 2, 3, 4):
            raise UserError(f"backgrounds: expected 1 to 4, got {backgrounds!r}")
        of_other = {"rootnet": rootnet}
        if layout == "i2l":
            changed = backgrounds != 4
            of_other = {
                "masks": masks,
                "backgrounds": changed,
                "mano_model": bool(mano_model),
            }
        if unused := [name for name, given in of_other.items() if given]:
            raise UserError(f"{unused[0]}: not an option of the layout {layout}")
        super().__init__(raw)
        self._rest = NumpyBody(self, mano_model) if mano_model else None
        self._published = layout == "published"
        self._rootnet, self._masks, self._backgrounds = rootnet, masks, backgrounds
        self.counts = {**self.counts, "train": 32560 * backgrounds}

    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return tuple(_NAMES)

    def entries(self, split: str) -> Iterator[Entry]:
        """Pictures in their order."""
        if self._published:
            return self._published_entries(split)
        return self._i2l_entries(split)

    def record(self, split: str, key: str, data: Any) -> Record:
        """One hand."""
        if self._published:
            return self._published_record(split, *data)
        return self._i2l_record(split, *data)

    # --- the published layout

    def _label_file(self, split: str, kind: str) -> str:
        return self.path(f"{_NAMES[split]}_{kind}.json")

    def _published_entries(self, split: str) -> Iterator[Entry]:
        lists = {"K": self.read_json(self._label_file(split, "K"))}
        number = len(lists["K"])
        required = ("mano", "xyz") if split == "train" else ()
        for kind in ("mano", "xyz", "scale"):
            path = self._label_file(split, kind)
            if kind in required or self.exists(path):
                lists[kind] = self.read_json(path)
                if len(lists[kind]) != number:
                    raise self.wrong(path, f"{number} items as in K", len(lists[kind]))
        copies = self._backgrounds if split == "train" else 1
        for index in range(number * copies):
            item = index % number
            labels = {kind: lists[kind][item] for kind in lists}
            yield Entry(f"{split}_{index:08d}", (index, item, index // number, labels))

    def _published_record(
        self, split: str, index: int, item: int, background: int, labels: dict
    ) -> Record:
        name = _NAMES[split]
        camera = numbers(self, self._label_file(split, "K"), labels["K"], (3, 3))
        record = {
            **self.read_image(self.path(name, "rgb", f"{index:08d}.jpg")),
            "sequence_id": f"{split}_background{background}",
            "frame_id": item,
            "intrinsics": camera,
            "bbox_xywh_px": np.array([0, 0, _SIDE_PX, _SIDE_PX]),
        }
        if "xyz" in labels:
            where = f"{self._label_file(split, 'xyz')}: {item}"
            points = numbers(self, where, labels["xyz"], (21, 3))
            record |= _projected(camera, points)
        if "mano" in labels:
            where = f"{self._label_file(split, 'mano')}: {item}"
            hand = numbers(self, where, labels["mano"], (61,))
            record |= {"pose_aa": hand[:48].reshape(16, 3), "betas": hand[48:58]}
            record["translation_m"] = np.zeros(3)
            if self._rest is not None and "joints_cam_m" in record:
                wrist = record["joints_cam_m"][0, :3]
                record["translation_m"] = wrist - self._rest.rest_joints(hand[48:58])[0]
                record["translation_known"] = 1
        if "scale" in labels:
            record["hand_scale_m"] = float(np.ravel(labels["scale"])[0])
        if self._masks:
            record |= self._mask(self.path(name, "mask", f"{item:08d}.jpg"))
        return record

    def _mask(self, path: str) -> Record:
        if not self.exists(path):
            return {}
        return {"mask": mask_png(self.read_pixels(path).mean(-1) > 127)}

    # --- I2L-MeshNet's layout

    def _i2l_entries(self, split: str) -> Iterator[Entry]:
        path = self.path("data", f"freihand_{split}_coco.json")
        keys = ("file_name", "width", "height", "db_idx")
        images, annotations = annotation_lists.coco_lists(
            self, split, path, keys, (), ("bbox",)
        )
        boxes = None
        if self._rootnet and split == "eval":
            path = self.path("rootnet_output", "bbox_root_freihand_output.json")
            found = annotation_lists.detections(self, path, "image_id", 1.0)
            boxes = {item["image_id"]: item for item in found}
        labels = self.read_json(self._i2l_labels(split))
        for annotation in annotations:
            image = images[annotation["image_id"]]
            box = None
            if boxes is not None:
                box = boxes.get(image["id"])
                if box is None:
                    self.drop(split, "no box in the detector's file")
                    continue
            elif not annotation_lists.usable_box(self, split, annotation, image):
                continue
            key = image["file_name"].rpartition(".")[0]
            label = labels.get(str(image["db_idx"]))
            yield Entry(key, (image, annotation["bbox"], box, label))

    def _i2l_labels(self, split: str) -> str:
        return self.path("data", f"freihand_{split}_data.json")

    def _i2l_record(
        self, split: str, image: dict, box: Any, detection: Any, label: Any
    ) -> Record:
        path, index = self._i2l_labels(split), str(image["db_idx"])
        self.require(path, {} if label is None else {index: label}, (index,))
        where = f"{path}: {index}"
        self.require(where, label, ("cam_param",))
        camera = pinhole(label["cam_param"]["focal"], label["cam_param"]["princpt"])
        record = {
            **self.sized_image(self.path("data"), image["file_name"], image),
            "sequence_id": split,
            "frame_id": int(image["db_idx"]),
            "intrinsics": camera,
            "hand_scale_m": float(label.get("scale", 0)),
        }
        if "joint_3d" in label:
            points = label["joint_3d"]
            points = numbers(self, f"{where}: joint_3d", points, (21, 3))
            record |= _projected(camera, points)
        if "mano_param" in label:
            record |= smpl_fields(self, where, label["mano_param"])
            record["translation_known"] = 1
        record["bbox_xywh_px"] = np.asarray(box, np.float64)
        if detection is not None:
            record |= annotation_lists.detected_fields(detection)
        elif split == "eval" and "joints_cam_m" in record:
            record["root_depth_m"] = record["joints_cam_m"][0, 2]
        return record


def _projected(camera: np.ndarray, points: np.ndarray) -> Record:
    """3D joints [21, 3], their pixels, and the box around these."""
    pixels = project(camera, points)
    return {
        "joints_cam_m": with_validity(points),
        "keypoints_px": with_validity(pixels),
        "bbox_xywh_px": box_of_points(pixels, 1.2),
    }
