"""Reductions that merge exactly: a sum and a count, divided once, at the end."""

import jax.numpy as jnp
from jaxtyping import Array, Float

SumCount = tuple[Float[Array, ""], Float[Array, ""]]


def weighted_sum(
    values: Float[Array, "*shape"], weight: Float[Array, "*same"]
) -> SumCount:
    """Sum of weighted values, and sum of the weights.

    A value under a zero weight never counts, not even a NaN; its gradient is zero.

    Args:
        values: element-wise losses.
        weight: of the same shape.

    Returns:
        (sum, count); add both over batches and devices, then ``finish``.

    Raises:
        ValueError: the shapes differ (they are never broadcast).
    """
    if values.shape != weight.shape:
        raise ValueError(
            f"weighted_sum: expected weights of shape {values.shape}, "
            f"got {weight.shape}"
        )
    counted = jnp.where(weight != 0, values, jnp.zeros_like(values))
    return jnp.sum(counted * weight), jnp.sum(weight)


def finish(total: Float[Array, ""], count: Float[Array, ""]) -> Float[Array, ""]:
    """The mean; the plain sum where nothing was counted.

    Args:
        total: added sums.
        count: added counts.
    """
    some = count > 0
    return jnp.where(some, total / jnp.where(some, count, jnp.ones_like(count)), total)
