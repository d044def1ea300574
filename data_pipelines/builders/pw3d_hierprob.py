"""3DPW's test as square crops of one person each (hierarchical probabilistic poses)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from data_pipelines import schema
from data_pipelines.builders.cameras import moved_points, pinhole, project, rotated_root
from data_pipelines.builders.label_values import gender_of
from data_pipelines.builders.numpy_body import NumpyBody
from data_pipelines.builders.picture_files import png
from data_pipelines.builders.published_dataset import PublishedDataset
from hmr_jax.errors import UserError

CROP_PX = 512
CROP_SCALE = 1.2
_ARRAYS = ("imgname", "center", "wh", "pose", "shape", "gender")
_SEQUENCE = (
    *("sequence", "poses", "betas", "trans", "genders", "campose_valid"),
    *("cam_poses", "cam_intrinsics"),
)
_SOURCE_BOX = schema.FieldSpec(
    "source_box",
    "float32",
    (3,),
    "px",
    "3DPW's image",
    "centre and side of the vertices' box; the crop's side is 1.2 times that",
)


class Pw3dHierprob(PublishedDataset):
    """One person of one test frame, its crop of 512 pixels and gendered SMPL.

    The pose's root is in the camera frame. The box is the whole crop. Keypoints are
    HRNet's COCO joints with their confidence, where its results are there.

    Args:
        raw: with ``layout="prepared"`` the folder of the prepared files; with
            ``"sequences"`` 3DPW's own folder, of which the crops are made here.
        layout: see ``raw``. Only ``sequences`` gives the camera (of the crop) and the
            translation; prepared records have ``has_root`` 0 and no translation.
        body: with ``sequences``: folder of SMPL_MALE.pkl and SMPL_FEMALE.pkl.

    Source: specs/hierprob.md, section 14.
    """

    name = "pw3d_hierprob"
    file_options = ("body",)
    spec = schema.RecordSpec(joint_set="coco_17", num_joints=17, extras=(_SOURCE_BOX,))
    description = "3DPW's test frames cropped about each person's posed body."
    citation = (
        "von Marcard et al., Recovering Accurate 3D Human Pose in The Wild, ECCV 2018; "
        "crops as in Sengupta et al., Hierarchical Kinematic Probability Distributions "
        "for 3D Human Shape and Pose Estimation, ICCV 2021"
    )
    needs = (
        "prepared: 3dpw_test.npz, cropped_frames/*.png, hrnet_results_centred.npy",
        "or sequences: sequenceFiles/test/*.pkl, imageFiles/<sequence>/image_00000.jpg"
        " and, at --body, SMPL_MALE.pkl and SMPL_FEMALE.pkl",
    )
    origin = "https://virtualhumans.mpi-inf.mpg.de/3DPW; prepared by the paper's code"
    licence = "3DPW's: research, no redistribution"

    def __init__(self, raw: str, *, layout: str = "prepared", body: str = ""):
        super().__init__(raw)
        if layout not in ("prepared", "sequences"):
            raise UserError(f"layout: expected prepared or sequences, got {layout!r}")
        if layout == "sequences" and not body:
            raise UserError("body: expected a folder of SMPL files for sequences")
        self.layout = layout
        self.body = body
        self._arrays: dict[str, Any] = {}
        self._sequence: tuple[str, dict[str, Any]] = ("", {})
        self._bodies: dict[str, NumpyBody] = {}

    def splits(self) -> Sequence[str]:
        """The paper only tests on it."""
        return ("test",)

    def keys(self, split: str) -> Sequence[str]:
        """Names of the crops without ``.png``."""
        if self.layout == "prepared":
            names = self._prepared()["imgname"]
            return [str(name).removesuffix(".png") for name in names]
        files = self.glob(split, "sequenceFiles", split, "*.pkl")
        if not files:
            path = self.path("sequenceFiles", split)
            raise self.wrong(path, "sequence files *.pkl", "none")
        keys = []
        self.dropped.pop((split, "no valid camera pose"), None)
        for path in files:
            sequence = self._read_sequence(path)
            name = path.rsplit("/", 1)[1].removesuffix(".pkl")
            for person, valid in enumerate(sequence["campose_valid"]):
                good = np.flatnonzero(np.asarray(valid) > 0)
                if len(good) < len(valid):
                    self.drop(split, "no valid camera pose", len(valid) - len(good))
                keys += [f"{name}_image_{i:05d}_person_{person:03d}" for i in good]
        return keys

    def example(self, split: str, key: Any) -> schema.Record:
        """One crop."""
        make = self._prepared_example
        return (make if self.layout == "prepared" else self._cropped)(split, str(key))

    def _prepared(self) -> dict[str, Any]:
        if not self._arrays:
            path = self.path("3dpw_test.npz")
            content = self.read_npz(path)
            self.require(path, content, _ARRAYS)
            number = len(content["imgname"])
            shapes = ((number,), (number, 2), (number,), (number, 72), (number, 10))
            for name, shape in zip(_ARRAYS, shapes, strict=False):
                found = content[name].shape
                if found != shape:
                    raise self.wrong(path, f"{name} of shape {list(shape)}", found)
            content["row"] = {
                str(name).removesuffix(".png"): i
                for i, name in enumerate(content["imgname"])
            }
            path = self.path("hrnet_results_centred.npy")
            if self.exists(path):
                content["keypoints"] = self.read_npy(path)
                if content["keypoints"].shape != (number, 17, 3):
                    found = list(content["keypoints"].shape)
                    raise self.wrong(path, f"shape [{number}, 17, 3]", found)
            self._arrays = content
        return self._arrays

    def _prepared_example(self, split: str, key: str) -> schema.Record:
        arrays = self._prepared()
        i = arrays["row"][key]
        image = self.read_image(self.path("cropped_frames", f"{key}.png"))
        if image["image_width"] != image["image_height"]:
            found = f"{image['image_width']} x {image['image_height']}"
            where = self.path("cropped_frames", f"{key}.png")
            raise self.wrong(where, "a square image", found)
        where = f"{self.path('3dpw_test.npz')}: gender: row {i}"
        record = {
            **self._common(key, image, gender_of(self, where, arrays["gender"][i])),
            "has_root": 0,
            "pose_aa": arrays["pose"][i].reshape(24, 3),
            "betas": arrays["shape"][i],
            "translation_m": np.zeros(3),
            "source_box": [*arrays["center"][i], arrays["wh"][i]],
        }
        if "keypoints" in arrays:
            record |= {"keypoints_px": arrays["keypoints"][i]}
        return record

    def _common(self, key: str, image: dict, gender: str) -> schema.Record:
        """Fields that follow from a crop's name."""
        sequence, _, rest = key.rpartition("_image_")
        frame, _, person = rest.partition("_person_")
        return {
            **image,
            "sample_id": key,
            "sequence_id": f"{sequence}_{person}",
            "frame_id": int(frame),
            "person_id": int(person),
            "bbox_xywh_px": [0, 0, image["image_width"], image["image_height"]],
            "gender": gender,
        }

    def _read_sequence(self, path: str) -> dict[str, Any]:
        if self._sequence[0] != path:
            content = self.read_pickle(path)
            self.require(path, content, _SEQUENCE)
            self._sequence = (path, content)
        return self._sequence[1]

    def _body(self, gender: str) -> NumpyBody:
        if gender not in self._bodies:
            path = f"{self.body.rstrip('/')}/SMPL_{gender.upper()}.pkl"
            self._bodies[gender] = NumpyBody(self, path, skinned=True)
        return self._bodies[gender]

    def _cropped(self, split: str, key: str) -> schema.Record:
        name, _, rest = key.rpartition("_image_")
        frame, _, person = (
            int(n) if n.isdigit() else n for n in rest.partition("_person_")
        )
        path = self.path("sequenceFiles", split, f"{name}.pkl")
        sequence = self._read_sequence(path)
        where = f"{path}: genders[{person}]"
        gender = gender_of(self, where, sequence["genders"][person])
        pose = np.asarray(sequence["poses"][person][frame], np.float64).reshape(24, 3)
        betas = np.asarray(sequence["betas"][person], np.float64)[:10]
        shift = np.asarray(sequence["trans"][person][frame], np.float64)
        extrinsics = np.asarray(sequence["cam_poses"][frame], np.float64)
        intrinsics = np.asarray(sequence["cam_intrinsics"], np.float64)
        body = self._body(gender)
        vertices, root = body.vertices(pose, betas), body.rest_joints(betas)[0]
        pixels = project(intrinsics, moved_points(extrinsics, vertices + shift))
        low, high = pixels.min(0), pixels.max(0)
        centre, side = (low + high) / 2, float((high - low).max())
        path = self.path("imageFiles", name, f"image_{frame:05d}.jpg")
        zoom = CROP_PX / (CROP_SCALE * side)
        image = self.image_fields(_crop(self.read_pixels(path), centre, zoom), path)
        to_crop = pinhole((zoom, zoom), CROP_PX / 2 - zoom * centre)
        return {
            **self._common(key, image, gender),
            "pose_aa": rotated_root(pose, extrinsics[:3, :3]),
            "betas": betas,
            "translation_m": moved_points(extrinsics, root + shift) - root,
            "intrinsics": to_crop @ intrinsics,
            "source_box": [*centre, side],
        }


def _crop(pixels: np.ndarray, centre: np.ndarray, zoom: float) -> bytes:
    """The PNG of a square crop, bilinear, black beyond the image.

    Pixel ``x`` of the image comes to ``zoom (x - centre) + CROP_PX / 2``.
    """
    corner = centre[::-1] - CROP_PX / 2 / zoom
    channels = [
        ndimage.affine_transform(
            channel,
            np.full(2, 1 / zoom),
            corner,
            (CROP_PX, CROP_PX),
            order=1,
            mode="grid-constant",
        )
        for channel in np.moveaxis(pixels.astype(np.float32), -1, 0)
    ]
    return png(np.clip(np.rint(np.stack(channels, -1)), 0, 255).astype(np.uint8))
