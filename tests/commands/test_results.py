"""What is scored is kept, whatever fails after it."""

import io
import json
import uuid

import ml_collections
import numpy as np
import pytest
from absl import flags

from hmr_jax import remote
from hmr_jax.commands import cli
from hmr_jax.commands.results import Results
from hmr_jax.errors import UserError
from hmr_jax.render import draw
from hmr_jax.systems.hierprob.datasets import write_per_frame
from hmr_jax.systems.hierprob.scores import Scores as ScoredFrames
from hmr_jax.training import records


class Scores:
    def __init__(self, value):
        self.value = value

    def to_json(self):
        return {"error_mm": self.value}


def table(rows):
    return "; ".join(f"{name} {scores.value}" for name, scores in rows.items())


def make(out):
    config = ml_collections.ConfigDict({"seed": 1})
    return Results(config, "runs/a/checkpoints/3", out, table, source="synthetic")


def test_scores_are_written_before_what_fails_after_them(tmp_path, capsys):
    with pytest.raises(RuntimeError, match="pictures"), make(tmp_path) as results:
        results.add("trained", Scores(40.0))
        found = json.loads((tmp_path / "eval.json").read_text())
        assert found["rows"] == {"trained": {"error_mm": 40.0}}
        assert (found["source"], found["config"]) == ("synthetic", {"seed": 1})
        assert found["checkpoint"] == "runs/a/checkpoints/3"
        results.add("untrained network", Scores(250.0))
        raise RuntimeError("pictures")
    assert capsys.readouterr().out == "trained 40.0; untrained network 250.0\n"
    rows = json.loads((tmp_path / "eval.json").read_text())["rows"]
    assert list(rows) == ["trained", "untrained network"]


@pytest.mark.parametrize("error", [UserError("no poses"), FileNotFoundError("no file")])
def test_a_baseline_without_data_is_left_out(tmp_path, capsys, error):
    def fails():
        raise error

    with make(tmp_path) as results:
        results.add("trained", Scores(40.0))
        results.add_baseline("mean pose", fails)
        results.add_baseline("zero pose", lambda: Scores(300.0))
    assert capsys.readouterr().out == "trained 40.0; zero pose 300.0\n"


def test_a_fault_in_a_baseline_is_shown(tmp_path, capsys):
    with pytest.raises(ZeroDivisionError), make(tmp_path) as results:
        results.add("trained", Scores(40.0))
        results.add_baseline("mean pose", lambda: 1 / 0)
    assert capsys.readouterr().out == "trained 40.0\n"


def test_results_and_pictures_go_to_remote_folders(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = remote.location(f"memory://{uuid.uuid4().hex}/scores")
    with make(out) as results:
        results.add("trained", Scores(40.0))
        draw.save_png(out / "overlays.png", np.zeros((4, 4, 3), np.uint8))
        found = {"PVE": np.arange(3.0)}
        write_per_frame(ScoredFrames({}, {}, published=found), out)
    rows = json.loads((out / "eval.json").read_text())["rows"]
    assert rows == {"trained": {"error_mm": 40.0}}
    assert (out / "overlays.png").read_bytes().startswith(b"\x89PNG")
    array = np.load(io.BytesIO((out / "PVE_per_frame.npy").read_bytes()))
    np.testing.assert_array_equal(array, [0.0, 1.0, 2.0])
    assert not list(tmp_path.iterdir())


def test_the_config_of_a_remote_run_is_found():
    workdir = f"memory://{uuid.uuid4().hex}/run"
    with pytest.raises(FileNotFoundError, match=f"--workdir: no such .*{workdir}"):
        cli.existing(workdir, "--workdir")
    records.write_json(f"{workdir}/run.json", {"config": {"seed": 3}})

    def define(values):
        flags.DEFINE_string("workdir", None, "The run.", flag_values=values)

    argv = [f"--workdir={workdir}", "--config.seed=4"]
    values, _ = cli.parse("eval", None, define, argv, with_config=True)
    assert cli.config_of_run(values).seed == 4
    assert cli.existing(workdir, "--workdir") == remote.location(workdir)
