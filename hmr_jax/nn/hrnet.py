"""HRNet, a network of 2D pose that keeps fine and coarse maps side by side.

Parameter tree, which the converter's table repeats: ``conv1``, ``bn1``, ``conv2``,
``bn2``, ``layer1_{block}``, ``transition{n}_{branch}``, ``stage{n}_{module}`` with
``branch{b}_{block}``, ``fuse{to}_{from}`` (up) and ``fuse{to}_{from}_{step}`` (down),
and ``final_layer``.
Source: Sun et al., CVPR 2019; specs/hierprob.md section 16.
"""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from hmr_jax.nn.linear import PointwiseConv
from hmr_jax.nn.norm import BatchNorm
from hmr_jax.nn.resnet import BasicBlock, Bottleneck

MODULES = (1, 4, 3)
"""Modules of stages 2, 3 and 4; each stage has one branch more than the last."""
BLOCKS = 4

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CROP_SIZE_PX = (384, 288)
"""Height and width of the published crops."""
MAP_STRIDE_PX = 4


class _ConvNorm(nn.Module):
    """A convolution, its normalisation, and perhaps ReLU."""

    features: int
    size: int
    stride: int
    relu: bool
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        pad = (self.size // 2, self.size // 2)
        x = self.conv(
            self.features,
            (self.size, self.size),
            strides=(self.stride, self.stride),
            padding=(pad, pad),
            name="conv",
        )(inputs)
        x = self.norm(name="bn")(x)
        return nn.relu(x) if self.relu else x


def _enlarged(x: Array, times: int) -> Array:
    """Each pixel repeated ``times`` by ``times``."""
    return jnp.repeat(jnp.repeat(x, times, axis=1), times, axis=2)


class _Module(nn.Module):
    """Four basic blocks in every branch, then an exchange between the branches."""

    outputs: int
    conv: Callable
    norm: Callable

    @nn.compact
    def __call__(self, branches: Sequence[Array]) -> list[Array]:
        refined = [self._refine(x, b) for b, x in enumerate(branches)]
        return [self._fuse(refined, to) for to in range(self.outputs)]

    def _refine(self, x: Array, branch: int) -> Array:
        for block in range(BLOCKS):
            x = BasicBlock(
                width=x.shape[-1],
                stride=1,
                conv=self.conv,
                norm=self.norm,
                name=f"branch{branch}_{block}",
            )(x)
        return x

    def _fuse(self, branches: Sequence[Array], to: int) -> Array:
        part = functools.partial(_ConvNorm, conv=self.conv, norm=self.norm)
        width = branches[to].shape[-1]
        parts = []
        for source, x in enumerate(branches):
            name = f"fuse{to}_{source}"
            if source > to:
                x = part(width, 1, 1, False, name=name)(x)
                x = _enlarged(x, 2 ** (source - to))
            for step in range(to - source):
                last = step == to - source - 1
                features = width if last else x.shape[-1]
                x = part(features, 3, 2, not last, name=f"{name}_{step}")(x)
            parts.append(x)
        return nn.relu(functools.reduce(jnp.add, parts))


class HRNet(nn.Module):
    """Heatmaps of joints in a crop around one person.

    Attributes:
        width: channels of the finest branch; 48 or 32 as published.
        num_joints: joints with a heatmap; 17 of ``coco_17`` as published.
        dtype: type of the convolutions; the heatmaps are float32.
        axis_name: device axis of batch normalisation, or None.
        unbiased: convention of the running variances, see ``BatchNorm``.
    """

    width: int = 48
    num_joints: int = 17
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    unbiased: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool
    ) -> dict[str, Array]:
        """Compute the heatmaps.

        Args:
            images: pixels normalised by ``normalize_images``, sides multiples of 32.
            train: normalise by the batch; needs the mutable collection
                ``batch_stats``.

        Returns:
            ``heatmaps`` [B, height / 4, width / 4, joints], ``layer1``, and
            ``stage{n}_{branch}`` for every branch of stages 2 to 4 (of stage 4 the
            finest alone).

        Raises:
            ValueError: a side is no multiple of 32.
        """
        if images.shape[1] % 32 or images.shape[2] % 32:
            raise ValueError(
                f"images: expected sides that are multiples of 32, got "
                f"{images.shape[1]} x {images.shape[2]}"
            )
        conv = functools.partial(
            nn.Conv,
            use_bias=False,
            padding=((0, 0), (0, 0)),
            dtype=self.dtype,
            kernel_init=nn.initializers.normal(0.001),
        )
        norm = functools.partial(
            BatchNorm,
            use_running_average=not train,
            dtype=self.dtype,
            axis_name=self.axis_name,
            unbiased=self.unbiased,
        )
        x = images.astype(self.dtype)
        for i in (1, 2):
            pad = ((1, 1), (1, 1))
            x = conv(64, (3, 3), strides=(2, 2), padding=pad, name=f"conv{i}")(x)
            x = nn.relu(norm(name=f"bn{i}")(x))
        for block in range(4):
            x = Bottleneck(64, 1, conv=conv, norm=norm, name=f"layer1_{block}")(x)
        out = {"layer1": x}
        part = functools.partial(_ConvNorm, size=3, relu=True, conv=conv, norm=norm)
        branches = [part(self.width, stride=1, name="transition1_0")(x)]
        coarsest = x
        for stage, modules in enumerate(MODULES, start=2):
            name = f"transition{stage - 1}_{stage - 1}"
            new = part(self.width * 2 ** (stage - 1), stride=2, name=name)
            branches = [*branches, new(coarsest)]
            for index in range(modules):
                last = stage == 4 and index == modules - 1
                branches = _Module(
                    outputs=1 if last else len(branches),
                    conv=conv,
                    norm=norm,
                    name=f"stage{stage}_{index}",
                )(branches)
            coarsest = branches[-1]
            out |= {f"stage{stage}_{b}": x for b, x in enumerate(branches)}
        final = PointwiseConv(self.num_joints, self.dtype, name="final_layer")
        return {"heatmaps": final(branches[0]), **out}


