"""Rotation fit and Procrustes against numpy's SVD in float64, and degenerate sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hmr_jax.geometry.alignment import (
    Similarity,
    align,
    apply_similarity,
    fit_rotation,
    procrustes,
)
from tests.tolerances import FINITE_DIFFERENCE_X64, X64_IDENTITY

ANGLE_F32 = 1e-5  # 3e-5 degrees on joint sets, more on thin ones
fit = jax.jit(fit_rotation)
fit_similarity = jax.jit(procrustes, static_argnums=3)
fit_gradient = jax.jit(jax.grad(lambda c, w: jnp.sum(fit_rotation(c) * w)))


def svd_rotation(correlation):
    u, _, vt = np.linalg.svd(correlation)
    u = u.copy()
    u[..., :, 2] *= np.linalg.det(u @ vt)[..., None]
    return u @ vt


def svd_procrustes(source, target, weights, with_scale):
    """Umeyama's solution for one set of points."""
    weights = weights / weights.sum()
    mean_a, mean_b = weights @ source, weights @ target
    a, b = source - mean_a, target - mean_b
    correlation = (b * weights[:, None]).T @ a
    rotation = svd_rotation(correlation)
    scale = np.sum(rotation * correlation) / np.sum(weights[:, None] * a * a)
    scale = scale if with_scale else 1.0
    return rotation, scale, mean_b - scale * rotation @ mean_a


def matrices_with(singular_values, rng):
    u, v = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    u, v = u * np.linalg.det(u), v * np.linalg.det(v)
    return u @ np.diag(singular_values) @ v.T


def test_rotation_equals_svd(rng):
    correlation = rng.normal(size=(2000, 3, 3))
    expected = svd_rotation(correlation.astype(np.float32).astype(float))
    got = np.asarray(fit(jnp.asarray(correlation, jnp.float32)), float)
    # Where s2 + s3 is nearly 0 float32 does not determine the rotation.
    s = np.linalg.svd(correlation, compute_uv=False)
    s[:, 2] *= np.sign(np.linalg.det(correlation))
    error = np.abs(got - expected).max((1, 2)) * (s[:, 1] + s[:, 2]) / s[:, 0]
    assert error.max() < ANGLE_F32
    np.testing.assert_allclose(np.linalg.det(got), 1, atol=1e-5)


def test_rotation_equals_svd_in_float64(x64, rng):
    correlation = rng.normal(size=(200, 3, 3)) * 10.0 ** rng.uniform(-6, 6, (200, 1, 1))
    got = fit_rotation(jnp.asarray(correlation))
    s = np.linalg.svd(correlation, compute_uv=False)
    clear = (s[:, 1] - s[:, 2]) > 1e-2 * s[:, 0]
    np.testing.assert_allclose(
        got[clear], svd_rotation(correlation)[clear], atol=X64_IDENTITY
    )


@pytest.mark.parametrize(
    "singular_values",
    [(1, 1e-2, 1e-3), (1, 0.5, -0.45), (1, 1, 1), (1, 1, -0.5), (3, 0.01, 0.01)],
)
def test_thin_and_repeated_singular_values(singular_values, rng):
    for _ in range(5):
        c = matrices_with(singular_values, rng)
        got = np.asarray(fit(jnp.asarray(c, jnp.float32)), float)
        best = np.sum(svd_rotation(c) * c)
        assert np.sum(got * c) > best - 1e-6 * singular_values[0]
        np.testing.assert_allclose(got, svd_rotation(c), atol=1e-3)


@pytest.mark.parametrize(
    "singular_values",
    [
        *((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, -1)),
        *((1, 0.5, -0.5), (2, 1, 1), (1e-12, 0, 0), (1e-8, 1e-8, 1e-8)),
    ],
)
def test_degenerate_matrices_are_finite(singular_values, rng):
    c = jnp.asarray(matrices_with(singular_values, rng), jnp.float32)
    rotation = fit(c)
    gradient = fit_gradient(c, jnp.asarray(rng.normal(size=(3, 3)), jnp.float32))
    assert np.isfinite(rotation).all() and np.isfinite(gradient).all()
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-5)


def test_gradient_equals_finite_differences(x64, rng):
    gradient = jax.jit(jax.grad(lambda c, w: jnp.sum(fit_rotation(c) * w)))
    for values in [(3, 2, 1), (3, 2, -1), (1, 1, 1), (2, 1, 1), (1, 0.1, 0.01)]:
        c, w = matrices_with(values, rng), rng.normal(size=(3, 3))
        got = gradient(jnp.asarray(c), jnp.asarray(w))
        for i in range(3):
            for j in range(3):
                step = np.zeros((3, 3))
                step[i, j] = 1e-6
                change = svd_rotation(c + step) - svd_rotation(c - step)
                difference = np.sum(change * w) / 2e-6
                scale = np.abs(got).max()
                assert abs(got[i, j] - difference) < FINITE_DIFFERENCE_X64 * scale


