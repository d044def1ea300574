"""Cameras and rigid motions in numpy, for the labels of published datasets."""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation


def rigid_motion(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """The matrix [4, 4] of x -> rotation x + translation."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = np.reshape(translation, 3)
    return matrix


def moved_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [..., 3] moved by a rigid transform [4, 4]."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def project(intrinsics: np.ndarray, points_cam: np.ndarray) -> np.ndarray:
    """Pixels of points before a camera.

    Args:
        intrinsics: pinhole matrix [3, 3], pixels.
        points_cam: [..., 3], camera frame.

    Returns:
        [..., 2], pixels.
    """
    image = points_cam @ np.asarray(intrinsics).T
    return image[..., :2] / image[..., 2:]


def rotated_root(pose_aa: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """A body's pose as another frame sees it: its root turned, the rest as it is.

    Args:
        pose_aa: [J, 3] axis-angle, root first, in the old frame.
        rotation: [3, 3], old frame to new frame.
    """
    pose = np.array(pose_aa, np.float64).reshape(-1, 3)
    turned = Rotation.from_matrix(rotation) * Rotation.from_rotvec(pose[0])
    pose[0] = turned.as_rotvec()
    return pose


def moved_translation(
    translation_m: np.ndarray, matrix: np.ndarray, rest_root_m: np.ndarray
) -> np.ndarray:
    """A body's translation as another frame sees it.

    Bodies turn about their root joint, so with R, T of ``matrix`` the translation
    becomes R (J0 + t) + T - J0.

    Args:
        translation_m: [3], old frame, metres.
        matrix: [4, 4], old frame to new frame.
        rest_root_m: root joint J0 of the shaped body in its rest pose [3], metres.
    """
    return moved_points(matrix, rest_root_m + translation_m) - rest_root_m


def best_rigid(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation and translation that bring points nearest to others.

    Args:
        source: [N, 3].
        target: [N, 3].

    Returns:
        [4, 4], without scale and without reflection.
    """
    middle, goal = source.mean(0), target.mean(0)
    rotation, _ = Rotation.align_vectors(target - goal, source - middle)
    matrix = rotation.as_matrix()
    return rigid_motion(matrix, goal - matrix @ middle)


def pinhole(focal_px: Any, centre_px: Any) -> np.ndarray:
    """The camera matrix [3, 3] of focal lengths [2] and principal point [2]."""
    matrix = np.eye(3)
    matrix[[0, 1], [0, 1]] = focal_px
    matrix[:2, 2] = centre_px
    return matrix
