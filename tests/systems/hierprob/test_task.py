"""The two stages as tasks: what is trained, and that a step lowers it."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from hmr_jax.synthetic.proxies import ProxyAssets
from hmr_jax.systems.hierprob import task as hierprob_task
from hmr_jax.training import state, step
from tests.test_configs import load

BATCH = 3


def config(**changes):
    made, _ = load("hierprob", "quicktest")
    with made.unlocked():
        made.image_size_px = 32
        made.model.sync_batch_norm = False
        made.model.signs = "backend"  # compiles in a third of the time
        made.update_from_flattened_dict(changes)
    return made


@pytest.fixture(scope="module")
def batch(face_body):
    """A prepared batch; rendering has tests of its own."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(0, 1, shape).astype(np.float32)  # noqa: E731
    rotmats = np.linalg.qr(normal(BATCH, 24, 3, 3))[0]
    rotmats *= np.linalg.det(rotmats)[..., None, None]
    return {
        "proxy": np.abs(normal(BATCH, 32, 32, 18)),
        "target_pose_rotmats": rotmats[:, 1:],
        "target_global_rotmat": rotmats[:, 0],
        "target_shape": normal(BATCH, 10),
        "target_joints2d_px": rng.uniform(0, 32, (BATCH, 17, 2)).astype(np.float32),
        "target_joints2d_visible": np.ones((BATCH, 17), np.float32),
        "target_vertices_m": normal(BATCH, face_body.num_vertices, 3),
        "target_joints3d_m": normal(BATCH, 14, 3),
    }


def steps(stage, face_body, batch, count, made=None):
    """Metrics of the first and the last of some steps on one batch."""
    task = hierprob_task.make_task(made or config(), stage)
    task = dataclasses.replace(task, prepare=None)
    assets = ProxyAssets(face_body, *(None,) * 4)
    tx = optax.adam(3e-3)
    start = jax.jit(functools.partial(state.init_state, task, tx))(
        jax.random.key(0), batch
    )
    update = jax.jit(functools.partial(step.step, task=task, tx=tx))
    history = []
    for _ in range(count):
        start, metrics = update(start, batch, jax.random.key(1), assets)
        history.append({k: float(v[0] / v[1]) for k, v in metrics.items()})
    return history


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_steps_lower_the_weighted_sum(stage, face_body, batch):
    history = steps(stage, face_body, batch, 8)
    weights = config().losses[stage].weights
    for found in (history[0], history[-1]):
        total = sum(weights[name] * found[name] for name in weights)
        assert found["total"] == pytest.approx(total, rel=1e-4)
    assert history[-1]["total"] < 0.9 * history[0]["total"]


@pytest.mark.slow
def test_second_stage_sees_samples_in_the_picture(face_body, batch):
    """The first step's 2D loss: over the mode, samples, or all of them."""
    on = {"mode": None, "samples": None, "mode+samples": None}
    for name in on:
        changes = {"losses.stage2.joints2d_on": name, "losses.stage2.num_samples": 3}
        found = steps("stage2", face_body, batch, 1, config(**changes))
        on[name] = found[0]["joints2d"]
    mixed = (on["mode"] + 3 * on["samples"]) / 4
    assert on["mode+samples"] == pytest.approx(mixed, rel=1e-4)
    assert on["mode"] != pytest.approx(on["samples"], rel=1e-3)


def test_nothing_visible_is_no_2d_loss(face_body, batch):
    hidden = batch | {"target_joints2d_visible": np.zeros((BATCH, 17), np.float32)}
    hidden["target_joints2d_px"] = np.full((BATCH, 17, 2), np.nan, np.float32)
    task = hierprob_task.make_task(config(), "stage1")
    variables = jax.jit(task.init)(jax.random.key(0), hidden)
    terms, _, _ = jax.jit(functools.partial(task.losses, train=True, rngs={}))(
        variables, hidden, ProxyAssets(face_body, *(None,) * 4)
    )
    assert float(terms["joints2d"][0]) == 0.0
    assert all(np.isfinite(float(total)) for total, _ in terms.values())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.dtype", "int8", "config.model.dtype"),
        ("model.depth", 19, "config.model.depth"),
        ("losses.stage2.joints2d_on", "both", "config.losses.stage2.joints2d_on"),
        ("losses.stage2.num_samples", 0, "losses.stage2.num_samples: .*found 0"),
        ("data.synthetic.shape_std", "wide", "config.data.synthetic"),
    ],
)
def test_values_that_are_not_known(field, value, message):
    made = config()
    with made.unlocked(), made.ignore_type():
        made.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        hierprob_task.make_task(made)


def test_unknown_stage():
    with pytest.raises(ValueError, match="stage: expected one of .*got 'stage3'"):
        hierprob_task.make_task(config(), "stage3")
