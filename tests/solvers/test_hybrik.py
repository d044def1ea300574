"""The analytic solvers against the original's stored outputs, and their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body import forward
from hmr_jax.solvers import hybrik
from hmr_jax.solvers.types import LEAF_JOINTS
from tests.solvers import ikol_vectors as iv
from tests.solvers.test_ikol_published import degenerate_inputs

SOLVERS = {
    "hybrik_naive_train": hybrik.hybrik_naive,
    "hybrik_naive_eval": functools.partial(hybrik.hybrik_naive, mode="eval"),
    "hybrik_adaptive_eval": functools.partial(
        hybrik.hybrik_adaptive, leaf_joints=hybrik.PUBLISHED_ADAPTIVE_LEAF_JOINTS
    ),
}


@pytest.fixture(scope="module")
def vectors(parity_dir):
    return iv.load(parity_dir)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_published_float64(vectors, recipe, name, x64):
    body, where = iv.reduced_body(recipe, np.float64)

    @jax.jit
    def run(args, betas, body):
        result = SOLVERS[name](*args)
        mesh = forward.body_forward(body, betas, result.local_rotmats).vertices_m
        centre = forward.regress_joints(body, mesh, "h36m_17")[:, :1]
        return result, mesh[:, where] - centre

    for case in iv.CASES:
        betas = np.asarray(vectors[f"{case}/in_betas"], np.float64)
        result, mesh = run(iv.inputs(vectors, case, np.float64), betas, body)
        iv.assert_float64(result.joints_m, vectors, f"{case}/{name}/joints")
        iv.assert_float64(result.local_rotmats, vectors, f"{case}/{name}/rotmats")
        iv.assert_float64(mesh, vectors, f"{case}/{name}/verts50")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOLVERS))
def test_published_float32(vectors, name):
    run = jax.jit(lambda args: SOLVERS[name](*args))
    for case in iv.CASES:
        result = run(iv.inputs(vectors, case, np.float32))
        iv.assert_float32(result.joints_m, vectors, f"{case}/{name}/joints", 0.3)
        iv.assert_float32(result.local_rotmats, vectors, f"{case}/{name}/rotmats", 0.3)


@pytest.mark.parametrize(
    "solver",
    [
        hybrik.hybrik_naive,
        pytest.param(SOLVERS["hybrik_naive_eval"], marks=pytest.mark.slow),
        pytest.param(hybrik.hybrik_adaptive, marks=pytest.mark.slow),
    ],
)
def test_degenerate_inputs_are_finite(vectors, solver):
    def loss(args):
        result = solver(*args)
        return (result.joints_m**2).sum() + (result.local_rotmats**3).sum(), result

    gradients, result = jax.jit(jax.grad(loss, has_aux=True))(
        degenerate_inputs(vectors)
    )
    for array in jax.tree.leaves((gradients, result.local_rotmats, result.joints_m)):
        assert np.isfinite(np.asarray(array)).all()
    assert not result.info.failed.any()


@pytest.mark.slow
def test_leading_axes_and_the_order_of_leaves(vectors):
    args = tuple(map(jnp.asarray, iv.inputs(vectors, "clean", np.float32)))
    two_axes = tuple(a.reshape(2, 4, *a.shape[1:]) for a in args)
    pairs = jax.jit(hybrik.hybrik_adaptive)(*two_axes).local_rotmats
    published = jax.jit(SOLVERS["hybrik_adaptive_eval"])(*(a[5] for a in args))
    own = pairs[1, 1]
    assert pairs.shape == (2, 4, 24, 3, 3)
    inner = jnp.array([j for j in range(24) if j not in LEAF_JOINTS])
    np.testing.assert_allclose(own[inner], published.local_rotmats[inner], atol=1e-5)
    mixed = jnp.array(hybrik.PUBLISHED_ADAPTIVE_LEAF_JOINTS)
    np.testing.assert_allclose(
        own[jnp.array(LEAF_JOINTS)], published.local_rotmats[mixed], atol=1e-6
    )


def test_unknown_mode_is_refused(vectors):
    args = tuple(map(jnp.asarray, iv.inputs(vectors, "clean", np.float32)))
    with pytest.raises(ValueError, match="mode"):
        hybrik.hybrik_naive(*args, mode="test")
