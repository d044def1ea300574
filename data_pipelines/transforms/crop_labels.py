"""The one code path by which labels follow a crop: mirrored, turned, cut out, scaled.

A ``Placement`` says how the pixels of the file's image come to lie in the crop. Every
label of every system moves by the functions here: points in the image and before the
camera, rotations, twists, cameras. The world is mirrored with the image; it is turned
with the crop only where asked for, because a camera that knows the crop does not need
it. So labels in 3D, seen by ``crop_camera``, fall on the moved labels in 2D.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from data_pipelines.transforms import geometry


class Placement(NamedTuple):
    """Where a batch of images lies in its crops.

    Attributes:
        to_crop: [B, 2, 3], pixel of the file's image to pixel of the crop, the mirror
            included.
        mirrored_to_crop: [B, 2, 3], from pixels of the mirrored image.
        flip: bool [B], whether it is mirrored.
        turn_rad: [B], rotation about the z axis that the content of the (mirrored)
            image makes in the crop.
        width: [B] px, of the file's image.
    """

    to_crop: Any
    mirrored_to_crop: Any
    flip: Any
    turn_rad: Any
    width: Any


def place(centre, side, *, rotation_rad, flip, width, size_px) -> Placement:
    """Mirror the image, then cut a turned square out of it.

    Args:
        centre: [B, 2] px, of the square in the file's image.
        side: [B] px, or [B, 2] width and height.
        rotation_rad: [B], by which the square is turned in the mirrored image.
        flip: bool [B].
        width: [B] px, of the file's image.
        size_px: side of the crop, or its width and height.

    Returns:
        The placement.
    """
    x = tf.where(flip, width - 1 - centre[..., 0], centre[..., 0])
    centre = tf.stack([x, centre[..., 1]], axis=-1)
    cut = geometry.crop_affine(centre, side, rotation_rad, size_px)
    mirror = geometry.mirror_affine(flip, width)
    to_crop = geometry.compose_affine(cut, mirror)
    return Placement(to_crop, cut, flip, -rotation_rad, width)


def place_then_flip(centre, side, *, rotation_rad, flip, width, size_px) -> Placement:
    """Cut a turned square out of the image, then mirror the columns of the crop.

    Args:
        centre: as in ``place``, and so the others; the square is turned in the file's
            image.
        side: [B] px, or [B, 2].
        rotation_rad: [B].
        flip: bool [B].
        width: [B] px, of the file's image.
        size_px: side of the crop, or its width and height.

    Returns:
        The placement.
    """
    cut = geometry.crop_affine(centre, side, rotation_rad, size_px)
    crop_width = size_px[0] if isinstance(size_px, tuple) else size_px
    mirror = geometry.mirror_affine(flip, tf.ones_like(width) * crop_width)
    to_crop = geometry.compose_affine(mirror, cut)
    mirrored = geometry.compose_affine(to_crop, geometry.mirror_affine(flip, width))
    turn = tf.where(flip, rotation_rad, -rotation_rad)
    return Placement(to_crop, mirrored, flip, turn, width)


def where_flipped(placement: Placement, mirrored, straight):
    """``mirrored`` for the records that are mirrored, else ``straight``; [B, ...]."""
    extra = len(straight.shape) - 1
    shape = tf.concat([tf.shape(placement.flip), tf.ones(extra, tf.int32)], 0)
    return tf.where(tf.reshape(placement.flip, shape), mirrored, straight)


def swap_sides(values, placement: Placement, permutation):
    """Values [B, J] of joints, left and right exchanged in the mirror."""
    return where_flipped(placement, tf.gather(values, permutation, axis=-1), values)


def points_px(points, placement: Placement, permutation):
    """Points of the image to points of the crop.

    Args:
        points: [B, J, C] px, x and y first; further columns (visibility) move along.
        placement: of the images.
        permutation: J indices of mirror images.

    Returns:
        [B, J, C] px.
    """
    moved = geometry.apply_affine(placement.to_crop, points[..., :2])
    moved = tf.concat([moved, points[..., 2:]], axis=-1)
    return where_flipped(placement, tf.gather(moved, permutation, axis=-2), moved)


def points_cam(points, placement: Placement, permutation, *, turn: bool = False):
    """Points before the camera to those before the moved one.

    Args:
        points: [B, J, C] metres; further columns (validity) move along.
        placement: of the images.
        permutation: J indices of mirror images.
        turn: with the crop's content, about the camera's axis.

    Returns:
        [B, J, C] metres.
    """
    mirrored = geometry.flip_points_cam(points, permutation)
    moved = where_flipped(placement, mirrored, points)
    if turn:
        moved = geometry.rotate_points_about_z(moved, placement.turn_rad)
    return moved


def point_cam(point, placement: Placement, *, turn: bool = False):
    """The same for one point [B, 3] of each record."""
    return points_cam(point[..., None, :], placement, [0], turn=turn)[..., 0, :]


def pose(pose_aa, placement: Placement, permutation, *, turn: bool = False):
    """Rotations of the body that ``points_cam`` makes of a posed body.

    Args:
        pose_aa: [B, J, 3] rad, axis-angle; the root's in the camera frame.
        placement: of the images.
        permutation: J indices of mirror images.
        turn: with the crop's content.

    Returns:
        [B, J, 3] rad.
    """
    mirrored = geometry.flip_axis_angle(pose_aa, permutation)
    moved = where_flipped(placement, mirrored, pose_aa)
    if turn:
        moved = geometry.rotate_root_about_z(moved, placement.turn_rad)
    return moved


def twist(cos_sin, weight, placement: Placement, permutation) -> tuple:
    """Twists [B, J - 1, 2] and their weights [B, J - 1] of the mirrored body."""
    mirrored, mirrored_weight = geometry.flip_twist(cos_sin, weight, permutation)
    return (
        where_flipped(placement, mirrored, cos_sin),
        where_flipped(placement, mirrored_weight, weight),
    )


def camera(intrinsics, placement: Placement):
    """Intrinsics [B, 3, 3] that see the mirrored world in the mirrored image."""
    mirrored = geometry.flip_intrinsics(intrinsics, placement.width)
    return where_flipped(placement, mirrored, intrinsics)


def crop_camera(intrinsics, placement: Placement, *, turn: bool = False):
    """Intrinsics that see the moved points in the crop.

    Args:
        intrinsics: [B, 3, 3] px, of the file's image.
        placement: of the images.
        turn: whether the points were turned with the crop's content.

    Returns:
        [B, 3, 3] px, last row 0 0 1: projects ``points_cam`` onto ``points_px``.
        With ``turn`` and unequal focal lengths the corner below is not zero.
    """
    moved = camera(intrinsics, placement)
    linear = placement.mirrored_to_crop
    rows = tf.linalg.matmul(linear[..., :2], moved[..., :2, :])
    shift = linear[..., 2:] * tf.constant([[0.0, 0.0, 1.0]], linear.dtype)
    rows += shift
    if turn:
        # Points p became R p, so the camera is followed by the inverse of R.
        rows = geometry.rotate_points_about_z(rows, placement.turn_rad)
    return tf.concat([rows, moved[..., 2:, :]], axis=-2)


def box_xywh(box, placement: Placement):
    """Boxes [B, 4] px (left, top, width, height) in the mirrored image."""
    x, y, w, h = tf.unstack(box, axis=-1)
    x = tf.where(placement.flip, placement.width - x - w, x)
    return tf.stack([x, y, w, h], axis=-1)
