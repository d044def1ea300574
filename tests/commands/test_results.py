"""What is scored is kept, whatever fails after it."""

import json

import ml_collections
import pytest

from hmr_jax.commands.results import Results
from hmr_jax.errors import UserError


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
