"""Reductions that merge exactly: a sum and a count, divided once, at the end."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

SumCount = tuple[Float[Array, ""], Float[Array, ""]]
NormalizeBy = Literal["labelled", "all"]


def per_entry(
    weight: Float[Array, "..."], values: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """A weight for each entry.

    Args:
        weight: as many axes as the values, of their length or of length one.
        values: only their shape matters.

    Raises:
        ValueError: the shapes do not fit.
    """
    if weight.ndim != values.ndim or any(
        w not in (1, n) for w, n in zip(weight.shape, values.shape, strict=True)
    ):
        raise ValueError(f"weight {weight.shape} does not fit values {values.shape}")
    return jnp.broadcast_to(weight, values.shape)


def per_sample(
    valid: Float[Array, "batch"], values: Float[Array, "batch *rest"]
) -> Float[Array, "batch *rest"]:
    """A weight for each entry from one for each sample."""
    return per_entry(valid.reshape(valid.shape + (1,) * (values.ndim - 1)), values)


def masked(
    values: Float[Array, "*shape"],
    weight: Float[Array, "..."] | None = None,
    valid: Float[Array, "batch"] | None = None,
    *,
    normalize_by: NormalizeBy = "labelled",
) -> SumCount:
    """Sum of weighted values, and what it is to be divided by.

    A value under a zero weight never counts, not even a NaN; its gradient is zero.

    Args:
        values: element-wise losses, samples first.
        weight: of each entry, with axes of length one where it is the same; None for
            ones.
        valid: of each sample, zero for padding; None for ones.
        normalize_by: ``labelled`` divides by the weights of what is valid, ``all`` by
            the number of entries that are valid, labelled or not.

    Returns:
        (sum, count); add both over batches and devices, then ``finish``.

    Raises:
        ValueError: the shapes do not fit.
    """
    ones = jnp.ones_like(values)
    count = ones if valid is None else per_sample(valid, values)
    total = count if weight is None else count * per_entry(weight, values)
    counted = jnp.where(total != 0, values, jnp.zeros_like(values))
    divisor = count if normalize_by == "all" else total
    return jnp.sum(counted * total), jnp.sum(divisor)


def masked_error(
    loss: Callable[[Array, Array], Array],
    predicted: Float[Array, "*shape"],
    target: Float[Array, "*same"],
    weight: Float[Array, "..."] | None = None,
    valid: Float[Array, "batch"] | None = None,
    *,
    normalize_by: NormalizeBy = "labelled",
) -> SumCount:
    """``masked`` of ``loss(predicted, target)``.

    Args:
        loss: element-wise; it sees zeros in both where nothing counts, so that a NaN
            there reaches no gradient.
        predicted: samples first.
        target: of the same shape.
        weight: see ``masked``.
        valid: see ``masked``.
        normalize_by: see ``masked``.

    Raises:
        ValueError: the shapes differ (they are never broadcast), or do not fit.
    """
    check_same_shape(predicted, target)
    counted = jnp.ones(predicted.shape, bool)
    if weight is not None:
        counted &= per_entry(weight, predicted) != 0
    if valid is not None:
        counted &= per_sample(valid, predicted) != 0
    predicted, target = (
        jnp.where(counted, x, jnp.zeros_like(x)) for x in (predicted, target)
    )
    return masked(loss(predicted, target), weight, valid, normalize_by=normalize_by)


def check_same_shape(predicted: Array, target: Array) -> None:
    """Refuse shapes that would broadcast.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != target.shape:
        raise ValueError(
            f"prediction {predicted.shape} and target {target.shape} differ"
        )


def finish(total: Float[Array, ""], count: Float[Array, ""]) -> Float[Array, ""]:
    """The mean; the plain sum where nothing was counted.

    Args:
        total: added sums.
        count: added counts.
    """
    some = count > 0
    return jnp.where(some, total / jnp.where(some, count, jnp.ones_like(count)), total)
