"""The step's arithmetic: exact means over shards and micro-batches, its traps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hmr_jax import sample_keys
from hmr_jax.systems.system import DEVICE_AXIS
from hmr_jax.training import parallel, state, step
from tests import tolerances
from tests.training import fakes

TX = optax.sgd(0.1)


def run(task, *, num_devices=1, accumulate=1, num_steps=5, tx=TX, mapped=True):
    """Parameters and last metrics after ``num_steps``."""
    start = state.init_state(task, tx, jax.random.key(0), fakes.make_batch(0))
    devices = jax.devices()[:num_devices]
    fn = functools.partial(
        step.step,
        task=task,
        tx=tx,
        accumulate=accumulate,
        axis_name=DEVICE_AXIS if mapped else None,
    )
    fn = parallel.map_step(fn, devices=devices) if mapped else jax.jit(fn)
    for index in range(num_steps):
        batch = fakes.make_batch(index)
        if mapped:
            batch = parallel.shard_batch(batch, devices)
        start, metrics = fn(start, batch, jax.random.key(1), fakes.ASSETS)
    return start, metrics


def assert_same(a, b, atol=tolerances.PMAP_IDENTITY):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            np.asarray(x), np.asarray(y), atol=atol
        ),
        a,
        b,
    )


def test_one_step_is_the_masked_mean_written_out():
    task = fakes.make_task()
    variables = task.init(jax.random.key(0), fakes.make_batch(0))
    batch = fakes.make_batch(0)
    after, metrics = run(task, num_steps=1)

    def total(params):
        hidden = batch["x"] @ params["first"]["kernel"] + params["first"]["bias"][None]
        out = hidden @ params["second"]["kernel"] + params["second"]["bias"][None]
        error = ((out - 2.0 * batch["y"]) ** 2).sum(-1)
        square = (error * batch["mask"]).sum() / batch["mask"].sum()
        return square + 0.5 * (error * batch["rare"]).sum() / batch["rare"].sum()

    value, grads = jax.value_and_grad(total)(variables["params"])
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)
    assert_same(after.params, expected)
    np.testing.assert_allclose(metrics["total"][0], value, rtol=1e-6)
    np.testing.assert_allclose(
        metrics["grad_norm"][0], optax.global_norm(grads), rtol=1e-6
    )


@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_devices": 2},
        {"accumulate": 2},
        {"num_devices": 2, "accumulate": 4},
        {"mapped": False},
    ],
    ids=str,
)
def test_same_parameters_however_the_batch_is_cut(kwargs):
    task = fakes.make_task()
    whole, whole_metrics = run(task)
    cut, cut_metrics = run(task, **kwargs)
    assert_same(whole.params, cut.params)
    assert_same(whole_metrics, cut_metrics, atol=1e-5)


def test_mean_of_means_would_differ():
    # Guards the test above: were the masks even, wrong averaging would pass it.
    batch = fakes.make_batch(0)
    halves = batch["mask"].reshape(2, -1).sum(1)
    assert halves[0] != halves[1]


def test_synchronised_norm_is_exact_over_devices():
    task = fakes.make_task(norm=True, axis_name=DEVICE_AXIS)
    one, _ = run(task)
    two, _ = run(task, num_devices=2)
    assert_same(one.params, two.params, atol=1e-5)  # normalising divides by small sds
    assert_same(one.batch_stats, two.batch_stats)


@pytest.mark.parametrize("axis_name", [None, DEVICE_AXIS])
def test_replicas_agree(axis_name):
    # out_axes=None returns one device's state unchecked: here they all come back.
    task = fakes.make_task(norm=True, axis_name=axis_name, dropout=0.5)
    fn = functools.partial(
        step.step, task=task, tx=TX, axis_name=DEVICE_AXIS, accumulate=2
    )
    start = state.init_state(task, TX, jax.random.key(0), fakes.make_batch(0))
    fn = parallel.map_step(fn, check_replicas=True)
    batch = parallel.shard_batch(fakes.make_batch(0))
    both = fn(start, batch, jax.random.key(1), fakes.ASSETS)
    assert_same(*[jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1)], atol=0.0)


def test_dropout_repeats_in_time_and_differs_between_devices():
    task = fakes.make_task(dropout=0.5)
    one, _ = run(task, num_steps=2)
    again, _ = run(task, num_steps=2)
    assert_same(one.params, again.params, atol=0.0)

    # Both devices hold the same samples: only different noise can make their mean
    # differ from what device 0 alone finds.
    half = fakes.make_batch(0, size=4)
    twice = {name: np.concatenate([x, x]) for name, x in half.items()}
    fn = functools.partial(step.step, task=task, tx=TX, axis_name=DEVICE_AXIS)
    results = []
    for batch, devices in ((half, jax.devices()[:1]), (twice, jax.devices()[:2])):
        start = state.init_state(task, TX, jax.random.key(0), half)
        sharded = parallel.shard_batch(batch, devices)
        after, _ = parallel.map_step(fn, devices=devices)(
            start, sharded, jax.random.key(1), fakes.ASSETS
        )
        results.append(np.asarray(after.params["second"]["kernel"]))
    assert np.abs(results[0] - results[1]).max() > 1e-3


def test_count_costs_no_forward_pass():
    task = fakes.make_task()
    start = state.init_state(task, TX, jax.random.key(0), fakes.make_batch(0))
    micro = step._split(fakes.make_batch(0, size=64), 4)
    fn = jax.jit(lambda s, m: step._count(s, m, jax.random.key(0), fakes.ASSETS, task))
    text = fn.lower(start, micro).compile().as_text()
    assert "dot(" not in text and "convolution(" not in text


def test_absent_term_is_zero_and_finite():
    task = fakes.make_task(weights={"rare": 1.0})
    start = state.init_state(task, TX, jax.random.key(0), fakes.make_batch(0))
    batch = {**fakes.make_batch(0), "rare": np.zeros(8, np.float32)}
    after, metrics = jax.jit(functools.partial(step.step, task=task, tx=TX))(
        start, batch, jax.random.key(0), fakes.ASSETS
    )
    assert float(metrics["total"][0]) == 0.0
    assert_same(after.params, start.params, atol=0.0)


def test_clear_errors():
    task = fakes.make_task(weights={"square": 1.0, "sqare": 1.0})
    with pytest.raises(ValueError, match="sqare"):
        run(task)
    with pytest.raises(ValueError, match=r"8 samples per device .*accumulate=3"):
        run(fakes.make_task(), accumulate=3)
    with pytest.raises(ValueError, match="7 samples do not divide among 2"):
        parallel.shard_batch({"x": np.zeros((7, 2), np.float32)}, jax.devices()[:2])


def test_map_predict_takes_any_batch_size():
    task = fakes.make_task()
    batch = {"x": fakes.make_batch(0)["x"][:5]}
    variables = task.init(jax.random.key(0), batch)
    out = parallel.map_predict(task.predict)(variables, batch, fakes.ASSETS)
    expected = task.predict(variables, batch, fakes.ASSETS)
    assert_same(out, expected)


def test_state_is_arrays_only():
    task = fakes.make_task(norm=True)
    start = state.init_state(task, TX, jax.random.key(0), fakes.make_batch(0))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(start))
    assert set(start.variables) == {"params", "batch_stats"}
    assert start.step.dtype == jnp.int32


def test_batches_are_prepared_once_and_in_full():
    """The prepared batch is what all micro-batches are cut from."""
    seen = []

    def prepare(rng, batch, assets):
        seen.append(batch["x"].shape)
        noise = 0.1 * jax.random.normal(rng, batch["x"].shape)
        return {**batch, "x": batch["x"] + noise, "y": batch["y"] * assets["scale"]}

    task = dataclasses.replace(fakes.make_task(), prepare=prepare)
    whole, metrics = run(task, num_steps=1, mapped=False)
    assert set(seen) == {(8, 3)}
    parts, _ = run(task, num_steps=1, accumulate=2, mapped=False)
    assert_same(whole.params, parts.params)
    plain, _ = run(fakes.make_task(), num_steps=1, mapped=False)
    assert abs(whole.params["first"]["kernel"] - plain.params["first"]["kernel"]).max()


def test_preparation_draws_anew_at_each_step():
    task = dataclasses.replace(
        fakes.make_task(),
        prepare=lambda rng, batch, assets: {
            **batch, "mask": batch["mask"] * jax.random.uniform(rng, (8,))
        },
    )  # fmt: skip
    counts = [
        float(run(task, num_steps=n, mapped=False)[1]["square"][1]) for n in (1, 2)
    ]
    assert counts[0] != counts[1]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_drawn_for_a_sample_does_not_depend_on_the_devices(accumulate):
    """Pictures made on the device, and samples drawn in the loss."""
    plain = fakes.make_task()

    def prepare(rng, batch, assets):
        keys = sample_keys.keys_of_rows(rng, batch["batch_row"])
        noise = sample_keys.draw(jax.random.normal, keys, batch["x"].shape)
        return {**batch, "x": batch["x"] + noise}

    def losses(variables, batch, assets, *, train, rngs):
        keys = sample_keys.keys_of_rows(rngs["samples"], batch["batch_row"])
        noise = sample_keys.draw(jax.random.normal, keys, batch["y"].shape)
        batch = {**batch, "y": batch["y"] + noise}
        return plain.losses(variables, batch, assets, train=train, rngs=rngs)

    task = dataclasses.replace(plain, prepare=prepare, losses=losses)
    one, of_one = run(task, num_devices=1, num_steps=3, accumulate=accumulate)
    two, of_two = run(task, num_devices=2, num_steps=3, accumulate=accumulate)
    assert_same(one.params, two.params)
    assert_same(of_one, of_two, atol=1e-5)
    undrawn, _ = run(plain, num_devices=1, num_steps=3)
    assert abs(one.params["first"]["kernel"] - undrawn.params["first"]["kernel"]).max()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_is_not_trained_stands_still(accumulate):
    """Parameters and statistics; the optimiser does not even know them."""
    plain = fakes.make_task(norm=True)
    first = dataclasses.replace(plain, trainable=r"(first|norm)\..*")
    second = dataclasses.replace(plain, trainable=r"second\..*")
    initial = state.init_state(plain, TX, jax.random.key(0), fakes.make_batch(0))
    after, metrics = run(second, accumulate=accumulate, num_steps=1)
    assert_same(after.params["first"], initial.params["first"], atol=0)
    assert_same(after.params["norm"], initial.params["norm"], atol=0)
    assert_same(after.batch_stats, initial.batch_stats, atol=0)
    whole, _ = run(plain, accumulate=accumulate, num_steps=1)
    assert_same(after.params["second"], whole.params["second"])
    assert np.any(
        after.params["second"]["kernel"] != initial.params["second"]["kernel"]
    )
    moved, other = run(first, accumulate=accumulate, num_steps=1)
    assert_same(moved.batch_stats, whole.batch_stats)
    norms = [x["grad_norm"][0] ** 2 for x in (metrics, other)]
    _, both = run(plain, accumulate=accumulate, num_steps=1)
    np.testing.assert_allclose(sum(norms), both["grad_norm"][0] ** 2, rtol=1e-5)
    adam = state.init_state(
        second, optax.adam(0.1), jax.random.key(0), fakes.make_batch(0)
    )
    sizes = sum(x.size for x in jax.tree.leaves(adam.opt_state))
    assert sizes == 1 + 2 * sum(x.size for x in jax.tree.leaves(adam.params["second"]))


def test_statistics_can_move_where_parameters_stand_still():
    plain = fakes.make_task(norm=True)
    task = dataclasses.replace(plain, trainable=r"second\..*", moving=".*")
    initial = state.init_state(task, TX, jax.random.key(0), fakes.make_batch(0))
    after, _ = run(task, num_steps=1)
    assert_same(after.params["norm"], initial.params["norm"], atol=0)
    whole, _ = run(plain, num_steps=1)
    assert_same(after.batch_stats, whole.batch_stats)
    assert np.any(
        np.asarray(after.batch_stats["norm"]["mean"])
        != np.asarray(initial.batch_stats["norm"]["mean"])
    )


def test_a_task_that_trains_nothing_is_refused():
    task = dataclasses.replace(fakes.make_task(), trainable="third.*")
    with pytest.raises(ValueError, match="'third.*'.*found none among first, second"):
        state.init_state(task, TX, jax.random.key(0), fakes.make_batch(0))
