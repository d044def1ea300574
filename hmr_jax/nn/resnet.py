"""ResNet backbones in torchvision's layout, NHWC, without the classifier.

Parameter tree, which the converters' tables repeat: ``conv1``, ``bn1``,
``layer{stage}_{block}`` with ``conv1..conv3``, ``bn1..bn3``, ``downsample_conv``,
``downsample_bn``.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hmr_jax.nn import initializers
from hmr_jax.nn.norm import BatchNorm


@dataclasses.dataclass(frozen=True)
class Variant:
    """One depth: blocks per stage and whether a block is a bottleneck."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool

    @property
    def expansion(self) -> int:
        """Output channels of a block per unit of its width."""
        return 4 if self.bottleneck else 1


VARIANTS = {
    18: Variant((2, 2, 2, 2), False),
    34: Variant((3, 4, 6, 3), False),
    50: Variant((3, 4, 6, 3), True),
    101: Variant((3, 4, 23, 3), True),
}
"""He et al., Deep residual learning for image recognition (2015), table 1."""


def variant(depth: int) -> Variant:
    """The layout of a supported depth.

    Raises:
        ValueError: for another depth.
    """
    if depth not in VARIANTS:
        raise ValueError(f"ResNet depth: expected one of {list(VARIANTS)}, got {depth}")
    return VARIANTS[depth]


def max_pool_3x3(
    inputs: Float[Array, "batch height width channels"],
) -> Float[Array, "batch rows columns channels"]:
    """3x3 maximum with stride 2 and padding 1, in two separable steps.

    Equal to the pooling primitive, whose gradient on the CPU was measured 20 times
    slower. A gradient is shared between equal maxima instead of going to the first.
    """
    height, width = inputs.shape[1:3]
    pad = ((0, 0), (1, 1), (1, 1), (0, 0))
    padded = jnp.pad(inputs, pad, constant_values=-jnp.inf)
    rows = functools.reduce(
        jnp.maximum, [padded[:, i : i + height : 2] for i in range(3)]
    )
    return functools.reduce(
        jnp.maximum, [rows[:, :, i : i + width : 2] for i in range(3)]
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    width: int
    stride: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Apply the block to [batch, height, width, channels]."""
        x = _conv3x3(self.conv, self.width, self.stride, "conv1")(inputs)
        x = nn.relu(self.norm(name="bn1")(x))
        x = _conv3x3(self.conv, self.width, 1, "conv2")(x)
        x = self.norm(name="bn2")(x)
        return nn.relu(x + _shortcut(self, inputs, self.width))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 to four times the width, shortcut."""

    width: int
    stride: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Apply the block to [batch, height, width, channels]."""
        x = self.conv(self.width, (1, 1), name="conv1")(inputs)
        x = nn.relu(self.norm(name="bn1")(x))
        x = _conv3x3(self.conv, self.width, self.stride, "conv2")(x)
        x = nn.relu(self.norm(name="bn2")(x))
        x = self.conv(4 * self.width, (1, 1), name="conv3")(x)
        x = self.norm(name="bn3")(x)
        return nn.relu(x + _shortcut(self, inputs, 4 * self.width))


def _conv3x3(conv: Callable, width: int, stride: int, name: str) -> nn.Module:
    pad = ((1, 1), (1, 1))
    return conv(width, (3, 3), strides=(stride, stride), padding=pad, name=name)


def _shortcut(block: BasicBlock | Bottleneck, inputs: Array, channels: int) -> Array:
    if block.stride == 1 and inputs.shape[-1] == channels:
        return inputs
    strides = (block.stride, block.stride)
    conv = block.conv(channels, (1, 1), strides=strides, name="downsample_conv")
    return block.norm(name="downsample_bn")(conv(inputs))


class ResNet(nn.Module):
    """A ResNet up to its last feature map.

    Attributes:
        depth: 18, 34, 50 or 101.
        width: channels of the stem and of the first stage; 64 as published.
        dtype: type of the computation; parameters and statistics stay float32.
        axis_name: device axis of batch normalisation, or None for local statistics.
        unbiased: convention of the running variances, see ``BatchNorm``.
        stem: begin with the 7x7 convolution and the pooling; without it the input is a
            feature map of a quarter of the side and ``width`` channels.
    """

    depth: int = 34
    width: int = 64
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    unbiased: bool = False
    stem: bool = True

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width channels"],
        *,
        use_running_average: bool,
    ) -> dict[str, Array]:
        """Compute the feature maps.

        Args:
            images: normalised pixels, sides multiples of 32; features without ``stem``.
            use_running_average: normalise by running statistics, not the batch's.

        Returns:
            ``stem`` (a quarter of the side; the input without one) and ``layer1`` ..
            ``layer4`` (a quarter, 8th, 16th, 32nd), each [batch, rows, columns,
            channels].

        Raises:
            ValueError: without ``stem``, features of another number of channels.
        """
        conv = functools.partial(
            nn.Conv,
            use_bias=False,
            padding=((0, 0), (0, 0)),
            dtype=self.dtype,
            kernel_init=initializers.kaiming_normal_fan_out,
        )
        norm = functools.partial(
            BatchNorm,
            use_running_average=use_running_average,
            dtype=self.dtype,
            axis_name=self.axis_name,
            unbiased=self.unbiased,
        )
        layout = variant(self.depth)
        block_class = Bottleneck if layout.bottleneck else BasicBlock
        pad = ((3, 3), (3, 3))
        x = images.astype(self.dtype)
        if self.stem:
            x = conv(self.width, (7, 7), strides=(2, 2), padding=pad, name="conv1")(x)
            x = max_pool_3x3(nn.relu(norm(name="bn1")(x)))
        elif x.shape[-1] != self.width:
            raise ValueError(
                f"ResNet without stem: expected features of {self.width} channels, "
                f"got {x.shape[-1]}"
            )
        out = {"stem": x}
        for stage, blocks in enumerate(layout.blocks, start=1):
            for index in range(blocks):
                x = block_class(
                    width=self.width * 2 ** (stage - 1),
                    stride=2 if stage > 1 and index == 0 else 1,
                    conv=conv,
                    norm=norm,
                    name=f"layer{stage}_{index}",
                )(x)
            out[f"layer{stage}"] = x
        return out
