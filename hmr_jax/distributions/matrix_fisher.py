"""The matrix-Fisher distribution over rotations.

    p(R; F) = exp(tr(F^T R)) / c(s),  R in SO(3), the uniform density being 1.

With the proper decomposition ``F = U diag(s) V^T`` (U and V rotations,
``s1 >= s2 >= |s3|``) the mode is ``U V^T``, the mean ``U diag(d log c / d s) V^T``, and
c depends on s alone. Nothing here is specific to bodies: leading axes are batch axes.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from hmr_jax import sample_keys
from hmr_jax.distributions._fisher_published import log_normalizer_published
from hmr_jax.distributions._fisher_quadrature import (
    log_normalizer_accurate,
    log_normalizer_and_mean,
)
from hmr_jax.distributions._fisher_sampling import (
    best_envelope,
    bingham_exponents,
    draw_directions,
)
from hmr_jax.geometry.matrices import matmul3, transpose
from hmr_jax.geometry.quaternions import matrix_entries
from hmr_jax.geometry.svd3 import MIN_GAP, Svd3, SvdSigns, proper_svd

Normalizer = Literal["accurate", "published"]


class FisherSamples(NamedTuple):
    """Draws and how they went.

    Attributes:
        rotmats: rotations [samples, ..., 3, 3].
        complete: [...], whether every draw is exact; false only for parameters that are
            not finite (the draws are NaN), or in under 1e-50 of the calls.
        acceptance: [...], accepted share of the first round of proposals.
    """

    rotmats: Array
    complete: Array
    acceptance: Array


class MatrixFisher(NamedTuple):
    """Matrix-Fisher distributions; build with ``from_matrix`` or ``from_factors``.

    Attributes:
        matrix: the parameter F [..., 3, 3].
        u: rotations [..., 3, 3].
        s: proper singular values [..., 3].
        v: rotations [..., 3, 3].
    """

    matrix: Array
    u: Array
    s: Array
    v: Array

    @classmethod
    def from_matrix(
        cls,
        matrix: Float[Array, "*batch 3 3"],
        signs: SvdSigns = "lapack_old",
        min_gap: float = MIN_GAP,
    ) -> "MatrixFisher":
        """The distributions of given parameters.

        Args:
            matrix: F, any finite matrices; zero is the uniform distribution.
            signs: of the columns of U and V; see ``geometry.svd3.svd3``.
            min_gap: see ``geometry.svd3.svd3``.
        """
        return cls(matrix, *proper_svd(matrix, signs, min_gap))

    @classmethod
    def from_factors(cls, factors: Svd3) -> "MatrixFisher":
        """The distributions of a proper decomposition.

        Args:
            factors: of ``geometry.svd3.proper_svd``.
        """
        u, s, v = factors
        return cls(matmul3(u * s[..., None, :], transpose(v)), u, s, v)

    def mode(self) -> Float[Array, "*batch 3 3"]:
        """The most likely rotations."""
        return matmul3(self.u, transpose(self.v))

    def mean(self) -> Float[Array, "*batch 3 3"]:
        """Expectation of the rotation matrix; not itself a rotation."""
        return matmul3(self.u * mean_diagonal(self.s)[..., None, :], transpose(self.v))

    def log_prob(
        self,
        rotmats: Float[Array, "*batch 3 3"],
        normalizer: Normalizer = "accurate",
    ) -> Float[Array, "*batch"]:
        """Log density at given rotations, relative to the uniform density.

        Args:
            rotmats: rotations, of the parameter's shape.
            normalizer: see ``log_normalizer``.

        Raises:
            ValueError: the shapes differ.

        Note: the gradient, ``R - U diag(d log c / d s) V^T``, is exact and finite for
            every parameter.
        """
        if rotmats.shape != self.matrix.shape:
            raise ValueError(
                f"rotmats: expected the parameter's shape {self.matrix.shape}, "
                f"got {rotmats.shape}"
            )
        exponent = jnp.sum(self.matrix * rotmats, (-2, -1))
        return exponent - log_normalizer(self.s, normalizer)

    def entropy(self) -> Float[Array, "*batch"]:
        """Entropy in nats relative to the uniform density: 0 for it, else negative."""
        return log_normalizer_and_mean(self.s)[2]

    def sample(self, key: PRNGKeyArray, num_samples: int) -> Array:
        """Exact draws [samples, ..., 3, 3]; see ``sample_matrix_fisher``.

        Args:
            key: random key.
            num_samples: draws from each distribution.
        """
        return sample_matrix_fisher(key, self, num_samples).rotmats


def log_normalizer(
    s: Float[Array, "*batch 3"], method: Normalizer = "accurate"
) -> Float[Array, "*batch"]:
    """Logarithm of the normaliser c.

    Args:
        s: proper singular values, ``s1 >= s2 >= |s3|``.
        method: ``accurate``, a mapped quadrature of 16 nodes: relative error of
            c exp(-s1 - s2 - s3) below 1e-6 for values from 0 to 1000 and beyond, its
            gradient as accurate; ``published``, the 512-point trapezoid of the paper's
            code with its hand-written gradient, too large by up to 1.4 at 1000.

    Returns:
        log c, 0 at s = 0.

    Raises:
        ValueError: unknown method.

    Source: specs/hierprob.md sections 7.1 and 7.2.
    """
    if method == "accurate":
        return log_normalizer_accurate(s)
    if method == "published":
        return log_normalizer_published(s)
    raise ValueError(f"method: expected accurate or published, got {method!r}")


def mean_diagonal(s: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """``d log c / d s``: the mean rotation between the columns of U and V.

    Args:
        s: proper singular values.
    """
    return log_normalizer_and_mean(s)[1]


def sample_matrix_fisher(
    key: Array,
    fisher: MatrixFisher,
    num_samples: int,
    envelope_b: float | None = None,
) -> FisherSamples:
    """Exact draws from every distribution of a batch at once.

    Args:
        key: random key, or one for each entry of the first axis of the batch, whose
            draws are then the same in whatever batch it stands.
        fisher: distributions of any batch shape.
        num_samples: draws from each.
        envelope_b: parameter of the proposals, in (0, 4]: None for the one that accepts
            most, 1.5 as published. It changes the cost and the gradient's bias, never
            the distribution.

    Returns:
        Rotations in the order in which they were accepted.

    Raises:
        ValueError: ``num_samples`` is not positive or ``envelope_b`` out of range.

    Note: differentiable in u, s and v through the proposals; which ones are accepted
        carries no gradient, so that gradients are useful but biased, as published.

    Source: specs/hierprob.md section 9.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples: expected at least 1, got {num_samples}")
    if envelope_b is not None and not 0 < envelope_b <= 4:
        raise ValueError(f"envelope_b: expected a number in (0, 4], got {envelope_b}")
    batch = fisher.s.shape[:-1]
    exponents = bingham_exponents(fisher.s.reshape(-1, 3))
    fixed = jax.lax.stop_gradient(exponents)
    if envelope_b is None:
        b = best_envelope(fixed)
    else:
        b = jnp.full_like(fixed[:, 0], envelope_b)
    if not sample_keys.is_one(key):
        each = len(exponents) // len(key)
        key = jnp.stack(sample_keys.split(key, each), 1).reshape(-1)
    directions, complete, share = draw_directions(key, fixed, b, num_samples)
    scale = 1 / jnp.sqrt(1 + 2 * exponents / b[:, None])
    scaled = directions * jnp.moveaxis(scale, -1, 0)[..., None]
    rotmats = _rotate_back(scaled, fisher.u, fisher.v)
    return FisherSamples(
        rotmats.reshape(num_samples, *batch, 3, 3),
        complete.reshape(batch),
        share.reshape(batch),
    )


def _rotate_back(quaternions: Array, u: Array, v: Array) -> Array:
    """``U Rot(q) V^T`` [num, groups, 3, 3] of quaternions [4, groups, num], any length.

    Entry by entry, so that every product runs along groups and draws.
    """
    two = 2 / (quaternions * quaternions).sum(0)
    rotation = matrix_entries(list(quaternions), two)
    u, v = (x.reshape(-1, 3, 3) for x in (u, v))
    left = [[u[:, i, j, None] for j in range(3)] for i in range(3)]
    right = [[v[:, i, j, None] for j in range(3)] for i in range(3)]
    half = [
        [sum(left[i][k] * rotation[k][j] for k in range(3)) for j in range(3)]
        for i in range(3)
    ]
    entries = [
        sum(half[i][k] * right[j][k] for k in range(3))
        for i in range(3)
        for j in range(3)
    ]
    stacked = jnp.stack(entries, -1)
    return jnp.swapaxes(stacked, 0, 1).reshape(*stacked.shape[1::-1], 3, 3)
