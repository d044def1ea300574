"""The network: an encoder of proxy representations and hierarchical heads.

Each body joint gets a matrix-Fisher distribution that depends on those of its
ancestors, and the shape a Gaussian.
Source: Sengupta et al., ICCV 2021; specs/hierprob.md section 4.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.body.tree import tree_levels
from hmr_jax.distributions.matrix_fisher import MatrixFisher
from hmr_jax.geometry.rotations import rot6d_columns_to_matrix
from hmr_jax.geometry.svd3 import SvdSigns, proper_svd
from hmr_jax.nn import initializers
from hmr_jax.nn.resnet import ResNet

Raw = dict[str, Array]

INIT_GLOBAL_ROT6D = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
INIT_CAMERA = (0.9, 0.0, 0.0)

BODY_PARENTS = tuple(p - 1 for p in JOINT_SETS["smpl_24"].parents[1:])
"""Parents among the 23 joints below the root, -1 for those on the root itself."""


def ancestors(parents: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Ancestors of each joint, nearest first.

    Args:
        parents: parent of each joint, -1 for a root; parents come before children.
    """
    chains: list[tuple[int, ...]] = []
    for parent in parents:
        chains.append(() if parent < 0 else (parent, *chains[parent]))
    return tuple(chains)


class _Weights(nn.Module):
    """Kernel and bias of a dense layer, for its caller to apply."""

    inputs: int
    features: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        shape = (self.inputs, self.features)
        kernel = self.param("kernel", initializers.torch_linear_kernel, shape)
        bias_init = initializers.torch_linear_bias(self.inputs)
        return kernel, self.param("bias", bias_init, (self.features,))


def _dense(x: Array, features: int, name: str) -> Array:
    """A dense layer in full precision: distributions do not bear TF32."""
    kernel, bias = _Weights(x.shape[-1], features, name=name)()
    product = jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST)
    return product + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class _PoseHead(nn.Module):
    """The two layers of one joint; only declares them."""

    inputs: int
    hidden: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array, Array, Array]:
        first = _Weights(self.inputs, self.hidden, name="hidden")()
        return (*first, *_Weights(self.hidden, 9, name="out")())


class _Slots(NamedTuple):
    """Where joints stand in a rectangle of levels and places, the rest of it empty.

    Attributes:
        levels: joints of each level, ancestors first.
        width: places in a level.
        ancestors: slots [levels, width, chain] of each joint's ancestors, nearest
            first; the last slot, which stays empty, where there are no more.
    """

    levels: tuple[tuple[int, ...], ...]
    width: int
    ancestors: np.ndarray


def _slots(parents: Sequence[int]) -> _Slots:
    levels = tree_levels(parents)
    width = max(map(len, levels))
    slot = {
        joint: number * width + place
        for number, level in enumerate(levels)
        for place, joint in enumerate(level)
    }
    empty = len(levels) * width
    above = np.full((len(levels), width, len(levels) - 1), empty, np.int32)
    for joint, chain in enumerate(ancestors(parents)):
        number, place = divmod(slot[joint], width)
        above[number, place, : len(chain)] = [slot[other] for other in chain]
    return _Slots(levels, width, above)


