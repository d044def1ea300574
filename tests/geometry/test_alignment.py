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
from tests.conftest import enable_x64
from tests.tolerances import FINITE_DIFFERENCE_X64, X64_IDENTITY

ANGLE_F32 = 1e-5  # 3e-5 degrees on joint sets, more on thin ones
fit = jax.jit(fit_rotation)
fit_similarity = jax.jit(procrustes, static_argnums=3)
fit_gradient = jax.jit(jax.grad(lambda c, w: jnp.sum(fit_rotation(c) * w)))
fit_slope = jax.jit(lambda c, w, direction: jnp.sum(fit_gradient(c, w) * direction))
fit_curvature = jax.jit(jax.grad(fit_slope))


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
    got = fit(jnp.asarray(correlation))
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


def hard_values(rng, count=300):
    """Singular values, the last one signed, of inputs that leave little determined."""
    one = np.ones(count)
    small = lambda: 10.0 ** rng.uniform(-8, -2, count)  # noqa: E731
    return {
        "any": 10.0 ** rng.uniform(-7, 0, (count, 3)) * rng.choice([-1, 1], (count, 3)),
        "nearly rank 1": np.stack([one, small(), small()], 1),
        "nearly rank 1, mirrored": np.stack([one, small(), -small()], 1),
        "rank 1": np.stack([one, 0 * one, 0 * one], 1),
        "rank 2": np.stack([one, 0.5 * one, 0 * one], 1),
        "repeated": np.stack([one, one, one], 1),
        "reflection": np.stack([one, 0.5 * one, -0.5 * one], 1),
        "nearly a reflection": np.stack([one, 0.5 * one, small() - 0.5], 1),
        "repeated reflection": np.stack([one, one, -one], 1),
        "nearly repeated": np.stack([one, 1 - small(), small() - 1], 1),
        "mirror": np.stack([-one, -one, -one], 1),
        "zero": np.zeros((count, 3)),
    }


def hard_matrices(rng, dtype):
    """Float matrices of all those kinds, and their exact signed singular values."""
    values = np.concatenate(list(hard_values(rng).values()))
    turns = svd_rotation(rng.normal(size=(2, len(values), 3, 3)))
    c = ((turns[0] * values[:, None]) @ turns[1]).astype(dtype)
    s = np.linalg.svd(c.astype(float), compute_uv=False)
    s[:, 2] *= np.sign(np.linalg.det(c.astype(float)))
    return c, s


def angle_between(a, b):
    chord = np.linalg.norm(a - b, axis=(-2, -1)) / np.sqrt(8)
    return 2 * np.arcsin(np.clip(chord, 0, 1))


@pytest.mark.parametrize("scale", [1e-28, 1.0, 1e30])
def test_one_of_the_best_rotations_for_every_input(scale, rng):
    """As the docstring promises; where nothing is determined any best one will do."""
    eps = np.finfo(np.float32).eps
    c, s = hard_matrices(rng, np.float32)
    scaled = (c * np.float32(scale)).astype(np.float32)
    got = np.asarray(fit(jnp.asarray(scaled)), float)
    c, best = c.astype(float), svd_rotation(c.astype(float))
    loss = np.sum((best - got) * c, (1, 2))
    assert (loss <= 8 * eps * s[:, 0]).all()
    off = angle_between(got, best) * np.maximum(s[:, 1] + s[:, 2], 0)
    assert (off <= 8 * eps * s[:, 0]).all()
    gram = got @ got.swapaxes(1, 2)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(3), gram.shape), atol=3e-7)
    np.testing.assert_allclose(np.linalg.det(got), 1, atol=1e-6)
    np.testing.assert_array_equal(got[s[:, 0] == 0] - np.eye(3), 0)


def test_one_of_the_best_rotations_in_float64(x64, rng):
    c, s = hard_matrices(rng, np.float64)
    got, best = np.asarray(fit(jnp.asarray(c))), svd_rotation(c)
    eps = np.finfo(float).eps
    assert (np.sum((best - got) * c, (1, 2)) <= 16 * eps * s[:, 0]).all()
    clear = s[:, 1] + s[:, 2] > 1e-5 * s[:, 0]
    assert clear.sum() > 1000
    np.testing.assert_allclose(got[clear], best[clear], atol=X64_IDENTITY)


