import contextlib
import json
import shutil

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import safetensors.numpy

from hmr_jax.errors import UserError
from hmr_jax.export import stablehlo
from hmr_jax.systems.ikol.decode import decode
from hmr_jax.systems.ikol.network import IkolNet
from tests.systems.ikol.test_network import (
    SIZE_PX,
    TINY,
    make_batch,
    random_variables,
    rest_uvd,
)

NET = IkolNet(**TINY)


def predict(variables, batch, body):
    raw = NET.apply(variables, batch["image"], train=False)
    raw["uvd"] = rest_uvd(body)[None] + 0.05 * raw["uvd"]
    out = decode(raw, batch, body, image_size_px=SIZE_PX)
    return {"vertices_m": out["pred_vertices_m"], "betas": out["pred_shape"]}


INPUTS = {
    "image": (SIZE_PX, SIZE_PX, 3),
    "crop_to_image": (2, 3),
    "intrinsics_inv": (3, 3),
    "root_cam_m": (3,),
}


@contextlib.contextmanager
def unchecked_shapes():
    """Jaxtyping cannot compare symbolic sizes; outside the tests it is never active."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, tiny_body):
    """One export for the file: with and without the body."""
    variables = random_variables(NET)
    folder = tmp_path_factory.mktemp("export") / "bundle"
    with unchecked_shapes():
        stablehlo.export_program(
            predict, variables, tiny_body, INPUTS, folder, metadata={"system": "ikol"}
        )
    return folder, variables


def inputs(samples):
    rng = np.random.default_rng(samples)
    image = rng.standard_normal((samples, SIZE_PX, SIZE_PX, 3)).astype(np.float32)
    return {"image": image, **make_batch(samples)}


def test_reloaded_program_equals_the_model_at_any_batch_size(bundle, tiny_body):
    folder, variables = bundle
    model = stablehlo.load_exported(folder)
    direct = jax.jit(predict)(
        variables, {k: jnp.asarray(v) for k, v in inputs(3).items()}, tiny_body
    )
    found = model(**inputs(3))
    for name, value in direct.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)
    assert model(**inputs(1))["vertices_m"].shape == (1, 60, 3)


def test_manifest_describes_inputs_and_outputs(bundle):
    folder, _ = bundle
    manifest = json.loads((folder / stablehlo.MANIFEST).read_text())
    assert manifest["inputs"]["image"] == ["b", SIZE_PX, SIZE_PX, 3]
    assert manifest["outputs"]["vertices_m"] == {
        "shape": ["b", 60, 3],
        "dtype": "float32",
    }
    assert manifest["metadata"] == {"system": "ikol"}
    assert "variables.params.backbone.conv1.kernel" in manifest["weights"]
    # the weights are arguments, not constants of the program
    assert (folder / stablehlo.PROGRAM).stat().st_size < 2_000_000


def test_wrong_inputs_name_the_field(bundle):
    model = stablehlo.load_exported(bundle[0])
    good = inputs(2)
    with pytest.raises(ValueError, match="expected .*'root_cam_m'.*got"):
        model(image=good["image"])
    with pytest.raises(ValueError, match="expected shape"):
        model(**{**good, "image": good["image"][:, :32]})
    with pytest.raises(ValueError, match="expected shape"):
        model(**{**good, "image": good["image"][:1]})


def test_damaged_bundles_are_refused(bundle, tmp_path):
    source, _ = bundle
    contents = {p.name: p.read_bytes() for p in source.iterdir()}

    def damaged(name, cut):
        folder = tmp_path / f"{name}{cut}"
        folder.mkdir()
        for other, data in contents.items():
            (folder / other).write_bytes(data[:cut] if other == name else data)
        return folder

    with pytest.raises(ValueError, match=r"program\.bin is damaged"):
        stablehlo.load_exported(damaged(stablehlo.PROGRAM, 500))
    with pytest.raises(ValueError, match="damaged"):
        stablehlo.load_exported(damaged(stablehlo.WEIGHTS, 500))
    with pytest.raises(ValueError, match="damaged"):
        stablehlo.load_exported(damaged(stablehlo.MANIFEST, 50))
    with pytest.raises(FileNotFoundError, match=r"manifest\.json"):
        stablehlo.load_exported(tmp_path)


def test_a_body_may_be_left_out(tiny_body, tmp_path):
    stablehlo.export_program(
        lambda variables, batch, body: {
            "t": batch["root_cam_m"] + body.template_m[0][None]
        },
        {"params": {"w": np.zeros(2, np.float32)}},
        tiny_body,
        INPUTS | {"image": (32, 32, 3)},
        tmp_path / "bare",
        include_body=False,
    )
    with pytest.raises(ValueError, match="holds no body; pass 'body'"):
        stablehlo.load_exported(tmp_path / "bare")
    model = stablehlo.load_exported(tmp_path / "bare", body=tiny_body)
    batch = {**make_batch(2), "image": np.zeros((2, 32, 32, 3))}
    np.testing.assert_allclose(
        model(**batch)["t"], batch["root_cam_m"] + tiny_body.template_m[0][None]
    )
    bigger = type(tiny_body).create(
        template_m=np.zeros((61, 3)),
        shape_dirs_m=np.zeros((61, 3, 10)),
        pose_dirs_m=np.zeros((61, 3, 207)),
        joint_regressor=np.zeros((24, 61)),
        skin_weights=np.zeros((61, 24)),
        faces=np.zeros((40, 3), int),
        parents=tiny_body.parents,
        extra_joint_regressors={"h36m_17": np.zeros((17, 61))},
    )
    with pytest.raises(ValueError, match=r"body\.\w+: expected shape"):
        stablehlo.load_exported(tmp_path / "bare", body=bigger)


def test_other_weights_do_not_fit_the_checksum(bundle, tmp_path):
    folder, _ = bundle
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    stored = safetensors.numpy.load_file(copy / stablehlo.WEIGHTS)
    name = sorted(stored)[0]
    stored[name] = stored[name] + 1
    safetensors.numpy.save_file(stored, copy / stablehlo.WEIGHTS)
    with pytest.raises(UserError, match=r"copy: weights\.safetensors.*checksum"):
        stablehlo.load_exported(copy)
