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
    assert set(report.groups["h36m_p2_14"]["action"]) == {"walk", "sit"}
    assert report.num_samples == 6
    assert report.per_sample["pw3d_14"].shape == (6,)
    mean = mean_over_groups(report, "h36m_p2_14", "action", "MPJPE")
    written = report.to_json()
    assert written["group_means"]["h36m_p2_14"]["action"]["MPJPE"] == mean
    of_groups = written["groups"]["h36m_p2_14"]["action"].values()
    assert mean == pytest.approx(np.mean([group["MPJPE"] for group in of_groups]))
    with pytest.raises(ValueError, match="no groups of 'sequence'"):
        mean_over_groups(report, "h36m_p2_14", "sequence", "MPJPE")
    table, groups, _ = format_table({"model": report, "again": report}).split("\n\n")
    assert "pw3d_14 PA-MPJPE" in table.splitlines()[0]
    assert len({len(line) for line in table.splitlines()[2:]}) == 1
    assert groups.startswith("model: h36m_p2_14 by action ")
    last = groups.splitlines()[-1]
    assert last.startswith("mean of groups") and f"{mean:.1f}" in last


def test_unlabelled_samples_are_in_no_group():
    labels = {"action": ["walk", "", "walk", ""]}
    report = run(4, *make_samples(4), labels_fn=lambda batch: labels)
    assert set(report.groups["h36m_p2_14"]["action"]) == {"walk"}
    assert run(4, *make_samples(4)).groups["h36m_p2_14"] == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_is_an_error_not_a_number(value):
    predicted, target = make_samples(5)
    predicted[2, 3] = value
    words = r"predictions joints_h36m_17_m: 1 of 5 samples .*\(first: sample 2\)"
    with pytest.raises(ValueError, match=words):
        run(5, predicted, target)
    # In batches of two the sample keeps its number.
    with pytest.raises(ValueError, match=r"1 of 2 samples .*sample 2, 'row 0'"):
        run(2, predicted, target, names_fn=lambda batch: ["row 0", "row 1"])


def test_truth_that_is_not_finite_is_an_error_where_it_counts():
    predicted, target = make_samples(5)
    target[3, 5] = [np.nan, 0.0, 0.0, 0.0]
    clean = run(5, predicted, target).values()["pw3d_14"]["PA-MPJPE"]
    assert np.isfinite(clean)
    target[3, 5, 3] = 1.0
    with pytest.raises(ValueError, match="targets joints_h36m_17_m: .*sample 3"):
        run(5, predicted, target)
    target[3, 5] = [0.0, 0.0, 0.0, np.nan]
    with pytest.raises(ValueError, match="targets weights_h36m_17: .*sample 3"):
        run(5, predicted, target)


def test_samples_without_a_root_count_in_aligned_metrics_alone():
    rng = np.random.default_rng(3)
    predicted = rng.standard_normal((4, 17, 3)).astype(np.float32) + [0, 0, 4]
    predicted = predicted.astype(np.float32)
    target = np.concatenate([predicted, np.ones((4, 17, 1), np.float32)], -1)
    target[:2, 0] = 0.0
    names = ["pw3d_14", "mpi_inf_3dhp_17"]

    def report(rows):
        return evaluate(
            lambda batch: {"joints_h36m_17_m": predicted[rows]},
            [{"joints_h36m_cam_m": target[rows]}],
            names,
        )

    some, rooted = report(slice(0, 4)), report(slice(2, 4))
    for protocol in names:
        for metric, mean in some.means[protocol].items():
            if metric != "PA-MPJPE":
                assert mean == rooted.means[protocol][metric], metric
        assert some.values()[protocol]["MPJPE"] == 0.0
        weights = [r.means[protocol]["PA-MPJPE"].weight for r in (some, rooted)]
        assert weights[0] > weights[1]
    assert some.num_counted() == {"pw3d_14": 4, "mpi_inf_3dhp_17": 2}


def test_no_labelled_samples_give_a_dash_and_a_warning(caplog):
    predicted, target = make_samples(3)
    target[:, 0] = 0.0
    with caplog.at_level("WARNING"):
        report = run(3, predicted, target)
    assert "pw3d_14: no labelled samples for MPJPE, x, y, z" in caplog.text
    assert np.isnan(report.values()["pw3d_14"]["MPJPE"])
    assert report.to_json()["protocols"]["pw3d_14"]["MPJPE"] is None
    cells = format_table({"model": report}).splitlines()[2].split()
    assert cells[1] == "-" and float(cells[2]) > 0 and cells[-1] == "3"


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
    joints[..., 3] = 1.0
    offset = np.float32(0.3)

    def predict(batch):
        return {
            "vertices_m": vertices + offset,
            "joints_h36m_17_m": joints[..., :3] + offset,
            "target_vertices_m": vertices,
        }

    report = evaluate(predict, [{"joints_h36m_cam_m": joints}], ["pve"])
    assert report.values()["pve"]["PVE"] == pytest.approx(0.0, abs=1e-3)


def test_vertices_count_where_the_sample_has_a_body_and_a_pelvis():
    rng = np.random.default_rng(1)
    vertices = rng.standard_normal((4, 30, 3)).astype(np.float32)
    joints = np.ones((4, 17, 4), np.float32)
    joints[2, 0] = 0.0  # no pelvis
    truth = vertices - np.float32([0.3, 0.0, 0.0])
    truth[1] += 5.0  # no body: the rest pose, somewhere
    truth[3] = vertices[3]

    def predict(batch):
        return {
            "vertices_m": vertices,
            "joints_h36m_17_m": joints[..., :3],
            "target_vertices_m": truth,
        }

    has_smpl = np.float32([[1], [0], [1], [1]])
    batch = {"joints_h36m_cam_m": joints, "has_smpl": has_smpl}
    report = evaluate(predict, [batch], ["pve"])
    found = report.per_sample["pve"]
    np.testing.assert_allclose(found, [300.0, np.nan, np.nan, 0.0], rtol=1e-4)
    assert report.values()["pve"]["PVE"] == pytest.approx(150.0, rel=1e-4)
    truth[1] = np.nan
    evaluate(predict, [batch], ["pve"])
    truth[3, 7] = np.nan
    with pytest.raises(ValueError, match="targets vertices_m: 1 of 4 .*sample 3"):
        evaluate(predict, [batch], ["pve"])
