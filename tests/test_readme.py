"""What the README shows is run: its Python blocks; its commands on small configs."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run(key):
    """One after another, with the arrays that the text speaks of."""
    rng = np.random.default_rng(0)
    names = {
        "betas": jnp.zeros((2, 10)),
        "joints_m": jnp.asarray(rng.standard_normal((2, 24, 3)), jnp.float32),
        "twist_cos_sin": jnp.tile(jnp.array([1.0, 0.0]), (2, 23, 1)),
        "F": jnp.eye(3)[None] * jnp.array([1.0, 5.0])[:, None, None],
        "rotations": jnp.tile(jnp.eye(3), (2, 1, 1)),
        "key": key,
    }
    found = blocks("python")
    assert len(found) == 3
    for text in found:
        exec(compile(text, "README.md", "exec"), names)  # noqa: S102
    assert names["out"].vertices_m.shape == (6799, 3)
    assert names["pose"].info.converged.shape == (2,)
    assert names["draws"].shape == (50, 2, 3, 3)


def command_lines():
    """Commands of the README, without what needs files that do not ship."""
    lines = [
        part.split("#")[0].strip()
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("hmr-jax")
        for part in line.split("#")[0].split("&&")
    ]
    left_out = ("--raw=", "--checkpoint=FILE.pth")
    return [line for line in lines if not any(word in line for word in left_out)]


@pytest.mark.slow
def test_commands_run_on_small_configs(tmp_path):
    """In the README's order; runs of the same name follow one another as there."""
    rng = np.random.default_rng(0)
    photos = tmp_path / "photos"
    photos.mkdir()
    picture = rng.integers(0, 255, (120, 100, 3)).astype(np.uint8)
    Image.fromarray(picture).save(photos / "one.jpg")
    joints = np.concatenate([rng.uniform(20, 80, (17, 2)), np.ones((17, 1))], 1)
    (tmp_path / "joints.json").write_text(
        str({"one.jpg": [joints.tolist()]}).replace("'", '"')
    )
    # IKOL's commands come first, hierarchical distributions' have a section below.
    lines = command_lines()
    second = next(i for i, line in enumerate(lines) if "hierprob_cpu" in line)
    done = [
        *(
            _started(tmp_path, "W", line)
            for line in lines[:second]
            if "predict" not in line
        ),
        *(_started(tmp_path, "W2", line) for line in lines[second:]),
    ]
    assert len(done) >= 10


def _started(folder, workdir, line):
    places = {
        "--out=D": f"--out={folder}/{workdir}/data",
        "check D": f"check {folder}/{workdir}/data",
        "show D": f"show {folder}/{workdir}/data",
        "--workdir=W": f"--workdir={folder}/{workdir}",
        "--out=E": f"--out={folder}/E",
        "--out=O": f"--out={folder}/O",
        "--images=photos": f"--images={folder}/photos",
        "--joints2d=joints.json": f"--joints2d={folder}/joints.json",
        ".py": ".py:quicktest",
    }
    for shown, real in places.items():
        line = line.replace(shown, real)
    words = [sys.executable, "-m", "hmr_jax", *shlex.split(line)[1:]]
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    return line
