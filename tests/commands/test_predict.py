"""The predict command: its flags, and one run of it on a config."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from hmr_jax import systems
from hmr_jax.commands import cli, predict
from hmr_jax.errors import UserError
from hmr_jax.export.params import load_params, read_metadata, save_params
from hmr_jax.predict import outputs
from hmr_jax.training.trained import variable_shapes

CONFIG = "configs/hierprob_cpu.py:quicktest"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A picture, its joints, and the parameters of an untrained network."""
    from configs import hierprob_cpu

    folder = tmp_path_factory.mktemp("predict")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (60, 50, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    joints = np.concatenate([rng.uniform(10, 40, (17, 2)), np.ones((17, 1))], 1)
    (folder / "joints.json").write_text(json.dumps({"a.png": joints.tolist()}))
    config = hierprob_cpu.get_config("quicktest")
    config.image_size_px, config.model.width = 64, 8
    shapes = variable_shapes(systems.get(config.system), config)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, leaf: _filled(jax.tree_util.keystr(path), leaf.shape, rng), shapes
    )
    metadata = {"system": "hierprob", "config": config.to_dict()}
    save_params(variables, folder / "params.npz", metadata=metadata)
    save_params(variables, folder / "bare.npz")
    return folder


def _filled(name, shape, rng):
    """Small random numbers, and variances of 1: quicker than to initialise."""
    if "'var'" in name:
        return np.ones(shape, np.float32)
    return rng.normal(scale=0.05, size=shape).astype(np.float32)


def words(folder, *more, out="out"):
    return [
        f"--images={folder / 'a.png'}",
        f"--out={folder / out}",
        f"--params={folder / 'params.npz'}",
        *more,
    ]


def test_the_config_in_the_parameters_is_enough(folder, capsys):
    joints = f"--joints2d={folder / 'joints.json'}"
    flags = ["--nopictures", "--batch_size=1", "--samples=0"]
    assert predict.main(words(folder, joints, *flags)) == 0
    assert "1 persons" in capsys.readouterr().out
    with np.load(folder / "out" / "a_0.npz") as found:
        assert found["vertices_m"].shape == (6799, 3)
        assert np.isfinite(found["vertices_m"]).all()
        assert "vertex_uncertainty_m" not in found.files
    summary = json.loads((folder / "out" / "predictions.json").read_text())
    assert summary["settings"]["size_px"] == 64
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:100])
    again = words(folder, joints, *flags, str(folder / "cut.png"))
    assert predict.main(again) == 1  # and the result that is there is kept
    assert "1 of them were there" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other settings"):
        predict.main([*again, "--visibility_threshold=0.5"])
    # other parameters under the same name
    variables = load_params(folder / "params.npz")
    before = summary["settings"]["model_crc"]
    assert outputs.checksum(variables) == before
    changed = jax.tree.map(lambda leaf: np.float32(1.01) * leaf, variables)
    assert outputs.checksum(changed) != before
    metadata = read_metadata(folder / "params.npz")
    whole = (folder / "params.npz").read_bytes()
    save_params(changed, folder / "params.npz", metadata=metadata)
    with pytest.raises(ValueError, match="was made with another model"):
        predict.main(again)
    (folder / "params.npz").write_bytes(whole)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "missing 2D joints: give --pose2d=FILE .* or --joints2d=FILE"),
        (["--pose2d=x", "--joints2d=y"], "found both"),
        (["--params=", "--joints2d=y"], "missing --workdir or --params"),
        (["--out=", "--joints2d=y"], "missing --out"),
        (["--out=gs://a/b", "--joints2d=y"], "--out: expected .* found gs://a/b"),
        (["--without_box=half"], "without_box"),
        (["--joints2d=x", "--mesh_formats=obj,stl"], "--mesh_formats: .*obj, stl"),
    ],
)
def test_wrong_command_lines(folder, flags, message):
    with pytest.raises(cli.UsageError, match=message):
        predict.main(words(folder, *flags))


def test_models_that_do_not_fit(folder):
    joints = f"--joints2d={folder / 'joints.json'}"
    bare = f"--params={folder / 'bare.npz'}"
    with pytest.raises(cli.UsageError, match="missing --config .*bare"):
        predict.main(words(folder, joints, bare))
    with pytest.raises(ValueError, match="does not fit this model"):
        predict.main(words(folder, joints, bare, "--config=configs/quickstart.py"))
    with pytest.raises(ValueError, match="does not fit this model"):
        given = [bare, f"--config={CONFIG}", "--config.model.embedding=8"]
        predict.main(words(folder, joints, *given))
    with pytest.raises(ValueError, match="the open body is neutral"):
        predict.main(words(folder, joints, "--gender=male"))
    with pytest.raises(ValueError, match="expected parameters of an HRNet"):
        predict.main(words(folder, f"--pose2d={folder / 'bare.npz'}"))
    with pytest.raises(FileNotFoundError, match="no such file"):
        predict.main(words(folder, "--joints2d=none.json"))
    (folder / "other.json").write_text(json.dumps({"z.png": []}))
    with pytest.raises(ValueError, match="none of its 1 entries"):
        predict.main(words(folder, f"--joints2d={folder / 'other.json'}"))


def test_a_folder_that_cannot_be_is_refused_before_the_model_is_loaded(folder):
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    joints = f"--joints2d={folder / 'joints.json'}"
    with pytest.raises(UserError, match="--out: expected another folder"):
        predict.main(words(folder, joints, "--params=none.npz", out="."))
    for path, content in before.items():
        assert path.read_bytes() == content
    assert not (folder / ".lock").exists()
