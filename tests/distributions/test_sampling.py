"""Draws: the stored deterministic check, moments, acceptance, bounds and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.distributions import _fisher_sampling as internals
from hmr_jax.distributions.kinematic import sample_hierarchy
from hmr_jax.distributions.matrix_fisher import (
    MatrixFisher,
    mean_diagonal,
    sample_matrix_fisher,
)
from hmr_jax.geometry.rotations import quaternion_to_matrix
from hmr_jax.geometry.svd3 import Svd3, make_proper

sample = jax.jit(sample_matrix_fisher, static_argnums=(2, 3))
DRAWS = 20000


@pytest.fixture(scope="module")
def stored(parity_dir):
    path = parity_dir / "hierprob" / "sampling_public.npz"
    with np.load(path) as file:
        return dict(file)


def centred(s):
    """Distributions with the identity as mode."""
    s = jnp.asarray(s, jnp.float32)
    eye = jnp.broadcast_to(jnp.eye(3), (*s.shape, 3))
    return MatrixFisher.from_factors(Svd3(eye, s, eye))


def of_raw(u, s, v):
    return MatrixFisher.from_factors(
        make_proper(Svd3(jnp.asarray(u), jnp.asarray(s), jnp.asarray(v)))
    )


def test_given_noise_gives_the_stored_draws(stored):
    fisher = of_raw(stored["fix_U"], stored["fix_S"], stored["fix_V"])
    exponents = internals.bingham_exponents(fisher.s)[:, None]
    eps = jnp.asarray(stored["fix_eps"])
    exponents = jnp.broadcast_to(exponents, eps.shape)
    b = jnp.full(eps.shape[:-1], internals.PUBLISHED_B)
    quaternions, ratio = jax.jit(internals.propose)(eps, exponents, b)
    np.testing.assert_allclose(ratio, stored["fix_ratio"], atol=2e-5)
    accept = jnp.asarray(stored["fix_w"]) < ratio
    np.testing.assert_array_equal(accept, stored["fix_accept"])
    chosen, filled = internals.first_accepted(accept, 8)
    np.testing.assert_array_equal(filled, 8)
    picked = jnp.take_along_axis(quaternions, chosen[..., None], 1)
    rotations = np.asarray(quaternion_to_matrix(picked))
    drawn = np.einsum("jab,jnbc,jdc->njad", fisher.u, rotations, fisher.v)
    np.testing.assert_allclose(drawn, stored["fix_R"], atol=5e-5)


def test_gradient_through_given_noise_is_the_stored_one(stored):
    eps, accept = jnp.asarray(stored["fix_eps"]), jnp.asarray(stored["fix_accept"])
    chosen, _ = internals.first_accepted(accept, 8)
    directions = jnp.take_along_axis(eps, chosen[..., None], 1)

    def value(matrix):
        # Modern signs: those the vectors were made with.
        fisher = MatrixFisher.from_matrix(matrix, "lapack_new")
        exponents = internals.bingham_exponents(fisher.s)[:, None]
        exponents = jnp.broadcast_to(exponents, directions.shape)
        b = jnp.full(directions.shape[:-1], internals.PUBLISHED_B)
        quaternions = internals.propose(directions, exponents, b).quaternions
        drawn = jnp.einsum(
            "jab,jnbc,jdc->njad",
            fisher.u,
            quaternion_to_matrix(quaternions),
            fisher.v,
            precision="highest",
        )
        return jnp.sum(drawn * jnp.asarray(stored["fix_C"]))

    gradient = jax.jit(jax.grad(value))(jnp.asarray(stored["fix_F"]))
    expected = stored["fix_grad_F"]
    np.testing.assert_allclose(gradient, expected, atol=5e-5 * np.abs(expected).max())


@pytest.mark.parametrize("envelope_b", [None, internals.PUBLISHED_B])
def test_moments_are_the_exact_ones(stored, envelope_b, key):
    fisher = of_raw(stored["U_raw"], stored["S_raw"], stored["V_raw"])
    drawn = sample(key, fisher, DRAWS, envelope_b)
    assert drawn.complete.all()
    rotations = np.asarray(drawn.rotmats, np.float64)
    error = rotations.std(0) / np.sqrt(DRAWS)
    # 1e-6 is the rounding of one float32 rotation.
    distance = np.abs(rotations.mean(0) - stored["exact_mean_R"]) / (error + 1e-6)
    assert distance.max() < 4
    assert np.sqrt(np.mean(distance**2)) < 1.3
    if envelope_b is not None:
        np.testing.assert_allclose(
            drawn.acceptance, stored["accept_rate"], atol=4 * 0.5 / np.sqrt(2 * DRAWS)
        )
    mode = np.einsum("jab,jcb->jac", fisher.u, fisher.v)
    cosine = (np.einsum("njab,jab->nj", rotations, mode) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean(0)
    np.testing.assert_allclose(angle, stored["mean_angle_deg"], rtol=0.02)


def test_second_moments_are_exact(key):
    """E[R_ii^2] comes from the Hessian of the normaliser: d^2 log c / d s_i^2."""
    s = jnp.array([[3.0, 2.0, -1.0], [30.0, 3.0, 0.5]])
    drawn = np.asarray(sample(key, centred(s), DRAWS, None).rotmats, np.float64)
    diagonal = np.diagonal(drawn, axis1=-2, axis2=-1)
    jacobian = jax.jit(jax.vmap(jax.jacfwd(mean_diagonal)))(s)
    expected = np.diagonal(jacobian, axis1=-2, axis2=-1)
    square = (diagonal - diagonal.mean(0)) ** 2
    error = square.std(0) / np.sqrt(DRAWS)
    assert (np.abs(square.mean(0) - expected) < 4 * error + 1e-6).all()


def test_the_best_envelope_accepts_more(key):
    s = np.array([[0, 0, 0], [0.5, 0.3, 0.1], [7, 7, 7], [1000, 900, 800]])
    best = sample(key, centred(s), DRAWS, None).acceptance
    published = sample(key, centred(s), DRAWS, internals.PUBLISHED_B).acceptance
    assert best[0] > 0.999
    assert (np.asarray(best) > np.asarray(published)).all()
    exponents = internals.bingham_exponents(jnp.asarray(s, jnp.float32))
    b = jax.jit(internals.best_envelope)(exponents)
    np.testing.assert_allclose((1 / (b[:, None] + 2 * exponents)).sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("num", [1, 8, 50])
def test_every_slot_is_filled_by_a_rotation(num, key):
    s = np.tile(np.array([[100.0, 90, 80], [5, 4, -4], [0, 0, 0]]), (40, 1, 1))
    drawn = sample(key, centred(s), num, None)
    assert drawn.rotmats.shape == (num, 40, 3, 3, 3)
    assert drawn.complete.all()
    np.testing.assert_allclose(jnp.linalg.det(drawn.rotmats), 1, atol=1e-5)
    # No slot kept its starting value, the mode itself.
    assert (np.abs(np.asarray(drawn.rotmats) - np.eye(3)).max((-1, -2)) > 0).all()


def test_short_rounds_are_continued(monkeypatch, key):
    """With 2 proposals a round for 8 draws, the loop runs on and stays exact."""
    monkeypatch.setattr(internals, "proposals_for", lambda num: 2)
    s = jnp.tile(jnp.array([[2.0, 1.0, 0.5]]), (3000, 1))
    fisher = centred(s)
    drawn = jax.jit(lambda key: sample_matrix_fisher(key, fisher, 7))(key)
    assert drawn.complete.all()
    diagonal = np.diagonal(np.asarray(drawn.rotmats), axis1=-2, axis2=-1)
    mean, error = diagonal.mean(1), diagonal.std(1) / np.sqrt(3000)
    expected = np.asarray(mean_diagonal(s[0]))[None]
    assert (np.abs(mean - expected) < 4 * error).all()


def test_bad_parameters_are_flagged_and_spoil_nothing_else(key):
    s = jnp.array([[3.0, 2, 1], [jnp.nan, 1, 1], [jnp.inf, 1, 1]])
    drawn = sample(key, centred(s), 4, None)
    np.testing.assert_array_equal(drawn.complete, [True, False, False])
    assert np.isfinite(drawn.rotmats[:, 0]).all()
    assert np.isnan(drawn.rotmats[:, 1]).all()


def test_s3_rounded_below_minus_s2_is_harmless(key):
    drawn = sample(key, centred([[5.0, 2.0, -2.0000002]]), 8, None)
    assert drawn.complete.all()
    assert np.isfinite(drawn.rotmats).all()


def test_gradients_are_finite_and_point_the_right_way(key):
    def spread(scale):
        s = scale * jnp.array([[1.0, 1.0, 1.0], [3.0, 2.0, -2.0]])
        drawn = sample_matrix_fisher(key, centred(s), 200)
        return jnp.mean(jnp.trace(drawn.rotmats[:, 0], axis1=-2, axis2=-1))

    slope = jax.jit(jax.grad(spread))
    assert slope(2.0) > 0
    assert np.isfinite(slope(0.0))


def test_wrong_arguments_are_refused(key):
    with pytest.raises(ValueError, match="at least 1"):
        sample_matrix_fisher(key, centred(np.ones((1, 3))), 0)
    with pytest.raises(ValueError, match="envelope_b"):
        sample_matrix_fisher(key, centred(np.ones((1, 3))), 1, 5.0)


def test_hierarchy_conditions_children_on_draws(key):
    """The child's mode is its parent's draw, so the child follows the parent."""
    offset = jnp.diag(jnp.array([1.0, -1.0, -1.0]))

    def parameters(level, rotmats):
        if level == (0,):
            return jnp.zeros((*rotmats.shape[:-3], 1, 3, 3))
        return 1000.0 * (rotmats[..., :1, :, :] @ offset)

    @jax.jit
    def draw(key):
        levels = ((0,), (1,))
        return sample_hierarchy(key, parameters, levels, 30, (2,), "backend")

    rotmats, complete = draw(key)
    assert rotmats.shape == (30, 2, 2, 3, 3)
    assert complete.all()
    relative = np.swapaxes(rotmats[:, :, 0], -1, -2) @ rotmats[:, :, 1]
    trace = np.trace(relative @ np.asarray(offset), axis1=-2, axis2=-1)
    assert (trace > 3 - 0.05).all()
    with pytest.raises(ValueError, match="levels"):
        sample_hierarchy(key, parameters, ((0,), (2,)), 1)
