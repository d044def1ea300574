"""The evaluator: exact over any split, strict about what it is given."""

import numpy as np
import pytest

from hmr_jax.evaluation.evaluator import evaluate, format_table, mean_over_groups


def make_samples(count, seed=0):
    rng = np.random.default_rng(seed)
    target = rng.standard_normal((count, 17, 3)).astype(np.float32)
    predicted = target + 0.05 * rng.standard_normal((count, 17, 3)).astype(np.float32)
    weights = (rng.uniform(size=(count, 17)) > 0.2).astype(np.float32)
    weights[:, 0] = 1.0
    return predicted, np.concatenate([target, weights[..., None]], -1)


def batches_of(size, predicted, target):
    """Batches of one size, the last padded and marked so."""
    for start in range(0, len(predicted), size):
        rows = np.arange(start, start + size)
        valid = rows < len(predicted)
        rows = np.minimum(rows, len(predicted) - 1)
        yield {
            "joints_h36m_cam_m": target[rows],
            "predicted": predicted[rows],
            "valid": valid.astype(np.float32),
            "action": np.where(rows % 2 == 0, "walk", "sit"),
        }


def run(size, predicted, target, **kwargs):
    return evaluate(
        lambda batch: {"joints_h36m_17_m": batch["predicted"]},
        batches_of(size, predicted, target),
        ["pw3d_14", "h36m_p2_14"],
        **kwargs,
    )


def test_the_batch_size_does_not_matter():
    samples = make_samples(11)
    one, other = run(11, *samples).values(), run(4, *samples).values()
    for protocol in one:
        for metric, value in one[protocol].items():
            assert other[protocol][metric] == pytest.approx(value, rel=1e-6)


def test_groups_samples_and_table():
    predicted, target = make_samples(6)
    report = run(4, predicted, target, labels_fn=lambda b: {"action": b["action"]})
    assert set(report.groups["h36m_p2_14"]) == {"walk", "sit"}
    assert report.num_samples == 6
    assert report.per_sample["pw3d_14"].shape == (6,)
    assert np.isfinite(mean_over_groups(report, "h36m_p2_14", "MPJPE"))
    table = format_table({"model": report, "again": report})
    assert "pw3d_14 PA-MPJPE" in table.splitlines()[0]
    assert len({len(line) for line in table.splitlines()[2:]}) == 1


def test_a_nan_prediction_is_an_error_not_a_number():
    predicted, target = make_samples(5)
    predicted[2, 3] = np.nan
    with pytest.raises(ValueError, match="joints_h36m_17_m: 1 of 5 samples"):
        run(5, predicted, target)


def test_nan_in_padding_is_ignored():
    predicted, target = make_samples(3)
    clean = run(3, predicted, target).values()["pw3d_14"]["PA-MPJPE"]

    def predict(batch):
        spoilt = np.array(batch["predicted"])
        spoilt[np.asarray(batch["valid"]) == 0] = np.nan
        return {"joints_h36m_17_m": spoilt}

    report = evaluate(predict, batches_of(2, predicted, target), ["pw3d_14"])
    assert report.values()["pw3d_14"]["PA-MPJPE"] == pytest.approx(clean, rel=1e-6)


def test_missing_arrays_and_empty_data_are_named():
    predicted, target = make_samples(2)
    with pytest.raises(ValueError, match="predictions: protocol smpl_24 expects"):
        evaluate(
            lambda batch: {"joints_h36m_17_m": batch["predicted"]},
            batches_of(2, predicted, target),
            ["smpl_24"],
        )
    with pytest.raises(ValueError, match="at least one valid sample"):
        evaluate(lambda batch: {}, [], ["pw3d_14"])


def test_vertices_are_compared_relative_to_the_pelvis_of_each_side():
    rng = np.random.default_rng(0)
    vertices = rng.standard_normal((2, 30, 3)).astype(np.float32)
    joints = rng.standard_normal((2, 17, 4)).astype(np.float32)
    offset = np.float32(0.3)

    def predict(batch):
        return {
            "vertices_m": vertices + offset,
            "joints_h36m_17_m": joints[..., :3] + offset,
            "target_vertices_m": vertices,
        }

    report = evaluate(predict, [{"joints_h36m_cam_m": joints}], ["pve"])
    assert report.values()["pve"]["PVE"] == pytest.approx(0.0, abs=1e-3)
