import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import optax
import pytest

from hmr_jax.training import feeding, loop
from hmr_jax.training.writers import read_jsonl
from tests import tolerances
from tests.training import fakes

ROOT = pathlib.Path(__file__).parents[2]


def train(workdir, num_steps=6, *, make=fakes.Stream, tx=None, task=None, **kwargs):
    options = {"checkpoint_every": 2, "log_every": 2, "progress": False}
    options.update(kwargs.pop("options", {}))
    return loop.train(
        task or fakes.make_task(dropout=0.2),
        make,
        tx=tx or optax.adam(1e-2),
        options=loop.LoopOptions(num_steps=num_steps, **options),
        workdir=workdir,
        assets=fakes.ASSETS,
        **kwargs,
    )


def assert_same(a, b, atol=0.0):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            np.asarray(x), np.asarray(y), atol=atol
        ),
        a,
        b,
    )


def endless():
    index = 0
    while True:
        yield fakes.make_batch(index)
        index += 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of six steps without interruption."""
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, train(workdir, schedule=lambda step: 0.5)


def test_what_a_run_leaves_behind(whole):
    workdir, result = whole
    assert result.finished
    assert int(result.state.step) == 6
    rows = read_jsonl(workdir / "log.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[0]["learning_rate"] == 0.5
    assert {"loss/square", "loss/size", "grad_norm", "images_per_s"} <= set(rows[0])
    assert (workdir / "loss_curve.png").is_file()
    assert list((workdir / "events").iterdir())
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["4", "6"]


def test_loss_falls(tmp_path):
    options = {"log_every": 20, "checkpoint_every": 0}
    train(tmp_path, 60, tx=optax.sgd(0.03), task=fakes.make_task(), options=options)
    losses = [row["loss/total"] for row in read_jsonl(tmp_path / "log.jsonl")]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("make", [fakes.Stream, endless])
def test_resumed_run_equals_the_uninterrupted_one(whole, tmp_path, make):
    train(tmp_path, 3, make=make)
    train(tmp_path, 4, make=make)
    result = train(tmp_path, 6, make=make)
    assert_same(result.state, whole[1].state)
    again = train(tmp_path, 6, make=make)  # nothing left to do
    assert_same(again.state, whole[1].state)


def test_nan_stops_the_run_and_names_the_step(tmp_path):
    def poisoned():
        for index, batch in enumerate(endless()):
            if index == 4:
                batch["y"][0, 0] = np.nan
            yield batch

    with pytest.raises(loop.NonFiniteLossError, match=r"step 5, .*square nan"):
        train(tmp_path, 8, make=poisoned)
    # The checkpoint of step 4 precedes it; none was written after.
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]


def test_evaluation_marks_the_best(tmp_path):
    seen = []

    def evaluate(variables, step):
        seen.append(step)
        assert set(variables) == {"params"}
        return {"error_mm": abs(step - 4.0)}

    options = {"evaluate_every": 2, "best_metric": "error_mm", "keep_latest": 1}
    result = train(tmp_path, 8, evaluate=evaluate, options=options)
    assert seen == [2, 4, 6, 8]
    assert result.metrics == {"error_mm": 4.0}
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["4", "8"]
    evals = [r for r in read_jsonl(tmp_path / "log.jsonl") if "eval/error_mm" in r]
    assert [r["eval/error_mm"] for r in evals] == [2.0, 0.0, 2.0, 4.0]


def test_start_from_other_variables(tmp_path):
    def zero(variables):
        return jax.tree.map(np.zeros_like, variables)

    result = train(tmp_path, 1, tx=optax.sgd(0.0), start_from=zero)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(result.state.params))


def test_other_model_in_the_workdir_is_an_error(whole):
    task = fakes.make_task(norm=True)
    with pytest.raises(ValueError, match="does not fit this model.*norm"):
        train(whole[0], 9, task=task)


def test_errors_of_the_reader_reach_the_caller(tmp_path):
    def broken():
        yield fakes.make_batch(0)
        raise OSError("file data-00003 is truncated")

    with pytest.raises(OSError, match="data-00003"):
        train(tmp_path, 4, make=broken)
    with pytest.raises(ValueError, match="training data ended"):
        train(tmp_path / "b", 4, make=lambda: iter([fakes.make_batch(0)] * 2))


def test_position_is_that_of_the_batch_used():
    prefetcher = feeding.Prefetcher(fakes.Stream(), put=lambda batch: batch, ahead=3)
    try:
        for index in range(4):
            batch, position = next(prefetcher)
            np.testing.assert_array_equal(batch["x"], fakes.make_batch(index)["x"])
            assert position == {"index": index + 1}
    finally:
        prefetcher.close()


# Runs in processes of their own.


def spawn(workdir, *args, devices=1):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "tests.training.run_fake", str(workdir), *args]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, timeout_s=180):
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, output
    return output


def _is_list(value):
    return isinstance(value, list)


def final(workdir, index=0):
    return json.loads((workdir / f"final.{index}.json").read_text())


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    pair = [
        spawn(tmp_path, f"--coordinator={address}", f"--process={index}")
        for index in (0, 1)
    ]
    try:
        for process in pair:
            finish(process)
    finally:
        for process in pair:
            process.kill()
    options = {"checkpoint_every": 3}
    one = train(
        tmp_path / "one", 5, tx=optax.sgd(0.1), task=fakes.make_task(), options=options
    )
    expected = jax.device_get(one.state.params)
    for index in (0, 1):
        found = final(tmp_path, index)["params"]
        assert_same(
            {
                k: jax.tree.map(np.asarray, v, is_leaf=_is_list)
                for k, v in found.items()
            },
            expected,
            atol=tolerances.PMAP_IDENTITY,
        )


def test_sigterm_saves_and_the_rest_follows(whole, tmp_path):
    args = ("--steps=6", "--tx=adam", "--dropout=0.2", "--slow_s=0.7")
    process = spawn(tmp_path, *args, "--checkpoint_every=100", devices=2)
    log = tmp_path / "log.jsonl"
    deadline = time.monotonic() + 120
    while not read_jsonl(log) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    finish(process)
    assert not final(tmp_path)["finished"]
    stopped_at = [int(p.name) for p in (tmp_path / "checkpoints").iterdir()]
    assert len(stopped_at) == 1
    assert 2 <= stopped_at[0] < 6
    result = train(tmp_path, 6)
    assert_same(result.state.params, whole[1].state.params)


@pytest.mark.slow
def test_sigkill_at_any_moment_changes_nothing(tmp_path, rng):
    args = ("--steps=60", "--tx=adam", "--dropout=0.2", "--checkpoint_every=2")
    finish(spawn(tmp_path / "whole", *args))
    cut = tmp_path / "cut"
    cut.mkdir()
    log, kills = cut / "log.jsonl", 0
    for _ in range(40):
        process = spawn(cut, *args, "--slow_s=0.02")
        # Wait for the run to be under way, then any time within ten steps.
        rows = len(read_jsonl(log))
        while process.poll() is None and len(read_jsonl(log)) <= rows:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.6))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
    finish(process)
    assert kills >= 4
    assert final(cut) == final(tmp_path / "whole")
    rows = read_jsonl(log)
    assert [row["step"] for row in rows if "loss/total" in row] == list(range(2, 61, 2))
