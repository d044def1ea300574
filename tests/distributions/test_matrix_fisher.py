"""Density, normaliser, moments and entropy against brute-force quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.distributions.matrix_fisher import (
    MatrixFisher,
    log_normalizer,
    mean_diagonal,
)
from hmr_jax.geometry.rotations import random_rotation
from hmr_jax.geometry.svd3 import Svd3
from tests import tolerances
from tests.distributions import reference

VALUES = reference.many_singular_values()
normalizer = jax.jit(log_normalizer, static_argnums=1)
diagonal = jax.jit(mean_diagonal)
log_prob = jax.jit(MatrixFisher.log_prob)


@jax.jit
def build(matrix):
    """With the device's decomposition, which compiles quickly."""
    return MatrixFisher.from_matrix(matrix, "backend")


def fishers(s):
    """Distributions with U and V the identity."""
    s = jnp.asarray(s)
    eye = jnp.broadcast_to(jnp.eye(3, dtype=s.dtype), (*s.shape, 3))
    return MatrixFisher.from_factors(Svd3(eye, s, eye))


@jax.jit
def gradient_and_mean(matrix, rotation):
    def value(m):
        return build(m).log_prob(rotation)

    return jax.grad(value)(matrix), build(matrix).mean()


turn = jax.jit(random_rotation, static_argnums=1)


@pytest.fixture(scope="module")
def stored(parity_dir):
    path = parity_dir / "hierprob" / "mfloss_public.npz"
    with np.load(path) as file:
        return dict(file)


def test_the_scaled_normaliser_is_right_to_1e6_relative(x64):
    log_scaled = normalizer(jnp.asarray(VALUES), "accurate") - VALUES.sum(-1)
    error = np.expm1(np.asarray(log_scaled) - reference.log_scaled(VALUES))
    assert np.abs(error).max() < 1e-7


def test_beyond_the_promised_range(x64):
    rows = np.array([[1e4, 1e4, -1e4], [1e4, 10, 1], [1e4, 9e3, 8e3], [5e3, 5e3, 0]])
    log_scaled = normalizer(jnp.asarray(rows), "accurate") - rows.sum(-1)
    error = np.expm1(np.asarray(log_scaled) - reference.log_scaled(rows))
    assert np.abs(error).max() < 1e-6


