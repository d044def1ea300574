"""Persons in pictures of which nobody says how far away they are.

A root's depth is chosen so that the lifted bones have, as squares and in sum, the
lengths of the body's, which is a quadratic equation.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from hmr_jax.geometry.cameras import apply_affine
from hmr_jax.systems.system import Seen

NEAREST_M = 0.3
"""No root is placed nearer to the camera."""


def rays_of(
    crop_px: Float[Array, "batch n 2"],
    crop_to_image: Float[Array, "batch 2 3"],
    intrinsics_inv: Float[Array, "batch 3 3"],
) -> Float[Array, "batch n 3"]:
    """Directions with z = 1 of points in the crops."""
    image_px = apply_affine(crop_to_image, crop_px)
    ones = jnp.ones_like(image_px[..., :1])
    points = jnp.concatenate([image_px, ones], -1)
    rays = jnp.einsum("bij,bnj->bni", intrinsics_inv, points)
    return rays / rays[..., 2:]


def squared_lengths(
    joints_m: Float[Array, "batch n 3"], bones: Sequence[tuple[int, int]]
) -> Float[Array, "batch"]:
    """Sum of the bones' squared lengths, square metres."""
    one, other = (jnp.array(ends) for ends in zip(*bones, strict=True))
    difference = joints_m[:, other] - joints_m[:, one]
    return jnp.sum(difference * difference, (1, 2))


def root_depth(
    rays: Float[Array, "batch n 3"],
    depth_m: Float[Array, "batch n"],
    bones: Sequence[tuple[int, int]],
    squared_lengths_m2: Float[Array, "batch"],
) -> Float[Array, "batch"]:
    """Depth of the root at which lifted bones are as long as a body's, in sum.

    Args:
        rays: direction of each joint, z = 1.
        depth_m: of each joint relative to the root.
        bones: pairs of joints.
        squared_lengths_m2: of the body's bones, in sum.

    Returns:
        Metres, at least ``NEAREST_M``. Where the differences of depth alone are longer
        than the body, the depth at which the bones are shortest.
    """
    one, other = (jnp.array(ends) for ends in zip(*bones, strict=True))
    lifted = rays * depth_m[..., None]
    fixed = lifted[:, other] - lifted[:, one]
    grows = rays[:, other] - rays[:, one]
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
