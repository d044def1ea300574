"""MPI-INF-3DHP's own files: annot.mat, camera.calibration, annot_data.mat, pictures."""

import dataclasses
import re
from typing import Any

import numpy as np

from data_pipelines.builders.cameras import project, rigid_motion
from data_pipelines.builders.published_dataset import PublishedDataset

NUM_CAMERAS = 14
_DIGITS = re.compile(r"(\d+)\.(?:jpg|jpeg|png)\Z", re.IGNORECASE)


def training_joints(
    source: PublishedDataset,
    path: str,
    names: tuple[str, str],
    cameras: tuple[int, ...],
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """2D and 3D joints of some cameras of a training sequence.

    Args:
        source: reads the file, and is named in errors.
        path: of ``annot.mat``.
        names: cells of the 2D (pixels) and of the 3D joints (millimetres), one entry
            per camera with a row per frame.
        cameras: 0-based.

    Returns:
        Camera -> joints [F, 28, 2] in pixels and [F, 28, 3] in metres.

    Raises:
        RecordError: a cell is missing or has another shape.
    """
    content = source.read_mat(path, *names)
    found = {}
    for camera in cameras:
        arrays = []
        for name, size in zip(names, (2, 3), strict=True):
            cell = np.asarray(content[name], dtype=object).ravel()
            rows = np.asarray(cell[camera] if camera < len(cell) else [], np.float64)
            rows = rows.reshape(1, -1) if rows.ndim == 1 and rows.size else rows
            if rows.ndim != 2 or rows.shape[1] != 28 * size:
                where = f"{path}: {name}{{{camera + 1}}}"
                raise source.wrong(where, f"F x {28 * size}", f"{list(rows.shape)}")
            arrays.append(rows.reshape(-1, 28, size))
        if len(arrays[0]) != len(arrays[1]):
            where = f"{path}: {names[1]}{{{camera + 1}}}"
            raise source.wrong(where, f"{len(arrays[0])} frames", len(arrays[1]))
        found[camera] = (arrays[0], arrays[1] / 1000)
    return found


@dataclasses.dataclass(frozen=True)
class EvaluationLabels:
    """Labels of a sequence of the test set.

    Attributes:
        pixels: [F, 17, 2].
        joints_m: [F, 17, 3], camera frame.
        valid: [F], whether the release evaluates the frame.
    """

    pixels: np.ndarray
    joints_m: np.ndarray
    valid: np.ndarray


def evaluation_labels(
    source: PublishedDataset, path: str, joints_name: str
) -> EvaluationLabels:
    """Labels of ``annot_data.mat``, an HDF5 file.

    Args:
        source: reads the file, and is named in errors.
        path: of the file.
        joints_name: ``annot3`` or ``univ_annot3``.
    """

    def read(file: Any) -> dict[str, np.ndarray]:
        source.require(path, file, ("annot2", joints_name, "valid_frame"))
        return {k: np.asarray(file[k]) for k in ("annot2", joints_name, "valid_frame")}

    arrays = source.read_h5(path, read)
    frames = arrays["annot2"].shape[0]
    shapes = {"annot2": (17, 2), joints_name: (17, 3), "valid_frame": ()}
    for name, shape in shapes.items():
        size = frames * int(np.prod(shape))
        if arrays[name].size != size:
            found = f"shape {list(arrays[name].shape)}"
            raise source.wrong(f"{path}: {name}", f"{frames} frames x {shape}", found)
        arrays[name] = arrays[name].reshape(frames, *shape).astype(np.float64)
    return EvaluationLabels(
        arrays["annot2"], arrays[joints_name] / 1000, arrays["valid_frame"] != 0
    )


def cameras(
    source: PublishedDataset, path: str
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Cameras of a training sequence.

    Args:
        source: reads the file, and is named in errors.
        path: of ``camera.calibration``, text: a line ``name N`` and lines ``intrinsic``
            and ``extrinsic`` of 16 numbers for each camera.

    Returns:
        Camera -> intrinsics [3, 3] in pixels, extrinsics [4, 4] in metres; empty where
        there is no file.

    Raises:
        RecordError: a line without 16 numbers.
    """
    if not source.exists(path):
        return {}
    found: dict[int, dict[str, np.ndarray]] = {}
    camera = -1
    for line in source.read_bytes(path).decode("latin1").splitlines():
        word, *values = line.split() or [""]
        if word == "name":
            camera = int(values[0])
            found[camera] = {}
        elif word in ("intrinsic", "extrinsic"):
            if len(values) != 16:
                where = f"{path}: camera {camera}: {word}"
                raise source.wrong(where, "16 numbers", len(values))
            found[camera][word] = np.array(values, np.float64).reshape(4, 4)
    result = {}
    for camera, lines in found.items():
        source.require(f"{path}: camera {camera}", lines, ("intrinsic", "extrinsic"))
        extrinsic = lines["extrinsic"]
        pose = rigid_motion(extrinsic[:3, :3], extrinsic[:3, 3] / 1000)
        result[camera] = (lines["intrinsic"][:3, :3], pose)
    return result


def fitted_camera(
    pixels: np.ndarray, joints_m: np.ndarray, tolerance_px: float = 2.0
) -> np.ndarray | None:
    """The pinhole camera that maps 3D joints onto their pixels.

    Args:
        pixels: [N, 2].
        joints_m: [N, 3], camera frame.
        tolerance_px: largest median distance of a fit that counts.

    Returns:
        Intrinsics [3, 3] of least squares; None where no camera explains the pixels.
    """
    before = joints_m[:, 2] > 0
    if before.sum() < 2:
        return None
    rays = joints_m[before, :2] / joints_m[before, 2:]
    matrix = np.eye(3)
    for axis in (0, 1):
        design = np.stack([rays[:, axis], np.ones(len(rays))], axis=-1)
        solution = np.linalg.lstsq(design, pixels[before, axis], rcond=None)[0]
        matrix[axis, [axis, 2]] = solution
    distance = np.linalg.norm(
        project(matrix, joints_m[before]) - pixels[before], axis=-1
    )
    good = np.median(distance) <= tolerance_px and matrix[0, 0] > 0 < matrix[1, 1]
    return matrix if good else None


def numbered_images(
    source: PublishedDataset, split: str, folders: tuple[str, ...], first: int | None
) -> dict[int, str]:
    """Pictures by 0-based frame number.

    Args:
        source: lists the files, and is named in errors.
        split: among whose dropped things hidden files count.
        folders: where they may be; the first that is there counts.
        first: number of the first frame in the names; None: 0 where a picture has
            that number, else 1.

    Raises:
        RecordError: no such folder, or pictures without numbers.
    """
    folder = next((f for f in folders if source.exists(f)), None)
    if folder is None:
        raise source.wrong(folders[0], "a folder of extracted frames", "none")
    paths = {}
    for path in source.glob(split, folder.removeprefix(source.raw).strip("/"), "*"):
        match = _DIGITS.search(path)
        if match:
            paths[int(match[1])] = path
    if not paths:
        raise source.wrong(folder, "pictures with numbers in their names", "none")
    if first is None:
        first = 0 if 0 in paths else 1
    return {number - first: path for number, path in paths.items()}
