"""Values, and derivatives at the points where the plain functions have none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.geometry import safe
from tests.tolerances import F32_IDENTITY

SINGULAR = [0.0, -0.0, 1e-45, 1e-38, 1e-30, 1e-20, 1e-7, 1.0, 1e18]


@pytest.mark.parametrize("x", SINGULAR)
def test_everything_is_finite(x):
    x = jnp.float32(x)
    vector = jnp.stack([x, x, -x])
    for function, argument in [
        (safe.sqrt, x),
        (safe.norm, vector),
        (safe.normalize, vector),
        (lambda v: safe.normalize(v, floor=1e-6), vector),
        (lambda v: safe.divide(jnp.float32(1), v), x),
        (lambda v: safe.divide(v, v), x),
        (safe.acos, x),
        (safe.acos, -x),
        (lambda v: safe.atan2(v, v), x),
        (lambda v: safe.atan2(v, -v), x),
    ]:
        assert np.isfinite(function(argument)).all()
        assert np.isfinite(jax.jacrev(function)(argument)).all()
        assert np.isfinite(jax.jacfwd(function)(argument)).all()


def test_values_and_derivatives_away_from_singular_points(rng):
    x = jnp.asarray(rng.uniform(0.1, 0.9, (4, 3)), jnp.float32)
    pairs = [
        (safe.sqrt, jnp.sqrt),
        (safe.norm, lambda v: jnp.linalg.norm(v, axis=-1)),
        (lambda v: safe.divide(v, v + 1), lambda v: v / (v + 1)),
        (safe.acos, jnp.arccos),
        (lambda v: safe.atan2(v, 1 - v), lambda v: jnp.arctan2(v, 1 - v)),
    ]
    for ours, plain in pairs:
        np.testing.assert_allclose(ours(x), plain(x), rtol=F32_IDENTITY)
        got, want = (
            jax.grad(lambda v, f=f: jnp.sum(f(v) ** 2))(x) for f in (ours, plain)
        )
        np.testing.assert_allclose(got, want, rtol=5 * F32_IDENTITY)


def test_limits():
    zero = jnp.zeros(3)
    np.testing.assert_array_equal(safe.normalize(zero), 0)
    np.testing.assert_array_equal(jax.grad(safe.norm)(zero), 0)
    assert safe.sqrt(jnp.float32(-1)) == 0
    assert safe.divide(jnp.float32(1), jnp.float32(0)) == 0
    np.testing.assert_allclose(
        safe.acos(jnp.array([2.0, 1.0, -1.0, -2.0])), [0, 0, np.pi, np.pi]
    )
    assert safe.norm(jnp.array([[3.0, 4.0]]), axis=1, keepdims=True).shape == (1, 1)
    half = safe.normalize(jnp.array([0.5, 0, 0]), floor=1.0)
    np.testing.assert_allclose(half, [0.5, 0, 0])
