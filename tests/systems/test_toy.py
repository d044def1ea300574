"""A new system is a folder, a config and a line in the table."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from hmr_jax import systems
from hmr_jax.__main__ import main
from hmr_jax.training.writers import read_jsonl

TOY = pathlib.Path(__file__).parents[1] / "toy" / "system.py"
CONFIG = """
from configs import common
from ml_collections import ConfigDict


def get_config(arg=None):
    config = common.shared()
    config.system = "toy"
    config.model = ConfigDict({"side": 8})
    config.data = ConfigDict({"batch_size": 8})
    config.eval = ConfigDict(
        {
            "source": "toy",
            "batch_size": 8,
            "best_protocol": "smpl_24",
            "best_metric": "MPJPE",
        }
    )
    config.optimizer.learning_rate = 0.05
    config.train.update({"num_steps": 60, "log_every": 20, "evaluate_every": 30})
    return config.lock()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A run of the toy system; the table and the rooms are as before afterwards."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy").mkdir()
    (folder / "toy" / "__init__.py").touch()
    shutil.copy(TOY, folder / "toy")
    (folder / "config.py").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hmr_jax.commands.cli.set_up_logging", lambda: None)
        patch.setattr(systems, "NAMES", (*systems.NAMES, "toy"))
        patch.setattr(systems, "__path__", [*systems.__path__, str(folder)])
        words = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}"]
        assert main(["train", *words, "--noprogress"]) == 0
        yield folder


def test_it_learns_and_is_evaluated_meanwhile(project):
    rows = read_jsonl(project / "run" / "log.jsonl")
    found = [r["loss/place"] for r in rows if "loss/place" in r]
    assert found[-1] < 0.7 * found[0]
    assert [r["step"] for r in rows if "eval/smpl_24/MPJPE" in r] == [30, 60]


def test_it_is_scored_beside_an_untrained_one(project, capfd):
    assert main(["eval", f"--workdir={project / 'run'}", "--baselines"]) == 0
    assert "untrained network" in capfd.readouterr().out
    rows = json.loads((project / "run" / "eval.json").read_text())["rows"]
    assert set(rows) == {"trained", "untrained network"}


def test_it_is_exported(project, capfd):
    words = [f"--workdir={project / 'run'}", f"--out={project / 'out'}", "--verify"]
    assert main(["export", *words]) == 0
    assert capfd.readouterr().out.count("verified") == 3


def test_it_predicts_persons(project):
    pixels = np.random.default_rng(0).integers(0, 255, (80, 60, 3), np.uint8)
    Image.fromarray(pixels).save(project / "a.png")
    words = [f"--images={project / 'a.png'}", f"--workdir={project / 'run'}", "--mesh"]
    out = project / "predicted"
    assert main(["predict", *words, f"--out={out}", "--without_box=whole"]) == 0
    assert {"a_0.npz", "a_0.obj", "a_0.png", "a_overlay.png"} <= {
        path.name for path in out.iterdir()
    }