def test_ten_thousand_at_once(rng):
    """Jitted values and gradients of a large batch against float64.

    Long float32 reductions are silently wrong in jaxlib 0.10 without the package's
    guard; the fit has none, and this holds it.
    """
    count, weight = 10_000, rng.normal(size=(3, 3))
    a = rng.normal(size=(count, 14, 3))
    b = a @ svd_rotation(rng.normal(size=(3, 3))).T + 0.1 * rng.normal(size=a.shape)
    a, b = a.astype(np.float32), b.astype(np.float32)

    def loss(a, b):
        return jnp.sum(align(a, b)[:, 0] @ jnp.asarray(weight[0], a.dtype))

    value, gradient = jax.jit(jax.value_and_grad(loss))(jnp.asarray(a), jnp.asarray(b))
    jax.config.update("jax_enable_x64", True)
    try:
        a, b = a.astype(float), b.astype(float)
        exact, exact_gradient = jax.jit(jax.value_and_grad(loss))(a, b)
        np.testing.assert_allclose(value, exact, rtol=1e-4)
        error = np.abs(np.asarray(gradient) - np.asarray(exact_gradient)).max((1, 2))
        scale = np.abs(exact_gradient).max((1, 2))
        assert (error / scale).max() < 1e-4
        some = jax.jit(procrustes)(jnp.array(a[::999]), jnp.array(b[::999]))
        for i, (x, y) in enumerate(zip(a[::999], b[::999], strict=True)):
            expected = svd_procrustes(x, y, np.ones(14), True)
            for got, want in zip(some, expected, strict=True):
                np.testing.assert_allclose(got[i], want, atol=X64_IDENTITY)
    finally:
        jax.config.update("jax_enable_x64", False)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), with_scale=st.booleans(), mirrored=st.booleans())
def test_weighted_procrustes_equals_numpy(seed, with_scale, mirrored):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 12, 3))
    b = (a * [1, 1, -1] if mirrored else a) + 0.3 * b + [5, -2, 1]
    weights = rng.uniform(size=12)
    got = fit_similarity(
        *(jnp.asarray(x, jnp.float32) for x in (a, b, weights)), with_scale
    )
    expected = svd_procrustes(a, b, weights, with_scale)
    for x, y in zip(got, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=5e-4)  # float32, offsets of 5
    assert np.linalg.det(got.rotation) > 0.99


def test_procrustes_undoes_a_similarity(x64, rng):
    points = jnp.asarray(rng.normal(size=(3, 1, 2, 9, 3)))
    rotation = jnp.asarray(svd_rotation(rng.normal(size=(3, 1, 2, 3, 3))))
    moved = apply_similarity(
        Similarity(rotation, jnp.full((3, 1, 2), 1.7), jnp.ones((3, 1, 2, 3))), points
    )
    np.testing.assert_allclose(align(points, moved), moved, atol=X64_IDENTITY)
    rigid = procrustes(points, moved, with_scale=False)
    np.testing.assert_allclose(rigid.rotation, rotation, atol=X64_IDENTITY)
    np.testing.assert_allclose(rigid.scale, 1.0)


def degenerate_sets(rng):
    line = np.outer(np.linspace(-1, 1, 8), [1.0, 2.0, 3.0])
    yield "line", line, rng.normal(size=(8, 3)), np.ones(8)
    yield "both lines", line, line[:, ::-1], np.ones(8)
    yield "plane", line * [1, 0, 0] + rng.normal(size=(8, 3)) * [0, 1, 0], line, None
    yield "one point", np.ones((8, 3)), rng.normal(size=(8, 3)), np.ones(8)
    yield "all one point", np.ones((8, 3)), np.ones((8, 3)), np.ones(8)
    yield "zero weights", rng.normal(size=(8, 3)), rng.normal(size=(8, 3)), np.zeros(8)
    yield "one weight", rng.normal(size=(8, 3)), line, np.eye(8)[0]
    yield "equal sets", rng.normal(size=(8, 3)), None, np.ones(8)


def test_degenerate_sets_are_finite(rng):
    def loss(a, b, weights):
        return jnp.sum(align(a, b, weights) ** 2) + jnp.sum(
            align(a, b, weights, with_scale=False) ** 2
        )

    gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    for name, a, b, weights in degenerate_sets(rng):
        b = a if b is None else b
        weights = np.ones(8) if weights is None else weights
        result = gradient(*(jnp.asarray(x, jnp.float32) for x in (a, b, weights)))
        for leaf in jax.tree.leaves(result):
            assert np.isfinite(leaf).all(), name


def test_similarity_vectors(parity_dir, x64):
    data = np.load(parity_dir / "ikol" / "ikol_metrics_public.npz")
    got = align(jnp.asarray(data["in_pred17_m"]), jnp.asarray(data["in_gt17_m"]))
    np.testing.assert_allclose(got, data["similarity_batch"], atol=X64_IDENTITY)
