import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.losses.elementwise import squared_error
from hmr_jax.losses.reduce import finish, masked, masked_error


def test_sum_and_count(rng):
    values = jnp.asarray(rng.standard_normal((3, 4)), jnp.float32)
    weight = jnp.asarray(rng.uniform(size=(3, 4)), jnp.float32)
    total, count = masked(values, weight)
    np.testing.assert_allclose(total, (values * weight).sum(), rtol=1e-6)
    np.testing.assert_allclose(count, weight.sum(), rtol=1e-6)


def test_parts_merge_to_the_whole(rng):
    values = jnp.asarray(rng.standard_normal(7), jnp.float32)
    weight = jnp.asarray([1.0, 0, 1, 1, 0, 0, 1])
    whole = masked(values, weight)
    parts = [masked(values[s], weight[s]) for s in (slice(0, 2), slice(2, 7))]
    np.testing.assert_allclose(whole, np.sum(parts, 0), rtol=1e-6)


def test_nan_under_a_zero_weight_is_neither_counted_nor_differentiated():
    weight = jnp.array([1.0, 0.0])

    def loss(x):
        return finish(*masked(jnp.log(x), weight))

    value, gradient = jax.value_and_grad(loss)(jnp.array([1.0, 1.0]))
    assert value == 0
    np.testing.assert_array_equal(gradient, [1, 0])
    total, _ = masked(jnp.array([2.0, jnp.nan]), weight)
    assert total == 2


def test_nothing_counted_gives_the_sum_not_nan():
    value, gradient = jax.value_and_grad(lambda x: finish(x, jnp.zeros(())))(
        jnp.zeros(())
    )
    assert value == 0
    assert np.isfinite(gradient)


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\) does not fit values \(2, 3\)"):
        masked(jnp.zeros((2, 3)), jnp.zeros(3))
    with pytest.raises(ValueError, match="differ"):
        masked_error(squared_error, jnp.zeros((2, 3)), jnp.zeros((1, 3)))


@pytest.mark.parametrize("normalize_by", ["labelled", "all"])
def test_what_a_mean_is_over(rng, normalize_by):
    values = jnp.asarray(rng.standard_normal((3, 4, 2)), jnp.float32)
    weight = jnp.asarray(rng.uniform(size=(3, 4, 1)), jnp.float32).at[0, 1].set(0)
    valid = jnp.array([1.0, 0.0, 1.0])
    total, count = masked(values, weight, valid, normalize_by=normalize_by)
    np.testing.assert_allclose(total, (values * weight)[::2].sum(), rtol=1e-5)
    entries = 16 if normalize_by == "all" else 2 * weight[::2].sum()
    np.testing.assert_allclose(count, entries, rtol=1e-6)


def test_an_error_that_does_not_count_reaches_no_gradient():
    target = jnp.array([[1.0, jnp.nan], [jnp.nan, jnp.inf]])
    weight, valid = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([1.0, 0.0])

    def loss(predicted):
        return finish(*masked_error(squared_error, predicted, target, weight, valid))

    value, gradient = jax.value_and_grad(loss)(jnp.array([[3.0, 1.0], [jnp.nan, 0.0]]))
    assert value == 4
    np.testing.assert_array_equal(gradient, [[4, 0], [0, 0]])
