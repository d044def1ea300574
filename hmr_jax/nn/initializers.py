"""Initial values as PyTorch and torchvision draw them, and as the systems ask for."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""torchvision's ResNet convolutions: normal, variance 2 / (area * outputs)."""

torch_linear_kernel = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""``torch.nn.Linear``'s weights: uniform within 1 / sqrt(inputs)."""


def torch_linear_bias(fan_in: int) -> nn.initializers.Initializer:
    """``torch.nn.Linear``'s bias: uniform within 1 / sqrt(``fan_in``)."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