def test_the_logarithm_in_float32():
    log_c = np.asarray(normalizer(jnp.asarray(VALUES, jnp.float32), "accurate"))
    exact = reference.log_scaled(VALUES) + VALUES.sum(-1)
    assert (np.abs(log_c - exact) <= 1e-6 * np.maximum(1, np.abs(exact))).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_small_values_keep_their_relative_precision(dtype, x64):
    s = np.array(
        [[0.19, 0.19, 0.19], [0.1, 0.05, -0.02], [1e-3, 0, 0], [1e-6, 1e-6, 0]]
    )
    log_c = np.asarray(normalizer(jnp.asarray(s, dtype), "accurate"), np.float64)
    p, e = (s**2).sum(-1), s.prod(-1)
    # Below 0.02 the first orders are exact enough; above, the quadrature is.
    exact = np.where(s[:, 0] < 0.02, p / 6 + e / 6, reference.log_scaled(s) + s.sum(-1))
    np.testing.assert_allclose(log_c, exact, rtol=1e-6)
    expected = np.where(s[:, :1] < 0.02, s / 3, 1 - reference.mean_deficit(s))
    np.testing.assert_allclose(
        diagonal(jnp.asarray(s, dtype)), expected, rtol=2e-6, atol=1e-12
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float64", 2e-7)])
def test_the_gradient_is_right(dtype, tolerance, x64):
    s = jnp.asarray(VALUES, dtype)
    gradient = jax.jit(jax.vmap(jax.grad(lambda x: log_normalizer(x))))(s)
    rounded = np.asarray(s, np.float64)
    expected = 1 - reference.mean_deficit(rounded)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(diagonal(s), expected, rtol=0, atol=tolerance)


def test_second_derivatives_against_differences(x64):
    rows = np.array(
        [[3.0, 2.0, -1.0], [4.0, 4.0, 4.0], [80.0, 70.0, 1.0], [0.2, 0.1, 0]]
    )
    hessian = jax.jit(jax.vmap(jax.hessian(log_normalizer)))(jnp.asarray(rows))
    step = 1e-4
    for k in range(3):
        delta = step * np.eye(3)[k]
        difference = (
            reference.mean_deficit(rows - delta) - reference.mean_deficit(rows + delta)
        ) / (2 * step)
        # Differences leave the ordered cone by a step: the formula is symmetric.
        np.testing.assert_allclose(hessian[:, k], difference, rtol=1e-4, atol=1e-6)


def test_entropy(x64, optimized):
    log_scaled, deficit = reference.log_scaled(VALUES), reference.mean_deficit(VALUES)
    exact = log_scaled + (VALUES * deficit).sum(-1)
    np.testing.assert_allclose(
        jax.jit(MatrixFisher.entropy)(fishers(VALUES)), exact, atol=2e-6, rtol=1e-6
    )
    single = jax.jit(MatrixFisher.entropy)(fishers(VALUES.astype(np.float32)))
    np.testing.assert_allclose(single, exact, atol=2e-5, rtol=2e-5)
    assert (np.asarray(single) <= 0).all()


@pytest.mark.parametrize("prefix", ["", "ext_"])
def test_the_published_normaliser_meets_its_vectors(stored, prefix, x64):
    for dtype, value_tolerance, slope_tolerance in (
        ("float32", 2e-6, 5e-6),
        ("float64", 1e-9, 1e-9),
    ):
        suffix = "_f64" if dtype == "float64" else ""
        s = jnp.asarray(stored[f"{prefix}S_proper{suffix}"], dtype)
        value, slope = jax.jit(
            jax.vmap(jax.value_and_grad(lambda x: log_normalizer(x, "published")))
        )(s)
        expected = stored[f"{prefix}log_c{suffix}"]
        bound = value_tolerance * (1 + np.abs(expected))
        assert (np.abs(value - expected) <= bound).all()
        expected = stored[f"{prefix}dlogc_dS{suffix}"]
        np.testing.assert_allclose(slope, expected, rtol=0, atol=slope_tolerance)


def test_the_published_bias_is_the_stated_one(x64):
    s = jnp.array([[1000.0, 1000, 1000], [10.0, 10, 10]])
    bias = normalizer(s, "published") - normalizer(s, "accurate")
    np.testing.assert_allclose(bias, [1.4, 5e-4], rtol=0.1)


def test_the_density_integrates_to_one(key):
    rotations = turn(key, (40000,))
    matrix = jnp.array([[1.0, 0.5, 0], [-0.3, 0.4, 0.2], [0, 0.1, -1.1]])
    fisher = build(jnp.broadcast_to(matrix[None], rotations.shape))
    density = np.exp(log_prob(fisher, rotations))
    error = density.std() / np.sqrt(density.size)
    assert abs(density.mean() - 1) < 4 * error
    mean = (density[:, None, None] * np.asarray(rotations)).mean(0)
    np.testing.assert_allclose(mean, fisher.mean()[0], atol=4 * error)


def test_mode_is_the_most_likely_rotation(rng, key):
    matrices = jnp.asarray(3 * rng.standard_normal((20, 3, 3)), jnp.float32)
    fisher = build(matrices)
    mode = fisher.mode()
    np.testing.assert_allclose(jnp.linalg.det(mode), 1, atol=1e-5)
    best = np.asarray(log_prob(fisher, mode))
    many = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (50, *x.shape)), fisher)
    other = log_prob(many, turn(key, (50, 20)))
    assert (np.asarray(other) <= best + 1e-4).all()


@pytest.mark.parametrize(
    "matrix",
    [np.zeros((3, 3)), 5 * np.eye(3), np.diag([4.0, 4.0, -4.0]), 1e3 * np.eye(3)],
)
def test_gradient_of_the_density_is_closed_form(matrix, key):
    rotation = turn(key, ())
    matrix = jnp.asarray(matrix, jnp.float32)
    gradient, mean = gradient_and_mean(matrix, rotation)
    expected = rotation - mean
    np.testing.assert_allclose(gradient, expected, atol=tolerances.F32_IDENTITY)


@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 2)])
def test_batch_axes(shape, key):
    rotations = turn(key, shape)
    fisher = build(2 * rotations)
    for value, tail in (
        (fisher.mode(), (3, 3)),
        (fisher.mean(), (3, 3)),
        (fisher.log_prob(rotations), ()),
        (fisher.entropy(), ()),
    ):
        assert value.shape == (*shape, *tail)


def test_wrong_arguments_are_refused():
    fisher = fishers(jnp.ones((2, 3)))
    with pytest.raises((ValueError, TypeError), match="shape|batch"):
        fisher.log_prob(jnp.zeros((3, 3, 3)))
    with pytest.raises((ValueError, TypeError), match="accurate"):
        log_normalizer(jnp.ones(3), "exact")
