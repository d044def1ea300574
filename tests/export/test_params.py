import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from hmr_jax.errors import UserError
from hmr_jax.export import params


@pytest.fixture
def variables(rng):
    return {
        "params": {
            "backbone": {"conv1": {"kernel": rng.standard_normal((3, 2))}},
            "scale": jnp.asarray(2.5),
        },
        "batch_stats": {"count": np.arange(3, dtype=np.int32)},
    }


SUFFIXES = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])


def _leaf(tree):
    return tree["params"]["backbone"]["conv1"]["kernel"]


@SUFFIXES
def test_round_trip_keeps_names_shapes_and_values(tmp_path, variables, suffix):
    path = tmp_path / f"model{suffix}"
    params.save_params(variables, path, metadata={"system": "ikol"})
    back = params.load_params(path, template=variables)
    np.testing.assert_array_equal(_leaf(back), np.float32(_leaf(variables)))
    assert back["params"]["scale"].shape == ()
    assert back["batch_stats"]["count"].dtype == np.int32
    header = params.read_metadata(path)
    assert header["system"] == "ikol"
    assert header["version"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@SUFFIXES
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtype_of_the_file(tmp_path, variables, suffix, dtype):
    path = tmp_path / f"model{suffix}"
    params.save_params(variables, path, dtype=dtype)
    stored = params.load_params(path, dtype=None)
    assert _leaf(stored).dtype == np.dtype(getattr(ml_dtypes, dtype, dtype))
    widened = params.load_params(path)
    assert _leaf(widened).dtype == np.float32
    bits = {"float16": 11, "bfloat16": 8, "float32": 24}[dtype]
    np.testing.assert_allclose(_leaf(widened), _leaf(variables), rtol=2.0**-bits)


def test_flat_names_are_dotted(tmp_path, variables):
    path = tmp_path / "model.npz"
    params.save_params(variables, path)
    with np.load(path) as file:
        assert "params.backbone.conv1.kernel" in file.files


@SUFFIXES
def test_a_truncated_file_is_a_clear_error(tmp_path, variables, suffix):
    path = tmp_path / f"model{suffix}"
    params.save_params(variables, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=f"model{suffix}: expected"):
        params.load_params(path)


def test_foreign_and_missing_files(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(
        ValueError, match="expected parameters, whole and written by this"
    ):
        params.load_params(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        params.load_params(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"ending in \.npz"):
        params.save_params({}, tmp_path / "model.pth")


def test_the_template_is_held_strictly(tmp_path, variables):
    path = tmp_path / "model.npz"
    params.save_params(variables, path)
    template = {
        "params": {"scale": np.zeros(2), "bias": np.zeros(1)},
        "batch_stats": variables["batch_stats"],
    }
    with pytest.raises(ValueError) as error:
        params.load_params(path, template=template)
    for part in ("missing params.bias", "unexpected params.backbone", "(2,), found ()"):
        assert part in str(error.value)


def test_values_too_large_for_the_dtype_are_refused(tmp_path):
    with pytest.raises(ValueError, match="params.w: values too large for float16"):
        params.save_params(
            {"params": {"w": np.full(2, 1e6)}}, tmp_path / "m.npz", dtype="float16"
        )
    assert not list(tmp_path.iterdir())


def test_names_with_dots_are_refused(tmp_path):
    with pytest.raises(ValueError, match="without dots"):
        params.save_params({"a.b": np.zeros(1)}, tmp_path / "m.npz")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_other_values_do_not_fit_the_checksum(tmp_path, suffix):
    """The container's own checks pass: the arrays alone are others."""
    variables = {"params": {"a": np.arange(3.0, dtype=np.float32), "b": np.zeros(2)}}
    right, wrong = tmp_path / f"right{suffix}", tmp_path / f"wrong{suffix}"
    params.save_params(variables, right, metadata={"system": "ikol"})
    header = params.read_metadata(right)
    assert len(header["arrays_sha256"]) == 64
    for change in (
        {"params.a": np.array([0, 1, 3], np.float32), "params.b": np.zeros(2)},
        {"params.a": np.zeros(2), "params.b": np.arange(3.0, dtype=np.float32)},
        {"params.a": np.arange(3.0, dtype=np.float32)},
    ):
        if suffix == ".npz":
            text = json.dumps({**header, "bfloat16": []})
            np.savez(wrong, **change, __metadata__=np.array(text))
        else:
            metadata = {"hmr_jax": json.dumps(header)}
            safetensors.numpy.save_file(change, wrong, metadata)
        with pytest.raises(UserError, match=rf"wrong{suffix}.*checksum"):
            params.load_params(wrong)
    del header["arrays_sha256"]  # as files of earlier versions
    if suffix == ".npz":
        np.savez(wrong, **change, __metadata__=np.array(json.dumps({"bfloat16": []})))
    else:
        safetensors.numpy.save_file(change, wrong, {"hmr_jax": json.dumps(header)})
    np.testing.assert_array_equal(params.load_params(wrong)["params"]["a"], [0, 1, 2])
