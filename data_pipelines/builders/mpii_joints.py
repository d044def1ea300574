"""The 16 joints, boxes and pixel depths of 2D pre-training for 3D pose (pose_hg).

Its datasets come in the MPII order. Joints that a dataset lacks follow by rules: the
pelvis and the thorax are the middles of hips and shoulders.
"""

import numpy as np

from hmr_jax.body.joint_sets import get_joint_set, map_joints

MPII = get_joint_set("mpii_16")
H36M_TO_MPII = (3, 2, 1, 4, 5, 6, 0, 7, 8, 10, 16, 15, 14, 11, 12, 13)
"""Of each joint of ``mpii_16`` its row in ``h36m_right_first_17``; the thorax takes
the spine's, as published."""
MPII_SCALE_PX = 200
"""MPII gives a person's height in units of 200 pixels."""

_MIDDLES = {
    "pelvis_extra": ("left_hip_extra", "right_hip_extra"),
    "thorax": ("left_shoulder", "right_shoulder"),
}


def keypoints_in_mpii_order(
    keypoints_px: np.ndarray, joint_set: str, *, published: bool = False
) -> np.ndarray:
    """Keypoints of a dataset as the 16 joints of MPII.

    Args:
        keypoints_px: [J, 3] x, y, visibility.
        joint_set: their joint set.
        published: take the middles of pelvis and thorax even where one side is not
            labelled, as the published loader of LSP does.

    Returns:
        [16, 3]; joints that the set lacks are zero.

    Source:
        pose_hg 8.2.
    """
    index, present = map_joints(joint_set, MPII)
    points = np.where(present[:, None], np.asarray(keypoints_px, np.float64)[index], 0)
    for name, sides in _MIDDLES.items():
        k = MPII.index(name)
        if present[k]:
            continue
        pair = points[[MPII.index(side) for side in sides]]
        points[k, :2] = pair[:, :2].mean(0)
        points[k, 2] = pair[:, 2].min()
        if published and points[k, :2].max() > 0:
            points[k, 2] = max(points[k, 2], 1)
        elif points[k, 2] == 0:
            points[k] = 0
    return points


def detections_in_mpii_order(detections_px: np.ndarray) -> np.ndarray:
    """3DPW's 2D detections as the 16 joints of MPII, as pose_hg's script makes them.

    That script reads the 18 columns in COCO's order, in which 3DPW does not have them
    (``keypoints_in_mpii_order`` of the joint set ``pw3d_18`` goes by their true names),
    and puts the neck and the top of the head at the nose.

    Args:
        detections_px: [..., 18, 3] x, y, confidence, in the order of the file.

    Returns:
        [..., 16, 3] x, y, confidence; that of a middle is the product of two.

    Source:
        pose_hg 8.8.
    """
    points = np.asarray(detections_px, np.float64)
    coco = get_joint_set("coco_17")
    at_nose = ("neck_extra", "headtop")
    found = np.zeros((*points.shape[:-2], len(MPII), 3))
    for k, name in enumerate(MPII.joints):
        if name in _MIDDLES:
            pair = points[..., [coco.index(side) for side in _MIDDLES[name]], :]
            found[..., k, :2] = pair[..., :2].mean(-2)
            found[..., k, 2] = pair[..., 2].prod(-1)
        else:
            column = coco.index("nose" if name in at_nose else name)
            found[..., k, :] = points[..., column, :]
    return found


def joints_in_mpii_order(joints: np.ndarray, joint_set: str) -> np.ndarray:
    """3D joints of a dataset as the 16 joints of MPII.

    Args:
        joints: [J, 4] x, y, z, validity.
        joint_set: their joint set.

    Returns:
        [16, 4]; joints that the set lacks and that are no middles are zero.
    """
    index, present = map_joints(joint_set, MPII)
    points = np.where(present[:, None], np.asarray(joints, np.float64)[index], 0)
    for name, sides in _MIDDLES.items():
        if not present[MPII.index(name)]:
            pair = points[[MPII.index(side) for side in sides]]
            points[MPII.index(name)] = pair.mean(0) * (pair[:, 3].min() > 0)
    return points


def mpii_box(centre_px: np.ndarray, scale: float) -> tuple[np.ndarray, float]:
    """The square crop of an MPII centre and scale.

    Args:
        centre_px: [2].
        scale: person's height / 200 px.

    Returns:
        The centre [2], lower by 15 px per unit of scale and from 1-based to 0-based
        pixels, and the side, 1.25 times the height.

    Source:
        pose_hg 8.1.
    """
    centre = np.asarray(centre_px, np.float64) + [0, 15 * scale] - 1
    return centre, scale * 1.25 * MPII_SCALE_PX


def published_box(
    x: np.ndarray, y: np.ndarray, size_px: tuple[int, int]
) -> tuple[np.ndarray, float]:
    """The crop that the published loaders of LSP and FLIC make of coordinates.

    Its side is 0.68 of the person's height, so that it cuts people.

    Args:
        x: [J] pixels; those at most 0 or beyond the image are left out.
        y: [J] pixels.
        size_px: width and height of the image.

    Returns:
        Centre [2] and side, pixels.

    Source:
        pose_hg 8.2.
    """
    ends = []
    for values, size in zip((x, y), size_px, strict=True):
        low, high = values[values > 0], values[values < size]
        ends.append((low.min() if low.size else 0, high.max() if high.size else size))
    (left, right), (top, bottom) = ends
    centre = np.array([left + right, top + bottom]) / 2
    return mpii_box(centre, (bottom - top + 4) / 368)


def box_of_labels(
    keypoints_px: np.ndarray, size_px: tuple[int, int], margin: float = 1.25
) -> tuple[np.ndarray, float]:
    """The square about the labelled keypoints, larger by a margin.

    Args:
        keypoints_px: [J, 3] x, y, visibility.
        size_px: width and height of the image, the box where nothing is labelled.
        margin: factor of the longer side, MPII's by default.

    Returns:
        Centre [2] and side, pixels.
    """
    points = keypoints_px[keypoints_px[:, 2] > 0, :2]
    if not len(points):
        return (np.array(size_px) - 1) / 2, float(max(size_px))
    low, high = points.min(0), points.max(0)
    return (low + high) / 2, max(margin * float((high - low).max()), 1.0)


def pixels_per_unit(image_px: np.ndarray, camera: np.ndarray) -> float:
    """The scale of the similarity that best lays 3D joints onto image points.

    Args:
        image_px: [J, 2].
        camera: [J, 2] camera x and y of the same joints, any unit of length.

    Returns:
        Pixels per unit of length; the similarity may turn but not mirror.

    Source:
        pose_hg 8.0.
    """
    target, source = image_px - image_px.mean(0), camera - camera.mean(0)
    target_norm, source_norm = np.linalg.norm(target), np.linalg.norm(source)
    if target_norm == 0 or source_norm == 0:
        return 0.0
    cross = (target / target_norm).T @ (source / source_norm)
    u, singular, vt = np.linalg.svd(cross)
    if np.linalg.det(u @ vt) < 0:
        singular[-1] *= -1
    return float(singular.sum() * target_norm / source_norm)


def pixel_depth(image_px: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Depth below the pelvis in pixels of the image.

    Args:
        image_px: [16, 2] in the order of MPII.
        joints: [16, 3] camera frame, any unit and origin.

    Returns:
        [16] pixels.

    Source:
        pose_hg 8.0.
    """
    depth = joints[:, 2] - joints[MPII.index("pelvis_extra"), 2]
    return depth * pixels_per_unit(image_px, joints[:, :2])
