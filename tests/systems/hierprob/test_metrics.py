"""Metrics of predicted distributions against the original's stored numbers."""

import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.metrics import pose
from hmr_jax.metrics.accumulate import merge_all
from hmr_jax.systems.hierprob import metrics as hierprob
from tests.systems.hierprob.inputs import SEED, load_inputs, load_vectors

FIELDS = {
    "vertices_m": "verts",
    "zero_pose_vertices_m": "reposed_verts",
    "joints3d_m": "joints3D",
    "joints2d_px": "joints2D",
    "silhouette": "silhouettes",
}
SAMPLE_FIELDS = {
    "vertices_m": "verts_samples",
    "zero_pose_vertices_m": "reposed_verts_samples",
    "joints3d_m": "joints3D_samples",
}


@pytest.fixture(scope="module")
def stored(parity_dir):
    return load_vectors(parity_dir, "metrics")


@pytest.fixture(scope="module")
def frames(parity_dir, recipe):
    inputs = load_inputs(parity_dir, recipe)
    return [inputs.metric_frame(SEED, i) for i in range(3)]


@pytest.fixture(scope="module")
def computed(frames):
    return [evaluate(*frame) for frame in frames]


def renamed(source, names):
    return {ours: jnp.asarray(source[theirs]) for ours, theirs in names.items()}


def evaluate(predicted, target, visible=True):
    samples = {
        ours: jnp.asarray(predicted[theirs])[None]
        for ours, theirs in SAMPLE_FIELDS.items()
    }
    samples["joints2d_px"] = jnp.asarray(predicted["joints2Dsamples"])
    samples["silhouette"] = jnp.asarray(predicted["silhouettessamples"])
    labels = renamed(target, FIELDS)
    if visible:
        labels["joints2d_visible"] = jnp.asarray(target["joints2D_vis"])
    return hierprob.frame_metrics(renamed(predicted, FIELDS), labels, samples)


def test_the_stored_means_are_met(stored, computed):
    merged = None
    for frame in computed:
        merged = merge_all(merged, frame.means)
    names = [str(name) for name in stored["eval_names"]]
    assert set(merged) == set(names)
    for name, expected in zip(names, stored["eval_values"], strict=True):
        pixels = "joints2D" in name or "IOU" in name
        value = merged[name].compute() * (1 if pixels else 1000)
        rtol = 1e-7 if "IOU" in name else 1e-4 if "PA" in name else 1e-5
        np.testing.assert_allclose(value, expected, rtol=rtol, err_msg=name)


def test_without_visibility_all_sampled_joints_count(stored, frames):
    merged = None
    for frame in frames:
        merged = merge_all(merged, evaluate(*frame, visible=False).means)
    names = [str(name) for name in stored["eval_names"]]
    expected = stored["eval_values_novis"][names.index("joints2Dsamples-L2E")]
    np.testing.assert_allclose(
        merged["joints2Dsamples-L2E"].compute(), expected, rtol=1e-5
    )


def test_the_stored_numbers_per_frame_are_met(stored, computed):
    for name in computed[0].per_frame:
        found = np.concatenate([frame.per_frame[name] for frame in computed])
        atol = 1e-5 if "PA" in name else 1e-6
        if "joints2D" in name:
            atol = 2e-5 * 200  # pixels
        np.testing.assert_allclose(
            found, stored[f"per_frame_{name}"], rtol=0, atol=atol, err_msg=name
        )


def test_the_stored_aligned_points_are_met(stored, frames):
    predicted, target = (renamed(part, FIELDS) for part in frames[0])
    for field, name in (("vertices_m", "verts"), ("joints3d_m", "joints")):
        every = 97 if field == "vertices_m" else 1
        moved = hierprob.align_scale_translation(predicted[field], target[field])
        np.testing.assert_allclose(
            moved[:, ::every], stored[f"frame0_{name}_sc"], rtol=0, atol=2e-6
        )
        moved = pose.align(predicted[field], target[field], "procrustes")
        np.testing.assert_allclose(
            moved[:, ::every], stored[f"frame0_{name}_pa"], rtol=0, atol=1e-5
        )


