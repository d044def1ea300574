"""A sample's random numbers are its own, in whatever batch it stands."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax import sample_keys

DRAWS = {
    "normal": jax.random.normal,
    "uniform": jax.random.uniform,
    "choice": lambda key, shape: jax.random.randint(key, shape, 0, 50),
}


@pytest.mark.parametrize("name", DRAWS)
def test_parts_of_a_batch_draw_what_the_whole_draws(name):
    key = jax.random.key(3)

    def draws(rows):
        keys = sample_keys.keys_of_rows(key, jnp.asarray(rows))
        return [
            sample_keys.draw(DRAWS[name], part, (len(rows), 4))
            for part in sample_keys.split(keys, 3)
        ]

    whole = np.stack(draws([0, 1, 2, 3, 4, 5]))
    parts = np.concatenate([np.stack(draws(r)) for r in ([0, 1], [2], [3, 4, 5])], 1)
    np.testing.assert_array_equal(whole, parts)
    assert len(np.unique(whole[:, :, 0])) > 12  # and no two samples draw the same


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_a_single_key_draws_as_jax_does(make):
    key = make(5)
    assert sample_keys.is_one(key)
    assert not sample_keys.is_one(jax.random.split(key, 3))
    first, second = sample_keys.split(key, 2)
    np.testing.assert_array_equal(
        sample_keys.draw(jax.random.normal, first, (3, 2)),
        jax.random.normal(jax.random.split(key)[0], (3, 2)),
    )
    assert not np.array_equal(
        jax.random.normal(first, (3,)), jax.random.normal(second, (3,))
    )


def test_arguments_of_each_sample_stay_with_it():
    keys = sample_keys.keys_of_rows(jax.random.key(0), jnp.arange(200))
    low = jnp.arange(200)
    found = sample_keys.draw(jax.random.randint, keys, (200,), low, low + 2)
    assert set(np.unique(found - low)) == {0, 1}


def test_matrix_fisher_and_gaussian_draws_are_each_samples_own():
    from hmr_jax.distributions.gaussian import DiagonalGaussian
    from hmr_jax.distributions.matrix_fisher import MatrixFisher, sample_matrix_fisher

    rng = np.random.default_rng(0)
    s = np.sort(rng.uniform(0.1, 9.0, (4, 5, 3)).astype(np.float32))[..., ::-1]
    eye = jnp.broadcast_to(jnp.eye(3), (4, 5, 3, 3))
    keys = sample_keys.keys_of_rows(jax.random.key(1), jnp.arange(4))
    draw = jax.jit(functools.partial(sample_matrix_fisher, num_samples=6))

    def fisher(rows):
        values = jnp.asarray(s)[rows]
        return MatrixFisher(eye[rows] * values[..., None], eye[rows], values, eye[rows])

    whole = draw(keys, fisher(slice(0, 4)))
    half = draw(keys[2:], fisher(slice(2, 4)))
    assert whole.complete.all()
    np.testing.assert_allclose(whole.rotmats[:, 2:], half.rotmats, atol=1e-6)
    assert len(np.unique(np.asarray(whole.rotmats[..., 0, 1]).round(5))) > 100
    mean = jnp.asarray(rng.standard_normal((4, 3)), jnp.float32)
    gaussian = DiagonalGaussian(mean, jnp.zeros((4, 3)))
    part = DiagonalGaussian(mean[1:3], jnp.zeros((2, 3)))
    np.testing.assert_array_equal(
        gaussian.sample(keys, 7)[:, 1:3], part.sample(keys[1:3], 7)
    )
