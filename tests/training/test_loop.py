import dataclasses
import os
import pathlib
import signal
import time
import uuid
from unittest import mock

import fsspec
import jax
import numpy as np
import optax
import pytest

from hmr_jax import remote
from hmr_jax.errors import UserError
from hmr_jax.training import checkpoints, feeding, loop, records
from hmr_jax.training.writers import read_jsonl
from tests import tolerances
from tests.training import fakes
from tests.training.spawning import final, finish, spawn, spawn_pair

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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", 0), ("log_every", 0), ("log_every", -1), ("keep_latest", 0),
        ("keep_latest", -1), ("accumulate", 0), ("checkpoint_every", -1),
        ("evaluate_every", -1),
    ],
)  # fmt: skip
def test_lengths_and_intervals_are_checked(name, value):
    with pytest.raises(UserError, match=f"{name}: expected a whole .*, found {value}"):
        loop.LoopOptions(**{"num_steps": 4, name: value})


def test_an_evaluation_that_fails_does_not_end_the_training(tmp_path):
    def evaluate(variables, step):
        if step == 2:
            raise UserError("predictions: 1 of 8 samples of a batch are not finite")
        if step == 4:
            raise OSError("the data cannot be read")
        return {"error_mm": float(step)}

    options = {"evaluate_every": 2, "best_metric": "error_mm", "keep_latest": 9}
    with mock.patch.object(loop.logging, "warning") as warning:
        result = train(tmp_path, 6, evaluate=evaluate, options=options)
    assert result.finished and result.metrics == {"error_mm": 6.0}
    assert "not finite" in str(warning.mock_calls)
    assert "cannot be read" in str(warning.mock_calls)
    with checkpoints.Checkpoints(tmp_path / "checkpoints", read_only=True) as store:
        assert store.steps == [2, 4, 6]
        assert [store.metrics(step) for step in store.steps[:2]] == [None, None]


def test_a_fault_in_an_evaluation_is_shown_and_the_state_is_kept(tmp_path):
    def evaluate(variables, step):
        raise TypeError("a fault")

    with pytest.raises(TypeError, match="a fault"):
        train(tmp_path, 6, evaluate=evaluate, options={"evaluate_every": 3})
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["2", "3"]


def test_a_final_evaluation_that_failed_is_made_up_for(whole, tmp_path):
    fails = True

    def evaluate(variables, step):
        if fails:
            raise UserError("no room on the device")
        return {"error_mm": float(step)}

    options = {"best_metric": "error_mm"}
    with pytest.raises(UserError, match="no room"):
        train(tmp_path, 6, evaluate=evaluate, options=options)
    with pytest.raises(UserError, match="no room"):
        train(tmp_path, 6, evaluate=evaluate, options=options)
    fails = False
    result = train(tmp_path, 6, evaluate=evaluate, options=options)
    assert result.finished and result.metrics == {"error_mm": 6.0}
    assert_same(result.state, whole[1].state)
    with checkpoints.Checkpoints(
        tmp_path / "checkpoints", best_metric="error_mm", read_only=True
    ) as store:
        assert store.best == 6
        found, extra = store.restore(jax.device_get(result.state))
    assert extra == {"iterator": {"index": 6}}
    assert_same(found, whole[1].state)
    rows = read_jsonl(tmp_path / "log.jsonl")
    assert [row["step"] for row in rows if "loss/total" in row] == [2, 4, 6]
    assert [row["step"] for row in rows if "eval/error_mm" in row] == [6]
    # Once it is there nothing is evaluated again.
    fails = True
    assert train(tmp_path, 6, evaluate=evaluate, options=options).metrics is None


def test_only_one_training_at_a_time(tmp_path):
    def second(variables, step):
        with pytest.raises(UserError, match=f"another process is .* {os.getpid()} on"):
            train(tmp_path, 2)
        return {}

    assert train(tmp_path, 2, evaluate=second).finished
    assert train(tmp_path, 4).finished  # the lock is free again


