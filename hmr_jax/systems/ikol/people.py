"""From crops of persons to bodies, where nobody says how far away they are.

The network needs the depth of the root. It is chosen so that the lifted bones have, as
squares and in sum, the lengths of the predicted body's, which is a quadratic equation.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hmr_jax.body.forward import rest_joints
from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.cameras import apply_affine, to_camera_axes
from hmr_jax.systems.ikol.data import normalization
from hmr_jax.systems.ikol.task import make_model, make_predict
from hmr_jax.systems.system import Seen

NEAREST_M = 0.3
"""No root is placed nearer to the camera."""
_CHILDREN = np.arange(1, 24)
_PARENTS = np.asarray(SMPL_PARENTS)[1:]


def people(
    config: Any, options: Mapping[str, Any]
) -> Callable[[Any, BodyModel, Seen], dict[str, Array]]:
    """What finds the bodies of a batch of persons, see ``System``.

    Args:
        config: an experiment.
        options: none are looked at.

    Returns:
        A function to ``vertices_m``, ``joints_m`` (y up, about the root),
        ``local_rotmats`` [B, 24, 3, 3], ``betas``, ``root_cam_m``, ``camera`` and
        ``joints2d_crop_px``.
    """
    del options
    size = config.image_size_px
    mean, deviation = (
        np.asarray(x, np.float32).reshape(1, 1, 1, 3) for x in normalization(config)
    )
    predict_raw, to_body = make_predict(config, make_model(config))

    def predict(variables: Any, body: BodyModel, seen: Seen) -> dict[str, Array]:
        side = seen.crops.shape[1]
        shape = (len(seen.crops), size, size, 3)
        images = jax.image.resize(seen.crops, shape, "linear", antialias=True)
        raw = predict_raw(variables, (images - mean) / deviation)
        # Pixels of the network's crop are larger than those of the engine's.
        affine = seen.crop_to_image.at[:, :, :2].multiply(side / size)
        camera = {"crop_to_image": affine, "intrinsics_inv": seen.intrinsics_inv}
        crop_px = (raw["uvd"][..., :2] + 0.5) * size
        lengths = _squared_lengths(rest_joints(body, raw["shape"]))
        depth = raw["uvd"][..., 2] * config.depth_range_m
        rays = _rays(crop_px, affine, seen.intrinsics_inv)
        root_m = rays[:, 0] * root_depth(rays, depth, lengths)[:, None]
        out = to_body(raw, {**camera, "root_cam_m": root_m}, body)
        joints_m = out["pred_joints_struct_m"]
        joints_px = project(joints_m + root_m[:, None], seen)
        return {
            "vertices_m": to_camera_axes(out["pred_vertices_cam_m"] - root_m[:, None]),
            "joints_m": to_camera_axes(joints_m),
            "local_rotmats": out["pred_rotmats"],
            "betas": out["pred_shape"],
            "root_cam_m": root_m,
            "camera": weak_perspective_of(joints_m, 2 * joints_px / side - 1),
            "joints2d_crop_px": joints_px,
        }

    return predict


def _rays(crop_px: Array, crop_to_image: Array, intrinsics_inv: Array) -> Array:
    """Directions [B, J, 3] with z = 1 of points in the crops."""
    image_px = apply_affine(crop_to_image, crop_px)
    ones = jnp.ones_like(image_px[..., :1])
    points = jnp.concatenate([image_px, ones], -1)
    rays = jnp.einsum("bij,bnj->bni", intrinsics_inv, points)
    return rays / rays[..., 2:]


def _squared_lengths(joints_m: Array) -> Array:
    """Sum [B] of the bones' squared lengths."""
    bones = joints_m[:, _CHILDREN] - joints_m[:, _PARENTS]
    return jnp.sum(bones * bones, (1, 2))


def root_depth(
    rays: Float[Array, "batch 24 3"],
    depth_m: Float[Array, "batch 24"],
    squared_lengths_m2: Float[Array, "batch"],
) -> Float[Array, "batch"]:
    """Depth of the root at which lifted bones are as long as a body's, in sum.

    Args:
        rays: direction of each joint, z = 1.
        depth_m: of each joint relative to the root.
        squared_lengths_m2: of the body's bones, in sum.

    Returns:
        Metres, at least ``NEAREST_M``. Where the differences of depth alone are longer
        than the body, the depth at which the bones are shortest.
    """
    lifted = rays * depth_m[..., None]
    fixed = lifted[:, _CHILDREN] - lifted[:, _PARENTS]
    grows = rays[:, _CHILDREN] - rays[:, _PARENTS]
    a = jnp.sum(grows * grows, (1, 2))
    b = jnp.sum(fixed * grows, (1, 2))
    c = jnp.sum(fixed * fixed, (1, 2)) - squared_lengths_m2
    a = jnp.maximum(a, float(jnp.finfo(a.dtype).eps))
    root = (-b + jnp.sqrt(jnp.maximum(b * b - a * c, 0.0))) / a
    return jnp.maximum(root, NEAREST_M)


def project(
    points_m: Float[Array, "batch n 3"], seen: Seen
) -> Float[Array, "batch n 2"]:
    """Points of the camera's frame in the crops, pixels."""
    camera = jnp.linalg.inv(seen.intrinsics_inv)
    image = jnp.einsum("bij,bnj->bni", camera, points_m)
    image_px = image[..., :2] / image[..., 2:]
    scale = jnp.diagonal(seen.crop_to_image[:, :, :2], axis1=1, axis2=2)
    return (image_px - seen.crop_to_image[:, None, :, 2]) / scale[:, None]


def weak_perspective_of(
    points_m: Float[Array, "batch n 3"], norm: Float[Array, "batch n 2"]
) -> Float[Array, "batch 3"]:
    """The weak-perspective camera nearest to given projections.

    Args:
        points_m: y down, any origin.
        norm: their places in the crop, in [-1, 1].

    Returns:
        (s, tx, ty) with ``norm = s (x + t)`` in the least-squares sense.
    """
    plane = points_m[..., :2]
    middle, at = plane.mean(1), norm.mean(1)
    x, u = plane - middle[:, None], norm - at[:, None]
    spread = jnp.maximum(jnp.sum(x * x, (1, 2)), 1e-12)
    scale = jnp.maximum(jnp.sum(x * u, (1, 2)) / spread, 1e-6)[:, None]
    return jnp.concatenate([scale, at / scale - middle], 1)
