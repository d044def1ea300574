"""The commands one after another: on made-up records here, on rendered ones slowly."""

import json
import pathlib

import numpy as np
import pytest

from hmr_jax.__main__ import main
from hmr_jax.training.writers import read_jsonl
from tests.conftest import tiny_body_arrays
from tests.heatmaps import spread_out

pytest.importorskip("tensorflow")
ROOT = pathlib.Path(__file__).parents[2]

CONFIG = """
from configs import quickstart


def get_config(arg=None):
    config = quickstart.get_config("quicktest").unlock()
    config.data.sources = {{"people_smpl_24": 1.0}}
    config.eval.source = "people_smpl_24"
    config.body.path = "{folder}/body.npz"
    config.body.h36m_regressor = "{folder}/h36m.npy"
    return config.lock()
"""


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hmr_jax.commands.cli.set_up_logging", lambda: None)
        yield


def run(capfd, *argv):
    capfd.readouterr()
    code = main([str(word) for word in argv])
    written = capfd.readouterr()
    assert code == 0, written.err
    return written.out


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A workdir with data, a body file and a config that names them."""
    from data_pipelines.builders import conversion
    from tests.data_pipelines.people import People

    folder = tmp_path_factory.mktemp("project")
    arrays = tiny_body_arrays()
    np.savez(folder / "body.npz", **arrays)
    rng = np.random.default_rng(0)
    regressor = rng.uniform(size=(17, len(arrays["v_template"])))
    np.save(folder / "h36m.npy", regressor / regressor.sum(1, keepdims=True))
    conversion.build(
        lambda: People((("train", 8), ("test", 6))), folder / "data", progress=False
    )
    (folder / "config.py").write_text(CONFIG.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def trained(project):
    argv = ["train", f"--config={project}/config.py", f"--workdir={project}"]
    assert main([*argv, "--noprogress"]) == 0
    return project


def test_training_leaves_a_run_behind(trained):
    rows = read_jsonl(trained / "log.jsonl")
    assert [row["step"] for row in rows if "loss/uvd" in row] == [2, 4]
    assert "eval/pw3d_14/PA-MPJPE" in rows[-1]
    record = json.loads((trained / "run.json").read_text())
    assert record["config"]["data"]["batch_size"] == 4
    assert record["data_fingerprint"]
    assert (trained / "loss_curve.png").is_file()
    # Pictures of held-out people, before anyone asks for them.
    assert (trained / "overlays.png").read_bytes().startswith(b"\x89PNG")


def test_finished_run_and_other_data(trained, project, capfd):
    argv = ["train", f"--config={project}/config.py", f"--workdir={project}"]
    before = (trained / "log.jsonl").read_text()
    run(capfd, *argv)
    assert (trained / "log.jsonl").read_text() == before
    capfd.readouterr()
    assert main([*argv, "--config.seed=7"]) == 1
    assert "seed 23333, found 7 now" in capfd.readouterr().err


def test_eval_prints_a_table_with_baselines(trained, capfd):
    out = run(capfd, "eval", f"--workdir={trained}", "--baselines", "--pictures=2")
    lines = out.splitlines()
    assert "pw3d_14 PA-MPJPE" in lines[0]
    assert [line.split("  ")[0] for line in lines[2:]] == [
        "trained",
        "untrained network",
        "mean pose",
    ]
    result = json.loads((trained / "eval.json").read_text())
    assert result["rows"]["trained"]["num_samples"] == 4  # quicktest's limit
    assert (trained / "overlays.png").read_bytes().startswith(b"\x89PNG")


def test_export_verifies_and_its_parameters_score_the_same(trained, capfd, tmp_path):
    from hmr_jax.export.params import load_params, save_params

    run(capfd, "export", f"--workdir={trained}", f"--out={tmp_path}/first")
    config = f"--config={trained}/config.py"
    spread = tmp_path / "spread.npz"
    save_params(spread_out(load_params(tmp_path / "first" / "params.npz")), spread)
    argv = ["export", f"--params={spread}", config, f"--out={tmp_path}/second"]
    out = run(capfd, *argv, "--verify")
    assert out.count("verified") == 3
    run(capfd, "eval", f"--workdir={trained}", "--pictures=0", f"--out={tmp_path}/a")
    argv = [f"--params={tmp_path}/first/params.npz", config]
    argv += [f"--config.data.dir={trained}/data", "--pictures=0"]
    run(capfd, "eval", *argv, f"--out={tmp_path}/b")
    first, second = (
        json.loads((tmp_path / name / "eval.json").read_text())["rows"]["trained"]
        for name in "ab"
    )
    assert first["protocols"] == second["protocols"]


def test_data_commands(project, capfd, tmp_path):
    data = project / "data"
    assert "train 8" in run(capfd, "data", "list", data)
    assert "good (" in run(capfd, "data", "check", data)
    picture = tmp_path / "sheet.png"
    run(capfd, "data", "show", data, "--n=3", f"--picture={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "synthetic" in run(capfd, "data", "list")


def test_truncated_records_are_named(project, capfd, tmp_path):
    import shutil

    copy = tmp_path / "data"
    shutil.copytree(project / "data", copy)
    (shard, *_) = sorted(copy.rglob("*train.tfrecord*"))
    shard.write_bytes(shard.read_bytes()[:-100])
    argv = [f"--config={project}/config.py", f"--config.data.dir={copy}"]
    for command in (
        ["data", "check", str(copy)],
        ["train", *argv, f"--workdir={tmp_path}/w"],
    ):
        capfd.readouterr()
        assert main(command) == 1
        error = capfd.readouterr().err
        assert shard.name in error
        assert "Traceback" not in error
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_quickstart_small(capfd, tmp_path):
    config = f"--config={ROOT}/configs/quickstart.py:quicktest"
    run(capfd, "data", "build", "synthetic", config, f"--out={tmp_path}/data")
    run(capfd, "train", config, f"--workdir={tmp_path}", "--noprogress")
    out = run(capfd, "eval", f"--workdir={tmp_path}", "--baselines")
    assert "mean pose" in out
    exported = tmp_path / "export"
    out = run(capfd, "export", f"--workdir={tmp_path}", f"--out={exported}", "--verify")
    assert out.count("verified") == 3
