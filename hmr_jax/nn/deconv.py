"""Transposed 4x4 convolutions with stride 2, as PyTorch's with padding 1."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hmr_jax.nn import initializers
from hmr_jax.nn.norm import BatchNorm

_NHWC = ("NHWC", "HWIO", "NHWC")


def conv_transpose_dilated(
    inputs: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs outputs"],
) -> Float[Array, "batch height2 width2 outputs"]:
    """Double the sides: spread the input by 2, pad by 2, correlate with the kernel.

    Args:
        inputs: feature map.
        kernel: PyTorch's weight [in, out, 4, 4] with both spatial axes reversed, then
            moved to the front.
    """
    return jax.lax.conv_general_dilated(
        inputs, kernel, (1, 1), ((2, 2), (2, 2)), (2, 2), dimension_numbers=_NHWC
    )


def conv_transpose_phases(
    inputs: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs outputs"],
) -> Float[Array, "batch height2 width2 outputs"]:
    """The same map as four interleaved 2x2 convolutions, one for each pixel parity.

    No multiplication by inserted zeros. On the CPU (batch 16, 128 channels, 16 x 16)
    its gradient was measured 20 to 50 times faster than the dilated form's.
    """
    batch, height, width, _ = inputs.shape
    rows = []
    for a in range(2):
        row = [
            jax.lax.conv_general_dilated(
                inputs,
                kernel[a::2, b::2],
                (1, 1),
                ((1 - a, a), (1 - b, b)),
                dimension_numbers=_NHWC,
            )
            for b in range(2)
        ]
        rows.append(jnp.stack(row, axis=3))
    stacked = jnp.stack(rows, axis=2)  # [batch, height, 2, width, 2, outputs]
    return stacked.reshape(batch, 2 * height, 2 * width, kernel.shape[-1])


def conv_transpose_4x4(
    inputs: Float[Array, "batch height width inputs"],
    kernel: Float[Array, "4 4 inputs outputs"],
) -> Float[Array, "batch height2 width2 outputs"]:
    """Transposed 4x4 convolution, stride 2, padding 1, in the platform's faster form.

    Args:
        inputs: feature map.
        kernel: see ``conv_transpose_dilated``.

    Returns:
        A feature map of twice the height and width.
    """
    return jax.lax.platform_dependent(
        inputs, kernel, cpu=conv_transpose_phases, default=conv_transpose_dilated
    )


class DeconvHead(nn.Module):
    """Transposed convolution, batch normalisation and ReLU, once per entry.

    Attributes:
        channels: output channels of each step.
        dtype: type of the computation.
        axis_name: device axis of batch normalisation, or None.
        unbiased: convention of the running variances, see ``BatchNorm``.
    """

    channels: tuple[int, ...] = (256, 256, 256)
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    unbiased: bool = False

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch height width channels"],
        skips: Sequence[Float[Array, "batch _rows _columns _channels"]] = (),
        *,
        use_running_average: bool,
    ) -> Float[Array, "batch rows columns outputs"]:
        """Enlarge ``features`` by two for every entry of ``channels``.

        Args:
            features: the coarsest feature map.
            skips: finer ones, the coarsest first; each is added, after a 1x1
                convolution, to the step of its size. Fewer than steps, or none.
            use_running_average: normalise by running statistics.

        Raises:
            ValueError: a skip is not of its step's size.
        """
        x = features.astype(self.dtype)
        for index, outputs in enumerate(self.channels):
            x = _Deconv(outputs, self.dtype, name=f"deconv{index}")(x)
            if index < len(skips):
                x = x + self._lateral(skips[index], x, index)
            norm = BatchNorm(
                dtype=self.dtype,
                axis_name=self.axis_name,
                unbiased=self.unbiased,
                use_running_average=use_running_average,
                name=f"bn{index}",
            )
            x = nn.relu(norm(x))
        return x

    def _lateral(self, skip: Array, like: Array, index: int) -> Array:
        if skip.shape[:3] != like.shape[:3]:
            raise ValueError(
                f"skips[{index}]: expected a feature map of {like.shape[1]} x "
                f"{like.shape[2]}, got {skip.shape[1]} x {skip.shape[2]}"
            )
        conv = nn.Conv(
            like.shape[-1],
            (1, 1),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=initializers.kaiming_normal_fan_out,
            name=f"lateral{index}",
        )
        return conv(skip)


class _Deconv(nn.Module):
    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        shape = (4, 4, inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(0.001), shape)
        return conv_transpose_4x4(inputs, kernel.astype(self.dtype))
