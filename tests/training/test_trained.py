import jax
import numpy as np
import pytest

from hmr_jax import systems
from hmr_jax.export.params import save_params
from hmr_jax.training import trained
from tests.test_configs import load


def config(arg="quicktest", **changes):
    made, _ = load("quickstart", arg)
    with made.unlocked():
        made.update_from_flattened_dict(changes)
    return made


def test_best_by_follows_the_metric():
    assert trained.best_by(config())["best_mode"] == "min"
    changed = config(**{"eval.best_metric": "PCK"})
    assert trained.best_by(changed) == {
        "best_metric": "pw3d_14/PCK",
        "best_mode": "max",
    }


def test_start_from_parameters(tmp_path):
    made = config()
    system = systems.get(made.system)
    shapes = trained.variable_shapes(system, made)
    ones = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)
    path = tmp_path / "params.npz"
    save_params(ones, path)
    start = trained.start_from(system, config(**{"start.params": str(path)}))
    assert all(np.all(leaf == 1) for leaf in jax.tree.leaves(start(None)))
    wider = config(**{"start.params": str(path), "model.hidden": 24})
    with pytest.raises(ValueError, match=r"fc1/kernel: expected \(64, 24\), found"):
        trained.start_from(system, wider)
    both = config(**{"start.params": str(path), "start.workdir": "w"})
    with pytest.raises(ValueError, match="at most one of"):
        trained.start_from(system, both)
    assert trained.start_from(system, made) is None


def test_start_without_a_part(tmp_path):
    """A part stays initial; what is not excepted must fit, both ways."""
    made = config()
    system = systems.get(made.system)
    shapes = trained.variable_shapes(system, made)
    ones = jax.tree.map(lambda s: np.ones(s.shape, s.dtype), shapes)
    wider = config(**{"model.hidden": 24})
    zeros = jax.tree.map(
        lambda s: np.zeros(s.shape, s.dtype), trained.variable_shapes(system, wider)
    )
    path = tmp_path / "params.npz"
    save_params(ones, path)
    given = {"start.params": str(path), "model.hidden": 24}
    but = config(**given, **{"start.dont_load": r"(fc|dec).*"})
    begun = trained.start_from(system, but)(zeros)
    assert np.all(begun["params"]["final_layer"]["kernel"] == 1)
    assert begun["params"]["fc1"]["kernel"].shape == (64, 24)
    assert not begun["params"]["fc1"]["kernel"].any()
    assert jax.tree.structure(begun) == jax.tree.structure(zeros)
    partly = config(**given, **{"start.dont_load": r"fc1\..*"})
    with pytest.raises(ValueError, match=r"decleaf/kernel: expected \(24, "):
        trained.start_from(system, partly)
    broken = config(**given, **{"start.dont_load": "(fc"})
    with pytest.raises(ValueError, match="start.dont_load: .*'\\(fc'"):
        trained.start_from(system, broken)


def test_a_model_with_nan_is_refused():
    good = {"params": {"a": {"kernel": np.ones(3), "bias": np.zeros(2)}}}
    trained.check_finite(good, "file.npz")
    good["params"]["a"]["bias"][1] = np.nan
    message = r"file.npz: .* params.a.bias \(1 of 2 arrays"
    with pytest.raises(ValueError, match=message):
        trained.check_finite(good, "file.npz")
