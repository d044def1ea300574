"""The one record contract: one person in one frame, the same fields for every dataset.

Systems choose fields, not datasets. A dataset's records differ only in the number of
joints of its own joint set, whose name stands in the dataset's metadata.
"""

import dataclasses
import io
from collections.abc import Mapping
from typing import Any

import numpy as np

SCHEMA_VERSION = "1.0.0"
"""Changes when a field's name, type, shape or meaning changes."""

Record = dict[str, Any]
IMAGE_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}


class RecordError(ValueError):
    """A record that breaks the schema, or a file of records that cannot be read."""


@dataclasses.dataclass(frozen=True)
class FieldSpec:
    """One field of the record.

    Attributes:
        name: key in the record.
        dtype: ``bytes``, ``str``, ``int64`` or ``float32``.
        shape: sizes; the names ``joints``, ``pose_joints``, ``twists`` and ``betas``
            stand for the dataset's own numbers (``RecordSpec``).
        unit: metres, pixels, radians or nothing.
        frame: coordinate frame, where there is one.
        doc: meaning.
        flag: the ``has_*`` field that says whether the field is given; a field with a
            flag may be left out and is then stored as zeros.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...] = ()
    unit: str = ""
    frame: str = ""
    doc: str = ""
    flag: str | None = None


def _flag(name: str, doc: str) -> FieldSpec:
    return FieldSpec(name, "int64", (), doc=f"1 where the record has {doc}, else 0")


FIELDS = (
    FieldSpec("image", "bytes", doc="JPEG or PNG file, RGB"),
    FieldSpec("image_height", "int64", unit="px", doc="height of the image"),
    FieldSpec("image_width", "int64", unit="px", doc="width of the image"),
    FieldSpec("sample_id", "str", doc="name of the record, unique in its dataset"),
    FieldSpec("sequence_id", "str", doc="video or capture the frame belongs to"),
    FieldSpec("frame_id", "int64", doc="frame number in the sequence"),
    FieldSpec("person_id", "int64", doc="person number in the frame"),
    FieldSpec(
        "bbox_xywh_px",
        "float32",
        (4,),
        "px",
        "image",
        "box of the person: left, top, width, height; the centre of the first pixel "
        "is (0, 0)",
    ),
    FieldSpec(
        "keypoints_px",
        "float32",
        ("joints", 3),
        "px",
        "image",
        "x, y, visibility (0 unknown, else visible or labelled)",
        "has_keypoints",
    ),
    FieldSpec(
        "joints_cam_m",
        "float32",
        ("joints", 4),
        "m",
        "camera",
        "x right, y down, z forward, validity (0 or 1)",
        "has_joints_3d",
    ),
    FieldSpec(
        "joints_h36m_cam_m",
        "float32",
        (17, 4),
        "m",
        "camera",
        "the Human3.6M set of 17 joints and validity; all zero where unknown",
        "has_joints_3d",
    ),
    FieldSpec(
        "intrinsics",
        "float32",
        (3, 3),
        "px",
        "camera to image",
        "pinhole matrix, last row 0 0 1",
        "has_camera",
    ),
    FieldSpec(
        "extrinsics",
        "float32",
        (4, 4),
        "m",
        "world to camera",
        "rigid transform; identity where the camera is the world",
        "has_camera",
    ),
    FieldSpec(
        "pose_aa",
        "float32",
        ("pose_joints", 3),
        "rad",
        "parent joint; the root's in the camera frame",
        "axis-angle rotations of the body model",
        "has_smpl",
    ),
    FieldSpec(
        "betas", "float32", ("betas",), doc="shape coefficients", flag="has_smpl"
    ),
    FieldSpec(
        "translation_m",
        "float32",
        (3,),
        "m",
        "camera",
        "added to the body model's vertices",
        "has_smpl",
    ),
    FieldSpec("gender", "str", doc="neutral, male or female"),
    FieldSpec(
        "twist_cos_sin",
        "float32",
        ("twists", 2),
        doc="cosine and sine of each bone's twist, joints 1, 2, ...",
        flag="has_twist",
    ),
    FieldSpec(
        "twist_weight",
        "float32",
        ("twists",),
        doc="1 where the twist is known",
        flag="has_twist",
    ),
    FieldSpec(
        "mask", "bytes", doc="PNG of the person's pixels, one channel", flag="has_mask"
    ),
    _flag("has_smpl", "pose, shape and translation of the body model"),
    _flag("has_keypoints", "2D keypoints"),
    _flag("has_joints_3d", "3D joints"),
    _flag("has_camera", "camera intrinsics"),
    _flag("has_twist", "twist labels"),
    _flag("has_mask", "a mask"),
)
FIELD_BY_NAME = {field.name: field for field in FIELDS}
_DEFAULTS = {"sequence_id": "", "frame_id": 0, "person_id": 0, "gender": "neutral"}


@dataclasses.dataclass(frozen=True)
class RecordSpec:
    """Numbers in which datasets differ.

    Attributes:
        joint_set: name of the joint set of keypoints and 3D joints, as in
            ``hmr_jax.body.joint_sets``.
        num_joints: joints in that set.
        num_pose_joints: rotations of the body model (24 SMPL, 16 MANO).
        num_betas: shape coefficients.
    """

    joint_set: str = "smpl_24"
    num_joints: int = 24
    num_pose_joints: int = 24
    num_betas: int = 10

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        """Sizes of a field in this dataset."""
        numbers = {
            "joints": self.num_joints,
            "pose_joints": self.num_pose_joints,
            "twists": self.num_pose_joints - 1,
            "betas": self.num_betas,
        }
        return tuple(numbers[n] if isinstance(n, str) else n for n in field.shape)


def _default(field: FieldSpec, spec: RecordSpec) -> Any:
    if field.dtype == "bytes":
        return b""
    if field.name in ("intrinsics", "extrinsics"):
        return np.eye(*spec.shape(field), dtype=np.float32)
    return np.zeros(spec.shape(field), field.dtype)


def _image_kind(data: bytes) -> str | None:
    kinds = (kind for magic, kind in IMAGE_MAGIC.items() if data.startswith(magic))
    return next(kinds, None)


def _check_image(name: str, data: bytes, size: tuple[int, int], where: str) -> None:
    from PIL import Image

    if _image_kind(data) is None:
        raise RecordError(
            f"{where}: field {name}: expected a JPEG or PNG file, "
            f"found {len(data)} bytes beginning {data[:8]!r}"
        )
    with Image.open(io.BytesIO(data)) as image:
        found = image.size
    if found != size:
        raise RecordError(
            f"{where}: field {name}: expected {size[0]} x {size[1]} pixels "
            f"(image_width x image_height), found {found[0]} x {found[1]}"
        )


def _checked(field: FieldSpec, value: Any, spec: RecordSpec, where: str) -> Any:
    """The value in the field's type and shape, or a RecordError."""
    where = f"{where}: field {field.name}"
    if field.dtype in ("bytes", "str"):
        expected = bytes if field.dtype == "bytes" else str
        if not isinstance(value, expected):
            raise RecordError(
                f"{where}: expected {field.dtype}, found {type(value).__name__}"
            )
        return value
    array = np.asarray(value)
    shape = spec.shape(field)
    if array.dtype.kind not in "biuf":
        raise RecordError(f"{where}: expected {field.dtype}, found {array.dtype}")
    if array.shape != shape:
        raise RecordError(
            f"{where}: expected shape {list(shape)}, found {list(array.shape)}"
        )
    array = array.astype(field.dtype)
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise RecordError(
            f"{where}: expected finite numbers, found {array.flat[bad[0]]} at "
            f"{[int(i) for i in np.unravel_index(bad[0], shape)]}"
        )
    return array


