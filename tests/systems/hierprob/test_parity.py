"""The network with converted weights, and its bodies, against stored values."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.forward import regress_joints
from hmr_jax.body.landmarks import face_landmarks
from hmr_jax.body.model import BodyModel
from hmr_jax.convert import convert_checkpoint, read_torch_checkpoint
from hmr_jax.geometry.cameras import perspective_project, to_camera_axes
from hmr_jax.geometry.svd3 import svd3
from hmr_jax.systems import hierprob
from hmr_jax.systems.hierprob.checkpoint import CHECKPOINT
from tests.convert import torch_writer
from tests.systems.hierprob.inputs import SEED, load_inputs, load_vectors

CONSTANTS = {
    "init_glob": np.array([[1, 0, 0, 1, 0, 0]], np.float32),
    "init_cam": np.array([0.9, 0, 0], np.float32),
}


@pytest.fixture(scope="module")
def inputs(parity_dir, recipe):
    return load_inputs(parity_dir, recipe)


@pytest.fixture(scope="module")
def stored(parity_dir):
    return load_vectors(parity_dir, "net")


@pytest.fixture(scope="module")
def variables(tmp_path_factory, parity_dir, recipe, stored):
    """Through a file as the original would have written it."""
    path = parity_dir / "hierprob" / "manifest_net.json"
    shapes = json.loads(path.read_text())
    state = recipe.fill_state_dict(shapes, SEED) | CONSTANTS
    last = {name: np.zeros_like(array) for name, array in state.items()}
    content = {
        "epoch": 295,
        "best_epoch": 290,
        "best_epoch_val_metrics": {"PVE-SC": 0.07, "MPJPE-PA": 0.06},
        "model_state_dict": torch_writer.tensors(last, True),
        "best_model_state_dict": torch_writer.tensors(state, True),
        "optimiser_state_dict": {"state": {}, "param_groups": [{"lr": 1e-4}]},
    }
    path = tmp_path_factory.mktemp("parity") / "weights.tar"
    torch_writer.write_zip(path, content)
    return convert_checkpoint(CHECKPOINT, read_torch_checkpoint(path))


@pytest.fixture(scope="module")
def proxy(inputs, stored):
    x = inputs.proxy("net", SEED, 2)
    wide = x.astype(np.float64)
    sums = [wide.sum(), (wide * wide).sum()]
    np.testing.assert_allclose(sums, stored["input_checksum"], rtol=1e-9)
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def run(variables, proxy, signs):
    net = hierprob.HierProbNet(signs=signs)
    return jax.jit(functools.partial(net.apply, train=False))(variables, proxy)


@pytest.fixture(scope="module")
def modern(variables, proxy):
    return run(variables, proxy, "lapack_new")


def compare(found, expected, tolerances):
    """Worst share of each tolerance; fails above one."""
    shares = {
        name: float(np.abs(np.asarray(found[name]) - expected[name]).max() / tolerance)
        for name, tolerance in tolerances.items()
    }
    bad = {name: share for name, share in shares.items() if not share <= 1}
    assert not bad, f"multiples of the tolerance: {bad}"
    return shares


def published_names(raw, signs):
    """Our output under the names of the stored arrays."""
    factors = svd3(raw["pose_fisher_matrix"], signs)
    return {
        "features": raw["features"],
        "F": raw["pose_fisher_matrix"],
        "U": factors.u,
        "S": factors.s,
        "V": factors.v,
        "mode": raw["pose_mode"],
        "U_proper": raw["pose_u"],
        "S_proper": raw["pose_s"],
        "shape_mean": raw["shape_mean"],
        "shape_std": raw["shape_std"],
        "glob6d": raw["global_rot6d"],
        "cam": raw["camera"],
        "glob_rotmat": raw["global_rotmat"],
    }


TOLERANCES = {
    name: 1e-5
    for name in (
        *("features", "F", "S", "mode", "S_proper", "shape_mean", "shape_std"),
        *("glob6d", "cam", "glob_rotmat"),
    )
} | {"U": 2e-5, "V": 2e-5, "U_proper": 2e-5}


def test_network_with_modern_signs(stored, modern):
    compare(published_names(modern, "lapack_new"), stored, TOLERANCES)


def test_network_with_old_signs(parity_dir, stored, variables, proxy):
    """What the published weights expect."""
    raw = run(variables, proxy, "lapack_old")
    old = load_vectors(parity_dir, "svdsign")
    names = ("F", "U", "S", "V", "mode")
    expected = stored | {name: old[f"net_old_{name}"] for name in names}
    tolerances = {n: t for n, t in TOLERANCES.items() if not n.endswith("_proper")}
    compare(published_names(raw, "lapack_old"), expected, tolerances)
    # the two conventions are far apart
    difference = np.abs(raw["pose_fisher_matrix"] - stored["F"]).max()
    assert difference > 0.1


def test_factors_give_the_parameters_and_the_modes(stored, modern):
    """Independent of signs, from the stored values: U s V^T = F."""
    u, s, v = (np.asarray(modern[f"pose_{name}"], np.float64) for name in "usv")
    product = np.einsum("bjik,bjk,bjlk->bjil", u, s, v)
    np.testing.assert_allclose(product, stored["F"], rtol=0, atol=1e-5)
    mode = np.einsum("bjik,bjlk->bjil", u, v)
    np.testing.assert_allclose(mode, stored["mode"], rtol=0, atol=1e-5)


def test_every_joint_from_its_stored_ancestors(stored, variables):
    """The converted heads in plain numpy: no joint inherits another's signs."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    def elu(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    features = stored["features"].astype(np.float64)
    shape = dense(elu(dense(features, params["fc1"])), params["fc_shape"])
    known = [features, shape, stored["glob6d"], stored["cam"]]
    embedding = elu(dense(np.concatenate(known, -1), params["fc_embed"]))
    for joint, chain in enumerate(hierprob.ancestors(hierprob.BODY_PARENTS)):
        above = [
            stored[name][:, list(chain)].reshape(2, -1)
            for name in ("U_proper", "S_proper", "mode")
        ]
        head = params["pose"][f"joint_{joint}"]
        entries = dense(np.concatenate([embedding, *above], -1), head["hidden"])
        found = dense(elu(entries), head["out"]).reshape(2, 3, 3) + np.eye(3)
        np.testing.assert_allclose(found, stored["F"][:, joint], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def body(recipe, inputs):
    arrays = recipe.smpl_like(SEED)
    return BodyModel.create(
        template_m=arrays["v_template"],
        shape_dirs_m=arrays["shapedirs"],
        pose_dirs_m=arrays["posedirs"],
        joint_regressor=arrays["J_regressor"],
        skin_weights=arrays["weights"],
        faces=arrays["f"].astype(np.int64) % 6890,
        parents=tuple(int(p) for p in recipe.SMPL_PARENTS),
        extra_joint_regressors={
            "extra_9": inputs.regressor_extra(SEED),
            "cocoplus_19": inputs.regressor_cocoplus(SEED),
            "h36m_17": inputs.regressor_h36m(SEED),
        },
    )


def test_body_of_the_mode(parity_dir, inputs, modern, body, optimized):
    expected = load_vectors(parity_dir, "body")
    out = jax.jit(functools.partial(hierprob.decode, reposed=True))(modern, body)
    vertices = out["vertices_m"]
    found = {
        "body_verts_sub": vertices[:, ::97],
        "body_reposed_sub": out["reposed_vertices_m"][:, ::97],
        "body_h36mlsp": out["joints3d_m"],
        "body_coco_flipped": to_camera_axes(out["joints_coco_m"]),
        "body_joints2d_wp": out["joints2d_norm"][:, 0],
        "cam_to_translation": out["camera_translation_m"],
    }
    compare(found, expected, dict.fromkeys(found, 1e-5))
    joints90 = expected["body_joints90"]
    parts = [
        (out["joints_m"], joints90[:, :24]),
        # stored: nose, right eye, left eye, right ear, left ear
        (face_landmarks(body, vertices), joints90[:, [24, 26, 25, 28, 27]]),
        (regress_joints(body, vertices, "extra_9"), joints90[:, 45:54]),
        (regress_joints(body, vertices, "cocoplus_19"), joints90[:, 54:73]),
        (regress_joints(body, vertices, "h36m_17"), joints90[:, 73:]),
    ]
    for ours, theirs in parts:
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    shift = np.array([0, -0.2, 2.5], np.float32)
    cam_t = np.float32(0.1) * inputs.normal("cam_t", SEED, 2, 3) + shift
    np.testing.assert_allclose(cam_t, expected["persp_cam_t"], rtol=0, atol=1e-6)
    intrinsics = jnp.array([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]])
    pixels = perspective_project(
        found["body_coco_flipped"] + cam_t[:, None],
        jnp.broadcast_to(intrinsics, (2, 3, 3)),
    )
    expected_px = expected["body_joints2d_persp"]
    np.testing.assert_allclose(pixels, expected_px, rtol=0, atol=1e-4)
