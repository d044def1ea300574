"""Random numbers of the samples of a batch, whatever device a sample lies on.

A function of a batch takes one key, or a key for each sample (``keys_of_rows``). With
the latter a sample's numbers depend on its own key alone, and so, where keys are made
of places in the whole batch, not on how many devices share it.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array
from jaxtyping import Int


def keys_of_rows(key: Array, rows: Int[Array, "batch"]) -> Array:
    """A key for each sample.

    Args:
        key: the same on all devices.
        rows: places of the samples in the whole batch.

    Returns:
        Keys [B].
    """
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)


def is_one(key: Array) -> bool:
    """Whether it is a single key, typed or old, and not a key for each sample."""
    typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key.ndim == (0 if typed else 1)


def split(key: Array, count: int) -> list[Array]:
    """New keys, each for one purpose.

    Args:
        key: one, or one for each sample.
        count: of purposes.

    Returns:
        As many keys, or arrays of a key for each sample.
    """
    if is_one(key):
        return list(jax.random.split(key, count))
    fold = jax.vmap(jax.random.fold_in, (0, None))
    return [fold(key, purpose) for purpose in range(count)]


def draw(
    function: Callable[..., Array], key: Array, shape: tuple[int, ...], *args: Any
) -> Array:
    """Numbers of a batch.

    Args:
        function: ``function(key, shape, *args)``.
        key: one, or one for each sample.
        shape: of the result, the batch first.
        *args: arrays with the batch first.

    Returns:
        The numbers; of each sample from its own key, where it has one.
    """
    if is_one(key):
        return function(key, shape, *args)
    return jax.vmap(lambda k, *rest: function(k, shape[1:], *rest))(key, *args)
