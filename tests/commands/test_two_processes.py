"""The real system on real records: two processes are compared with one."""

import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from hmr_jax.training.checkpoints import Checkpoints
from hmr_jax.training.writers import read_jsonl
from tests.conftest import tiny_body_arrays

pytest.importorskip("tensorflow")
ROOT = pathlib.Path(__file__).parents[2]

CONFIG = """
from configs import quickstart


def get_config(arg=None):
    config = quickstart.get_config("quicktest").unlock()
    config.data.sources = {{"people_smpl_24": 1.0}}
    config.data.dir = "{folder}/data"
    config.eval.source = "people_smpl_24"
    config.body.path = "{folder}/body.npz"
    config.body.h36m_regressor = "{folder}/h36m.npy"
    # Dropout is drawn for each device; all else is exact over devices.
    config.model.dropout_rate = 0.0
    config.model.sync_batch_norm = True
    # Adam's first steps divide by the gradient, and so magnify rounding.
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3
    config.train.log_every = 1
    return config.lock()
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    from data_pipelines.builders import base
    from tests.data_pipelines.people import People

    folder = tmp_path_factory.mktemp("project")
    arrays = tiny_body_arrays()
    np.savez(folder / "body.npz", **arrays)
    regressor = np.random.default_rng(0).uniform(size=(17, len(arrays["v_template"])))
    np.save(folder / "h36m.npy", regressor / regressor.sum(1, keepdims=True))
    counts = (("train", 12), ("test", 6))
    base.build(lambda: People(counts), folder / "data", progress=False)
    (folder / "config.py").write_text(CONFIG.format(folder=folder))
    return folder / "config.py"


def start(config, workdir, *args):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-m", "hmr_jax", "train", f"--config={config}"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", "--noprogress", *args],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(config, workdir):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    common = (f"--coordinator={address}", "--num_processes=2")
    return [start(config, workdir, *common, f"--process_id={i}") for i in (0, 1)]


@pytest.mark.slow
def test_two_processes_train_as_one(config, tmp_path):
    """Same losses and parameters, with each process's share of the records."""
    runs = [start(config, tmp_path / "one"), *start_two(config, tmp_path / "two")]
    try:
        for process in runs:
            output, _ = process.communicate(timeout=1800)
            assert process.returncode == 0, output
    finally:
        for process in runs:
            process.kill()
    rows = [read_jsonl(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    for one, two in zip(*rows, strict=True):
        assert one.keys() == two.keys()
        # Four steps leave the joints in a heap, where rounding decides the rotations
        # that the layer finds: of evaluations and of theta no more can be asked.
        for name in one.keys() - {"images_per_s"}:
            if not name.startswith("eval/"):
                rel = 1e-2 if name == "loss/theta" else 1e-3
                assert two[name] == pytest.approx(one[name], rel=rel, abs=1e-6), name
    found = []
    for name in ("one", "two"):
        with Checkpoints(tmp_path / name / "checkpoints", read_only=True) as store:
            assert store.steps == [2, 4]
            found.append(store.restore_variables())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), *found
    )