def normalize_images(
    images: Float[Array, "batch height width 3"],
) -> Float[Array, "batch height width 3"]:
    """RGB in [0, 1] to ImageNet's zero mean and unit deviation.

    Args:
        images: RGB crops.
    """
    mean = jnp.array(IMAGENET_MEAN, images.dtype).reshape(1, 1, 1, 3)
    std = jnp.array(IMAGENET_STD, images.dtype).reshape(1, 1, 1, 3)
    return (images - mean) / std


def decode_heatmaps(
    heatmaps: Float[Array, "batch height width joints"], *, refine: bool = False
) -> tuple[Float[Array, "batch joints 2"], Float[Array, "batch joints"]]:
    """Joints at the maxima of heatmaps, in pixels of the crop.

    Args:
        heatmaps: one per joint, a quarter of the crop's size.
        refine: shift each joint a quarter of a cell towards its larger neighbour, as
            HRNet's own evaluation does; the published pipeline here does not.

    Returns:
        (x, y) in pixels of the crop, multiples of 4 unless refined, and the maxima as
        confidences. A joint whose maximum is not above 0, or not finite, is at (0, 0)
        with its confidence (0 where not finite).

    Source: specs/hierprob.md section 15.
    """
    batch, height, width, joints = heatmaps.shape
    maps = jnp.where(jnp.isfinite(heatmaps), heatmaps, 0)
    flat = maps.reshape(batch, height * width, joints)
    best = jnp.argmax(flat, 1)
    confidence = flat.max(1)
    cells = jnp.stack([best % width, best // width], -1).astype(heatmaps.dtype)
    if refine:
        cells = cells + 0.25 * _uphill(flat, best, height, width)
    joints_px = jnp.where((confidence > 0)[..., None], MAP_STRIDE_PX * cells, 0)
    return joints_px, confidence


def _uphill(flat: Array, best: Array, height: int, width: int) -> Array:
    """Sign of the slope at cells [batch, joints], 0 at the border."""

    def at(index):
        index = jnp.clip(index, 0, height * width - 1)
        return jnp.take_along_axis(flat, index[:, None], axis=1)[:, 0]

    column, row = best % width, best // width
    inside = (column > 0) & (column < width - 1) & (row > 0) & (row < height - 1)
    slope = [at(best + step) - at(best - step) for step in (1, width)]
    return jnp.where(inside[..., None], jnp.sign(jnp.stack(slope, -1)), 0)


def visible_joints(
    confidence: Float[Array, "batch joints"],
    threshold: float = 0.75,
    checked: tuple[int, ...] = (7, 8, 9, 10, 13, 14, 15, 16),
) -> Bool[Array, "batch joints"]:
    """Joints that the proxy representation shows.

    Args:
        confidence: maxima of the heatmaps.
        threshold: a checked joint must be more certain.
        checked: elbows, wrists, knees and ankles as published; others always count.

    Returns:
        Visibility; false where the confidence is NaN.

    Source: specs/hierprob.md sections 14 and 15.
    """
    certain = confidence > threshold
    always = jnp.ones(confidence.shape[-1], bool).at[jnp.array(checked)].set(False)
    return certain | (always[None] & jnp.isfinite(confidence))
