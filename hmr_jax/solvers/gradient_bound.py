"""A bound on how much a layer may amplify gradients, sample by sample.

The exact gradient of inverse kinematics has no bound: where targets lie in a heap, as
the heat maps of an untrained network do, or near a half turn, a millimetre decides
between two poses. One such sample outweighs all others of its batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def bound_gradient(layer: Callable[..., Any], bound: float) -> Callable[..., Any]:
    """The same layer with the amplification of its backward pass bounded.

    Args:
        layer: arrays [B, ...] to a pytree of arrays [B, ...].
        bound: largest allowed ratio, for each sample, of the norm of the gradient with
            respect to an input to the norm of the gradient with respect to all outputs
            (for targets in metres and rotations out: per metre).

    Returns:
        A layer with the same outputs, whose larger gradients are scaled down to the
        bound and whose gradients that are not finite are zero.
    """

    @jax.custom_vjp
    def bounded(*inputs):
        return layer(*inputs)

    def forward(*inputs):
        return jax.vjp(layer, *inputs)

    def backward(pull, cotangent):
        floats = [x for x in jax.tree.leaves(cotangent) if x.dtype != jax.dtypes.float0]
        limit = bound * jnp.sqrt(sum(_squares(x) for x in floats))
        return tuple(_scaled_down(x, limit) for x in pull(cotangent))

    bounded.defvjp(forward, backward)
    return bounded


def _squares(values: Array) -> Array:
    return jnp.sum(jnp.square(values), tuple(range(1, values.ndim)))


def _scaled_down(gradient: Array, limit: Array) -> Array:
    """Each sample's gradient with a norm of at most ``limit`` [B]."""
    lead = (-1,) + (1,) * (gradient.ndim - 1)
    largest = jnp.max(jnp.abs(gradient), tuple(range(1, gradient.ndim)))
    # Norms of gradients near the largest float overflow unless scaled first.
    usable = jnp.isfinite(largest) & (largest > 0)
    unit = jnp.where(usable, largest, jnp.ones_like(largest))
    shape = jnp.where(usable.reshape(lead), gradient / unit.reshape(lead), 0.0)
    norm = jnp.sqrt(_squares(shape) + (~usable).astype(gradient.dtype))
    return shape * jnp.minimum(unit, limit / norm).reshape(lead)
