"""Compiled programs are kept between commands, in a known place, never in the way."""

import os
import pathlib
import subprocess
import sys

import pytest

from hmr_jax.commands import compilation_cache

NAMES = ("JAX_COMPILATION_CACHE_DIR", "HMR_JAX_CACHE", "XDG_CACHE_HOME")


@pytest.fixture
def environment(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_folder_follows_the_standard_and_the_variable(environment):
    assert compilation_cache.folder() == pathlib.Path.home() / ".cache/hmr_jax/xla"
    environment.setenv("XDG_CACHE_HOME", "/caches")
    assert compilation_cache.folder() == pathlib.Path("/caches/hmr_jax/xla")
    environment.setenv("HMR_JAX_CACHE", "~/mine")
    assert compilation_cache.folder() == pathlib.Path.home() / "mine"
    environment.setenv("HMR_JAX_CACHE", "off")
    assert compilation_cache.folder() is None
    assert "off" in compilation_cache.describe()
    environment.setenv("JAX_COMPILATION_CACHE_DIR", "/of_jax")
    assert compilation_cache.folder() == pathlib.Path("/of_jax")


PROGRAM = """
import jax, sys
from hmr_jax.commands import cli, compilation_cache
compilation_cache._MIN_COMPILE_S = 0
def main(argv):
    print(jax.jit(lambda x: jax.numpy.linalg.norm(jax.numpy.sin(x)))(1.0))
    print(compilation_cache.describe())
    print(jax.config.jax_compilation_cache_max_size)
sys.exit(cli.run("doctor", main, []))
"""


def started(**variables):
    """The program above in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if name not in NAMES}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=clean | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def entries(folder):
    return {p.name for p in folder.glob("*-cache")}


def test_a_second_process_finds_the_programs_of_the_first(tmp_path):
    first = started(XDG_CACHE_HOME=str(tmp_path))
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "hmr_jax" / "xla"
    kept = entries(folder)
    assert kept and f"{folder}, {len(kept)} programs" in first.stdout
    assert str(compilation_cache.MAX_BYTES) in first.stdout
    second = started(XDG_CACHE_HOME=str(tmp_path))
    assert (second.returncode, second.stdout) == (0, first.stdout)
    assert entries(folder) == kept
    assert "warning" not in second.stderr.lower()


@pytest.mark.parametrize("kind", ["file in the way", "no rights"])
def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path, kind):
    if kind == "file in the way":
        path = tmp_path / "taken"
        path.write_text("")
    else:
        path = pathlib.Path("/proc/hmr_jax")
    done = started(HMR_JAX_CACHE=str(path))
    assert done.returncode == 0, done.stderr
    assert "are not kept" in done.stderr and str(path) in done.stderr
    assert "-1" in done.stdout.splitlines()


def test_off_writes_nothing(tmp_path):
    done = started(HMR_JAX_CACHE="off", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_trial_runs_are_compiled_fast():
    import jax
    import ml_collections

    name = "jax_disable_most_optimizations"
    jax.config.update(name, False)
    for config in (None, ml_collections.ConfigDict(), {"compile_fast": False}):
        compilation_cache.optimize_as(config)
        assert not jax.config.values[name]
    compilation_cache.optimize_as(ml_collections.ConfigDict({"compile_fast": True}))
    assert jax.config.values[name]
