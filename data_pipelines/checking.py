"""Every record read again: checksum, schema, pixels, and labels that must agree."""

import dataclasses
import logging
import os
from collections.abc import Iterator

import numpy as np

from data_pipelines import records, schema
from data_pipelines.schema import RecordError
from hmr_jax import pictures

_EDGES = np.logspace(-7, 5, 12001)
"""Borders of the classes in which values are counted; a quarter of a percent wide."""
_NEAR_M = 0.01
WARN_SHARE, FAIL_SHARE = 0.02, 0.2
"""Median projection errors, as shares of the box, that are suspicious and refused."""
SPREAD_M = (0.05, 5.0)
"""Between the smallest hand and the widest body; beyond, units are likely wrong."""
_logger = logging.getLogger(__name__)


class _Values:
    """Median and largest of any number of values, in bounded memory."""

    def __init__(self) -> None:
        self._counts = np.zeros(len(_EDGES) + 1, np.int64)
        self.worst = 0.0
        self.worst_where = ""

    def add(self, values: np.ndarray, where: str) -> None:
        classes = np.searchsorted(_EDGES, values)
        np.add.at(self._counts, classes, 1)
        worst = values.max(initial=0.0)
        if worst > self.worst:
            self.worst, self.worst_where = float(worst), where

    @property
    def count(self) -> int:
        return int(self._counts.sum())

    @property
    def median(self) -> float:
        if not self.count:
            return 0.0
        half = np.searchsorted(np.cumsum(self._counts), (self.count + 1) // 2)
        edge = float(_EDGES[min(int(half), len(_EDGES) - 1)])
        return min(edge, self.worst)


class _Spreads:
    """Records whose 3D joints are not as wide as a person or a hand."""

    def __init__(self) -> None:
        self.count = self.odd = 0
        self.first = ""

    def add(self, spread_m: float | None, where: str) -> None:
        if spread_m is None:
            return
        self.count += 1
        if not SPREAD_M[0] <= spread_m <= SPREAD_M[1]:
            self.odd += 1
            self.first = self.first or f"{spread_m:.3g} m in {where}"


@dataclasses.dataclass(frozen=True)
class SplitCheck:
    """What was found in one split.

    Attributes:
        split: its name.
        num_records: read and decoded.
        num_projected: joints that have a 2D and an absolute 3D position and a camera.
        median_px: of the distance between the projected 3D and the 2D joint.
        worst_px: largest distance.
        worst_where: record that has it.
        median_share: of the same distances over the longer side of the box.
        warnings: what is suspicious, in words: a median beyond ``WARN_SHARE``, joints
            whose spread is not in ``SPREAD_M``.
    """

    split: str
    num_records: int
    num_projected: int
    median_px: float
    worst_px: float
    worst_where: str
    median_share: float = 0.0
    warnings: tuple[str, ...] = ()


def check(
    path: str | os.PathLike, *, max_error_px: float | None = None
) -> Iterator[SplitCheck]:
    """Read every record of a directory and verify it.

    Checked are checksums, schema and finite values, that images and masks decode to
    their last pixel, and that 3D joints project onto 2D joints. Warnings are logged.

    Args:
        path: directory of records.
        max_error_px: largest distance allowed between a projected 3D and a 2D joint;
            any by default, for cameras with lens distortion have some.

    Yields:
        One result for each split.

    Raises:
        RecordError: naming the shard, the record and what is wrong; or the split, where
            the median joint is off by more than ``FAIL_SHARE`` of its person's box.
    """
    directory = records.open_directory(path)
    for split in directory.manifest["splits"]:
        errors, shares, spreads, count = _Values(), _Values(), _Spreads(), 0
        for where, record in records.verified(directory, split):
            count += 1
            _decode(record["image"], f"{where}: field image")
            if record["has_mask"]:
                _decode(record["mask"], f"{where}: field mask")
            found = projection_errors_px(record)
            errors.add(found, where)
            shares.add(found / float(np.max(record["bbox_xywh_px"][2:])), where)
            spreads.add(joint_spread_m(record), where)
            if max_error_px is not None and errors.worst > max_error_px:
                raise RecordError(
                    f"{where}: expected 3D joints to project to within {max_error_px} "
                    f"px of the 2D joints, found {errors.worst:.2f} px"
                )
        warnings = _warnings(shares, spreads, f"{path}: {split}")
        yield SplitCheck(
            split,
            count,
            errors.count,
            errors.median,
            errors.worst,
            errors.worst_where,
            shares.median,
            warnings,
        )


def _warnings(shares: _Values, spreads: _Spreads, where: str) -> tuple[str, ...]:
    """What is suspicious in a split; a RecordError where it cannot be right."""
    result = []
    off = f"{shares.median:.1%} of the box's longer side"
    if shares.median > FAIL_SHARE:
        raise RecordError(
            f"{where}: expected 3D joints that project onto the 2D joints, found a "
            f"median distance of {off}: are camera, units or joint names wrong?"
        )
    if shares.median > WARN_SHARE:
        result.append(f"3D joints are {off} from the 2D joints in the median")
    if spreads.odd:
        low, high = SPREAD_M
        result.append(
            f"3D joints of {spreads.odd} of {spreads.count} records are not {low:g} to "
            f"{high:g} m apart, first {spreads.first}: is the unit wrong?"
        )
    for line in result:
        _logger.warning("%s: %s", where, line)
    return tuple(result)


def joint_spread_m(record: schema.Record) -> float | None:
    """Longest side of the box around the valid 3D joints.

    Args:
        record: complete.

    Returns:
        Metres; None where fewer than two joints are valid.
    """
    if not record["has_joints_3d"]:
        return None
    points = np.asarray(record["joints_cam_m"], np.float64)
    points = points[points[:, 3] > 0, :3]
    return float(np.ptp(points, axis=0).max()) if len(points) > 1 else None


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
    try:
        pictures.decode_picture(data, where)
    except pictures.UnreadablePictureError as error:
        raise RecordError(
            f"{where}: expected an image that decodes, found {len(data)} bytes: {error}"
        ) from error
