"""Linear blend skinning along component-major planes, with a hand-written gradient.

Per body: one row of a matmul gives the corrected rest vertices as planes x, y, z; one
matmul of the joints' 3x4 transforms with the weights gives twelve planes; nine
multiply-adds along the vertices do the rest. The gradient recomputes the twelve planes
and is two matmuls that contract the vertex axis.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

CHUNK = 64
"""Bodies per piece on the CPU where no gradient is asked for: the twelve planes of more
bodies leave the cache (at 256 bodies 52 against 32 ms on two cores)."""


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    dims = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(a, b, dims, precision=lax.Precision.HIGHEST)


def _posed(template: Array, directions: Array, features: Array) -> Array:
    """Corrected rest vertices as planes [B, 3, V]."""
    terms, _, verts = directions.shape
    flat = _dot(features, directions.reshape(terms, 3 * verts), (1, 0))
    # The template as one more row of the matmul would save this addition, and cost a
    # digit: 217 small terms would be rounded as parts of sums of order one.
    return template[None] + flat.reshape(features.shape[0], 3, verts)


def _blend(weights: Array, transforms: Array) -> Array:
    """Blended transforms as planes [B, 3, 4, V] from [B, 3, 4, J]."""
    count, _, _, joints = transforms.shape
    planes = _dot(transforms.reshape(count * 12, joints), weights, (1, 0))
    return planes.reshape(count, 3, 4, weights.shape[1])


def _apply(planes: Array, posed: Array) -> Array:
    """Transformed points [B, 3, V] of points [B, 3, V]."""
    return (
        planes[:, :, 0] * posed[:, None, 0]
        + planes[:, :, 1] * posed[:, None, 1]
        + planes[:, :, 2] * posed[:, None, 2]
        + planes[:, :, 3]
    )


def _skin_planes(
    template: Array,
    directions: Array,
    weights: Array,
    features: Array,
    transforms: Array,
) -> Array:
    posed = _posed(template, directions, features)
    return jnp.swapaxes(_apply(_blend(weights, transforms), posed), 1, 2)


def _skin_chunked(*arguments: Array) -> Array:
    """The same in pieces of ``CHUNK`` bodies."""
    template, directions, weights, features, transforms = arguments
    body = (template, directions, weights)
    count = features.shape[0]
    whole = count // CHUNK * CHUNK
    pieces = lax.map(
        lambda xs: _skin_planes(*body, *xs),
        (
            features[:whole].reshape(-1, CHUNK, *features.shape[1:]),
            transforms[:whole].reshape(-1, CHUNK, *transforms.shape[1:]),
        ),
    )
    vertices = pieces.reshape(whole, *pieces.shape[2:])
    if whole == count:
        return vertices
    rest = _skin_planes(*body, features[whole:], transforms[whole:])
    return jnp.concatenate([vertices, rest])


@jax.custom_vjp
def _skin(*arguments: Array) -> Array:
    count = arguments[3].shape[0]
    if not isinstance(count, int) or count <= CHUNK:  # a symbolic size is not an int
        return _skin_planes(*arguments)
    return lax.platform_dependent(*arguments, cpu=_skin_chunked, default=_skin_planes)


def _skin_fwd(*arguments: Array) -> tuple[Array, tuple]:
    template, directions, weights, features, transforms = arguments
    posed = _posed(template, directions, features)
    points = _apply(_blend(weights, transforms), posed)
    return jnp.swapaxes(points, 1, 2), (*arguments[1:], posed)


def _skin_bwd(saved: tuple, cotangent: Array) -> tuple[Array, ...]:
    directions, weights, features, transforms, posed = saved
    terms, _, verts = directions.shape
    count = features.shape[0]
    g = jnp.swapaxes(cotangent, 1, 2)
    planes = _blend(weights, transforms)
    d_posed = jnp.stack(
        [
            planes[:, 0, j] * g[:, 0]
            + planes[:, 1, j] * g[:, 1]
            + planes[:, 2, j] * g[:, 2]
            for j in range(3)
        ],
        1,
    )
    point = jnp.concatenate([posed, jnp.ones_like(posed[:, :1])], 1)
    d_planes = (g[:, :, None] * point[:, None]).reshape(count * 12, verts)
    flat = d_posed.reshape(count, 3 * verts)
    d_features = _dot(flat, directions.reshape(terms, 3 * verts), (1, 1))
    d_transforms = _dot(d_planes, weights, (1, 1)).reshape(transforms.shape)
    # Unless somebody differentiates with respect to the body, jit drops these three.
    d_template = jnp.sum(d_posed, 0)
    d_directions = _dot(features, flat, (0, 0)).reshape(directions.shape)
    d_weights = _dot(transforms.reshape(count * 12, -1), d_planes, (0, 0))
    return d_template, d_directions, d_weights, d_features, d_transforms


_skin.defvjp(_skin_fwd, _skin_bwd)


def skin(
    template_m: Float[Array, "3 verts"],
    basis_m: Float[Array, "terms 3 verts"],
    blend_weights: Float[Array, "joints verts"],
    features: Float[Array, "*batch terms"],
    transforms: Float[Array, "*batch 3 4 joints"],
    *,
    forward_mode: bool = False,
) -> Float[Array, "*batch verts 3"]:
    """Vertices from corrective coefficients and the joints' transforms.

    Args:
        template_m: rest vertices as planes, metres.
        basis_m: corrective directions as planes, metres.
        blend_weights: skinning weights.
        features: coefficients of the directions.
        transforms: rest frame to posed frame of each joint, joints last.
        forward_mode: leave the hand-written gradient out, so that ``jax.jvp`` and
            ``jax.jacfwd`` work too (the gradient is about three times slower).

    Returns:
        Posed vertices, metres. Gradients with respect to all five are exact.
    """
    batch = features.shape[:-1]
    count = math.prod(batch)
    function = _skin_planes if forward_mode else _skin
    vertices = function(
        template_m,
        basis_m,
        blend_weights,
        features.reshape(count, features.shape[-1]),
        transforms.reshape(count, *transforms.shape[-3:]),
    )
    return vertices.reshape(*batch, *vertices.shape[1:])
