"""Metrics against independent numpy expressions and the original's stored numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.metrics import pose
from hmr_jax.metrics.accumulate import Mean, merge_all
from tests import tolerances
from tests.conftest import enable_x64

M = 1000.0
align = jax.jit(pose.align, static_argnames="method")


@pytest.fixture(scope="module")
def stored(parity_dir):
    with np.load(parity_dir / "ikol" / "ikol_metrics_public.npz") as data:
        return dict(data)


def numpy_similarity(source, target):
    """Least-squares similarity by SVD, one sample, float64."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * sign) @ vt
    return (s * sign).sum() / (a**2).sum() * a @ rotation + target.mean(0)


def test_procrustes_alignment_matches_numpy_and_the_original(stored, x64):
    predicted, target = stored["in_pred17_m"], stored["in_gt17_m"]
    aligned = align(jnp.asarray(predicted), jnp.asarray(target), "procrustes")
    expected = np.stack(
        [numpy_similarity(p, t) for p, t in zip(predicted, target, strict=True)]
    )
    np.testing.assert_allclose(aligned, expected, atol=tolerances.X64_IDENTITY)
    np.testing.assert_allclose(
        aligned, stored["similarity_batch"], atol=tolerances.X64_IDENTITY
    )


@pytest.mark.parametrize("method", ["none", "scale", "procrustes"])
def test_masked_metrics_match_the_original(stored, method, x64):
    predicted = jnp.asarray(stored["in_pred17_m"])
    target = jnp.asarray(stored["in_gt17_m"])
    mask = np.asarray(stored["in_mask"])
    # The original fits its alignment to every joint, masked or not.
    aligned = align(predicted, target, method)
    errors = pose.joint_errors(aligned, target)
    mean = Mean.of(errors * M, mask).compute()
    np.testing.assert_allclose(mean, stored[f"mm/mpjpe_{method}"], rtol=1e-6)
    correct = pose.correct_keypoints(errors, 0.15)
    pck = Mean.of(100.0 * np.asarray(correct), mask).compute()
    np.testing.assert_allclose(pck, stored[f"mm/pck_{method}"], rtol=1e-6)
    auc = Mean.of(100.0 * np.asarray(pose.area_under_curve(errors)), mask).compute()
    np.testing.assert_allclose(auc, stored[f"mm/auc_{method}"], rtol=1e-6)


def test_acceleration_errors_match_the_original(stored, x64):
    errors = pose.acceleration_errors(
        jnp.asarray(stored["in_pred17_m"]), jnp.asarray(stored["in_gt17_m"])
    )
    per_frame = M * np.asarray(errors).mean(1)
    np.testing.assert_allclose(per_frame, stored["mm/accel"], rtol=1e-6)
    visible = np.asarray(stored["in_accel_mask"], bool)
    inner = visible[:-2] & visible[1:-1] & visible[2:]
    np.testing.assert_allclose(per_frame[inner], stored["mm/accel_masked"], rtol=1e-6)


def test_vertex_error_matches_the_original(stored, x64):
    errors = pose.joint_errors(
        jnp.asarray(stored["in_pve_pred"]), jnp.asarray(stored["in_pve_gt"])
    )
    np.testing.assert_allclose(errors.mean(), stored["mm/pve"], rtol=1e-6)


def test_shapes_that_would_broadcast_raise(rng):
    joints = jnp.asarray(rng.standard_normal((2, 5, 3)), jnp.float32)
    with pytest.raises(Exception, match="(?i)type-check|expected the target's shape"):
        pose.joint_errors(joints, joints[:1])


def test_masked_joints_do_not_move_the_alignment(rng):
    with enable_x64():
        target = rng.standard_normal((4, 6, 3))
        predicted = 0.5 * target + 0.1
        predicted[:, 5] = 99.0
        weights = np.ones((4, 6))
        weights[:, 5] = 0.0
        aligned = align(
            jnp.asarray(predicted),
            jnp.asarray(target),
            "procrustes",
            jnp.asarray(weights),
        )
        np.testing.assert_allclose(
            aligned[:, :5], target[:, :5], atol=tolerances.X64_IDENTITY
        )


@pytest.mark.parametrize("method", ["scale", "procrustes"])
def test_alignment_of_collapsed_joints_has_finite_gradients(method):
    zeros = jnp.zeros((2, 5, 3), jnp.float32)
    gradient = jax.jit(jax.grad(lambda x: pose.align(x, zeros, method).sum()))(zeros)
    assert np.isfinite(gradient).all()


def test_area_under_curve_counts_thresholds_strictly_above():
    errors = jnp.asarray([[0.0, 0.005, 0.149, 0.15]], jnp.float32)
    expected = [[30 / 31, 29 / 31, 1 / 31, 0.0]]
    np.testing.assert_allclose(
        pose.area_under_curve(errors), expected, atol=tolerances.F32_IDENTITY
    )


def test_means_merge_exactly_and_ignore_masked_nan(rng):
    values, weights = rng.standard_normal((7, 5)), rng.integers(0, 2, (7, 5))
    values[weights == 0] = np.nan
    whole = Mean.of(values, weights)
    parts = Mean.of(values[:3], weights[:3]).merge(Mean.of(values[3:], weights[3:]))
    assert whole.compute() == pytest.approx(parts.compute(), rel=1e-12)
    assert whole.compute() == pytest.approx(values[weights > 0].mean(), rel=1e-12)
    assert np.isnan(Mean.of(values, np.zeros((7, 5))).compute())
    assert set(merge_all({"a": whole}, {"b": whole})) == {"a", "b"}
    with pytest.raises(ValueError, match="expected the values' shape"):
        Mean.of(values, weights[:3])


def test_alignment_of_the_first_published_numbers(parity_dir, x64):
    """With the right translation, and with that of a scale of one."""
    path = parity_dir / "i2l_meshnet" / "metrics_public.npz"
    with np.load(path) as file:
        stored = dict(file)
    a, b = jnp.asarray(stored["A"]), jnp.asarray(stored["B"])
    aligned = align(a, b, "procrustes")
    np.testing.assert_allclose(aligned, stored["aligned"], atol=1e-9)
    for method, name in (
        ("procrustes", "pa_mpjpe"),
        ("unscaled_shift", "pa_mpjpe_old_bug"),
    ):
        errors = pose.joint_errors(align(a, b, method), b).mean(-1)
        np.testing.assert_allclose(errors, stored[name], atol=1e-9)
    plain = pose.joint_errors(a - a[:, :1], b - b[:, :1]).mean(-1)
    np.testing.assert_allclose(plain, stored["mpjpe"], atol=1e-9)
