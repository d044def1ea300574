"""The network: an encoder of proxy representations and hierarchical heads.

Each body joint gets a matrix-Fisher distribution that depends on those of its
ancestors, and the shape a Gaussian.
Source: Sengupta et al., ICCV 2021; specs/hierprob.md section 4.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.distributions.kinematic import tree_levels
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


class HierarchicalPose(nn.Module):
    """Matrix-Fisher parameters of every joint, ancestors first.

    Joints at one depth of the tree are computed together, in one decomposition.

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
        size = embedding.shape[-1]
        chains = ancestors(self.parents)
        heads = [
            _PoseHead(size + 21 * len(chain), self.hidden, name=f"joint_{joint}")()
            for joint, chain in enumerate(chains)
        ]
        # Of each joint: U, s and mode, flat. Made once: a mode for every descendant
        # makes the gradient's program a quarter longer, and slower to compile.
        done: dict[int, tuple[Array, ...]] = {}
        fishers = []
        levels = tree_levels(self.parents)
        for level in levels:
            inputs = [self._input(embedding, chains[j], done) for j in level]
            matrix = self._level(jnp.stack(inputs, 1), [heads[j] for j in level])
            fisher = MatrixFisher(matrix, *proper_svd(matrix, self.signs, self.min_gap))
            fishers.append(fisher)
            told = [
                x.reshape(*matrix.shape[:2], -1)
                for x in (fisher.u, fisher.s, fisher.mode())
            ]
            for place, joint in enumerate(level):
                done[joint] = tuple(x[:, place] for x in told)
        joints = [joint for level in levels for joint in level]
        together = jax.tree.map(lambda *x: jnp.concatenate(x, 1), *fishers)
        if joints == sorted(joints):
            return together
        order = np.argsort(joints)
        return jax.tree.map(lambda x: x[:, order], together)

    def _input(
        self,
        embedding: Array,
        chain: tuple[int, ...],
        done: dict[int, tuple[Array, ...]],
    ) -> Array:
        """The embedding, all ancestors' U, all their s, all their modes."""
        above = zip(*(done[joint] for joint in chain), strict=True)
        return jnp.concatenate([embedding, *(x for kind in above for x in kind)], -1)

    def _level(self, inputs: Array, heads: list[tuple[Array, ...]]) -> Array:
        """Parameters [batch, len(heads), 3, 3] of joints with inputs of one length."""
        first, first_bias, second, second_bias = (
            jnp.stack(parts) for parts in zip(*heads, strict=True)
        )

        def apply(x, kernel, bias):
            product = jnp.einsum(
                "bji,jio->bjo", x, kernel, precision=jax.lax.Precision.HIGHEST
            )
            return product + bias[None]

        entries = apply(nn.elu(apply(inputs, first, first_bias)), second, second_bias)
        identity = self.identity_weight * jnp.eye(3, dtype=entries.dtype)
        return entries.reshape(*entries.shape[:2], 3, 3) + identity[None, None]


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
