"""Perspective, weak-perspective and crop cameras with their inverses.

Frames: camera x right, y down, z forward, metres; pixels x right, y down, pixel centres
at integer coordinates. Affine maps are [..., 2, 3] and act on (x, y, 1).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from hmr_jax.geometry import safe
from hmr_jax.geometry.rotations import matmul3


def to_camera_axes(points_m: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """Turn points by half a turn about x: from y up to y down, z away.

    Args:
        points_m: metres; the same function turns them back.
    """
    return points_m * jnp.array([1, -1, -1], points_m.dtype).reshape(
        (1,) * (points_m.ndim - 1) + (3,)
    )


def intrinsics_matrix(
    focal_px: Float[Array, "*batch 2"], centre_px: Float[Array, "*batch 2"]
) -> Float[Array, "*batch 3 3"]:
    """Camera matrices from focal lengths and principal points.

    Args:
        focal_px: (fx, fy), pixels.
        centre_px: (cx, cy), pixels.

    Returns:
        ``[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]``.
    """
    fx, fy = focal_px[..., 0], focal_px[..., 1]
    cx, cy = centre_px[..., 0], centre_px[..., 1]
    o, i = jnp.zeros_like(fx), jnp.ones_like(fx)
    rows = jnp.stack([fx, o, cx, o, fy, cy, o, o, i], -1)
    return rows.reshape(*fx.shape, 3, 3)


def invert_intrinsics(
    intrinsics: Float[Array, "*batch 3 3"],
) -> Float[Array, "*batch 3 3"]:
    """Inverse camera matrices in closed form, skew included.

    Args:
        intrinsics: upper triangular matrices with 1 in the corner, pixels.

    Returns:
        Their inverses; zero rows where a focal length is zero.
    """
    fx, skew, cx = (intrinsics[..., 0, i] for i in range(3))
    fy, cy = intrinsics[..., 1, 1], intrinsics[..., 1, 2]
    o, i = jnp.zeros_like(fx), jnp.ones_like(fx)
    ix, iy = safe.divide(i, fx), safe.divide(i, fy)
    across = -skew * ix * iy
    rows = jnp.stack([ix, across, -cx * ix - across * cy, o, iy, -cy * iy, o, o, i], -1)
    return rows.reshape(*fx.shape, 3, 3)


def _map_points(matrix: Array, points: Array) -> Array:
    """``matrix [..., 3, 3]`` times each of ``points [..., N, 3]``."""
    return jnp.swapaxes(matmul3(matrix, jnp.swapaxes(points, -1, -2)), -1, -2)


def perspective_project(
    points_cam_m: Float[Array, "*batch n 3"], intrinsics: Float[Array, "*batch 3 3"]
) -> Float[Array, "*batch n 2"]:
    """Pixels of points in the camera frame.

    Args:
        points_cam_m: camera frame, metres (any unit).
        intrinsics: camera matrices, pixels.

    Returns:
        Pixels; points of zero depth go to (0, 0), points behind are mirrored.
    """
    homogeneous = _map_points(intrinsics, points_cam_m)
    return safe.divide(homogeneous[..., :2], homogeneous[..., 2:])


def back_project(
    points_px: Float[Array, "*batch n 2"],
    depth_m: Float[Array, "*batch n"],
    intrinsics_inv: Float[Array, "*batch 3 3"],
) -> Float[Array, "*batch n 3"]:
    """Camera-frame points from pixels and depths; inverse of ``perspective_project``.

    Args:
        points_px: pixels.
        depth_m: distance along the optical axis, metres.
        intrinsics_inv: inverse camera matrices.

    Returns:
        Camera frame, metres.
    """
    ones = jnp.ones_like(points_px[..., :1])
    rays = _map_points(intrinsics_inv, jnp.concatenate([points_px, ones], -1))
    return rays * depth_m[..., None]


def weak_perspective_project(
    points_m: Float[Array, "*batch n 3"],
    scale: Float[Array, "*batch"],
    translation_m: Float[Array, "*batch 2"],
) -> Float[Array, "*batch n 2"]:
    """Scaled orthographic projection: ``scale * (xy + translation)``.

    Args:
        points_m: metres, camera axes.
        scale: half crops per metre.
        translation_m: (tx, ty), metres, added before the scale.

    Returns:
        Coordinates in [-1, 1] over the crop.
    """
    return scale[..., None, None] * (points_m[..., :2] + translation_m[..., None, :])


def normalized_to_pixels(
    points: Float[Array, "*batch n 2"], size_px: float
) -> Float[Array, "*batch n 2"]:
    """Map [-1, 1] over a square crop to its pixels.

    Args:
        points: coordinates in [-1, 1].
        size_px: side of the crop, pixels.

    Returns:
        ``(points + 1) * size_px / 2``.
    """
    return (points + 1) * (0.5 * size_px)


def weak_perspective_to_translation(
    scale: Float[Array, "*batch"],
    translation_m: Float[Array, "*batch 2"],
    focal_px: float | Float[Array, "*batch"],
    side_px: float | Float[Array, "*batch"],
    offset_px: Float[Array, "*batch 2"] | None = None,
) -> Float[Array, "*batch 3"]:
    """Camera translations at which perspective agrees with a weak-perspective camera.

    Args:
        scale: half crops per metre.
        translation_m: (tx, ty), metres.
        focal_px: focal length in the image's pixels.
        side_px: side of the crop in the image's pixels.
        offset_px: crop centre minus principal point, pixels; None puts the principal
            point at the crop's centre (the crop's own camera).

    Returns:
        (x, y, z) of the body's origin in the camera frame, metres; z is 0 where the
        scale is 0.
    """
    focal = jnp.broadcast_to(jnp.asarray(focal_px, scale.dtype), scale.shape)
    side = jnp.broadcast_to(jnp.asarray(side_px, scale.dtype), scale.shape)
    z = safe.divide(2 * focal, side * scale)
    xy = translation_m
    if offset_px is not None:
        xy = xy + offset_px * safe.divide(z, focal)[..., None]
    return jnp.concatenate([xy, z[..., None]], -1)


def translation_to_weak_perspective(
    translation_cam_m: Float[Array, "*batch 3"],
    focal_px: float | Float[Array, "*batch"],
    side_px: float | Float[Array, "*batch"],
    offset_px: Float[Array, "*batch 2"] | None = None,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch 2"]]:
    """Weak-perspective cameras; inverse of ``weak_perspective_to_translation``.

    Args:
        translation_cam_m: the body's origin in the camera frame, metres.
        focal_px: focal length in the image's pixels.
        side_px: side of the crop in the image's pixels.
        offset_px: crop centre minus principal point, pixels.

    Returns:
        scale (half crops per metre) and translation (tx, ty) in metres.
    """
    z = translation_cam_m[..., 2]
    focal = jnp.broadcast_to(jnp.asarray(focal_px, z.dtype), z.shape)
    side = jnp.broadcast_to(jnp.asarray(side_px, z.dtype), z.shape)
    xy = translation_cam_m[..., :2]
    if offset_px is not None:
        xy = xy - offset_px * safe.divide(z, focal)[..., None]
    return safe.divide(2 * focal, side * z), xy


def crop_affine(
    centre_px: Float[Array, "*batch 2"],
    side_px: Float[Array, "*batch"],
    rotation_rad: Float[Array, "*batch"],
    out_size_px: float,
) -> Float[Array, "*batch 2 3"]:
    """Maps from image pixels to the pixels of a rotated square crop.

    Args:
        centre_px: crop centre in the image, pixels.
        side_px: crop side in the image, pixels.
        rotation_rad: rotation of the crop in the image ([[c, -s], [s, c]]), radians.
        out_size_px: side of the output, pixels.

    Returns:
        ``p -> (out / side) R(-rotation) (p - centre) + out / 2``.

    Source: IKOL specification, section 14.1.
    """
    scale = safe.divide(jnp.full_like(side_px, out_size_px), side_px)
    c, s = scale * jnp.cos(rotation_rad), scale * jnp.sin(rotation_rad)
    x, y = centre_px[..., 0], centre_px[..., 1]
    half = 0.5 * out_size_px
    rows = [c, s, half - c * x - s * y, -s, c, half + s * x - c * y]
    return jnp.stack(rows, -1).reshape(*side_px.shape, 2, 3)


def invert_affine(affine: Float[Array, "*batch 2 3"]) -> Float[Array, "*batch 2 3"]:
    """Inverse affine maps.

    Args:
        affine: invertible maps.

    Returns:
        Their inverses; zeros where the map is singular.
    """
    a, b, x = (affine[..., 0, i] for i in range(3))
    c, d, y = (affine[..., 1, i] for i in range(3))
    inverse = safe.divide(jnp.ones_like(a), a * d - b * c)
    a, b, c, d = d * inverse, -b * inverse, -c * inverse, a * inverse
    rows = jnp.stack([a, b, -a * x - b * y, c, d, -c * x - d * y], -1)
    return rows.reshape(*a.shape, 2, 3)


def compose_affine(
    outer: Float[Array, "*batch 2 3"], inner: Float[Array, "*batch 2 3"]
) -> Float[Array, "*batch 2 3"]:
    """The map that applies ``inner`` and then ``outer``.

    Args:
        outer: second maps.
        inner: first maps.

    Returns:
        Their composition.
    """
    linear = outer[..., :, 0:1] * inner[..., 0:1, :] + (
        outer[..., :, 1:2] * inner[..., 1:2, :]
    )
    return linear.at[..., 2].add(outer[..., 2])


def apply_affine(
    affine: Float[Array, "*batch 2 3"], points_px: Float[Array, "*batch n 2"]
) -> Float[Array, "*batch n 2"]:
    """Map points.

    Args:
        affine: one map per batch element.
        points_px: points (x, y).

    Returns:
        Mapped points.
    """
    x, y = points_px[..., 0:1], points_px[..., 1:2]
    columns = jnp.swapaxes(affine, -1, -2)[..., None, :, :]
    return x * columns[..., 0, :] + y * columns[..., 1, :] + columns[..., 2, :]
