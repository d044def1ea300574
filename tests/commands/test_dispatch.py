"""The command line: help, and one clear message for each mistake."""

import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from hmr_jax.__main__ import COMMANDS, main
from hmr_jax.training import checkpoints, state
from tests.training import fakes

ROOT = pathlib.Path(__file__).parents[2]
QUICK = f"--config={ROOT}/configs/quickstart.py:quicktest"


@pytest.fixture
def run(capfd, monkeypatch):
    """Runs a command; returns its exit code and what it wrote."""
    # Other tests of this process may need absl's state as it was.
    monkeypatch.setattr("hmr_jax.commands.cli.set_up_logging", lambda: None)

    def call(*argv):
        code = main(list(argv))
        written = capfd.readouterr()
        return code, written.out, written.err

    return call


def test_usage_lists_the_commands(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(f"  {name}" in out for name in COMMANDS)
    assert run()[0] == 2
    assert run("--version")[1].startswith("hmr-jax 0")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(run, name):
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"hmr-jax {name}" in out
    assert "--debug" in out


def test_help_needs_no_heavy_imports(tmp_path):
    program = (
        "import sys; from hmr_jax.__main__ import main; main(['train', '--help']);"
        "heavy = {'tensorflow', 'orbax', 'matplotlib', 'flax', 'tensorboardX'};"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True
    )


MISTAKES = {
    "command": (["trian"], 2, "did you mean 'train'"),
    "flag": (["train", "--wrkdir=x"], 2, "Did you mean: workdir"),
    "field": (
        ["train", QUICK, "--workdir=w", "--config.optimizer.learnig_rate=1"],
        2,
        "no field 'learnig_rate' Did you mean \"learning_rate\"",
    ),
    "section": (
        ["train", QUICK, "--workdir=w", "--config.optimzer.learning_rate=1"],
        2,
        "no field 'optimzer' Did you mean \"optimizer\"",
    ),
    "type": (
        ["train", QUICK, "--workdir=w", "--config.seed=abc"],
        2,
        "config.seed=abc",
    ),
    "word": (["train", QUICK + "er", "--workdir=w"], 2, "'quicktester'"),
    "no config": (["train", "--workdir=w"], 2, "missing --config"),
    "no workdir": (["train", QUICK], 2, "missing --workdir"),
    "config file": (["train", "--config=nowhere.py"], 2, "no such file: nowhere.py"),
    "stray word": (["train", QUICK, "--workdir=w", "now"], 2, "unexpected 'now'"),
    "no data": (["train", QUICK, "--workdir=w"], 1, "w/data does not exist"),
    "no run": (["eval", QUICK, "--workdir=w"], 1, "no such file or folder: w"),
    "no model": (["eval", QUICK], 2, "missing --workdir or --params"),
    "no params": (
        ["export", QUICK, "--params=p.npz", "--out=o"],
        1,
        "p.npz: no such file",
    ),
    "format": (
        ["export", QUICK, "--params=p.npz", "--out=o", "--formats=onnx"],
        2,
        "onnx",
    ),
    "no checkpoint": (
        ["convert", "--system=ikol", "--checkpoint=model.pth", "--out=o.npz"],
        1,
        "model.pth: no such file",
    ),
    "suffix": (
        ["convert", "--system=ikol", "--checkpoint=a.pth", "--out=o.pth"],
        2,
        ".safetensors",
    ),
    "data word": (["data", "biuld"], 2, "got biuld"),
    "data name": (["data", "build", "synthetc", QUICK, "--out=d"], 2, "'synthetc'"),
    "data folder": (["data", "check", "nowhere"], 1, "nowhere"),
    "body": (
        ["train", QUICK, "--workdir=w", "--config.body.path=SMPL_NEUTRAL.pkl"]
        + ["--config.body.h36m_regressor=J.npy"],
        1,
        "config.body.path: no such file: SMPL_NEUTRAL.pkl",
    ),
    "log_every": (
        ["train", QUICK, "--workdir=w", "--config.train.log_every=0"],
        1,
        "config.train.log_every: expected a number of at least 1, found 0",
    ),
    "keep_latest": (
        ["train", QUICK, "--workdir=w", "--config.train.keep_latest=-1"],
        1,
        "config.train.keep_latest: expected a number of at least 1, found -1",
    ),
    "eval.limit": (
        ["eval", QUICK, "--params=p.npz", "--out=o", "--config.eval.limit=-1"],
        1,
        "config.eval.limit: expected a number of at least 0, found -1",
    ),
    "scheme": (
        ["train", QUICK, "--workdir=nosuch://bucket/w"],
        1,
        "nosuch://bucket/w: expected a local path or a file system that fsspec",
    ),
    "regressor": (
        ["train", QUICK, "--workdir=w", f"--config.body.path={__file__}"],
        1,
        "config.body.h36m_regressor: expected a file",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_end_in_one_clear_message(run, tmp_path, monkeypatch, name):
    argv, expected_code, expected_text = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*argv)
    assert code == expected_code, err
    assert expected_text in err
    assert "Traceback" not in err
    # Nothing half-written is left.
    assert not list(tmp_path.iterdir())


def test_debug_shows_where(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("train", QUICK, "--workdir=w", "--debug")
    assert code == 1
    assert "Traceback" in err


def test_checkpoint_of_another_model(run, tmp_path):
    other = state.init_state(
        fakes.make_task(), optax.sgd(0.1), jax.random.key(0), fakes.make_batch(0)
    )
    with checkpoints.Checkpoints(tmp_path / "checkpoints") as store:
        store.save(other.replace(step=np.asarray(3, np.int32)))
    code, _, err = run("eval", QUICK, f"--workdir={tmp_path}")
    assert code == 1
    assert "does not fit this model" in err
    assert "params/backbone/bn1/bias: expected (8,), found nothing" in err
    code, _, err = run("eval", QUICK, f"--workdir={tmp_path}", "--checkpoint=9")
    assert code == 1
    assert "no checkpoint of step 9" in err


def test_damaged_checkpoint_to_score(run, tmp_path):
    start = state.init_state(
        fakes.make_task(), optax.sgd(0.1), jax.random.key(0), fakes.make_batch(0)
    )
    with checkpoints.Checkpoints(tmp_path / "checkpoints") as store:
        for step in (2, 3):
            store.save(start.replace(step=np.asarray(step, np.int32)))
    (tmp_path / "checkpoints" / "3" / "_CHECKPOINT_METADATA").write_text("{")
    code, _, err = run("eval", QUICK, f"--workdir={tmp_path}", "--checkpoint=3")
    assert code == 1
    assert "Traceback" not in err
    assert f"{tmp_path}/checkpoints/3: no whole checkpoint of a run; the" in err
    assert "the whole ones are of steps [2]" in err
    code, _, err = run("eval", QUICK, f"--workdir={tmp_path}", "--checkpoint=latest")
    assert code == 1
    assert f"{tmp_path}/checkpoints/2 does not fit this model" in err


def test_damaged_checkpoint_to_convert(run, tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(b"PK\x03\x04 cut short")
    out = tmp_path / "out.npz"
    code, _, err = run(
        "convert", "--system=ikol", f"--checkpoint={path}", f"--out={out}"
    )
    assert code == 1
    assert "model.pth" in err
    assert not out.exists()
