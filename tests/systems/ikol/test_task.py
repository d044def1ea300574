"""Predictions of IKOL's task: what is not finite is not covered up."""

import functools

import jax
import numpy as np
import pytest

from hmr_jax.evaluation.evaluator import evaluate
from hmr_jax.systems.ikol import task as ikol_task
from tests.test_configs import load

SIDE = 64
COUNT = 3


def make_batch():
    rng = np.random.default_rng(0)
    joints = np.ones((COUNT, 17, 4), np.float32)
    joints[..., :3] = rng.standard_normal((COUNT, 17, 3))
    intrinsics = np.array([[80, 0, 32], [0, 80, 32], [0, 0, 1]])
    return {
        "image": rng.standard_normal((COUNT, SIDE, SIDE, 3)).astype(np.float32),
        "crop_to_image": np.tile(np.eye(2, 3, dtype=np.float32), (COUNT, 1, 1)),
        "intrinsics_inv": np.tile(
            np.linalg.inv(intrinsics).astype(np.float32), (COUNT, 1, 1)
        ),
        "root_cam_m": np.tile(np.float32([0, 0, 3]), (COUNT, 1)),
        "joints_h36m_cam_m": joints,
    }


@pytest.fixture(scope="module")
def predictor(tiny_body):
    """``predict`` of a small network with the flip test, and its variables."""
    config, _ = load("quickstart", "quicktest")
    with config.unlocked():
        config.eval.flip_test = True
    task = ikol_task.make_task(config)
    variables = jax.jit(task.init)(jax.random.key(0), make_batch())
    # Joints in a heap are badly posed: peaks in other places.
    final = variables["params"]["final_layer"]
    kernel = np.random.default_rng(0).standard_normal(final["kernel"].shape)
    final["kernel"] = (2.0 * kernel).astype(np.float32)
    predict = functools.partial(jax.jit(task.predict), body=tiny_body)
    return lambda *inputs: jax.device_get(predict(*inputs)), variables


@pytest.fixture(scope="module")
def clean(predictor):
    predict, variables = predictor
    return predict(variables, make_batch())


@pytest.mark.parametrize(
    "name", ["image", "crop_to_image", "intrinsics_inv", "root_cam_m"]
)
def test_a_sample_that_is_not_finite_is_nan_and_alone(predictor, clean, name):
    predict, variables = predictor
    batch = make_batch()
    batch[name][1].flat[0] = np.nan if name == "image" else np.inf
    found = predict(variables, batch)
    for key, expected in clean.items():
        assert np.isfinite(expected).all(), key
        assert np.isnan(found[key][1]).all(), key
        np.testing.assert_array_equal(found[key][[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("layer", ["decphi", "decleaf", "decshape", "final_layer"])
def test_nan_in_parameters_stops_the_evaluation(predictor, layer):
    predict, variables = predictor
    params = dict(variables["params"])
    params[layer] = {k: np.array(v) for k, v in params[layer].items()}
    params[layer]["bias"][..., 0] = np.nan
    spoilt = {**variables, "params": params}
    with pytest.raises(ValueError, match="predictions joints_h36m_17_m: 3 of 3"):
        evaluate(lambda b: predict(spoilt, b), [make_batch()], ["pw3d_14"])