class HierarchicalPose(nn.Module):
    """Matrix-Fisher parameters of every joint, ancestors first.

    Joints at one depth of the tree are computed together, and the depths one after
    another by a loop: the decomposition is then compiled once, not for each depth.

    Attributes:
        parents: parent of each joint, -1 for a root.
        hidden: width of each joint's hidden layer.
        identity_weight: multiple of the identity added to each parameter.
        signs: of the decomposition, see ``geometry.svd3.svd3``. Children are fed the
            columns of U: a network must keep the signs it was trained with.
        min_gap: see ``geometry.svd3.svd3``.
    """

    parents: tuple[int, ...] = BODY_PARENTS
    hidden: int = 128
    identity_weight: float = 1.0
    signs: SvdSigns = "lapack_old"
    min_gap: float = 1e-4

    @nn.compact
    def __call__(self, embedding: Float[Array, "batch features"]) -> MatrixFisher:
        """Predict the distributions.

        Args:
            embedding: what the encoder knows.

        Returns:
            Distributions [batch, joints].
        """
        (batch, size), slots = embedding.shape, _slots(self.parents)
        heads = [
            _PoseHead(
                size + sum(_TOLD) * len(chain), self.hidden, name=f"joint_{joint}"
            )()
            for joint, chain in enumerate(ancestors(self.parents))
        ]
        (known, *of_ancestors), *others = _padded_heads(size, heads, slots)
        known = _HIGHEST("bi,ljio->lbjo", embedding, known)
        identity = self.identity_weight * jnp.eye(3, dtype=embedding.dtype)

        def level(told, inputs):
            number, above, known, kernels, (bias, second, second_bias) = inputs
            # Of all ancestors the U, the s, the modes; zeros where there are none,
            # which meet weights of zero.
            seen = [jnp.take(x, above, axis=1) for x in told]
            rows = [x.reshape(*x.shape[:2], -1) for x in seen]
            u, s, mode = (
                _HIGHEST("bji,jio->bjo", x, kernel)
                for x, kernel in zip(rows, kernels, strict=True)
            )
            hidden = nn.elu((known + u) + (s + mode) + bias[None])
            entries = _HIGHEST("bji,jio->bjo", hidden, second) + second_bias[None]
            matrix = entries.reshape(*entries.shape[:2], 3, 3) + identity[None, None]
            fisher = MatrixFisher(matrix, *proper_svd(matrix, self.signs, self.min_gap))
            flat = [
                x.reshape(*x.shape[:2], -1) for x in (fisher.u, fisher.s, fisher.mode())
            ]
            place = number * slots.width
            return [
                jax.lax.dynamic_update_slice_in_dim(x, new, place, 1)
                for x, new in zip(told, flat, strict=True)
            ], fisher

        count = len(slots.levels)
        places = count * slots.width + 1
        told = [jnp.zeros((batch, places, n), embedding.dtype) for n in _TOLD]
        inputs = (
            jnp.arange(count),
            jnp.asarray(slots.ancestors),
            known,
            of_ancestors,
            others,
        )
        _, fishers = jax.lax.scan(level, told, inputs)
        return jax.tree.map(lambda x: _by_joint(x, slots), fishers)


_TOLD = (9, 3, 9)
"""Numbers of what a joint tells its descendants: its U, s and mode."""


_HIGHEST = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def _padded_heads(
    size: int, heads: Sequence[tuple[Array, ...]], slots: _Slots
) -> tuple[list[Array], Array, Array, Array]:
    """Weights of all heads, zero in empty slots and for ancestors that are not there.

    Args:
        size: of the embedding.
        heads: of each joint, see ``_PoseHead``.
        slots: their places.

    Returns:
        Of the hidden layer the kernels of the embedding and of the ancestors' U, s and
        mode, and the bias; kernel and bias of the output. Each [levels, width, ...].
    """
    stacked = []
    for depth, level in enumerate(slots.levels):
        empty, missing = slots.width - len(level), len(slots.levels) - 1 - depth
        first, *others = (
            _filled(jnp.stack(parts), 0, empty)
            for parts in zip(*(heads[joint] for joint in level), strict=True)
        )
        ends = size + depth * np.cumsum((0, *_TOLD[:-1]))
        kernels = [
            _filled(kernel, 1, missing * numbers)
            for kernel, numbers in zip(
                jnp.split(first, ends, axis=1), (0, *_TOLD), strict=True
            )
        ]
        stacked.append((kernels, *others))
    return jax.tree.map(lambda *x: jnp.stack(x), *stacked)


def _filled(x: Array, axis: int, count: int) -> Array:
    """Zeros behind the end of an axis."""
    return jnp.pad(x, [(0, count if axis == i else 0) for i in range(x.ndim)])


def _by_joint(x: Array, slots: _Slots) -> Array:
    """[levels, batch, width, ...] to [batch, joints, ...]."""
    parts = [x[i, :, : len(level)] for i, level in enumerate(slots.levels)]
    together = jnp.concatenate(parts, 1)
    joints = [joint for level in slots.levels for joint in level]
    if joints == sorted(joints):
        return together
    return together[:, np.argsort(joints)]


