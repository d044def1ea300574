"""Draws of whole poses, joint after joint down a tree."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from hmr_jax.distributions.matrix_fisher import (
    FisherSamples,
    MatrixFisher,
    sample_matrix_fisher,
)
from hmr_jax.geometry.svd3 import SvdSigns

LevelParameters = Callable[[Sequence[int], Array], Array]


def sample_hierarchy(
    key: PRNGKeyArray,
    parameters: LevelParameters,
    levels: Sequence[Sequence[int]],
    num_samples: int,
    batch_shape: Sequence[int] = (),
    signs: SvdSigns = "lapack_old",
) -> tuple[Float[Array, "samples *batch joints 3 3"], Array]:
    """Draws of joints whose distributions depend on their ancestors' draws.

    Where the parameters depend on the ancestors' modes instead, as published, every
    joint is independent given the network's output: use ``sample_matrix_fisher`` on all
    joints at once, which is faster.

    Args:
        key: random key.
        parameters: given the joints of a level and all rotations drawn so far
            [samples, *batch, joints, 3, 3] (identities below that level), the
            matrices F [samples, *batch, len(level), 3, 3] of the level's joints.
        levels: joints of each level, ancestors first; together 0 to joints - 1.
        num_samples: poses to draw.
        batch_shape: of the images.
        signs: see ``geometry.svd3.svd3``.

    Returns:
        Rotations, and whether every draw is exact [samples, *batch].
    """
    joints = sum(len(level) for level in levels)
    if sorted(j for level in levels for j in level) != list(range(joints)):
        raise ValueError(
            f"levels: expected each of 0 to {joints - 1} once, got {levels}"
        )
    shape = (num_samples, *batch_shape, joints, 3, 3)
    rotmats = jnp.broadcast_to(
        jnp.eye(3).reshape((1,) * (len(shape) - 2) + (3, 3)), shape
    )
    complete = jnp.ones(shape[:-3], bool)
    for level in levels:
        key, now = jax.random.split(key)
        fisher = MatrixFisher.from_matrix(parameters(level, rotmats), signs)
        drawn: FisherSamples = sample_matrix_fisher(now, fisher, 1)
        rotmats = rotmats.at[..., jnp.asarray(level), :, :].set(drawn.rotmats[0])
        complete = complete & jnp.all(drawn.complete, -1)
    return rotmats, complete
