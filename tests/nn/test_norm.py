"""Batch statistics against numpy in float64; conventions of the running ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.nn.norm import BatchNorm
from tests import tolerances


def _run(values, **options):
    norm = BatchNorm(use_running_average=False, **options)
    variables = norm.init(jax.random.key(0), values)
    out, updated = norm.apply(variables, values, mutable=["batch_stats"])
    return out, updated["batch_stats"]


def test_batch_statistics_normalise_and_move_the_running_ones(rng):
    values = jnp.asarray((5 + 2 * rng.standard_normal((4, 3, 3, 2))), jnp.float32)
    out, stats = _run(values)
    values = np.asarray(values, np.float64)
    flat = values.reshape(-1, 2)
    expected = (values - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0), rtol=1e-5)


def test_unbiased_option_keeps_pytorchs_running_variance(rng):
    values = jnp.asarray(rng.standard_normal((5, 2)), jnp.float32)
    _, stats = _run(values, unbiased=True)
    expected = 0.9 + 0.1 * np.asarray(values).var(0, ddof=1)
    np.testing.assert_allclose(stats["var"], expected, rtol=1e-5)


def _exact(values):
    """Normalised values, mean and variance in float64."""
    values = np.asarray(values, np.float64)
    axes = tuple(range(values.ndim - 1))
    mean, var = values.mean(axes), values.var(axes)
    return (values - mean) / np.sqrt(var + 1e-5), mean, var


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("mean", "std"), [(3, 1), (100, 1), (-1000, 0.1)])
def test_a_mean_far_from_zero_cancels_no_digits(mean, std, dtype, rng):
    """From the first step, when the running mean is still 0; the sums are long."""
    values = jnp.asarray(mean + std * rng.standard_normal((8, 32, 32, 3)), dtype)
    if not float(jnp.std(values.astype(jnp.float32))) > 0:
        values = values.at[:, ::2].add(jnp.asarray(8, dtype))  # bfloat16 beside 1000
    out, stats = _run(values)
    expected, exact_mean, exact_var = _exact(values.astype(jnp.float32))
    np.testing.assert_allclose(out, expected, atol=3e-5)
    np.testing.assert_allclose(stats["mean"], 0.1 * exact_mean, rtol=1e-6)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * exact_var, rtol=1e-5)


def test_a_mean_far_from_zero_leaves_the_gradient_exact(rng):
    values = 100 + rng.standard_normal((512, 2))
    weight = rng.standard_normal(values.shape)

    @jax.jit
    @jax.grad
    def gradient(values, weight):
        norm = BatchNorm(use_running_average=False, dtype=values.dtype)
        variables = norm.init(jax.random.key(0), values)
        out, _ = norm.apply(variables, values, mutable=["batch_stats"])
        return jnp.sum(out * weight)

    values = values.astype(np.float32)
    got = gradient(jnp.asarray(values), jnp.asarray(weight, jnp.float32))
    normal, _, var = _exact(values)
    centred = weight - weight.mean(0) - normal * (weight * normal).mean(0)
    np.testing.assert_allclose(got, centred / np.sqrt(var + 1e-5), atol=1e-5)


def test_running_average_is_a_fixed_affine_map(rng):
    values = jnp.asarray(rng.standard_normal((3, 2)), jnp.float32)
    norm = BatchNorm()
    variables = {
        "params": {"scale": jnp.array([2.0, 1.0]), "bias": jnp.array([0.5, 0.0])},
        "batch_stats": {"mean": jnp.array([1.0, 0.0]), "var": jnp.array([4.0, 1.0])},
    }
    expected = (np.asarray(values) - [1, 0]) / np.sqrt(np.array([4, 1]) + 1e-5) * [
        2,
        1,
    ] + [0.5, 0]
    np.testing.assert_allclose(
        norm.apply(variables, values), expected, atol=tolerances.F32_IDENTITY
    )


def test_named_axis_equals_the_whole_batch(rng):
    values = jnp.asarray(rng.standard_normal((2, 4, 3)), jnp.float32)
    values = values + jnp.array([50.0, 54.0])[:, None, None]
    norm = BatchNorm(use_running_average=False, axis_name="batch", unbiased=True)
    variables = BatchNorm(use_running_average=False).init(jax.random.key(0), values[0])
    split = jax.vmap(
        lambda x: norm.apply(variables, x, mutable=["batch_stats"]), axis_name="batch"
    )
    out, updated = split(values)
    whole, stats = _run(values.reshape(8, 3), unbiased=True)
    np.testing.assert_allclose(whole, _exact(values.reshape(8, 3))[0], atol=1e-5)
    np.testing.assert_allclose(out.reshape(8, 3), whole, atol=1e-6)
    np.testing.assert_allclose(
        updated["batch_stats"]["var"][0], stats["var"], rtol=1e-6
    )


def test_bfloat16_output_keeps_float32_statistics(rng):
    values = jnp.asarray(rng.standard_normal((8, 2)), jnp.bfloat16)
    out, stats = _run(values, dtype=jnp.bfloat16)
    assert out.dtype == jnp.bfloat16
    assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
