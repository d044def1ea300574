"""Reading a 2D pose network, and keys of samples."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.export.params import save_params
from hmr_jax.nn.hrnet import HRNet
from hmr_jax.predict import engine
from hmr_jax.predict.persons import Person


@pytest.fixture(scope="module")
def hrnet():
    """Zeros in the shapes of a narrow HRNet."""
    init = functools.partial(HRNet(width=4).init, train=False)
    image = jax.ShapeDtypeStruct((1, 384, 288, 3), jnp.float32)
    shapes = jax.eval_shape(init, jax.random.key(0), image)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


def test_the_width_is_the_files(hrnet, tmp_path):
    save_params(hrnet, tmp_path / "hrnet.npz")
    apply, variables = engine.load_pose2d(str(tmp_path / "hrnet.npz"))
    crops = jax.ShapeDtypeStruct((2, 384, 288, 3), jnp.float32)
    out = jax.eval_shape(apply, variables, crops)
    assert out["heatmaps"].shape == (2, 96, 72, 17)


def test_networks_of_other_joints_and_broken_ones_are_refused(hrnet, tmp_path):
    path = tmp_path / "other.npz"
    last = {
        name: array[..., :16] for name, array in hrnet["params"]["final_layer"].items()
    }
    params = {**hrnet["params"], "final_layer": last}
    save_params({**hrnet, "params": params}, path)
    with pytest.raises(ValueError, match=r"other\.npz does not fit.*final_layer"):
        engine.load_pose2d(str(path))
    last = jax.tree.map(lambda a: a + np.nan, hrnet["params"]["final_layer"])
    params = {**hrnet["params"], "final_layer": last}
    save_params({**hrnet, "params": params}, path)
    with pytest.raises(ValueError, match="NaN or infinity in params.final_layer"):
        engine.load_pose2d(str(path))
    with pytest.raises(FileNotFoundError):
        engine.load_pose2d(str(tmp_path / "none.npz"))


def test_keys_tell_persons_apart():
    def bits(path, index, seed=0):
        person = Person(pathlib.Path(path), "a", index, np.zeros(4), 1.0, None)
        key = engine.person_key(seed, person)
        return tuple(jax.random.key_data(key).tolist())

    keys = [
        bits("x/a.png", 0),
        bits("x/a.png", 1),
        bits("b.png", 0),
        bits("a.png", 0, 1),
    ]
    assert len(set(keys)) == 4
    assert bits("y/a.png", 0) == keys[0]  # wherever the folder is
