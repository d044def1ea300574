"""The bound holds per sample, and changes nothing below it."""

import jax
import jax.numpy as jnp
import numpy as np

from hmr_jax.solvers.gradient_bound import bound_gradient
from tests import tolerances


def steep(x, y):
    """Slopes 1, 1e3 and infinity at the three samples."""
    slope = jnp.asarray([1.0, 1e3, 1.0], x.dtype)[:, None]
    root = jnp.sqrt(jnp.maximum(x - jnp.asarray([[0.0]] * 2 + [[5.0]]), 0.0))
    return {"out": slope * x + y, "root": root * jnp.asarray([[0.0]] * 2 + [[1.0]])}


def test_outputs_are_the_layer_s_and_gradients_are_bounded_per_sample():
    x = jnp.asarray([[3.0, 4.0], [3.0, 4.0], [5.0, 5.0]])
    y = jnp.zeros_like(x)
    bounded = bound_gradient(steep, 10.0)
    jax.tree.map(np.testing.assert_array_equal, bounded(x, y), steep(x, y))

    def total(layer, x, y):
        out = layer(x, y)
        return (out["out"] + out["root"]).sum()

    found = jax.jit(jax.grad(lambda x, y: total(bounded, x, y), (0, 1)))(x, y)
    exact = jax.grad(lambda x, y: total(steep, x, y), (0, 1))(x, y)
    assert not np.isfinite(exact[0][2]).all()
    np.testing.assert_allclose(found[0][0], exact[0][0], rtol=tolerances.F32_IDENTITY)
    np.testing.assert_allclose(found[1], exact[1], rtol=tolerances.F32_IDENTITY)
    # Cotangents are four ones, two of them per output: their norm is 2.
    np.testing.assert_allclose(np.linalg.norm(found[0][1]), 20.0, rtol=1e-6)
    np.testing.assert_allclose(found[0][1][0], found[0][1][1], rtol=1e-6)
    np.testing.assert_array_equal(found[0][2], 0.0)
