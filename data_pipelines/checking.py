"""Every record read again: checksum, schema, pixels, and labels that must agree."""

import dataclasses
import io
import os
from collections.abc import Iterator

import numpy as np

from data_pipelines import records, schema
from data_pipelines.schema import RecordError

_EDGES_PX = np.logspace(-4, 5, 9001)
"""Borders of the classes in which errors are counted; a quarter of a percent wide."""
_NEAR_M = 0.01


class _Errors:
    """Median and worst of any number of errors, in bounded memory."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES_PX) + 1, np.int64)
        self.worst_px = 0.0
        self.worst_where = ""

    def add(self, errors_px: np.ndarray, where: str) -> None:
        classes = np.searchsorted(_EDGES_PX, errors_px)
        np.add.at(self._counts, classes, 1)
        worst = errors_px.max(initial=0.0)
        if worst > self.worst_px:
            self.worst_px, self.worst_where = float(worst), where

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    @property
    def median_px(self) -> float:
        if not self.count:
            return 0.0
        half = np.searchsorted(np.cumsum(self._counts), (self.count + 1) // 2)
        edge = float(_EDGES_PX[min(int(half), len(_EDGES_PX) - 1)])
        return min(edge, self.worst_px)


@dataclasses.dataclass(frozen=True)
class SplitCheck:
    """What was found in one split, all of it good.

    Attributes:
        split: its name.
        num_records: read and decoded.
        num_projected: joints that have a 2D and an absolute 3D position and a camera.
        median_px: of the distance between the projected 3D and the 2D joint.
        worst_px: largest distance.
        worst_where: record that has it.
    """

    split: str
    num_records: int
    num_projected: int
    median_px: float
    worst_px: float
    worst_where: str


def check(
    path: str | os.PathLike, *, max_error_px: float | None = None
) -> Iterator[SplitCheck]:
    """Read every record of a directory and verify it.

    Checked are checksums, schema and finite values, that images and masks decode to
    their last pixel, and that 3D joints project onto 2D joints.

    Args:
        path: directory of records.
        max_error_px: largest distance allowed between a projected 3D and a 2D joint;
            any by default, for cameras with lens distortion have some.

    Yields:
        One result for each split.

    Raises:
        RecordError: naming the shard, the record and what is wrong.
    """
    directory = records.open_directory(path)
    for split in directory.manifest["splits"]:
        errors, count = _Errors(), 0
        for where, record in records.verified(directory, split):
            count += 1
            _decode(record["image"], f"{where}: field image")
            if record["has_mask"]:
                _decode(record["mask"], f"{where}: field mask")
            errors.add(projection_errors_px(record), where)
            if max_error_px is not None and errors.worst_px > max_error_px:
                raise RecordError(
                    f"{where}: expected 3D joints to project to within {max_error_px} "
                    f"px of the 2D joints, found {errors.worst_px:.2f} px"
                )
        yield SplitCheck(
            split,
            count,
            errors.count,
            errors.median_px,
            errors.worst_px,
            errors.worst_where,
        )


def projection_errors_px(record: schema.Record) -> np.ndarray:
    """Distances between projected 3D joints and 2D joints.

    Args:
        record: complete.

    Returns:
        float [N], of the joints that have both; none without a camera or where 3D
        joints are relative to the root.
    """
    flags = ("has_joints_3d", "has_keypoints", "has_camera", "has_root")
    if not all(record[flag] for flag in flags):
        return np.zeros(0)
    points = np.asarray(record["joints_cam_m"], np.float64)
    keypoints = np.asarray(record["keypoints_px"], np.float64)
    both = (points[:, 3] > 0) & (keypoints[:, 2] > 0) & (points[:, 2] > _NEAR_M)
    image = points[both, :3] @ np.asarray(record["intrinsics"], np.float64).T
    return np.linalg.norm(image[:, :2] / image[:, 2:] - keypoints[both, :2], axis=-1)


def _decode(data: bytes, where: str) -> None:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise RecordError(
            f"{where}: expected an image that decodes, found {len(data)} bytes: {error}"
        ) from error
