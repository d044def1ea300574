"""3x3 SVD: LAPACK's signs, exact factors, derivatives that are finite everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.geometry.svd3 import Svd3, determinant3, make_proper, proper_svd, svd3
from tests import tolerances

_ROWS = 1500
"""One shape for all: the program compiles once for each choice of signs."""
_decompose = jax.jit(svd3, static_argnames=("signs", "min_gap"))
LAPACK = ("lapack_old", "lapack_new")


@pytest.fixture(scope="module")
def stored(parity_dir):
    path = parity_dir / "hierprob" / "svdsign_public.npz"
    with np.load(path) as file:
        return dict(file)


def decompose(matrices, signs="lapack_old"):
    matrices = np.asarray(matrices)
    flat = matrices.reshape(-1, 3, 3)
    padded = np.zeros((_ROWS, 3, 3), flat.dtype)
    padded[: len(flat)] = flat
    result = _decompose(jnp.asarray(padded), signs=signs)
    batch = matrices.shape[:-2]
    return Svd3(*(x[: len(flat)].reshape(*batch, *x.shape[1:]) for x in result))


def product(u, s, v):
    return np.einsum("...ik,...k,...jk->...ij", u, s, v)


def awkward_matrices():
    """Singular, repeated, diagonal, tiny, huge and rank-one matrices."""
    rng = np.random.default_rng(3)
    eye = np.eye(3)
    column = rng.standard_normal((3, 1))
    return np.stack(
        [
            0 * eye,
            eye,
            -eye,
            np.diag([1.0, 2.0, 3.0]),
            np.diag([3.0, -2.0, 0.0]),
            np.diag([0.0, 0.0, 2.0]),
            np.diag([2.0, 2.0, -2.0]),
            eye[[1, 2, 0]],
            eye[[1, 0, 2]],
            column @ column.T,
            np.ones((3, 3)),
            np.triu(np.ones((3, 3))),
            np.tril(np.ones((3, 3))),
            1e-30 * rng.standard_normal((3, 3)),
            1e30 * rng.standard_normal((3, 3)),
            eye + 1e-7 * rng.standard_normal((3, 3)),
            np.array([[1, 1e10, 0], [0, 1e-10, 1], [0, 0, 1]]),
        ]
    ).astype(np.float32)


@pytest.mark.parametrize(
    ("signs", "name"), [("lapack_old", "old"), ("lapack_new", "modern")]
)
def test_signs_are_lapacks(stored, signs, name):
    u, s, v = (np.asarray(x) for x in decompose(jnp.asarray(stored["A"]), signs=signs))
    same_u = (u * stored[f"U_{name}"]).sum(1) > 0
    same_v = (v * stored[f"V_{name}"]).sum(1) > 0
    assert (same_u & same_v).all(1).mean() >= 0.998
    np.testing.assert_allclose(s, stored["S"], rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("signs", "prefix"), [("lapack_old", "net_old_"), ("lapack_new", "")]
)
def test_the_stored_networks_matrices_are_decomposed_alike(
    parity_dir, stored, signs, prefix
):
    if prefix:
        expected = stored
    else:
        with np.load(parity_dir / "hierprob" / "net_public.npz") as file:
            expected = dict(file)
    matrix = jnp.asarray(expected[f"{prefix}F"])
    u, s, v = decompose(matrix, signs=signs)
    for value, key in ((u, "U"), (s, "S"), (v, "V")):
        np.testing.assert_allclose(value, expected[f"{prefix}{key}"], atol=2e-5)
    ours = make_proper(Svd3(u, s, v))
    mode = np.einsum("...ik,...jk->...ij", ours.u, ours.v)
    np.testing.assert_allclose(mode, expected[f"{prefix}mode"], atol=1e-5)
    if not prefix:
        np.testing.assert_allclose(ours.u, expected["U_proper"], atol=2e-5)
        np.testing.assert_allclose(ours.s, expected["S_proper"], atol=1e-5)


@pytest.mark.parametrize("signs", LAPACK)
def test_new_signs_are_those_of_this_machines_lapack(signs, rng):
    matrices = (3 * rng.standard_normal((400, 3, 3))).astype(np.float32)
    from scipy.linalg.lapack import sgesdd

    expected = np.stack([sgesdd(m)[0] for m in matrices])
    ours = np.asarray(decompose(matrices, signs=signs).u)
    agree = ((ours * expected).sum(1) > 0).all(1).mean()
    if signs == "lapack_new" and agree < 0.9:
        pytest.skip("this machine's LAPACK is older than 3.10")
    assert agree >= 0.995 if signs == "lapack_new" else agree < 1


@pytest.mark.parametrize("signs", (*LAPACK, "backend"))
def test_factors_reproduce_awkward_matrices(signs):
    matrices = awkward_matrices()
    u, s, v = (np.asarray(x, np.float64) for x in decompose(matrices, signs=signs))
    scale = np.maximum(np.abs(matrices).max((1, 2)), 1e-37)[:, None, None]
    np.testing.assert_allclose(product(u, s, v) / scale, matrices / scale, atol=2e-6)
    for factor in (u, v):
        gram = np.swapaxes(factor, -1, -2) @ factor
        np.testing.assert_allclose(
            gram, np.broadcast_to(np.eye(3), gram.shape), atol=2e-6
        )
    assert (s >= 0).all()
    assert (np.diff(s, axis=-1) <= 0).all()


def test_float64_agrees_with_numpy(rng, x64):
    scale = 10 ** rng.uniform(-3, 3, (50, 1, 1))
    matrices = scale * rng.standard_normal((2, 50, 3, 3))
    u, s, v = decompose(matrices)
    np.testing.assert_allclose(s, np.linalg.svd(matrices, compute_uv=False), rtol=1e-12)
    np.testing.assert_allclose(product(u, s, v), matrices, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 2)])
def test_batch_axes(shape, rng):
    matrices = jnp.asarray(rng.standard_normal((*shape, 3, 3)), jnp.float32)
    result = svd3(matrices, "backend")
    assert result.u.shape == result.v.shape == (*shape, 3, 3)
    assert result.s.shape == (*shape, 3)


def test_vmap_changes_nothing(rng):
    matrices = jnp.asarray(rng.standard_normal((2, 1, 3, 3)), jnp.float32)
    mapped = jax.jit(jax.vmap(svd3))(matrices)
    whole = decompose(matrices)
    np.testing.assert_allclose(mapped.u, whole.u, atol=tolerances.F32_IDENTITY)
    np.testing.assert_allclose(mapped.v, whole.v, atol=tolerances.F32_IDENTITY)


def test_proper_factors_are_rotations(rng):
    matrices = jnp.asarray(rng.standard_normal((200, 3, 3)), jnp.float32)
    u, s, v = make_proper(decompose(matrices))
    for factor in (u, v):
        np.testing.assert_allclose(determinant3(factor), 1, atol=2e-6)
    np.testing.assert_allclose(product(u, s, v), matrices, atol=5e-6)
    assert (s[:, 0] >= s[:, 1]).all()
    assert (s[:, 1] >= jnp.abs(s[:, 2])).all()
    np.testing.assert_array_equal(np.sign(s[:, 2]), np.sign(np.linalg.det(matrices)))


def test_proper_keeps_the_product_of_given_factors(rng):
    given = decompose(rng.standard_normal((20, 3, 3)).astype(np.float32))
    np.testing.assert_allclose(
        product(*make_proper(given)), product(*given), atol=tolerances.F32_IDENTITY
    )


def probe(rng):
    return [rng.standard_normal(s) for s in ((3, 3), (3,), (3, 3))]


@pytest.mark.parametrize("function", [svd3, proper_svd])
def test_gradient_against_differences(function, rng, x64):
    matrix = rng.standard_normal((3, 3))
    weights = [jnp.asarray(w) for w in probe(rng)]

    @jax.jit
    def value(m):
        parts = zip(weights, function(m, "backend"), strict=True)
        return sum(jnp.sum(w * x) for w, x in parts)

    gradient = np.asarray(jax.grad(value)(jnp.asarray(matrix)))
    step = 1e-6
    for index in np.ndindex(3, 3):
        delta = np.zeros((3, 3))
        delta[index] = step
        up, down = (
            value(jnp.asarray(matrix + delta)),
            value(jnp.asarray(matrix - delta)),
        )
        np.testing.assert_allclose(
            gradient[index],
            (up - down) / (2 * step),
            rtol=tolerances.FINITE_DIFFERENCE_X64,
            atol=1e-6,
        )


@pytest.mark.parametrize("min_gap", [0.0, 1e-4])
def test_gradients_are_finite_at_repeated_values(min_gap, rng):
    weights = [jnp.asarray(w, jnp.float32) for w in probe(rng)]

    def value(m):
        parts = zip(weights, proper_svd(m, "backend", min_gap), strict=True)
        return sum(jnp.sum(w * x) for w, x in parts)

    # 1e30 squared is beyond float32: left to the next test's relative claim.
    matrices = [m for m in awkward_matrices() if np.abs(m).max() < 1e15]
    gradients = jax.jit(jax.vmap(jax.grad(value)))(jnp.stack(matrices))
    assert np.isfinite(gradients).all()


def test_the_nearest_rotations_gradient_is_exact_at_repeated_values(rng, x64):
    """U V^T of s I: the antisymmetric part over 2 s, whatever the clamp."""
    weight = jnp.asarray(rng.standard_normal((3, 3)))

    def value(m):
        u, _, v = proper_svd(m, "backend")
        return jnp.sum(weight * (u @ v.T))

    gradient = jax.grad(value)(4.0 * jnp.eye(3))
    expected = (weight - weight.T) / (2 * 4.0)
    np.testing.assert_allclose(gradient, expected, atol=tolerances.X64_IDENTITY)


def test_singular_values_gradient_is_exact_at_repeated_values(rng):
    matrix = 2 * jnp.eye(3)
    gradient = jax.grad(lambda m: jnp.sum(svd3(m, "backend").s))(matrix)
    np.testing.assert_allclose(gradient, jnp.eye(3), atol=tolerances.F32_IDENTITY)


def test_second_derivatives_are_finite():
    def value(m):
        return jnp.sum(proper_svd(m, "backend").s ** 2)

    hessian = jax.hessian(value)(jnp.diag(jnp.array([3.0, 2.0, 1.0])))
    np.testing.assert_allclose(hessian.reshape(9, 9), 2 * jnp.eye(9), atol=1e-5)


def test_not_finite_matrices_give_nan_and_stop():
    bad = np.full((2, 3, 3), np.nan, np.float32)
    bad[1] = np.eye(3)
    u, s, v = decompose(bad)
    assert np.isnan(s[0]).all()
    np.testing.assert_allclose(product(u, s, v)[1], np.eye(3), atol=1e-6)


def test_unknown_signs_are_refused():
    with pytest.raises((ValueError, TypeError), match="lapack_old"):
        svd3(jnp.eye(3), signs="mkl")
