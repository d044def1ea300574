import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.nn.soft_argmax import soft_argmax_3d
from tests import tolerances


def _reference(logits, num_joints):
    """The definition, with the whole probability volume in float64."""
    batch, height, width, channels = logits.shape
    depth = channels // num_joints
    volume = np.asarray(logits, np.float64).reshape(batch, height, width, -1, depth)
    mass = np.exp(volume - volume.max((1, 2, 4), keepdims=True))
    p = mass / mass.sum((1, 2, 4), keepdims=True)
    u = np.einsum("byxjd,x->bj", p, np.arange(width)) / width
    v = np.einsum("byxjd,y->bj", p, np.arange(height)) / height
    d = np.einsum("byxjd,d->bj", p, np.arange(depth)) / depth
    return np.stack([u, v, d], -1) - 0.5


def test_mean_cell_of_a_random_volume(rng):
    logits = jnp.asarray(3 * rng.standard_normal((2, 6, 5, 3 * 4)), jnp.float32)
    got = jax.jit(soft_argmax_3d, static_argnums=1)(logits, 3)
    np.testing.assert_allclose(
        got, _reference(logits, 3), atol=tolerances.F32_IDENTITY, rtol=0
    )


def test_gradient_equals_that_of_the_plain_expression(rng):
    logits = jnp.asarray(rng.standard_normal((2, 4, 5, 2 * 3)), jnp.float32)
    weight = jnp.asarray(rng.standard_normal((2, 2, 3)), jnp.float32)

    def plain(x):
        volume = x.reshape(2, 4, 5, 2, 3)
        p = jax.nn.softmax(volume, (1, 2, 4))
        u = jnp.einsum("byxjd,x->bj", p, jnp.arange(5) / 5)
        v = jnp.einsum("byxjd,y->bj", p, jnp.arange(4) / 4)
        d = jnp.einsum("byxjd,d->bj", p, jnp.arange(3) / 3)
        return (jnp.stack([u, v, d], -1) * weight).sum()

    got = jax.grad(lambda x: (soft_argmax_3d(x, 2) * weight).sum())(logits)
    np.testing.assert_allclose(
        got, jax.grad(plain)(logits), atol=tolerances.F32_IDENTITY, rtol=0
    )


def test_a_sharp_peak_is_found_and_huge_logits_stay_finite():
    logits = np.zeros((1, 8, 8, 8), np.float32)
    logits[0, 3, 6, 1] = 1e4
    value, pullback = jax.vjp(lambda x: soft_argmax_3d(x, 1), jnp.asarray(logits))
    np.testing.assert_allclose(value[0, 0], np.array([6, 3, 1]) / 8 - 0.5)
    assert np.isfinite(pullback(jnp.ones_like(value))[0]).all()


def test_bfloat16_logits_are_summed_in_float32(rng):
    logits = jnp.asarray(rng.standard_normal((1, 16, 16, 16)), jnp.bfloat16)
    got = soft_argmax_3d(logits, 1)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(
        got, _reference(logits.astype(jnp.float32), 1), atol=tolerances.F32_IDENTITY
    )
    gradient = jax.grad(lambda x: soft_argmax_3d(x, 1).sum())(logits)
    assert gradient.dtype == jnp.bfloat16


def test_channels_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="divisible by 5 joints, got 12"):
        soft_argmax_3d(jnp.zeros((1, 4, 4, 12)), 5)
