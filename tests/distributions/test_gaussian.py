import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hmr_jax.distributions.gaussian import DiagonalGaussian
from tests import tolerances


@pytest.fixture
def gaussian(rng):
    mean = jnp.asarray(rng.standard_normal((2, 5)), jnp.float32)
    return DiagonalGaussian(
        mean, jnp.asarray(0.5 * rng.standard_normal((2, 5)), jnp.float32)
    )


def test_density_and_entropy_are_scipys(gaussian, rng):
    value = jnp.asarray(rng.standard_normal((2, 5)), jnp.float32)
    std = np.exp(np.asarray(gaussian.log_std, np.float64))
    np.testing.assert_allclose(gaussian.std, std, rtol=tolerances.F32_IDENTITY)
    expected = stats.norm.logpdf(value, gaussian.mean, std).sum(-1)
    np.testing.assert_allclose(gaussian.log_prob(value), expected, rtol=1e-5)
    expected = stats.norm.entropy(gaussian.mean, std).sum(-1)
    np.testing.assert_allclose(gaussian.entropy(), expected, rtol=1e-5)


def test_sample_moments(gaussian, key):
    drawn = np.asarray(gaussian.sample(key, 20000))
    std = np.asarray(gaussian.std)
    assert drawn.shape == (20000, 2, 5)
    assert (np.abs(drawn.mean(0) - gaussian.mean) < 4 * std / np.sqrt(20000)).all()
    np.testing.assert_allclose(drawn.std(0), std, rtol=4 / np.sqrt(2 * 20000))


def test_other_shapes_are_refused(gaussian):
    with pytest.raises((ValueError, TypeError), match="shape|batch"):
        gaussian.log_prob(jnp.zeros((2, 4)))
