"""Exact draws from matrix-Fisher distributions, all groups and images at once.

A rotation is a unit quaternion up to sign, and its density a Bingham density
``exp(-q^T A q)``, ``A = diag(0, 2(s2 + s3), 2(s1 + s3), 2(s1 + s2))``. Proposals come
from an angular central Gaussian (Kent, Ganeiber and Mardia 2013), accepted at 43 to
100 %. All proposals of a round are drawn together, in a number that suffices in all
but about 1e-5 of the groups; a loop draws another round while any group lacks some.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from hmr_jax import sample_keys
from hmr_jax.geometry import safe

PUBLISHED_B = 1.5
"""The fixed envelope of the published sampler."""
_LOWEST_ACCEPTANCE = 0.44
"""With the best envelope, as the singular values grow."""
MAX_ROUNDS = 64
"""A group is still short after these with a probability below 1e-50."""
_NEWTON_STEPS = 8


class Proposals(NamedTuple):
    """Candidates and their chances.

    Attributes:
        quaternions: unit quaternions [..., 4], (w, x, y, z).
        ratio: probability [...] with which each is to be accepted.
    """

    quaternions: Array
    ratio: Array


def bingham_exponents(s: Float[Array, "*batch 3"]) -> Float[Array, "*batch 4"]:
    """The diagonal of A for proper singular values; never negative.

    Args:
        s: proper singular values.
    """
    s1, s2, s3 = s[..., 0], s[..., 1], s[..., 2]
    sums = (jnp.zeros_like(s1), s2 + s3, s1 + s3, s1 + s2)
    return 2 * jnp.stack([jnp.where(x < 0, 0, x) for x in sums], -1)


def best_envelope(exponents: Float[Array, "*batch 4"]) -> Float[Array, "*batch"]:
    """The envelope's b with the highest acceptance: ``sum 1 / (b + 2 A_i) = 1``.

    Args:
        exponents: of ``bingham_exponents``.

    Returns:
        b in [1, 4], by Newton's method from below; exactness of the sampler does not
        depend on it.
    """

    def step(_, b):
        inverse = 1 / (b[..., None] + 2 * exponents)
        return b + (jnp.sum(inverse, -1) - 1) / jnp.sum(inverse * inverse, -1)

    b = jax.lax.fori_loop(0, _NEWTON_STEPS, step, jnp.ones_like(exponents[..., 0]))
    return jnp.clip(b, 1, 4)


def _accept_ratio(t: Array, b: Array) -> Array:
    """Density over envelope, scaled to at most 1; t is ``q^T A q``."""
    shape = 0.25 * (b + 2 * t)
    return jnp.exp(0.5 * (4 - b) - t) * shape * shape


def propose(
    normals: Float[Array, "*batch 4"],
    exponents: Float[Array, "*batch 4"],
    b: Float[Array, "*batch"],
) -> Proposals:
    """Proposals of the envelope from standard normal vectors (of any length).

    Args:
        normals: isotropic directions.
        exponents: of ``bingham_exponents``.
        b: the envelope's parameter, in (0, 4].

    Returns:
        Quaternions, differentiable in the exponents, and acceptance ratios.

    Source: specs/hierprob.md section 9.
    """
    scaled = normals / jnp.sqrt(1 + 2 * exponents / b[..., None])
    q = safe.normalize(scaled)
    return Proposals(q, _accept_ratio(jnp.sum(exponents * q * q, -1), b))


def first_accepted(
    accept: Bool[Array, "*batch proposals"], num: int, filled: Array | None = None
) -> tuple[Array, Array]:
    """Which proposal fills each slot.

    Args:
        accept: which proposals were accepted.
        num: slots.
        filled: slots [...] that are taken already; None for none.

    Returns:
        Index of the proposal for each slot [..., num], -1 where none, and the slots
        filled now [...].
    """
    batch, count = accept.shape[:-1], accept.shape[-1]
    accept = accept.reshape(-1, count)
    start = jnp.zeros(len(accept), jnp.int32) if filled is None else filled.reshape(-1)
    position = start[:, None] + jnp.cumsum(accept, -1, dtype=jnp.int32)
    target = jnp.where(accept, position - 1, num)
    rows = jnp.arange(len(accept))[:, None]
    chosen = jnp.full((len(accept), num), -1, jnp.int32)
    order = jnp.broadcast_to(jnp.arange(count, dtype=jnp.int32)[None], accept.shape)
    chosen = chosen.at[rows, target].set(order, mode="drop")
    now = jnp.minimum(position[:, -1], num)
    return chosen.reshape(*batch, num), now.reshape(batch)


def proposals_for(num: int) -> int:
    """Proposals in a round: enough for ``num`` in all but about 1e-5 of the rounds."""
    spread = math.sqrt((1 - _LOWEST_ACCEPTANCE) * num)
    return math.ceil((num + 4.2 * spread) / _LOWEST_ACCEPTANCE) + 3


def _directions(u: Array) -> Array:
    """Uniform unit quaternions [4, ...] from three uniform numbers [3, ...]."""
    turn = 2 * jnp.pi
    near, far = jnp.sqrt(1 - u[0]), jnp.sqrt(u[0])
    first, second = turn * u[1], turn * u[2]
    return jnp.stack(
        [
            near * jnp.cos(first),
            near * jnp.sin(first),
            far * jnp.cos(second),
            far * jnp.sin(second),
        ]
    )


def _weighted_square(u: Array, weights: Sequence[Array]) -> Array:
    """``sum_i w_i e_i^2`` of ``_directions`` with half of its trigonometry."""
    turn = 4 * jnp.pi
    w0, w1, w2, w3 = (0.5 * w for w in weights)
    near = (w0 + w1) + (w0 - w1) * jnp.cos(turn * u[1])
    far = (w2 + w3) + (w2 - w3) * jnp.cos(turn * u[2])
    return (1 - u[0]) * near + u[0] * far


def draw_directions(
    key: Array, exponents: Array, b: Array, num: int
) -> tuple[Array, Array, Array]:
    """Isotropic directions whose proposals are accepted.

    Args:
        key: random key, or one for each group.
        exponents: [groups, 4].
        b: [groups].
        num: draws of each group.

    Returns:
        Directions [4, groups, num]; whether a group is complete [groups]; the share
        of the first round's proposals that was accepted [groups].
    """
    groups, count = exponents.shape[0], proposals_for(num)
    valid = jnp.isfinite(jnp.sum(exponents, -1) + b)
    inverse = 1 / (1 + 2 * exponents / b[:, None])
    column = [x[:, None] for x in jnp.moveaxis(inverse, -1, 0)]
    weighted = [x[:, None] for x in jnp.moveaxis(inverse * exponents, -1, 0)]

    def draw(state):
        key, done, filled, chosen, share = state
        key, now = sample_keys.split(key, 2)
        uniform = functools.partial(jax.random.uniform, dtype=exponents.dtype)
        if sample_keys.is_one(now):
            u = uniform(now, (4, groups, count))
        else:
            u = jnp.moveaxis(jax.vmap(lambda k: uniform(k, (4, count)))(now), 1, 0)
        square = _weighted_square(u, column)
        t = _weighted_square(u, weighted) / square
        accept = u[3] < _accept_ratio(t, b[:, None])
        index, filled = first_accepted(accept, num, filled)
        picked = jnp.take_along_axis(u[:3], jnp.maximum(index, 0)[None], -1)
        chosen = jnp.where(index[None] >= 0, _directions(picked), chosen)
        first = jnp.mean(accept, -1, dtype=exponents.dtype)
        return key, done + 1, filled, chosen, jnp.where(done == 0, first, share)

    def short(state):
        return (state[1] < MAX_ROUNDS) & jnp.any(valid & (state[2] < num))

    zero = jnp.zeros((), jnp.int32)
    filled = jnp.zeros(groups, jnp.int32)
    # A slot that is never filled stays at the mode, and its group is not complete.
    chosen = jnp.zeros((4, groups, num), exponents.dtype).at[0].set(1)
    start = (key, zero, filled, chosen, jnp.zeros(groups, exponents.dtype))
    _, _, filled, chosen, share = jax.lax.while_loop(short, draw, start)
    return chosen, valid & (filled == num), share