def test_the_stored_training_history_is_met(stored, parity_dir, recipe):
    inputs = load_inputs(parity_dir, recipe)
    merged = {"train": None, "val": None}
    for split, index in (("train", 0), ("train", 1), ("val", 5)):
        predicted, target, reposed, reposed_target = inputs.train_metric_batch(
            SEED, index
        )
        mode = {
            "vertices_m": predicted["verts"],
            "joints3d_m": predicted["joints3D"],
            "zero_pose_vertices_m": reposed,
        }
        mode = {name: jnp.asarray(array) for name, array in mode.items()}
        mode["joints2d_px"] = hierprob.pixels_of_norm(
            jnp.asarray(predicted["joints2D"])
        )
        labels = renamed(
            target,
            {
                "vertices_m": "verts",
                "joints3d_m": "joints3D",
                "joints2d_px": "joints2D",
                "joints2d_visible": "joints2D_vis",
            },
        )
        labels["zero_pose_vertices_m"] = jnp.asarray(reposed_target)
        pixels = hierprob.pixels_of_norm(jnp.asarray(predicted["joints2Dsamples"]))
        result = hierprob.frame_metrics(mode, labels, {"joints2d_px": pixels})
        merged[split] = merge_all(merged[split], result.means)
    for key, expected in zip(stored["train_keys"], stored["train_values"], strict=True):
        split, name = str(key).split("_", 1)
        if name == "losses":
            continue
        rtol = 1e-4 if "PA" in name else 1e-5
        np.testing.assert_allclose(
            merged[split][name].compute(), expected, rtol=rtol, err_msg=str(key)
        )


def test_scale_translation_undoes_both(rng):
    target = jnp.asarray(rng.standard_normal((2, 20, 3)), jnp.float32)
    moved = hierprob.align_scale_translation(3 * target + 7, target)
    np.testing.assert_allclose(moved, target, atol=1e-5)
    flat = hierprob.align_scale_translation(jnp.ones_like(target), target)
    np.testing.assert_allclose(flat, jnp.mean(target, 1, keepdims=True) + 0 * target)


def test_best_sample_in_numpy(rng):
    errors = rng.uniform(size=(4, 6, 14)).astype(np.float32)
    found = hierprob.best_sample_error(jnp.asarray(errors))
    np.testing.assert_allclose(found, errors.mean(-1).min(-1), rtol=1e-6)


def test_the_mode_replaces_the_first_sample_but_not_its_2d_joints(rng):
    samples = {
        "vertices_m": jnp.zeros((2, 3, 5, 3)),
        "joints2d_px": jnp.zeros((2, 3, 17, 2)),
    }
    mode = {"vertices_m": jnp.ones((2, 5, 3)), "joints2d_px": jnp.ones((2, 17, 2))}
    placed = hierprob.with_mode_first(samples, mode)
    np.testing.assert_array_equal(placed["vertices_m"][:, 0], 1)
    np.testing.assert_array_equal(placed["vertices_m"][:, 1:], 0)
    np.testing.assert_array_equal(placed["joints2d_px"], 0)


def test_empty_silhouettes_are_nan_per_frame_and_pool_to_nothing():
    empty = jnp.zeros((2, 4, 4), bool)
    result = hierprob.frame_metrics({"silhouette": empty}, {"silhouette": empty})
    assert np.isnan(result.per_frame["silhouette-IOU"]).all()
    assert np.isnan(result.means["silhouette-IOU"].compute())
    full = hierprob.frame_metrics({"silhouette": ~empty}, {"silhouette": ~empty})
    merged = merge_all(result.means, full.means)
    assert merged["silhouette-IOU"].compute() == 1


def test_wrong_shapes_are_refused():
    points = jnp.zeros((2, 5, 3))
    with pytest.raises((ValueError, TypeError)):
        hierprob.point_errors(points, points[:1])
    with pytest.raises((ValueError, TypeError)):
        hierprob.point_errors(points, points, "-XY")
    with pytest.raises((ValueError, TypeError)):
        hierprob.joints2d_errors(points[..., :2], points[:1, ..., :2])
    with pytest.raises((ValueError, TypeError)):
        hierprob.silhouette_counts(points > 0, points[:1] > 0)