def test_unreadable_checkpoints_are_not_written_over(tmp_path):
    record = records.RunRecord(tmp_path / "run.json", {}, 0, "data")
    train(tmp_path, 4, record=record)
    for step in (2, 4):
        (tmp_path / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").unlink()
    log = (tmp_path / "log.jsonl").read_bytes()
    with pytest.raises(UserError, match="none of 2, 4 is a whole checkpoint"):
        train(tmp_path, 6, record=record)
    assert (tmp_path / "log.jsonl").read_bytes() == log


class Seeded(fakes.Stream):
    """Knows its seed, as records do."""

    def __init__(self, seed):
        super().__init__()
        self.seed, self.began = seed, None

    def state(self):
        return {"epoch": self.index // 3, "step": self.index % 3, "seed": self.seed}

    def restore(self, state):
        if state["seed"] != self.seed:
            raise UserError(f"data position: seed: expected {self.seed}")
        self.index = 3 * state["epoch"] + state["step"]
        self.began = self.index


def test_resuming_with_other_data_needs_to_be_allowed(tmp_path):
    record = records.RunRecord(tmp_path / "run.json", {}, 1, "data")
    train(tmp_path, 4, make=lambda: Seeded(1), record=record)
    other = dataclasses.replace(record, seed=2)
    with pytest.raises(UserError, match="started with seed 1, found 2"):
        train(tmp_path, 6, make=lambda: Seeded(2), record=other)
    with pytest.raises(UserError, match="data position: seed: expected 2"):
        train(tmp_path, 6, make=lambda: Seeded(2))
    allowed = dataclasses.replace(other, allow_other_data=True)
    stream = Seeded(2)
    result = train(tmp_path, 6, make=lambda: stream, record=allowed)
    assert int(result.state.step) == 6
    assert stream.began == 6  # the run stood in epoch 1: epoch 2 of the new data


def test_a_remote_folder_holds_the_whole_run(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = f"memory://{uuid.uuid4().hex}/run"
    record = records.RunRecord(f"{url}/run.json", {"a": 1}, 0, "data")
    kwargs = {"schedule": lambda step: 0.5, "record": record}
    kwargs["evaluate"] = lambda variables, step: {"error_mm": float(step)}
    train(url, 3, **kwargs)
    result = train(url, 6, **kwargs)
    assert_same(result.state, whole[1].state)
    folder = remote.location(url)
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "4",
        "6",
    ]
    rows = read_jsonl(folder / "log.jsonl")
    assert [row["step"] for row in rows if "loss/total" in row] == [2, 3, 4, 6]
    assert records.read_json(f"{url}/run.json")["config"] == {"a": 1}
    assert (folder / "loss_curve.png").read_bytes().startswith(b"\x89PNG")
    events = [path.read_bytes() for path in (folder / "events").iterdir()]
    assert len(events) == 2 and all(b"loss/total" in data for data in events)
    assert not list(tmp_path.iterdir())  # no folder 'memory:' here


@pytest.mark.parametrize("url", ["nosuch://bucket/run", "readonly://bucket/run"])
def test_a_file_system_that_cannot_is_refused_before_the_first_step(
    tmp_path, monkeypatch, url
):
    class ReadOnly(fsspec.get_filesystem_class("memory")):
        protocol = "readonly"
        cachable = False

        def pipe_file(self, *args, **kwargs):
            raise NotImplementedError("this file system cannot be written")

    fsspec.register_implementation("readonly", ReadOnly, clobber=True)
    monkeypatch.chdir(tmp_path)

    def never():
        raise AssertionError("a batch was read")
        yield

    with pytest.raises(UserError, match=url):
        train(url, 3, make=never)
    assert not list(tmp_path.iterdir())


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


def _is_list(value):
    return isinstance(value, list)


def test_two_processes_equal_one(tmp_path):
    for process in spawn_pair(tmp_path):
        finish(process)
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
