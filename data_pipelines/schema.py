"""The one record contract: one person in one frame, the same fields for every dataset.

Systems choose fields, not datasets. A dataset's records differ only in the number of
joints of its own joint set, whose name stands in the dataset's metadata.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.record_fields import FIELDS, FieldSpec
from hmr_jax.errors import UserError
from hmr_jax.pictures import read_header

SCHEMA_VERSION = "1.1.0"
"""Changes when a field's name, type, shape or meaning changes."""

Record = dict[str, Any]
IMAGE_MAGIC = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}


class RecordError(UserError):
    """A record that breaks the schema, or a file of records that cannot be read."""


FIELD_BY_NAME = {field.name: field for field in FIELDS}
_DEFAULTS = {
    "sequence_id": "",
    "frame_id": 0,
    "person_id": 0,
    "gender": "neutral",
    "has_root": 1,
}
_MAY_BE_UNKNOWN = ("joints_h36m_cam_m", "extrinsics")
_KINDS = ("bytes", "str", "int64", "float32")


@dataclasses.dataclass(frozen=True)
class RecordSpec:
    """Numbers and further fields in which datasets differ.

    Attributes:
        joint_set: name of the joint set of keypoints and 3D joints, as in
            ``hmr_jax.body.joint_sets``.
        num_joints: joints in that set.
        num_pose_joints: rotations of the body model (24 SMPL, 16 MANO).
        num_betas: shape coefficients.
        extras: fields of this dataset alone, of fixed shape; a record may leave them
            out, and they are then zeros (or empty).
    """

    joint_set: str = "smpl_24"
    num_joints: int = 24
    num_pose_joints: int = 24
    num_betas: int = 10
    extras: tuple[FieldSpec, ...] = ()

    def __post_init__(self):
        names = set(FIELD_BY_NAME)
        for extra in self.extras:
            fixed = all(isinstance(n, int) and n > 0 for n in extra.shape)
            scalar = not extra.shape or extra.dtype in ("int64", "float32")
            if extra.name in names or not (fixed and scalar and extra.dtype in _KINDS):
                raise RecordError(
                    f"extra field {extra.name}: expected a new name, a dtype of "
                    f"{', '.join(_KINDS)} and fixed sizes, found {extra}"
                )
            names.add(extra.name)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "RecordSpec":
        """The spec of which ``dataclasses.asdict`` made JSON.

        Args:
            value: from a manifest; ``extras`` may be missing.

        Raises:
            TypeError: other keys.
        """
        extras = tuple(
            FieldSpec(**{**extra, "shape": tuple(extra["shape"])})
            for extra in value.get("extras", ())
        )
        return cls(**{**value, "extras": extras})

    @property
    def fields(self) -> tuple[FieldSpec, ...]:
        """Every field of a record of this dataset."""
        return FIELDS + self.extras

    def shape(self, field: FieldSpec) -> tuple[int, ...]:
        """Sizes of a field in this dataset."""
        numbers = {
            "joints": self.num_joints,
            "pose_joints": self.num_pose_joints,
            "twists": self.num_pose_joints - 1,
            "betas": self.num_betas,
        }
        return tuple(numbers[n] if isinstance(n, str) else n for n in field.shape)


def merged_extras(
    specs: Sequence[RecordSpec], declared: Sequence[FieldSpec] = ()
) -> dict[str, FieldSpec]:
    """The extras of several datasets that are read together.

    Args:
        specs: of the datasets.
        declared: extras that a transform reads even where no dataset has them.

    Returns:
        Name -> field.

    Raises:
        RecordError: one name with two types or shapes, naming both.
    """
    found: dict[str, FieldSpec] = {}
    for extra in (*declared, *(extra for spec in specs for extra in spec.extras)):
        known = found.setdefault(extra.name, extra)
        if (known.dtype, known.shape) != (extra.dtype, extra.shape):
            raise RecordError(
                f"field {extra.name}: expected {known.dtype} {list(known.shape)} as in "
                f"the first dataset that has it, found {extra.dtype} "
                f"{list(extra.shape)}"
            )
    return found


def _default(field: FieldSpec, spec: RecordSpec) -> Any:
    if field.dtype in ("bytes", "str"):
        return b"" if field.dtype == "bytes" else ""
    if field.name in ("intrinsics", "extrinsics"):
        return np.eye(*spec.shape(field), dtype=np.float32)
    return np.zeros(spec.shape(field), field.dtype)


def _image_kind(data: bytes) -> str | None:
    kinds = (kind for magic, kind in IMAGE_MAGIC.items() if data.startswith(magic))
    return next(kinds, None)


