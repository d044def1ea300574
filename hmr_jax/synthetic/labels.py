"""Labels of a posed body in a camera: twists, keypoints, boxes, transforms."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from hmr_jax.body.forward import BodyOutput, regress_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.cameras import perspective_project
from hmr_jax.geometry.rotations import matvec3, twist_cos_sin
from hmr_jax.solvers.types import designated_children

HALF_TURN_MARGIN = 1e-3
"""A twist has weight 0 where 1 + cos of the swing's angle is below this: there the
swing is within 2.6 degrees of a half turn and the split is undefined or unstable."""


class BodyLabels(NamedTuple):
    """Labels of one person, in the fields and units of the record schema.

    Attributes:
        joints_cam_m: kinematic joints and validity 1.
        joints_h36m_cam_m: Human3.6M's 17 joints and validity (0 where the body has no
            regressor for them).
        keypoints_px: the kinematic joints in the image, and 1 where they lie in it and
            before the camera.
        bbox_xywh_px: box of the mesh's part in the image.
        twist_cos_sin: for joints 1, 2, ...
        twist_weight: 1 where the twist is defined.
    """

    joints_cam_m: Float[Array, "joints 4"]
    joints_h36m_cam_m: Float[Array, "17 4"]
    keypoints_px: Float[Array, "joints 3"]
    bbox_xywh_px: Float[Array, "4"]
    twist_cos_sin: Float[Array, "twists 2"]
    twist_weight: Float[Array, "twists"]


def twist_labels(
    local_rotmats: Float[Array, "*batch joints 3 3"],
    rest_joints_m: Float[Array, "*batch joints 3"],
    parents: tuple[int, ...],
) -> tuple[Float[Array, "*batch twists 2"], Float[Array, "*batch twists"]]:
    """Twist of each joint's rotation about the rest bone to its designated child.

    Each rotation is split as swing times twist (the twist acts first). The bone of
    spine3 leads to the neck, as in the layer that consumes the labels.

    Args:
        local_rotmats: rotation of each joint relative to its parent.
        rest_joints_m: joints of the shaped body in its rest pose, metres.
        parents: parent of each joint, -1 at the root.

    Returns:
        (cos, sin) of joints 1, 2, ... and their weights. Leaves, and joints whose swing
        is a half turn, get (1, 0) and weight 0.

    Source: IKOL specification, sections 3, 6.1 and 11 (item 15).
    """
    children = np.array(designated_children(parents)[1:])
    has_child = children >= 0
    joints = np.arange(1, len(parents))
    ends = rest_joints_m[..., np.where(has_child, children, joints), :]
    bones = ends - rest_joints_m[..., joints, :]
    rotmats = local_rotmats[..., joints, :, :]
    cos_sin = twist_cos_sin(rotmats, bones)
    moved = matvec3(rotmats, bones)
    length = jnp.maximum(jnp.sum(bones * bones, -1), 1e-12)
    swing_cos = jnp.sum(bones * moved, -1) / length
    defined = jnp.broadcast_to(has_child, swing_cos.shape)
    defined &= 1.0 + swing_cos > HALF_TURN_MARGIN
    neutral = jnp.broadcast_to(jnp.array([1.0, 0.0], cos_sin.dtype), cos_sin.shape)
    cos_sin = jnp.where(defined[..., None], cos_sin, neutral)
    return cos_sin, defined.astype(cos_sin.dtype)


def in_image(
    points_px: Float[Array, "*batch 2"], height: int, width: int
) -> Bool[Array, "*batch"]:
    """Whether points lie in the area of an image's pixels.

    Args:
        points_px: the centre of the first pixel is (0, 0).
        height: of the image.
        width: of the image.

    Returns:
        True inside, edges included.
    """
    x, y = points_px[..., 0], points_px[..., 1]
    return (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)


def bounding_box(
    points_px: Float[Array, "points 2"], height: int, width: int
) -> Float[Array, "4"]:
    """Box around the pixels that points touch, cut at the image's borders.

    Args:
        points_px: the centre of the first pixel is (0, 0).
        height: of the image.
        width: of the image.

    Returns:
        Left, top, width, height, such that the centre of the last pixel is
        left + width - 1.
    """
    limit = jnp.array([width - 1.0, height - 1.0], points_px.dtype)
    low = jnp.clip(jnp.min(points_px, axis=0), 0.0, limit)
    high = jnp.clip(jnp.max(points_px, axis=0), 0.0, limit)
    return jnp.concatenate([low, high - low + 1.0])


def _with_validity(points: Array) -> Array:
    flags = jnp.ones((*points.shape[:-1], 1), points.dtype)
    return jnp.concatenate([points, flags], axis=-1)


def body_labels(
    body: BodyModel,
    posed_cam: BodyOutput,
    local_rotmats: Float[Array, "joints 3 3"],
    intrinsics: Float[Array, "3 3"],
    height: int,
    width: int,
) -> BodyLabels:
    """Every label that follows from a posed body and a camera.

    Args:
        body: the body.
        posed_cam: vertices and joints in the camera frame, and the rest joints.
        local_rotmats: the pose, the root's in the camera frame.
        intrinsics: pinhole matrix in pixels.
        height: of the image in pixels.
        width: of the image in pixels.

    Returns:
        The labels.
    """
    if "h36m_17" in body.extra_joint_regressors:
        h36m = _with_validity(regress_joints(body, posed_cam.vertices_m, "h36m_17"))
    else:
        h36m = jnp.zeros((17, 4), posed_cam.joints_m.dtype)
    pixels = perspective_project(posed_cam.joints_m, intrinsics)
    # Points in the camera's plane have no pixel, and those behind it another's.
    seen = in_image(pixels, height, width) & (posed_cam.joints_m[..., 2] > 0)
    cos_sin, weight = twist_labels(local_rotmats, posed_cam.rest_joints_m, body.parents)
    outline = perspective_project(posed_cam.vertices_m, intrinsics)
    return BodyLabels(
        joints_cam_m=_with_validity(posed_cam.joints_m),
        joints_h36m_cam_m=h36m,
        keypoints_px=jnp.concatenate(
            [pixels, seen[:, None].astype(pixels.dtype)], axis=-1
        ),
        bbox_xywh_px=bounding_box(outline, height, width),
        twist_cos_sin=cos_sin,
        twist_weight=weight,
    )


def world_to_camera(
    camera_rotmat: Float[Array, "3 3"],
    root_cam_m: Float[Array, "3"],
    root_height_m: Float[Array, ""],
) -> Float[Array, "4 4"]:
    """Extrinsics of a camera, for a world with its origin on the floor under the root.

    Args:
        camera_rotmat: world axes (y up) to camera axes.
        root_cam_m: the root joint in the camera frame.
        root_height_m: height of the root joint above the floor.

    Returns:
        Rigid transform, world to camera, metres.
    """
    up = camera_rotmat[:, 1]
    shift = root_cam_m - up * root_height_m
    upper = jnp.concatenate([camera_rotmat, shift[:, None]], axis=1)
    last = jnp.array([[0.0, 0.0, 0.0, 1.0]], upper.dtype)
    return jnp.concatenate([upper, last])
