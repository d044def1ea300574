"""Batch normalisation that keeps either variance convention and stays in float32."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float


def _mean(values: Array) -> Array:
    """Means of the channels, axis by axis: one long float32 sum would lose 2 digits."""
    while values.ndim > 1:
        values = values.mean(-2)
        if values.ndim > 1:  # else the compiler makes one sum of all
            values = jax.lax.optimization_barrier(values)
    return values


class BatchNorm(nn.Module):
    """Normalise the last axis over all others, with running statistics.

    The batch's statistics take two passes: its mean over all devices, then the sums
    around that, which cancel no digits however far the mean is from zero. Scale, bias
    and statistics are float32 whatever ``dtype`` is.

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
        lead = (1,) * (inputs.ndim - 1)
        if self.use_running_average:
            centred, batch_var = values - mean.value.reshape(lead + shape), var.value
        else:
            centred, batch_mean, batch_var = self._batch_statistics(values)
            if not self.is_initializing():
                self._update(mean, batch_mean)
                self._update(var, batch_var * self._correction(values))
        gain = scale * jax.lax.rsqrt(batch_var + self.epsilon)
        return (
            centred * gain.reshape(lead + shape) + bias.reshape(lead + shape)
        ).astype(self.dtype)

    def _batch_statistics(self, values: Array) -> tuple[Array, Array, Array]:
        """Values less their mean, mean and variance."""
        axes = tuple(range(values.ndim - 1))
        # Any number near the mean will do: what it is off by is taken away again, in
        # digits that a mean far from zero does not have. So no gradient flows here.
        near = jax.lax.stop_gradient(self._over_devices(_mean(values)))
        shifted = values - near.reshape((1,) * len(axes) + near.shape)
        first, second = self._over_devices((_mean(shifted), _mean(jnp.square(shifted))))
        variance = jnp.maximum(second - jnp.square(first), 0.0)
        return (
            shifted - first.reshape((1,) * len(axes) + first.shape),
            near + first,
            variance,
        )

    def _over_devices(self, means):
        """Means over all devices, which hold equally many values."""
        if self.axis_name is None or self.is_initializing():
            return means
        return jax.lax.pmean(means, self.axis_name)

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