def _check_image(name: str, data: bytes, size: tuple[int, int], where: str) -> None:
    if _image_kind(data) is None:
        raise RecordError(
            f"{where}: field {name}: expected a JPEG or PNG file, "
            f"found {len(data)} bytes beginning {data[:8]!r}"
        )
    try:
        header = read_header(data)
    except ValueError as error:
        raise RecordError(f"{where}: field {name}: {error}") from error
    found = (header.width, header.height)
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
    unknown = sorted(set(record) - {field.name for field in spec.fields})
    if unknown:
        raise RecordError(f"{where}: unknown fields {unknown}")
    result = {}
    for field in spec.fields:
        value = record.get(field.name)
        given = field.flag is None or bool(record.get(field.flag, 0))
        if value is None and field.name in _DEFAULTS:
            value = _DEFAULTS[field.name]
        if value is None and field in FIELDS and field.name.startswith("has_"):
            raise RecordError(f"{where}: field {field.name}: expected 0 or 1, missing")
        if value is None and (
            not given or field in spec.extras or field.name in _MAY_BE_UNKNOWN
        ):
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

    return tfds.features.FeaturesDict({f.name: feature(f) for f in spec.fields})


def encode(record: Record, extras: Sequence[FieldSpec] = ()) -> bytes:
    """One validated record as a serialised ``tf.train.Example``.

    Args:
        record: from ``validate``.
        extras: of its dataset's ``RecordSpec``.
    """
    import tensorflow as tf

    features = {}
    for field in (*FIELDS, *extras):
        value = record[field.name]
        if field.dtype in ("bytes", "str"):
            data = value if isinstance(value, bytes) else value.encode()
            content = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
        elif field.dtype == "int64":
            flat = np.ravel(value)
            content = tf.train.Feature(int64_list=tf.train.Int64List(value=flat))
        else:
            flat = np.ravel(value)
            content = tf.train.Feature(float_list=tf.train.FloatList(value=flat))
        features[field.name] = content
    example = tf.train.Example(features=tf.train.Features(feature=features))
    # The map of features would come in another order in every process.
    return example.SerializeToString(deterministic=True)


def decode(serialized: bytes, spec: RecordSpec) -> Record:
    """The record in a serialised ``tf.train.Example``, as numpy values and strings."""
    import tensorflow as tf

    features = tf.train.Example.FromString(serialized).features.feature
    record: Record = {}
    for field in spec.fields:
        if field.name not in features:
            raise RecordError(f"serialised record: field {field.name}: missing")
        content = features[field.name]
        if field.dtype == "float32":
            flat = np.array(content.float_list.value, np.float32)
            record[field.name] = flat.reshape(spec.shape(field))
        elif field.dtype == "int64":
            whole = np.array(content.int64_list.value, np.int64)
            record[field.name] = whole.reshape(spec.shape(field))[()]
        else:
            data = content.bytes_list.value[0]
            record[field.name] = data if field.dtype == "bytes" else data.decode()
    return record


def parse_batch(
    serialized,
    names: Sequence[str],
    spec: RecordSpec,
    extras: Mapping[str, FieldSpec] | None = None,
) -> dict:
    """Chosen fields of a batch of serialised records, in a TensorFlow graph.

    Args:
        serialized: string tensor [B].
        names: fields to parse; the rest is skipped.
        spec: numbers of the body model; the number of joints may vary in the batch.
        extras: fields beside the schema's, by name (``merged_extras``); by default
            those of ``spec``. Records without one have zeros (or nothing) there.

    Returns:
        Field name -> tensor [B, ...]; fields over joints are padded with zeros to the
        largest number of joints in the batch.

    Raises:
        RecordError: a name that neither the schema nor ``extras`` has.
    """
    import tensorflow as tf

    kinds = {"float32": tf.float32, "int64": tf.int64}
    extras = merged_extras([spec]) if extras is None else extras
    features: dict[str, Any] = {}
    for name in names:
        field = FIELD_BY_NAME.get(name) or extras.get(name)
        if field is None:
            raise RecordError(
                f"field {name}: expected one of the schema or an extra of a dataset "
                f"({', '.join(extras) or 'there is none'})"
            )
        kind = kinds.get(field.dtype, tf.string)
        if "joints" in field.shape:
            features[name] = tf.io.FixedLenSequenceFeature(
                field.shape[1:], kind, allow_missing=True
            )
            continue
        absent = _default(field, spec) if name in extras else None
        features[name] = tf.io.FixedLenFeature(spec.shape(field), kind, absent)
    return tf.io.parse_example(serialized, features)
