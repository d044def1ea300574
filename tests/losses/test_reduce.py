import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.losses.reduce import finish, weighted_sum


def test_sum_and_count(rng):
    values = jnp.asarray(rng.standard_normal((3, 4)), jnp.float32)
    weight = jnp.asarray(rng.uniform(size=(3, 4)), jnp.float32)
    total, count = weighted_sum(values, weight)
    np.testing.assert_allclose(total, (values * weight).sum(), rtol=1e-6)
    np.testing.assert_allclose(count, weight.sum(), rtol=1e-6)


def test_parts_merge_to_the_whole(rng):
    values = jnp.asarray(rng.standard_normal(7), jnp.float32)
    weight = jnp.asarray([1.0, 0, 1, 1, 0, 0, 1])
    whole = weighted_sum(values, weight)
    parts = [weighted_sum(values[s], weight[s]) for s in (slice(0, 2), slice(2, 7))]
    np.testing.assert_allclose(whole, np.sum(parts, 0), rtol=1e-6)


def test_nan_under_a_zero_weight_is_neither_counted_nor_differentiated():
    weight = jnp.array([1.0, 0.0])

    def loss(x):
        return finish(*weighted_sum(jnp.log(x), weight))

    value, gradient = jax.value_and_grad(loss)(jnp.array([1.0, 1.0]))
    assert value == 0
    np.testing.assert_array_equal(gradient, [1, 0])
    total, _ = weighted_sum(jnp.array([2.0, jnp.nan]), weight)
    assert total == 2


def test_nothing_counted_gives_the_sum_not_nan():
    value, gradient = jax.value_and_grad(lambda x: finish(x, jnp.zeros(())))(
        jnp.zeros(())
    )
    assert value == 0
    assert np.isfinite(gradient)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(3,\)"):
        weighted_sum(jnp.zeros((2, 3)), jnp.zeros(3))
