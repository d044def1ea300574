import signal
import subprocess
import sys
import time

import pytest

from hmr_jax.training import fatal_filter, processes
from hmr_jax.training.writers import read_jsonl
from tests.training.spawning import final, finish, spawn, spawn_pair

AGAIN = pytest.param(1, marks=pytest.mark.slow)
ENDLESS = ("--steps=100000", "--tx=adam", "--slow_s=0.1", "--log_every=2")


def wait_for(condition, timeout_s=180):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def pair_of():
    """Spawns pairs, and ends them with the test."""
    spawned = []

    def spawn_two(*args, **kwargs):
        spawned.extend(spawn_pair(*args, **kwargs))
        return spawned[-2:]

    yield spawn_two
    for process in spawned:
        process.kill()
        process.communicate()


def test_differences_are_named():
    first = {"step": 3, "run": {"config": {"a": 1, "b": [1, 2]}}}
    other = {"step": 2, "run": {"config": {"a": 1, "b": [1, 3], "c": 0}}}
    assert processes.differences(first, other) == [
        "run.config.b: [1, 2] -> [1, 3]",
        "run.config.c: None -> 0",
        "step: 3 -> 2",
    ]


def test_other_settings_on_one_process_are_an_error_on_both(tmp_path, pair_of):
    pair = pair_of(tmp_path, of_each=((), ("--seed=1", "--log_every=3")))
    for process in pair:
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 1, output
        assert (
            "UserError: process 1 does not start as process 0 does: "
            "options.log_every: 2 -> 3; options.seed: 0 -> 1; all processes" in output
        )
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_a_folder_of_ones_own_is_an_error_on_both(tmp_path, pair_of):
    finish(spawn(tmp_path, "--steps=3"))
    pair = pair_of(tmp_path, of_each=((), (f"--own_workdir={tmp_path / 'other'}",)))
    for process in pair:
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 1, output
        assert "data position.index: 3 -> 0; step: 3 -> 0; all processes" in output


@pytest.mark.parametrize("index", [0, AGAIN])
def test_a_signal_to_one_stops_all_at_the_next_step(tmp_path, pair_of, index):
    args = ("--steps=400", "--tx=adam", "--slow_s=0.2", "--checkpoint_every=0")
    pair = pair_of(tmp_path, *args, "--log_every=2")
    log = tmp_path / "log.jsonl"
    wait_for(lambda: len(read_jsonl(log)) > 2)
    step = read_jsonl(log)[-1]["step"]
    pair[index].send_signal((signal.SIGTERM, signal.SIGINT)[index])
    for process in pair:
        output = finish(process)
        assert "stopped by a signal after step" in output
    assert not final(tmp_path, 0)["finished"] and not final(tmp_path, 1)["finished"]
    saved = max(int(path.name) for path in (tmp_path / "checkpoints").glob("*"))
    assert final(tmp_path, 0)["params"] == final(tmp_path, 1)["params"]
    # The signal travels for a second or two (0.2 s a step), not until a checkpoint.
    assert step <= saved <= step + 60


@pytest.mark.parametrize("lost", [0, AGAIN])
def test_a_lost_process_ends_the_other_with_a_message(tmp_path, pair_of, lost):
    pair = pair_of(tmp_path, *ENDLESS)
    wait_for(lambda: len(read_jsonl(tmp_path / "log.jsonl")) > 1)
    pair[lost].kill()
    output, _ = pair[1 - lost].communicate(timeout=60)
    assert pair[1 - lost].returncode != 0
    assert f"{fatal_filter.LOST} {fatal_filter.SEEN}" in output
    reason = output.split(fatal_filter.SEEN)[1]
    assert "Connection" in reason or "UNAVAILABLE" in reason, output
    assert "stack trace" not in output and "F1" not in output


FATAL = b"""E1130 15:09:27.857045 8326 agent.cc:289] Polled an error.
F1130 15:09:27.857127 8326 client.h:80] Terminating process because the JAX \
distributed service detected fatal errors. Look at the others. absl::Status: \
UNAVAILABLE: task 1 sent no heartbeat
*** Check failure stack trace: ***
    @ 0x7f6db2a40634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
""".replace(b"\\\n", b"")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_filter_passes_all_but_the_stack(size):
    before = "train: 5%|▌ | 1/20\rFine words\nF1 and F12 are no fatal lines\n".encode()
    process = subprocess.Popen(
        [sys.executable, "-S", fatal_filter.__file__],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    data = before + FATAL
    for start in range(0, len(data), size):
        process.stdin.write(data[start : start + size])
        process.stdin.flush()
    _, shown = process.communicate(timeout=60)
    head = before + FATAL[: FATAL.index(b"F1130")]
    said = f"{fatal_filter.LOST} {fatal_filter.SEEN}"
    said += "UNAVAILABLE: task 1 sent no heartbeat"
    assert shown == head + f"\nhmr-jax: error: {said}\n".encode()


def test_the_filter_says_what_a_line_without_an_end_says():
    line = b"F1130 15:09:27.857127 8326 client.h:80] " + fatal_filter.FATAL + b" ends"
    process = subprocess.run(
        [sys.executable, "-S", fatal_filter.__file__],
        input=line,
        stderr=subprocess.PIPE,
        check=True,
    )
    said = f"{fatal_filter.LOST} {fatal_filter.SEEN}"
    expected = f"\nhmr-jax: error: {said}".encode() + fatal_filter.FATAL + b" ends\n"
    assert process.stderr == expected


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("Gloo AllGather failed: Connection reset by peer", fatal_filter.LOST),
        ("Gloo all-reduce failed: Timed out waiting 9ms for recv", fatal_filter.LATE),
    ],
)
def test_the_reason_of_a_loss_is_kept(monkeypatch, reason, meaning):
    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "_failed", False)  # for the exit of the tests
    with (
        pytest.raises(processes.ProcessLostError) as raised,
        processes.ending_together(),
    ):
        raise ValueError(f"UNKNOWN: {reason}\nand a trace")
    assert str(raised.value) == f"{meaning} {fatal_filter.SEEN}UNKNOWN: {reason}"


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_late_process_is_waited_for(tmp_path, pair_of, devices):
    """Longer than gloo's 30 s, before the first exchange of a run and within it."""
    late = ("--late_s=35", "--late_step_s=35")
    pair = pair_of(tmp_path, "--steps=2", of_each=((), late), devices=devices)
    for process in pair:
        finish(process)
    assert final(tmp_path, 0)["params"] == final(tmp_path, 1)["params"]


def test_the_filter_holds_nothing_back_at_the_end():
    process = subprocess.run(
        [sys.executable, "-S", fatal_filter.__file__],
        input=b"the end is F11",
        stderr=subprocess.PIPE,
        check=True,
    )
    assert process.stderr == b"the end is F11"
