"""Fields beside the schema's that several datasets share (``RecordSpec.extras``)."""

from data_pipelines.schema import FieldSpec

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
