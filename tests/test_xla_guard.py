"""The reproducer of jaxlib 0.10's wrong CPU reductions, and the guard against it."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from hmr_jax._xla_guard import is_affected
from tests import tolerances


def test_long_jitted_reductions_match_float64(rng, optimized):
    vectors = rng.standard_normal((3, 40_000)).astype(np.float32)
    matrices = rng.standard_normal((3, 3, 40_000)).astype(np.float32)

    def energy(v, a):
        return (v[:, None] * v[None] * a).sum()

    computed = jax.jit(jax.grad(energy))(vectors, matrices)
    v, a = vectors.astype(np.float64), matrices.astype(np.float64)
    expected = np.einsum("ijn,jn->in", a, v) + np.einsum("jin,jn->in", a, v)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        computed, expected, atol=tolerances.F32_IDENTITY * scale, rtol=0
    )


@pytest.mark.parametrize(
    ("version", "affected"),
    [("0.9.1", False), ("0.10.0", True), ("0.10.2", True), ("0.11.2", False)],
)
def test_only_affected_releases_get_the_flag(version, affected):
    assert is_affected(version) is affected


def test_a_started_backend_is_reported():
    program = "import jax; jax.devices(); import hmr_jax"
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        env=env, capture_output=True, text=True, check=True,
    )  # fmt: skip
    import jaxlib

    assert ("imported after JAX" in done.stderr) is is_affected(jaxlib.__version__)
