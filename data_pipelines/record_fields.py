"""Fields of records: names, types, shapes, units and frames.

``FIELDS`` every record has; the others are extras (``RecordSpec.extras``) that several
datasets share.
"""

import dataclasses


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
        "x right, y down, z forward, validity (0 or 1); where has_root is 0 relative "
        "to the dataset's root joint",
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
        "added to the body model's vertices; where has_root is 0 as joints_cam_m",
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
    _flag("has_root", "3D joints and translation in absolute camera coordinates"),
)

ROOT_DEPTH = FieldSpec(
    "root_depth_m",
    "float32",
    (),
    "m",
    "camera",
    "depth of the root joint where a detector gives it for testing, else 0",
)
BOX_IS_CROP = FieldSpec(
    "box_is_crop",
    "int64",
    (),
    doc="1 where the box is the square crop itself (a detector's), 0 where it is tight",
)
WORLD_TRANSLATION = FieldSpec(
    "translation_world_m",
    "float32",
    (3,),
    "m",
    "world",
    "the body model's translation as published, before the camera's extrinsics",
)
TRANSLATION_KNOWN = FieldSpec(
    "translation_known",
    "int64",
    (),
    doc="1 where translation_m is exact; 0 where it is zero because it follows only "
    "with the body model: R (J0 + translation_world_m) + T - J0 with the extrinsics "
    "R, T and the shaped rest root J0",
)
ROOT_CAM = FieldSpec(
    "root_cam_m", "float32", (3,), "m", "camera", "root joint as published"
)
DEPTH_PX = FieldSpec(
    "depth_px",
    "float32",
    (16,),
    "px",
    "camera",
    "depth below the pelvis in the image's pixels, of the joints of mpii_16",
)
WEAK_CAMERA = FieldSpec(
    "weak_camera",
    "float32",
    (3,),
    doc="scale and shift of a weak perspective camera over the crop, as published",
)
VALID_FRAME = FieldSpec(
    "valid_frame", "int64", (), doc="the dataset's own mark of frames to evaluate"
)
