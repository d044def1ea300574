"""Rank-revealing factors of 3x3 blocks against numpy's pseudo-inverse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.solvers.tree import rank

COUNT = 200


def semidefinite(rng, size):
    """Random symmetric blocks of a rank, with eigenvalues of 0.1 to 1."""
    turns = np.linalg.qr(rng.standard_normal((COUNT, 3, 3)))[0]
    values = np.zeros((COUNT, 1, 3))
    values[..., :size] = rng.uniform(0.1, 1, (COUNT, 1, size))
    return (turns * values) @ turns.swapaxes(1, 2)


def solve(h, n, dtype, floor=None, flip=None):
    blocks, sides = (jnp.asarray(np.moveaxis(x, 0, -1)[None], dtype) for x in (h, n))
    if floor is None:
        floor = 30 * float(jnp.finfo(dtype).eps)
    floor = jnp.full((1, 1, COUNT), floor, dtype)
    one = jnp.ones((), dtype)
    factors = rank.factor(blocks, floor, one, flip)
    found = rank.pseudo_solve(factors, sides, one)
    count = sum(np.asarray(u[0, 0], int) for u in factors.usable)
    return np.moveaxis(np.asarray(found[0]), -1, 0), count


@pytest.mark.parametrize("size", [0, 1, 2, 3])
@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_solutions_are_those_of_the_pseudo_inverse(size, dtype, atol, x64, rng):
    h, n = semidefinite(rng, size), rng.standard_normal((COUNT, 3, 4))
    found, count = solve(h, n, dtype)
    expected = np.linalg.pinv(h, rcond=1e-6, hermitian=True) @ n
    np.testing.assert_allclose(found, expected, atol=atol)
    np.testing.assert_array_equal(count, size)


def test_pivots_up_to_the_floor_count_as_none(x64, rng):
    turn = np.linalg.qr(rng.standard_normal((COUNT, 3, 3)))[0]
    h = (turn * np.array([1.0, 1e-6, 0])) @ turn.swapaxes(1, 2)
    _, count = solve(h, np.zeros((COUNT, 3, 1)), np.float64, floor=1e-5)
    np.testing.assert_array_equal(count, 1)


def test_flipped_pivots_point_downhill(x64, rng):
    turn = np.linalg.qr(rng.standard_normal((COUNT, 3, 3)))[0]
    h = (turn * np.array([1.0, 0.5, -0.7])) @ turn.swapaxes(1, 2)
    n = rng.standard_normal((COUNT, 3, 1))
    found, _ = solve(h, n, np.float64, flip=jnp.full((1, 1, COUNT), 1e-9))
    assert np.all((found * n).sum((1, 2)) > 0)


def test_gradient_of_full_and_missing_rank_is_finite(rng):
    h = np.concatenate([semidefinite(rng, k)[: COUNT // 4] for k in range(4)])
    n = rng.standard_normal((COUNT, 3, 1))
    blocks, sides = (
        jnp.asarray(np.moveaxis(x, 0, -1)[None], jnp.float32) for x in (h, n)
    )
    floor, one = jnp.full((1, 1, COUNT), 1e-5), jnp.ones(())

    def loss(blocks):
        return jnp.sum(rank.pseudo_solve(rank.factor(blocks, floor, one), sides, one))

    assert np.isfinite(jax.grad(loss)(blocks)).all()