@pytest.mark.parametrize("scale", [1e-38, 1e-28, 1.0, 1e30])
def test_gradients_of_every_input_are_finite(scale, rng):
    c, _ = hard_matrices(rng, np.float32)
    w = jnp.asarray(rng.normal(size=c.shape), jnp.float32)
    gradient = fit_gradient(jnp.asarray(c * np.float32(scale)), w)
    assert np.isfinite(gradient).all()


THIN = [(1, 1e-3, 1e-4), (1, 1e-4, 1e-4), (1, 0.5, -0.499), (1, 1, -0.999), (1, 1, 1)]


@pytest.mark.parametrize("values", THIN)
def test_derivatives_of_thin_matrices_equal_finite_differences(values, x64, rng):
    c, w = matrices_with(values, rng), jnp.asarray(rng.normal(size=(3, 3)))
    direction = rng.normal(size=(3, 3))
    step = 1e-5 * (values[1] + values[2])
    ends = [svd_rotation(c + sign * step * direction) for sign in (1, -1)]
    expected = np.sum((ends[0] - ends[1]) * np.asarray(w)) / (2 * step)
    got = np.sum(np.asarray(fit_gradient(jnp.asarray(c), w)) * direction)
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-6)

    c, direction = jnp.asarray(c), jnp.asarray(direction)
    ends = [fit_slope(c + sign * step * direction, w, direction) for sign in (1, -1)]
    second = jnp.sum(fit_curvature(c, w, direction) * direction)
    expected = float(ends[0] - ends[1]) / (2 * step)
    assert float(second) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_float32_gradients_are_damped_no_more_than_promised(rng):
    eps = np.finfo(np.float32).eps
    for small in (1.0, 1e-1, 1e-2, 1e-3, 1e-4):
        c = np.stack([matrices_with((1, small, 0.3 * small), rng) for _ in range(50)])
        c, w = c.astype(np.float32), rng.normal(size=c.shape).astype(np.float32)
        got = np.asarray(fit_gradient(jnp.asarray(c), jnp.asarray(w)))
        with enable_x64():
            wide = (jnp.asarray(x.astype(float)) for x in (c, w))
            exact = np.asarray(fit_gradient(*wide))
        error = np.abs(got - exact).max((1, 2)) / np.abs(exact).max((1, 2))
        assert error.max() < 64 * eps / (1.3 * small), small


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
    for values in [(3, 2, 1), (3, 2, -1), (1, 1, 1), (2, 1, 1), (1, 0.1, 0.01)]:
        c, w = matrices_with(values, rng), rng.normal(size=(3, 3))
        got = fit_gradient(jnp.asarray(c), jnp.asarray(w))
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
    aligned = jax.jit(align)(points, moved)
    np.testing.assert_allclose(aligned, moved, atol=X64_IDENTITY)
    rigid = fit_similarity(points, moved, None, False)
    np.testing.assert_allclose(rigid.rotation, rotation, atol=X64_IDENTITY)
    np.testing.assert_allclose(rigid.scale, 1.0)


@pytest.mark.parametrize(
    ("unit", "weight"), [(1e-12, 1.0), (1e12, 1.0), (1.0, 1e-25), (1.0, 1e25)]
)
def test_units_and_the_scale_of_weights_do_not_matter(unit, weight, rng):
    a, b = rng.normal(size=(2, 9, 3)).astype(np.float32)
    weights = rng.uniform(size=9).astype(np.float32)
    expected = fit_similarity(jnp.asarray(a), jnp.asarray(b), jnp.asarray(weights))
    factors = (unit, unit, weight)
    inputs = [
        jnp.asarray(x * np.float32(f))
        for x, f in zip((a, b, weights), factors, strict=True)
    ]
    got = fit_similarity(*inputs)
    np.testing.assert_allclose(got.rotation, expected.rotation, atol=1e-5)
    np.testing.assert_allclose(got.scale, expected.scale, rtol=1e-5)
    np.testing.assert_allclose(
        got.translation / np.float32(unit), expected.translation, rtol=1e-4, atol=1e-5
    )


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
    inputs = (jnp.asarray(data[name]) for name in ("in_pred17_m", "in_gt17_m"))
    got = jax.jit(align)(*inputs)
    np.testing.assert_allclose(got, data["similarity_batch"], atol=X64_IDENTITY)
