"""Scores of body distributions against sums written out in numpy."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.systems import hierprob
from hmr_jax.systems.hierprob import scores as scoring

NET = hierprob.HierProbNet(
    width=4, hidden=8, embedding=8, pose_hidden=8, signs="backend"
)


@pytest.fixture(scope="module")
def found(face_body):
    """Predictions for three noise inputs, and made-up targets."""
    proxy = jax.random.uniform(jax.random.key(0), (3, 32, 32, 18))

    def run(key):
        variables = NET.init(key, proxy, train=False)
        raw = NET.apply(variables, proxy, train=False)
        return scoring.predict(jax.random.key(2), raw, face_body, 4)

    prediction = jax.jit(run)(jax.random.key(1))
    rng = np.random.default_rng(3)
    target = {
        name: jnp.asarray(value + rng.normal(0, 0.1, value.shape).astype(np.float32))
        for name, value in prediction.mode.items()
    }
    target["joints2d_visible"] = jnp.asarray(rng.uniform(size=(3, 17)) > 0.3)
    return prediction, target


def length(x):
    return np.sqrt((np.asarray(x, np.float64) ** 2).sum(-1))


def test_means_are_those_of_all_points(found):
    prediction, target = found
    scores = scoring.score([(prediction, target, 3)])
    values = scores.values()
    for name, field in (("PVE", "vertices_m"), ("MPJPE", "joints3d_m")):
        expected = 1000 * length(prediction.mode[field] - target[field]).mean()
        assert values[name] == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(
            scores.per_frame[name].mean() * 1000, expected, rtol=1e-5
        )
    samples = prediction.samples["vertices_m"]
    errors = length(samples - np.asarray(target["vertices_m"])[:, None]).mean(-1)
    expected = 1000 * errors.min(1).mean()
    assert values["PVE_samples_min"] == pytest.approx(expected, rel=1e-5)
    visible = np.asarray(target["joints2d_visible"])[:, None]
    offset = prediction.samples["joints2d_px"] - target["joints2d_px"][:, None]
    expected = (length(offset) * visible).sum() / (4 * visible.sum())
    assert values["joints2Dsamples-L2E"] == pytest.approx(expected, rel=1e-5)


def test_the_mode_is_the_first_sample_in_space_alone(found):
    prediction, _ = found
    for name, mode in prediction.mode.items():
        same = np.allclose(prediction.samples[name][:, 0], mode, atol=1e-6)
        assert same == (name != "joints2d_px")


def test_padding_and_batches_change_nothing(found):
    prediction, target = found
    whole = scoring.score([(prediction, target, 3)])

    def part(rows):
        return jax.tree.map(lambda x: x[np.array(rows)], (prediction, target))

    split = scoring.score([(*part([0, 1, 1]), 2), (*part([2, 2, 2]), 1)])
    for name, value in whole.values().items():
        assert split.values()[name] == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(split.per_frame["PVE"], whole.per_frame["PVE"])


def test_predictions_that_are_not_finite(found):
    prediction, target = found
    spoilt = prediction.mode | {
        "vertices_m": prediction.mode["vertices_m"].at[1, 0].set(jnp.nan)
    }
    with pytest.raises(ValueError, match="prediction's vertices_m: .*in frame 1"):
        scoring.score([(prediction._replace(mode=spoilt), target, 3)])
    with pytest.raises(ValueError, match="no sample"):
        scoring.score([])


def test_table_and_file(found):
    prediction, target = found
    scores = scoring.score([(prediction, target, 3)])
    scores.means["silhouette-IOU"] = scores.means["PVE"]._replace(total=1.0, weight=4.0)
    scores.per_frame["silhouette-IOU"] = np.array([0.5, np.nan, 0.25])
    table = scoring.format_scores({"trained": scores, "other": scores}).splitlines()
    assert table[0].split() == ["unit", "trained", "other"]
    rows = {line.split()[0]: line.split()[1:] for line in table[1:]}
    assert rows["silhouette-IOU"] == ["%", "25.0", "25.0"]
    assert rows["PVE"][:2] == ["mm", f"{scores.values()['PVE']:.1f}"]
    written = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert written["per_frame"]["silhouette-IOU"] == [0.5, None, 0.25]
    assert written["metrics"]["PVE"] == pytest.approx(scores.values()["PVE"])


def test_without_samples(found, face_body):
    prediction, target = found
    none = scoring.predict(jax.random.key(0), prediction.raw, face_body, 0)
    assert none.samples == {}
    assert "PVE_samples_min" not in scoring.score([(none, target, 3)]).values()
