"""Linear maps with PyTorch's initial values and float32 results."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hmr_jax.nn import initializers


class TorchDense(nn.Module):
    """A dense layer that starts as ``torch.nn.Linear`` does.

    Attributes:
        features: number of outputs.
        dtype: type of the computation.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "*batch inputs"]
    ) -> Float[Array, "*batch features"]:
        """Return ``inputs @ kernel + bias``."""
        fan_in = inputs.shape[-1]
        kernel = self.param(
            "kernel", initializers.torch_linear_kernel, (fan_in, self.features)
        )
        bias_init = initializers.torch_linear_bias(fan_in)
        bias = self.param("bias", bias_init, (self.features,))
        product = jnp.matmul(inputs.astype(self.dtype), kernel.astype(self.dtype))
        return product + bias.astype(self.dtype).reshape(
            (1,) * (inputs.ndim - 1) + (-1,)
        )


class PointwiseConv(nn.Module):
    """A 1x1 convolution that multiplies in ``dtype`` and returns float32 or better.

    Heat-map logits need more than bfloat16's 8 bits, their inputs do not.

    Attributes:
        features: number of output channels.
        dtype: type of the two factors.
        kernel_init: initialiser of the kernel.
    """

    features: int
    dtype: DTypeLike = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(0.001)

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width features"]:
        """Apply the same linear map at every pixel."""
        shape = (1, 1, inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        result = jnp.promote_types(jnp.float32, self.dtype)
        # One matrix of pixels: the kernel's gradient is then one product, in a fifth
        # of a three-axis contraction's time on a CPU.
        logits = jnp.matmul(
            inputs.astype(self.dtype).reshape(-1, inputs.shape[-1]),
            kernel[0, 0].astype(self.dtype),
            preferred_element_type=result,
        )
        logits = logits + bias.astype(result).reshape(1, -1)
        return logits.reshape(*inputs.shape[:-1], self.features)
