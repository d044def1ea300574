"""IKOL: a network that predicts joints, twists and shape of a person in a picture.

The network knows no body and no camera; ``decode`` turns its output into a body.
Source: IKOL (AAAI 2023); specs/ikol.md section 2.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hmr_jax.nn.deconv import DeconvHead
from hmr_jax.nn.linear import PointwiseConv, TorchDense
from hmr_jax.nn.resnet import ResNet
from hmr_jax.nn.soft_argmax import soft_argmax_3d

Raw = dict[str, Array]


class IkolNet(nn.Module):
    """ResNet, deconvolution head with 3D soft-argmax, and a vector head.

    Attributes:
        depth: of the ResNet, 18, 34, 50 or 101.
        width: channels of the ResNet's stem; 64 as published.
        num_joints: joints with a heat map.
        depth_bins: depth slices of a heat map.
        deconv_channels: channels after each doubling of the feature map.
        hidden: width of the two fully connected layers.
        num_betas: shape coefficients.
        num_leaves: joints whose rotation is predicted outright.
        dropout_rate: after each fully connected layer.
        mean_betas: start of the ``init_shape`` buffer, zeros when None.
        dtype: type of the convolutions; everything after them is float32.
        axis_name: device axis of batch normalisation, or None.
        freeze_batch_norm: use running statistics in training too.
        unbiased: PyTorch's convention of the running variance, see ``BatchNorm``.
        skip_connections: also feed the ResNet's finer feature maps to the head. Not in
            the published network; it makes learning from scratch several times quicker.
    """

    depth: int = 34
    width: int = 64
    num_joints: int = 24
    depth_bins: int = 64
    deconv_channels: tuple[int, ...] = (256, 256, 256)
    hidden: int = 1024
    num_betas: int = 10
    num_leaves: int = 5
    dropout_rate: float = 0.5
    mean_betas: tuple[float, ...] | None = None
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    freeze_batch_norm: bool = False
    unbiased: bool = False
    skip_connections: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool
    ) -> Raw:
        """Predict everything that an image tells.

        Args:
            images: normalised RGB crops, sides multiples of 32.
            train: drop out, and normalise by the batch. Needs the rng ``dropout`` and
                the mutable collection ``batch_stats``.

        Returns:
            ``uvd`` [B, J, 3] in [-.5, .5], ``shape`` and ``delta_shape`` [B, betas],
            ``twist`` [B, J - 1, 2] raw (cos, sin), ``leaf_quaternions`` [B, leaves, 4]
            raw (wxyz), and the stages ``features``, ``pooled``, ``heatmap_features``,
            ``logits``.

        Raises:
            ValueError: a side of the images is no multiple of 32.
        """
        if images.shape[1] % 32 or images.shape[2] % 32:
            raise ValueError(
                f"images: expected sides that are multiples of 32, got "
                f"{images.shape[1]} x {images.shape[2]}"
            )
        norm: dict[str, Any] = {
            "dtype": self.dtype,
            "axis_name": self.axis_name,
            "unbiased": self.unbiased,
        }
        running = not train or self.freeze_batch_norm
        backbone = ResNet(self.depth, self.width, **norm, name="backbone")
        stages = backbone(images, use_running_average=running)
        features = stages["layer4"]
        finer = [stages[f"layer{stage}"] for stage in (3, 2, 1)]
        heatmap_features = DeconvHead(self.deconv_channels, **norm, name="deconv")(
            features,
            finer if self.skip_connections else (),
            use_running_average=running,
        )
        final = PointwiseConv(
            self.num_joints * self.depth_bins, self.dtype, name="final_layer"
        )
        logits = final(heatmap_features)
        pooled = features.astype(logits.dtype).mean((1, 2))
        return {
            "uvd": soft_argmax_3d(logits, self.num_joints),
            **self._vector_head(pooled, train),
            "features": features,
            "pooled": pooled,
            "heatmap_features": heatmap_features,
            "logits": logits,
        }

    def _vector_head(self, pooled: Array, train: bool) -> Raw:
        x = pooled
        for name in ("fc1", "fc2"):
            x = TorchDense(self.hidden, x.dtype, name=name)(x)
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
        delta = TorchDense(self.num_betas, x.dtype, name="decshape")(x)
        twist = TorchDense(2 * (self.num_joints - 1), x.dtype, name="decphi")(x)
        leaf = TorchDense(4 * self.num_leaves, x.dtype, name="decleaf")(x)
        mean = self.variable("batch_stats", "init_shape", self._init_shape)
        return {
            "delta_shape": delta,
            "shape": delta + mean.value.reshape(1, -1).astype(delta.dtype),
            "twist": twist.reshape(-1, self.num_joints - 1, 2),
            "leaf_quaternions": leaf.reshape(-1, self.num_leaves, 4),
        }

    def _init_shape(self) -> Array:
        betas = (0.0,) * self.num_betas if self.mean_betas is None else self.mean_betas
        return jnp.asarray(betas, jnp.float32)
