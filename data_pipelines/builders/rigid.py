"""Rotations, cameras and boxes in numpy, for the labels of published datasets."""

import numpy as np


def rotation_matrix(axis_angle: np.ndarray) -> np.ndarray:
    """Rotation matrices of axis-angle vectors.

    Args:
        axis_angle: [..., 3], radians.

    Returns:
        [..., 3, 3].
    """
    vector = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1)
    cross = cross.reshape(*vector.shape[:-1], 3, 3)
    # sinc keeps both factors exact at zero: np.sinc(x) is sin(pi x) / (pi x).
    first = np.sinc(angle / np.pi)
    second = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.eye(3) + first * cross + second * (cross @ cross)


def axis_angle(matrix: np.ndarray) -> np.ndarray:
    """Axis-angle vectors, of length 0 to pi, of rotation matrices.

    Args:
        matrix: [..., 3, 3].

    Returns:
        [..., 3], radians.
    """
    m = np.asarray(matrix, np.float64)
    diagonal = np.diagonal(m, axis1=-2, axis2=-1)
    trace = diagonal.sum(-1, keepdims=True)
    # The four quaternions (w, x, y, z), each times one of its own components; the
    # one times the largest component is exact everywhere.
    w = np.stack(
        [
            1 + trace[..., 0],
            m[..., 2, 1] - m[..., 1, 2],
            m[..., 0, 2] - m[..., 2, 0],
            m[..., 1, 0] - m[..., 0, 1],
        ],
        axis=-1,
    )
    rest = m + np.swapaxes(m, -1, -2)
    rest[..., range(3), range(3)] = 1 + 2 * diagonal - trace
    rest = np.concatenate([w[..., 1:, None], rest], axis=-1)
    table = np.concatenate([w[..., None, :], rest], axis=-2)
    sizes = np.concatenate([1 + trace, 1 + 2 * diagonal - trace], axis=-1)
    best = sizes.argmax(-1)[..., None, None]
    quaternion = np.take_along_axis(table, best, axis=-2)[..., 0, :]
    quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
    quaternion *= np.where(quaternion[..., :1] < 0, -1, 1)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    safe = np.where(sine > 0, sine, 1)
    return quaternion[..., 1:] * np.where(sine > 0, angle / safe, 2.0)


def rigid(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """The matrix [4, 4] of x -> rotation x + translation."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = np.reshape(translation, 3)
    return matrix


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
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
    pose[0] = axis_angle(rotation @ rotation_matrix(pose[0]))
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
    return transform(matrix, rest_root_m + translation_m) - rest_root_m


def valid_box(box_xywh: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """I2L-MeshNet's reading of a published box: moved and cut into the image.

    Args:
        box_xywh: left, top, width, height [4], pixels.
        width: of the image, pixels.
        height: of the image, pixels.

    Returns:
        The box [4] before it is made square; None where the sample is left out.

    Source: specs/i2l_meshnet.md, section 10.2.
    """
    x, y, w, h = np.asarray(box_xywh, np.float64)
    low = np.maximum([x, y], 0)
    high = np.minimum([width - 1, height - 1], low + np.maximum([w - 1, h - 1], 0))
    if not w * h > 0 or np.any(high < low):
        return None
    return np.concatenate([low, high - low])


def best_rigid(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation and translation that bring points nearest to others.

    Args:
        source: [N, 3].
        target: [N, 3].

    Returns:
        [4, 4], without scale and without reflection.
    """
    middle, goal = source.mean(0), target.mean(0)
    u, _, vt = np.linalg.svd((source - middle).T @ (target - goal))
    sign = np.sign(np.linalg.det(vt.T @ u.T))
    rotation = vt.T @ np.diag([1.0, 1.0, sign]) @ u.T
    return rigid(rotation, goal - rotation @ middle)
