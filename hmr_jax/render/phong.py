"""Phong's shading under a point light, and the look-up of the published textures."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

SHININESS = 64.0
DISTANCE_M, AMBIENT, DIFFUSE, SPECULAR = (0.05, 3.0), (0.4, 0.8), (0.4, 0.8), (0.0, 0.5)
"""Bounds of the uniform laws of the published lights."""


class PointLight(NamedTuple):
    """A grey lamp and the light around it; arrays may have a leading axis under vmap.

    Attributes:
        position_m: in the frame of the shaded points.
        ambient: light that reaches every surface.
        diffuse: strength of the lamp's matt reflection.
        specular: strength of its highlight.
        shininess: exponent of the highlight.
    """

    position_m: Float[Array, "*batch 3"]
    ambient: Float[Array, "*batch"]
    diffuse: Float[Array, "*batch"]
    specular: Float[Array, "*batch"]
    shininess: Float[Array, "*batch"]


def sample_point_light(key: PRNGKeyArray) -> PointLight:
    """A light of the published law, around the origin.

    Args:
        key: of the draw.

    Returns:
        One light: its direction is uniform on the sphere.

    Source: specs/hierprob.md section 11.3.
    """
    keys = jax.random.split(key, 5)
    towards = _unit(jax.random.normal(keys[0], (3,)))
    laws = zip(keys[1:], (DISTANCE_M, AMBIENT, DIFFUSE, SPECULAR), strict=True)
    distance_m, ambient, diffuse, specular = (
        jax.random.uniform(k, (), minval=low, maxval=high) for k, (low, high) in laws
    )
    shininess = jnp.full_like(ambient, SHININESS)
    return PointLight(towards * distance_m, ambient, diffuse, specular, shininess)


def phong(
    points_m: Float[Array, "*batch 3"],
    normals: Float[Array, "*batch 3"],
    camera_m: Float[Array, "..."],
    light: PointLight,
    texel_rgb: Float[Array, "*batch 3"],
) -> Float[Array, "*batch 3"]:
    """Colours of points of a surface.

    Args:
        points_m: in any one frame.
        normals: towards the outside, of any length, same frame.
        camera_m: the camera's centre, same frame: [3], or an array that broadcasts to
            the points.
        light: one light, same frame.
        texel_rgb: colours of the surface.

    Returns:
        At most 1. Ambient light alone where a normal is zero or the light is at the
        point.

    Source: specs/hierprob.md section 11.3.
    """
    towards = _unit(jnp.broadcast_to(light.position_m, points_m.shape) - points_m)
    view = _unit(jnp.broadcast_to(camera_m, points_m.shape) - points_m)
    normals = _unit(normals)
    cosine = jnp.sum(normals * towards, -1, keepdims=True)
    mirrored = 2.0 * cosine * normals - towards
    glance = jnp.maximum(jnp.sum(view * mirrored, -1, keepdims=True), 0.0)
    highlight = jnp.where(cosine > 0, glance**light.shininess, 0.0)
    matt = light.ambient + light.diffuse * jnp.maximum(cosine, 0.0)
    return jnp.minimum(matt * texel_rgb + light.specular * highlight, 1.0)


def _unit(v: Array) -> Array:
    squared = jnp.sum(v * v, axis=-1, keepdims=True)
    return v * jax.lax.rsqrt(jnp.maximum(squared, 1e-20))
