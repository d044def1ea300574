"""Batch normalisation that keeps either variance convention and stays in float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
    """Normalise the last axis over all others, with running statistics.

    The sums are taken around the running mean, which makes one pass over the input
    as accurate as two. Scale, bias and statistics are float32 whatever ``dtype`` is.

    Attributes:
        momentum: share of the old running value kept in an update (.9 is PyTorch's .1).
        epsilon: added to the variance.
        dtype: type of the output.
        axis_name: name of the device axis over which statistics are averaged, or None.
        unbiased: keep the running variance as n / (n - 1) times the batch's, as
            PyTorch does; off keeps the batch's own, as Flax does. The output of a
            training step is the same.
        scale_init: initialiser of the scale.
        use_running_average: normalise by the running statistics, not the batch's.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    unbiased: bool = False
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    use_running_average: bool = True

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "*axes channels"]
    ) -> Float[Array, "*axes channels"]:
        """Normalise ``inputs`` by the batch's or by the running statistics."""
        shape = (inputs.shape[-1],)
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", zeros, shape, jnp.float32)
        mean = self.variable("batch_stats", "mean", zeros, None, shape, jnp.float32)
        var = self.variable("batch_stats", "var", ones, None, shape, jnp.float32)
        # at least float32; float64 where a test asks for it
        values = inputs.astype(jnp.promote_types(jnp.float32, inputs.dtype))
        if self.use_running_average:
            batch_mean, batch_var = mean.value, var.value
        else:
            batch_mean, batch_var = self._batch_statistics(values, mean.value)
            if not self.is_initializing():
                self._update(mean, batch_mean)
                self._update(var, batch_var * self._correction(values))
        lead = (1,) * (inputs.ndim - 1)
        gain = scale * jax.lax.rsqrt(batch_var + self.epsilon)
        centred = values - batch_mean.reshape(lead + shape)
        return (
            centred * gain.reshape(lead + shape) + bias.reshape(lead + shape)
        ).astype(self.dtype)

    def _batch_statistics(self, values: Array, reference: Array) -> tuple[Array, Array]:
        axes = tuple(range(values.ndim - 1))
        reference = jax.lax.stop_gradient(reference)
        shifted = values - reference.reshape((1,) * len(axes) + reference.shape)
        first, second = shifted.mean(axes), jnp.square(shifted).mean(axes)
        if self.axis_name is not None and not self.is_initializing():
            first, second = jax.lax.pmean((first, second), self.axis_name)
        variance = jnp.maximum(second - jnp.square(first), 0.0)
        return first + reference, variance

    def _correction(self, values: Array) -> Array | float:
        if not self.unbiased:
            return 1.0
        count = values.size / values.shape[-1]
        if self.axis_name is not None:
            count = jax.lax.psum(count, self.axis_name)
        return count / (count - 1)

    def _update(self, variable: nn.Variable, value: Array) -> None:
        old = variable.value
        new = self.momentum * old + (1 - self.momentum) * value
        variable.value = new.astype(old.dtype)
