"""Diagonal Gaussian over the last axis."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from hmr_jax import sample_keys

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class DiagonalGaussian(NamedTuple):
    """Independent normal variables.

    Attributes:
        mean: [..., n].
        log_std: [..., n], logarithms of the standard deviations.
    """

    mean: Array
    log_std: Array

    @property
    def std(self) -> Array:
        """Standard deviations [..., n]."""
        return jnp.exp(self.log_std)

    def log_prob(self, value: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """Log density, summed over the last axis.

        Args:
            value: points of the mean's shape.

        Raises:
            ValueError: the shapes differ.
        """
        if value.shape != self.mean.shape:
            raise ValueError(
                f"value: expected the mean's shape {self.mean.shape}, got {value.shape}"
            )
        scaled = (value - self.mean) * jnp.exp(-self.log_std)
        return -jnp.sum(0.5 * scaled * scaled + self.log_std + _HALF_LOG_2PI, -1)

    def entropy(self) -> Float[Array, "*batch"]:
        """Differential entropy in nats, summed over the last axis."""
        return jnp.sum(self.log_std + (0.5 + _HALF_LOG_2PI), -1)

    def sample(self, key: Array, num_samples: int) -> Float[Array, "samples *batch n"]:
        """Independent draws, differentiable in mean and log_std.

        Args:
            key: random key, or one for each entry of the first axis of the batch.
            num_samples: draws of the whole batch.

        Returns:
            Samples, the new axis first.
        """
        shape = (num_samples, *self.mean.shape)
        normal = functools.partial(jax.random.normal, dtype=self.mean.dtype)
        if sample_keys.is_one(key):
            noise = normal(key, shape)
        else:
            own = (num_samples, *self.mean.shape[1:])
            noise = jnp.moveaxis(jax.vmap(lambda k: normal(k, own))(key), 0, 1)
        return self.mean[None] + self.std[None] * noise
