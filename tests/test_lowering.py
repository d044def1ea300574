"""Every program lowers for GPUs and TPUs without one, and without CPU code in it."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hmr_jax import systems
from hmr_jax.body.open_assets import load_open_body
from hmr_jax.render.rasterize import rasterize
from hmr_jax.systems.ikol.layer import ik_layer
from hmr_jax.training import state, step, trained
from tests.test_configs import blank_batch, load

PLATFORMS = ("cuda", "tpu")
CPU_ALONE = re.compile(r"lapack|eigen|ducc|cpu|callback|mkl|onednn|ynn", re.IGNORECASE)
SYSTEMS = {"ikol": "quickstart", "hierprob": "hierprob_cpu"}
SCHEMES = ("newton", "published", "hybrik_naive", "hybrik_adaptive")


def custom_calls(program, *inputs):
    """Targets of a program's custom calls by platform."""
    traced = jax.jit(program).trace(*inputs)
    found = {}
    for platform in PLATFORMS:
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        found[platform] = sorted(set(re.findall(r"custom_call @(\w+)", text)))
    return found


def assert_runs_elsewhere(program, *inputs):
    calls = custom_calls(program, *inputs)
    bad = {p: [c for c in names if CPU_ALONE.search(c)] for p, names in calls.items()}
    assert not any(bad.values()), bad


def test_a_program_for_cpus_alone_is_found():
    here = jax.jit(jnp.linalg.svd).lower(jnp.eye(3)).as_text()
    names = re.findall(r"custom_call @(\w+)", here)
    assert any(CPU_ALONE.search(name) for name in names)


def shapes_of(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@pytest.fixture(scope="module", params=SYSTEMS)
def prepared(request):
    """A system's config, task, training batch and assets."""
    config, _ = load(SYSTEMS[request.param], "quicktest")
    with config.unlocked():
        config.model.sync_batch_norm = False
    body = load_open_body()
    system = systems.get(config.system)
    assets = system.assets(config, body)
    if request.param == "ikol":
        batch = blank_batch(2, config.image_size_px)
    else:
        batch = {"pose_index": np.zeros(2, np.int32)}
    return config, system.task(config), batch, assets, body


def test_training_steps_lower(prepared):
    config, task, batch, assets, _ = prepared
    tx = optax.sgd(1.0)
    start = functools.partial(state.init_state, task, tx)
    begun = jax.eval_shape(start, jax.random.key(0), batch)
    program = functools.partial(step.step, task=task, tx=tx)
    assert_runs_elsewhere(program, begun, batch, jax.random.key(0), assets)


def test_predictions_lower(prepared):
    config, task, _, _, body = prepared
    variables = trained.variable_shapes(systems.get(config.system), config)
    shapes = systems.get(config.system).inputs(config)
    batch = {
        name: jax.ShapeDtypeStruct((2, *shape), jnp.float32)
        for name, shape in shapes.items()
    }
    assert_runs_elsewhere(task.predict, variables, batch, body)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_solvers_and_their_gradients_lower(scheme):
    rng = np.random.default_rng(0)
    joints = rng.standard_normal((2, 24, 3)).astype(np.float32)
    twists = jnp.tile(jnp.array([1.0, 0.0]), (2, 23, 1))
    leaves = jnp.tile(jnp.array([1.0, 0.0, 0.0, 0.0]), (2, 5, 1))

    def total(joints, rest):
        return jnp.sum(ik_layer(joints, rest, twists, leaves, scheme=scheme).joints_m)

    assert_runs_elsewhere(jax.grad(total, argnums=(0, 1)), joints, joints)


def test_pictures_lower():
    vertices = jnp.zeros((8, 3))
    faces = jnp.zeros((4, 3), jnp.int32)
    assert_runs_elsewhere(lambda v: rasterize(v, faces, 32, 32), vertices)