def validate(record: Mapping[str, Any], spec: RecordSpec, where: str = "") -> Record:
    """Check a record against the schema and fill in the fields it leaves out.

    Args:
        record: field name -> value; a field may be left out where it has a default
            or its ``has_*`` flag is 0.
        spec: the dataset's numbers.
        where: prefix of error messages, such as the dataset and split.

    Returns:
        Every field of the schema in its stored type.

    Raises:
        RecordError: naming the record, the field, what was expected and found.
    """
    where = f"{where}: " if where else ""
    where += f"record {record.get('sample_id', '<no sample_id>')!r}"
    unknown = sorted(set(record) - set(FIELD_BY_NAME))
    if unknown:
        raise RecordError(f"{where}: unknown fields {unknown}")
    result = {}
    for field in FIELDS:
        value = record.get(field.name)
        given = field.flag is None or bool(record.get(field.flag, 0))
        if value is None and field.name.startswith("has_"):
            raise RecordError(f"{where}: field {field.name}: expected 0 or 1, missing")
        if value is None and field.name in _DEFAULTS:
            value = _DEFAULTS[field.name]
        if value is None and (not given or field.name == "joints_h36m_cam_m"):
            value = _default(field, spec)
        if value is None and field.name == "extrinsics":
            value = _default(field, spec)
        if value is None:
            reason = "" if field.flag is None else f" ({field.flag} is 1)"
            raise RecordError(f"{where}: field {field.name}: missing{reason}")
        result[field.name] = _checked(field, value, spec, where)
    _check_values(result, where)
    return result


