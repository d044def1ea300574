"""I2L-MeshNet: joints and vertices from heat maps of one axis each, then parameters.

The network knows no body: it is told how many joints and vertices there are, and given
the matrix that makes joints of vertices. Coordinates are in cells of the heat maps, a
quarter of the picture's side along each axis.

Source: I2L-MeshNet (ECCV 2020); specs/i2l_meshnet.md section 4.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hmr_jax.geometry.quaternions import quaternion_to_axis_angle
from hmr_jax.geometry.rotations import matrix_to_quaternion, rot6d_columns_to_matrix
from hmr_jax.nn import initializers
from hmr_jax.nn.deconv import DeconvHead
from hmr_jax.nn.linear import TorchDense
from hmr_jax.nn.norm import BatchNorm
from hmr_jax.nn.resnet import ResNet, variant

Raw = dict[str, Any]
"""Arrays by name, and those of a head by its name."""
HIGHEST = jax.lax.Precision.HIGHEST


def _float(values: Array) -> Array:
    """At least float32; float64 where a test asks for it."""
    return values.astype(jnp.promote_types(jnp.float32, values.dtype))


@jax.checkpoint
def expected_cell(
    features: Float[Array, "batch cells channels"],
    kernel: Float[Array, "channels points"],
) -> Float[Array, "batch points"]:
    """Mean cell of the softmax of ``features @ kernel`` along the cells.

    The heat maps [batch, cells, points] exist only inside: the gradient makes them
    again. So those of one axis at a time take memory, and none of them waits for the
    backward pass.

    Args:
        features: of the cells of one axis.
        kernel: of the last 1x1 convolution. Its bias is the same for all cells, which
            a softmax does not see.

    Returns:
        Cells, in [0, cells - 1].

    Source: specs/i2l_meshnet.md section 4.2.
    """
    logits = jnp.matmul(_float(features), _float(kernel), precision=HIGHEST)
    mass = jnp.exp(logits - jax.lax.stop_gradient(logits.max(1, keepdims=True)))
    cells = jnp.arange(logits.shape[1], dtype=logits.dtype)
    moment = jnp.einsum("c,bcn->bn", cells, mass, precision=HIGHEST)
    return moment / mass.sum(1)


class Pointwise(nn.Module):
    """The last 1x1 convolution of one axis, fused with its soft-argmax.

    Attributes:
        points: joints or vertices.
    """

    points: int

    @nn.compact
    def __call__(
        self, features: Float[Array, "batch cells channels"]
    ) -> Float[Array, "batch points"]:
        """Return the expected cells."""
        channels = features.shape[-1]
        kernel = self.param(
            "kernel", initializers.torch_linear_kernel, (channels, self.points)
        )
        # Published files hold it. It changes nothing and has no gradient.
        self.param("bias", initializers.torch_linear_bias(channels), (self.points,))
        return expected_cell(features, kernel)


class LixelHead(nn.Module):
    """Coordinates of points from heat maps of x, y and z.

    Attributes:
        points: joints or vertices.
        cells: of the depth axis.
        channels: after each doubling of the feature map.
        dtype: type of the convolutions; everything after them is float32.
        axis_name: device axis of batch normalisation, or None.
        unbiased: convention of the running variances, see ``BatchNorm``.
    """

    points: int
    cells: int = 64
    channels: tuple[int, ...] = (256, 256, 256)
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    unbiased: bool = False

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch rows columns inputs"],
        *,
        use_running_average: bool,
    ) -> Raw:
        """Find the points.

        Args:
            features: the coarsest feature map.
            use_running_average: normalise by running statistics, not the batch's.

        Returns:
            ``coordinates`` [B, N, 3] in cells, and ``features_x``, ``features_y``,
            ``features_z`` [B, cells, channels], whose 1x1 convolutions are the heat
            maps.

        Source: specs/i2l_meshnet.md section 4.2.
        """
        norm: dict[str, Any] = {
            "axis_name": self.axis_name,
            "unbiased": self.unbiased,
        }
        plane = DeconvHead(self.channels, self.dtype, **norm, name="deconv")(
            features, use_running_average=use_running_average
        )
        plane, pooled = _float(plane), _float(features).mean((1, 2))
        last = self.channels[-1]
        depth = TorchDense(last * self.cells, pooled.dtype, name="conv_z_1")(pooled)
        depth = BatchNorm(
            dtype=depth.dtype,
            **norm,
            use_running_average=use_running_average,
            name="bn_z_1",
        )(depth)
        depth = nn.relu(depth).reshape(-1, last, self.cells)
        of_axis = {
            "features_x": plane.mean(1),
            "features_y": plane.mean(2),
            "features_z": jnp.swapaxes(depth, 1, 2),
        }
        names = ("conv_x", "conv_y", "conv_z_2")
        found = [
            Pointwise(self.points, name=name)(values)
            for name, values in zip(names, of_axis.values(), strict=True)
        ]
        return {"coordinates": jnp.stack(found, -1), **of_axis}


def gaussian_rows(
    centres: Float[Array, "batch points"], cells: int, sigma: float
) -> Float[Array, "batch points cells"]:
    """Gaussians of peak 1 around places along one axis.

    Args:
        centres: cells.
        cells: of the axis.
        sigma: standard deviation, cells.

    Returns:
        The product of three of them is the volume of section 4.3 of
        specs/i2l_meshnet.md.
    """
    places = jnp.arange(cells, dtype=centres.dtype).reshape(1, 1, -1)
    return jnp.exp(-0.5 * jnp.square((places - centres[..., None]) / sigma))


def convolve_gaussians(
    coordinates: Float[Array, "batch joints 3"],
    kernel: Float[Array, "3 3 planes outputs"],
    cells: int,
    sigma: float,
) -> Float[Array, "batch cells cells outputs"]:
    """A 3x3 convolution over the Gaussian volumes of joints, which are never made.

    A volume is a product of three rows, so depth is summed first, then columns, then
    rows: a 150th of the dense convolution's multiplications for 29 joints.

    Args:
        coordinates: centres (x, y, z), cells.
        kernel: plane ``joint * cells + z``, zero padding at the borders.
        cells: of each axis.
        sigma: standard deviation, cells.

    Returns:
        [batch, y, x, outputs], without bias.

    Source: specs/i2l_meshnet.md sections 4.3, 4.4 and 19.
    """
    joints, outputs = coordinates.shape[1], kernel.shape[-1]
    x, y, z = (gaussian_rows(coordinates[..., i], cells, sigma) for i in range(3))
    einsum = functools.partial(jnp.einsum, precision=HIGHEST)
    kernel = kernel.reshape(3, 3, joints, cells, outputs)
    by_joint = einsum("pqjzo,bjz->bjpqo", kernel, z)
    columns = einsum("bjpqo,bjxq->bpjxo", by_joint, _neighbours(x))
    return einsum("bjyp,bpjxo->byxo", _neighbours(y), columns)


def _neighbours(row: Array) -> Array:
    """The cells before, at and after each, along a new last axis; zero outside."""
    padded = jnp.pad(row, [(0, 0)] * (row.ndim - 1) + [(1, 1)])
    cells = row.shape[-1]
    return jnp.stack([padded[..., i : i + cells] for i in range(3)], -1)


class Pose2Feat(nn.Module):
    """A 3x3 convolution over early features and the joints' Gaussian volumes.

    Attributes:
        outputs: channels of the result.
        cells: of each axis.
        sigma: of the Gaussians, cells.
        dtype: type of the convolution over the features.
        axis_name: device axis of batch normalisation, or None.
        unbiased: convention of the running variances, see ``BatchNorm``.
    """

    outputs: int = 64
    cells: int = 64
    sigma: float = 2.5
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    unbiased: bool = False

    @nn.compact
    def __call__(
        self,
        early: Float[Array, "batch cells cells channels"],
        coordinates: Float[Array, "batch joints 3"],
        *,
        use_running_average: bool,
    ) -> Float[Array, "batch cells cells outputs"]:
        """Mix features and joints; no gradient reaches the joints.

        Source: specs/i2l_meshnet.md section 4.4.
        """
        channels, joints = early.shape[-1], coordinates.shape[1]
        shape = (3, 3, channels + joints * self.cells, self.outputs)
        kernel = self.param("kernel", nn.initializers.normal(0.001), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.outputs,))
        x = jax.lax.conv_general_dilated(
            early.astype(self.dtype),
            kernel[:, :, :channels].astype(self.dtype),
            (1, 1),
            ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        coordinates = jax.lax.stop_gradient(coordinates)
        x = _float(x) + convolve_gaussians(
            coordinates, kernel[:, :, channels:], self.cells, self.sigma
        )
        norm = BatchNorm(
            dtype=self.dtype,
            axis_name=self.axis_name,
            unbiased=self.unbiased,
            use_running_average=use_running_average,
            name="bn",
        )
        return nn.relu(norm(x + bias.reshape(1, 1, 1, -1)))


class ParamRegressor(nn.Module):
    """Rotations and shape of a body from its joints, by two hidden layers.

    Attributes:
        num_rotations: 24 of a body, 16 of a hand.
        num_betas: shape coefficients.
        hidden: widths of the two layers.
        axis_name: device axis of batch normalisation, or None.
        unbiased: convention of the running variances, see ``BatchNorm``.
    """

    num_rotations: int = 24
    num_betas: int = 10
    hidden: tuple[int, int] = (1024, 512)
    axis_name: str | None = None
    unbiased: bool = False

    @nn.compact
    def __call__(
        self,
        joints: Float[Array, "batch joints 3"],
        *,
        use_running_average: bool,
    ) -> Raw:
        """Find the parameters.

        Args:
            joints: cells.
            use_running_average: normalise by running statistics, not the batch's.

        Returns:
            ``rotmats`` [B, K, 3, 3] and ``pose_aa`` [B, K, 3] relative to the parents,
            radians, of angles up to pi; ``betas`` [B, S].

        Source: specs/i2l_meshnet.md sections 4.6 and 4.7.
        """
        x = joints.reshape(-1, joints.shape[1] * 3)
        dense = functools.partial(
            nn.Dense,
            param_dtype=jnp.float32,
            dtype=x.dtype,
            kernel_init=nn.initializers.normal(0.01),
        )
        for index, width in enumerate(self.hidden):
            x = dense(width, name=f"fc{index}")(x)
            x = BatchNorm(
                dtype=x.dtype,
                axis_name=self.axis_name,
                unbiased=self.unbiased,
                use_running_average=use_running_average,
                name=f"bn{index}",
            )(x)
            x = nn.relu(x)
        six = dense(self.num_rotations * 6, name="fc_pose")(x)
        rotmats = rot6d_columns_to_matrix(six.reshape(-1, self.num_rotations, 6))
        pose = quaternion_to_axis_angle(matrix_to_quaternion(rotmats))
        betas = dense(self.num_betas, name="fc_shape")(x)
        return {"rotmats": rotmats, "pose_aa": pose, "betas": betas}


class I2lMeshNet(nn.Module):
    """PoseNet, Pose2Feat, MeshNet and, in the second stage, ParamRegressor.

    Attributes:
        num_joints: joints with heat maps.
        num_vertices: vertices with heat maps.
        num_rotations: of the body that the parameters are of.
        parameters: also find the body's parameters.
        depth: of both ResNets; 50 as published.
        width: channels of their first stage; 64 as published.
        cells: of each axis of the heat maps, a quarter of the pictures' side.
        deconv_channels: of both heads, after each doubling.
        sigma: of the joints' Gaussians, cells.
        num_betas: shape coefficients.
        hidden: widths of ParamRegressor's layers.
        dtype: type of the convolutions; everything after them is float32.
        axis_name: device axis of batch normalisation, or None.
        unbiased: convention of the running variances, see ``BatchNorm``.
    """

    num_joints: int
    num_vertices: int
    num_rotations: int = 24
    parameters: bool = False
    depth: int = 50
    width: int = 64
    cells: int = 64
    deconv_channels: tuple[int, ...] = (256, 256, 256)
    sigma: float = 2.5
    num_betas: int = 10
    hidden: tuple[int, int] = (1024, 512)
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    unbiased: bool = False

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "batch height width 3"],
        regressor: Float[Array, "joints verts"],
        *,
        train: bool,
        train_lixel: bool = True,
    ) -> Raw:
        """Find joints, vertices and, with ``parameters``, the body.

        Args:
            images: RGB in [0, 1], square, four pixels for each cell.
            regressor: of the joints from the vertices.
            train: normalise by the batch; needs the mutable collection ``batch_stats``.
            train_lixel: with ``train``, do so outside of ParamRegressor too. Where
                there are parameters, no gradient leaves ParamRegressor.

        Returns:
            ``joints_cells`` [B, J, 3], ``vertices_cells`` [B, V, 3] and
            ``mesh_joints_cells`` [B, J, 3]; ``rotmats``, ``pose_aa`` and ``betas`` with
            ``parameters``; and the stages ``early``, ``pose_features``,
            ``pose_head`` (of ``LixelHead``), ``joint_features``, ``mesh_features``.

        Raises:
            ValueError: images of another size, or a regressor of other points.

        Source: specs/i2l_meshnet.md section 4.
        """
        side = 4 * self.cells
        if images.shape[1:3] != (side, side) or side % 32:
            raise ValueError(
                f"images: expected {side} x {side} for {self.cells} cells, a multiple "
                f"of 32, got {images.shape[1]} x {images.shape[2]}"
            )
        if regressor.shape != (self.num_joints, self.num_vertices):
            raise ValueError(
                f"regressor: expected {(self.num_joints, self.num_vertices)} (joints, "
                f"vertices), got {regressor.shape}"
            )
        norm: dict[str, Any] = {"axis_name": self.axis_name, "unbiased": self.unbiased}
        run = {"use_running_average": not (train and train_lixel)}
        backbone: Callable[..., nn.Module] = functools.partial(
            ResNet, self.depth, self.width, self.dtype, **norm
        )
        head: Callable[..., nn.Module] = functools.partial(
            LixelHead,
            cells=self.cells,
            channels=self.deconv_channels,
            dtype=self.dtype,
            **norm,
        )
        stages = backbone(name="pose_backbone")(images, **run)
        early, pose_features = stages["stem"], stages["layer4"]
        pose = head(self.num_joints, name="pose_net")(pose_features, **run)
        mixed = Pose2Feat(
            self.width, self.cells, self.sigma, self.dtype, **norm, name="pose2feat"
        )(early, pose["coordinates"], **run)
        mesh_features = backbone(stem=False, name="mesh_backbone")(mixed, **run)
        mesh = head(self.num_vertices, name="mesh_net")(mesh_features["layer4"], **run)
        vertices = mesh["coordinates"]
        joints = jnp.einsum(
            "jv,bvc->bjc", regressor.astype(vertices.dtype), vertices, precision=HIGHEST
        )
        out = {
            "joints_cells": pose["coordinates"],
            "vertices_cells": vertices,
            "mesh_joints_cells": joints,
            "early": early,
            "pose_features": pose_features,
            "pose_head": pose,
            "joint_features": mixed,
            "mesh_features": mesh_features["layer4"],
        }
        if self.parameters:
            found = ParamRegressor(
                self.num_rotations,
                self.num_betas,
                self.hidden,
                **norm,
                name="param_regressor",
            )(jax.lax.stop_gradient(joints), use_running_average=not train)
            out |= found
        return out


def features_of(depth: int, width: int) -> int:
    """Channels of a ResNet's last feature map."""
    return 8 * width * variant(depth).expansion
