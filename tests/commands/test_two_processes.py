"""The real system on real records: two processes are compared with one."""

import os
import pathlib
import runpy
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from hmr_jax.export.params import load_params, save_params
from hmr_jax.training.checkpoints import Checkpoints
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
    config.data.dir = "{folder}/data"
    config.eval.source = ""
    config.body.path = "{folder}/body.npz"
    config.body.h36m_regressor = "{folder}/h36m.npy"
    # Dropout is drawn for each device; all else is exact over devices.
    config.model.dropout_rate = 0.0
    config.model.sync_batch_norm = True
    # Adam's first steps divide by the gradient, and so magnify rounding.
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.schedule = "constant"
    config.optimizer.clip_global_norm = 0.0
    config.train.num_steps = 2
    config.train.log_every = 1
    config.train.checkpoint_every = 1
    # Joints that are not in a heap, where rounding would decide their rotations.
    config.start.params = "{folder}/start.npz"
    return config.lock()
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    from data_pipelines.builders import conversion
    from hmr_jax import systems
    from hmr_jax.training.trained import initial_variables
    from tests.data_pipelines.people import People

    folder = tmp_path_factory.mktemp("project")
    arrays = tiny_body_arrays()
    np.savez(folder / "body.npz", **arrays)
    regressor = np.random.default_rng(0).uniform(size=(17, len(arrays["v_template"])))
    np.save(folder / "h36m.npy", regressor / regressor.sum(1, keepdims=True))
    counts = (("train", 12), ("test", 6))
    conversion.build(lambda: People(counts), folder / "data", progress=False)
    path = folder / "config.py"
    path.write_text(CONFIG.format(folder=folder))
    loaded = runpy.run_path(str(path))["get_config"]()
    variables = initial_variables(systems.get(loaded.system), loaded)
    save_params(spread_out(variables), folder / "start.npz")
    return path


def start(config, workdir, *args):
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(config.parent / "cache"),
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
    for log in rows:
        assert [row["step"] for row in log] == [1, 2]
    for one, two in zip(*rows, strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"images_per_s"}:
            assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-7), name
    before = load_params(config.parent / "start.npz")
    for step in (1, 2):
        found = []
        for name in ("one", "two"):
            with Checkpoints(tmp_path / name / "checkpoints", read_only=True) as store:
                assert store.steps == [1, 2]
                found.append(store.restore_variables(step))
        check_changes(before, *found)


def check_changes(before, one, two):
    """The same changes since the start: parameters themselves hardly change.

    A change is a difference of float32 numbers, each rounded to 6e-8 of itself, and
    the sums over a batch are taken in another order: seen were at most 4e-5 of a change
    beside that.
    """

    def check(path, start, a, b):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        change, other = (np.float64(x) - start for x in (a, b))
        norm = np.linalg.norm
        error = norm(change - other)
        allowed = 1e-4 * norm(change) + 1.2e-7 * norm(a)
        assert error <= allowed, (name, error, norm(change), norm(a))

    jax.tree_util.tree_map_with_path(check, before, one, two)