def _check_values(record: Record, where: str) -> None:
    """Relations between fields that a wrong converter would break."""
    size = (int(record["image_width"]), int(record["image_height"]))
    _check_image("image", record["image"], size, where)
    if record["has_mask"]:
        _check_image("mask", record["mask"], size, where)
    for field in FIELDS:
        if field.name.startswith("has_") and int(record[field.name]) not in (0, 1):
            raise RecordError(
                f"{where}: field {field.name}: expected 0 or 1, "
                f"found {int(record[field.name])}"
            )
    if np.any(record["bbox_xywh_px"][2:] <= 0):
        raise RecordError(
            f"{where}: field bbox_xywh_px: expected positive width and height, "
            f"found {record['bbox_xywh_px'].tolist()}"
        )
    camera = record["intrinsics"]
    if record["has_camera"] and not (
        camera[0, 0] > 0 and camera[1, 1] > 0 and np.array_equal(camera[2], [0, 0, 1])
    ):
        raise RecordError(
            f"{where}: field intrinsics: expected positive focal lengths and last row "
            f"0 0 1, found {camera.tolist()}"
        )


def tfds_features(spec: RecordSpec):
    """The schema as TFDS features, by which ``tfds`` itself can read the records."""
    import tensorflow_datasets as tfds

    def feature(field: FieldSpec):
        if field.name == "image":
            return tfds.features.Image(shape=(None, None, 3), doc=field.doc)
        if field.dtype in ("bytes", "str"):
            return tfds.features.Scalar(np.object_, doc=field.doc)
        doc = " ".join(p for p in (field.doc, field.unit, field.frame) if p)
        dtype = np.dtype(field.dtype).type
        return tfds.features.Tensor(shape=spec.shape(field), dtype=dtype, doc=doc)

    return tfds.features.FeaturesDict({f.name: feature(f) for f in FIELDS})


def encode(record: Record) -> bytes:
    """One validated record as a serialised ``tf.train.Example``."""
    import tensorflow as tf

    features = {}
    for field in FIELDS:
        value = record[field.name]
        if field.dtype in ("bytes", "str"):
            data = value if isinstance(value, bytes) else value.encode()
            content = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
        elif field.dtype == "int64":
            content = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            flat = np.ravel(value)
            content = tf.train.Feature(float_list=tf.train.FloatList(value=flat))
        features[field.name] = content
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def decode(serialized: bytes, spec: RecordSpec) -> Record:
    """The record in a serialised ``tf.train.Example``, as numpy values and strings."""
    import tensorflow as tf

    features = tf.train.Example.FromString(serialized).features.feature
    record: Record = {}
    for field in FIELDS:
        if field.name not in features:
            raise RecordError(f"serialised record: field {field.name}: missing")
        content = features[field.name]
        if field.dtype == "float32":
            flat = np.array(content.float_list.value, np.float32)
            record[field.name] = flat.reshape(spec.shape(field))
        elif field.dtype == "int64":
            record[field.name] = np.int64(content.int64_list.value[0])
        else:
            data = content.bytes_list.value[0]
            record[field.name] = data if field.dtype == "bytes" else data.decode()
    return record


def parse_batch(serialized, names: tuple[str, ...], spec: RecordSpec) -> dict:
    """Chosen fields of a batch of serialised records, in a TensorFlow graph.

    Args:
        serialized: string tensor [B].
        names: fields to parse; the rest is skipped.
        spec: numbers of the body model; the number of joints may vary in the batch.

    Returns:
        Field name -> tensor [B, ...]; fields over joints are padded with zeros to the
        largest number of joints in the batch.
    """
    import tensorflow as tf

    kinds = {"float32": tf.float32, "int64": tf.int64}
    features = {}
    for name in names:
        field = FIELD_BY_NAME[name]
        kind = kinds.get(field.dtype, tf.string)
        if "joints" in field.shape:
            features[name] = tf.io.FixedLenSequenceFeature(
                field.shape[1:], kind, allow_missing=True
            )
        else:
            features[name] = tf.io.FixedLenFeature(spec.shape(field), kind)
    return tf.io.parse_example(serialized, features)
