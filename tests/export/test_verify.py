"""Verification of exports, with a tolerance that is fixed."""

import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.errors import UserError
from hmr_jax.export import stablehlo
from hmr_jax.export.params import save_params
from hmr_jax.export.verify import ABSOLUTE, verify_params, verify_program

VARIABLES = {"params": {"scale": np.full(3, 2.0, np.float32)}}
INPUTS = {"image": (4, 4, 3)}


def steady(variables, batch, body, wrong=0.0):
    middle = batch["image"].mean((1, 2)) * variables["params"]["scale"][None]
    return {"vertices_m": middle + wrong, "betas": middle[:, :1]}


def shaky(variables, batch, body, wrong=0.0):
    """Vertices that rounding decides where the picture is dark, all others steady."""
    out = steady(variables, batch, body)
    heap = jnp.sin(1e9 * out["vertices_m"]) + wrong
    dark = batch["image"].mean((1, 2, 3)) < 0.5
    return {**out, "vertices_m": jnp.where(dark[:, None], heap, out["vertices_m"])}


def pictures(brightness):
    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 0.1, (len(brightness), 4, 4, 3))
    return {"image": (noise + np.reshape(brightness, (-1, 1, 1, 1))).astype("f4")}


def export(folder, predict, body, variables=VARIABLES):
    stablehlo.export_program(predict, variables, body, INPUTS, folder)
    return folder


def test_a_right_program_passes(tmp_path, tiny_body):
    path = export(tmp_path / "p", steady, tiny_body)
    shown = verify_program(path, steady, VARIABLES, tiny_body, pictures([0, 1, 2]))
    assert shown.steady == {"vertices_m": 3, "betas": 3} and shown.samples == 3
    assert shown.largest < 1e-6


@pytest.mark.parametrize("wrong", [1.1 * ABSOLUTE, 1.0, np.nan])
def test_a_wrong_program_fails(tmp_path, tiny_body, wrong):
    def other(*arguments):
        return steady(*arguments, wrong=wrong)

    path = export(tmp_path / "p", other, tiny_body)
    with pytest.raises(UserError, match=r"p: vertices_m differs from the model by"):
        verify_program(path, steady, VARIABLES, tiny_body, pictures([0, 0.1]))


def test_shaky_samples_are_not_compared_and_the_others_are(tmp_path, tiny_body):
    path = export(tmp_path / "p", shaky, tiny_body)
    inputs = pictures([0, 0, 1])
    shown = verify_program(path, shaky, VARIABLES, tiny_body, inputs)
    assert shown.steady == {"vertices_m": 1, "betas": 3}
    with pytest.raises(UserError, match="betas differs"):
        changed = {**VARIABLES}

        def other(variables, batch, body):
            out = shaky(variables, batch, body)
            return {**out, "betas": out["betas"] + 1.0}

        path = export(tmp_path / "q", other, tiny_body)
        verify_program(path, shaky, changed, tiny_body, inputs)


@pytest.mark.parametrize("wrong", [0.0, 5.0])
def test_a_model_that_is_shaky_everywhere_fails_with_that_reason(
    tmp_path, tiny_body, wrong
):
    """A program metres off passed when the tolerance was the model's own shaking."""

    def other(*arguments):
        return shaky(*arguments, wrong=wrong)

    path = export(tmp_path / "p", other, tiny_body)
    with pytest.raises(UserError, match=r"p: cannot be verified: .*own vertices_m ch"):
        verify_program(path, shaky, VARIABLES, tiny_body, pictures([0, 0]))


def test_other_weights_fail(tmp_path, tiny_body):
    other = {"params": {"scale": np.array([2, 2, 2.00001], np.float32)}}
    path = export(tmp_path / "p", steady, tiny_body, other)
    with pytest.raises(UserError, match=r"p: variables.params.scale differs"):
        verify_program(path, steady, VARIABLES, tiny_body, pictures([0]))


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_parameters(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    save_params(VARIABLES, path)
    assert verify_params(path, VARIABLES, None) == 1
    other = {"params": {"scale": np.full(3, 2.001, np.float32)}}
    with pytest.raises(UserError, match=r"params\.scale differs"):
        verify_params(path, other, None)
    save_params(other, path, dtype="bfloat16")
    assert verify_params(path, other, "bfloat16") == 1
