"""Cameras and masks from 2D keypoints, as video systems of this field exchange them.

Source: specs/int_hmr.md, sections 5.4, 7 and 14.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from hmr_jax.geometry import safe

_ROUNDING = 8


def translation_from_keypoints(
    points_m: Float[Array, "*batch n 3"],
    keypoints_px: Float[Array, "*batch n 2"],
    weight: Float[Array, "*batch n"],
    focal_px: float | Float[Array, "*batch"],
    centre_px: Float[Array, "*batch 2"],
) -> Float[Array, "*batch 3"]:
    """Translations that bring 3D points nearest to their pixels, in closed form.

    With t the translation, each point asks ``f (x + t_x) = (u - c) (z + t_z)``, and so
    does y: linear least squares over all points, weighted.

    Args:
        points_m: camera axes, about an origin of their own, metres.
        keypoints_px: where they are seen.
        weight: of the squared residuals; 0 for points that are not seen.
        focal_px: focal length.
        centre_px: principal point.

    Returns:
        (x, y, z) to add to the points, metres; zeros where fewer than two points are
        seen, or all at one place.
    """
    focal = jnp.broadcast_to(
        jnp.asarray(focal_px, points_m.dtype), points_m.shape[:-2]
    )[..., None, None]
    # Divided by the focal length: rays [..., n, 2], one pair of rows for each point.
    rays = (keypoints_px - centre_px[..., None, :]) / focal
    right = rays * points_m[..., 2:] - points_m[..., :2]
    share = safe.divide(weight, weight.sum(-1, keepdims=True))
    mean_ray = (share[..., None] * rays).sum(-2, keepdims=True)
    mean_right = (share[..., None] * right).sum(-2, keepdims=True)
    # x and y have one unknown each, which the means eliminate; z is left.
    spread, offset = rays - mean_ray, right - mean_right
    across = (share[..., None] * spread**2).sum((-2, -1))
    # Of points at one place the rays differ by rounding alone.
    rounding = (_ROUNDING * jnp.finfo(rays.dtype).eps) ** 2
    found = across > rounding * (share[..., None] * rays**2).sum((-2, -1))
    across = jnp.where(found, across, 0)
    z = -safe.divide((share[..., None] * spread * offset).sum((-2, -1)), across)
    xy = (mean_right + mean_ray * z[..., None, None])[..., 0, :]
    return jnp.where(found[..., None], jnp.concatenate([xy, z[..., None]], -1), 0)


def crop_camera_to_image(
    scale: Float[Array, "*batch"],
    translation_m: Float[Array, "*batch 2"],
    box_centre_px: Float[Array, "*batch 2"],
    box_size_px: Float[Array, "*batch 2"],
    image_size_px: Float[Array, "*batch 2"],
) -> tuple[Float[Array, "*batch 2"], Float[Array, "*batch 2"]]:
    """A crop's weak-perspective camera as one of the whole image.

    Args:
        scale: half crops per metre.
        translation_m: (tx, ty), metres, added before the scale.
        box_centre_px: the crop's centre in the image.
        box_size_px: the crop's width and height in the image.
        image_size_px: the image's width and height.

    Returns:
        Scale of each axis, half images per metre, and translation [2], metres:
        ``scale * (xy + translation)`` is a point in [-1, 1] over the image. The
        translation is ``translation_m`` where the scale is 0.
    """
    scales = scale[..., None] * box_size_px / image_size_px
    off_centre = (2 * box_centre_px - image_size_px) / image_size_px
    return scales, translation_m + safe.divide(off_centre, scales)


def keypoint_mask(
    keypoints_px: Float[Array, "*batch n 2"], image_size_px: float, size: int
) -> Float[Array, "*batch size size"]:
    """Binary maps that are 1 in the cells in which keypoints lie.

    Args:
        keypoints_px: pixels of a square image; those outside count in the cells at the
            edge.
        image_size_px: side of the image.
        size: cells along each side.

    Returns:
        1 and 0, rows downwards.
    """
    cells = jnp.floor(keypoints_px * (size / image_size_px))
    cells = jnp.clip(cells, 0, size - 1).astype(jnp.int32)
    columns, rows = jnp.moveaxis(
        jax.nn.one_hot(cells, size, dtype=keypoints_px.dtype), -2, 0
    )
    return (rows[..., :, None] * columns[..., None, :]).max(-3)