class HierProbNet(nn.Module):
    """ResNet encoder and heads of the hierarchical distribution network.

    Attributes:
        depth: of the ResNet; 18 as published, 50 as its option.
        width: channels of the ResNet's stem; 64 as published.
        hidden: width of the first fully connected layer; None makes it 512, or 1024
            behind bottlenecks.
        embedding: width of what the joints' heads see.
        pose_hidden: width of each joint's hidden layer.
        num_betas: shape coefficients.
        parents: of the joints below the root, see ``BODY_PARENTS``.
        identity_weight: see ``HierarchicalPose``.
        signs: see ``HierarchicalPose``; ``lapack_old`` for the published weights.
        min_gap: see ``HierarchicalPose``.
        dtype: type of the convolutions; everything after them is float32.
        axis_name: device axis of batch normalisation, or None.
        unbiased: PyTorch's convention of the running variance, see ``BatchNorm``.
    """

    depth: int = 18
    width: int = 64
    hidden: int | None = None
    embedding: int = 256
    pose_hidden: int = 128
    num_betas: int = 10
    parents: tuple[int, ...] = BODY_PARENTS
    identity_weight: float = 1.0
    signs: SvdSigns = "lapack_old"
    min_gap: float = 1e-4
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None
    unbiased: bool = False

    @nn.compact
    def __call__(
        self, proxy: Float[Array, "batch height width channels"], *, train: bool
    ) -> Raw:
        """Predict distributions from proxy representations.

        Args:
            proxy: edges and heatmaps, see ``nn.proxy``; sides multiples of 32.
            train: normalise by the batch; needs the mutable collection
                ``batch_stats``.

        Returns:
            ``features`` [B, C], ``pose_fisher_matrix`` [B, J, 3, 3] and its proper
            factors ``pose_u``, ``pose_s`` [B, J, 3], ``pose_v``, ``pose_mode``
            [B, J, 3, 3], ``shape_mean``, ``shape_log_std`` and ``shape_std``
            [B, betas], ``global_rot6d`` [B, 6], ``global_rotmat`` [B, 3, 3] and
            ``camera`` [B, 3] (scale, tx, ty).

        Raises:
            ValueError: a side is no multiple of 32.
        """
        if proxy.shape[1] % 32 or proxy.shape[2] % 32:
            raise ValueError(
                f"proxy: expected sides that are multiples of 32, got "
                f"{proxy.shape[1]} x {proxy.shape[2]}"
            )
        encoder = ResNet(
            self.depth,
            self.width,
            dtype=self.dtype,
            axis_name=self.axis_name,
            unbiased=self.unbiased,
            name="backbone",
        )
        last = encoder(proxy, use_running_average=not train)["layer4"]
        features = last.astype(jnp.promote_types(jnp.float32, last.dtype)).mean((1, 2))
        return {"features": features, **self._heads(features)}

    def _heads(self, features: Array) -> Raw:
        hidden = self.hidden or (512 if self.depth < 50 else 1024)
        x = nn.elu(_dense(features, hidden, "fc1"))
        shape = _dense(x, 2 * self.num_betas, "fc_shape")
        start = jnp.array(INIT_CAMERA, x.dtype)
        camera = _dense(x, 3, "fc_cam") + start[None]
        start = jnp.array(INIT_GLOBAL_ROT6D, x.dtype)
        rot6d = _dense(x, 6, "fc_glob") + start[None]
        known = jnp.concatenate([features, shape, rot6d, camera], -1)
        embedding = nn.elu(_dense(known, self.embedding, "fc_embed"))
        fisher = HierarchicalPose(
            parents=self.parents,
            hidden=self.pose_hidden,
            identity_weight=self.identity_weight,
            signs=self.signs,
            min_gap=self.min_gap,
            name="pose",
        )(embedding)
        log_std = shape[:, self.num_betas :]
        return {
            "pose_fisher_matrix": fisher.matrix,
            "pose_u": fisher.u,
            "pose_s": fisher.s,
            "pose_v": fisher.v,
            "pose_mode": fisher.mode(),
            "shape_mean": shape[:, : self.num_betas],
            "shape_log_std": log_std,
            "shape_std": jnp.exp(log_std),
            "global_rot6d": rot6d,
            "global_rotmat": rot6d_columns_to_matrix(rot6d),
            "camera": camera,
        }
