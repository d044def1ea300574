"""Losses of single entries, against numpy."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hmr_jax.losses import elementwise
from tests import tolerances


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4)])
def test_errors_of_entries(rng, shape):
    predicted, target = rng.standard_normal((2, *shape)).astype(np.float32)
    given = jnp.asarray(predicted), jnp.asarray(target)
    found = elementwise.absolute_error(*given), elementwise.squared_error(*given)
    expected = np.abs(predicted - target), (predicted - target) ** 2
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerances.F32_IDENTITY)


def test_gaussian_nll_in_scipy(rng):
    mean, log_std, target = rng.standard_normal((3, 5, 10)).astype(np.float32)
    found = elementwise.gaussian_nll(*map(jnp.asarray, (mean, log_std, target)))
    expected = -scipy.stats.norm.logpdf(target, mean, np.exp(log_std)).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        elementwise.absolute_error,
        elementwise.squared_error,
        lambda a, b: elementwise.gaussian_nll(a, a, b),
        lambda a, b: elementwise.matrix_fisher_nll(a, b),
    ],
)
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match="differ"):
        loss(jnp.ones((2, 3, 3)), jnp.ones((1, 3, 3)))
