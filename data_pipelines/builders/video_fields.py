"""Extra fields and flags that builders of people in images and videos share."""

from typing import Any

from data_pipelines.schema import FieldSpec

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

_FLAGS = ("smpl", "keypoints", "joints_3d", "camera", "twist", "mask")


def flags(*given: str) -> dict[str, Any]:
    """Every ``has_*`` flag: 1 for the given names, else 0.

    Args:
        given: names without ``has_``, such as ``keypoints``.

    Returns:
        Fields of a record.

    Raises:
        ValueError: no such flag.
    """
    unknown = sorted(set(given) - set(_FLAGS))
    if unknown:
        raise ValueError(f"expected flags {', '.join(_FLAGS)}, got {unknown}")
    return {f"has_{name}": int(name in given) for name in _FLAGS}
