"""The whole published network against its stored vectors, from a converted checkpoint.

Tolerances are the README's: 1e-5 of an array's largest entry up to the layer's inputs,
30 times the original's own float32 error behind the layer, 1e-3 and 1e-2 of gradient
norms. The float64 runs are the sharp test.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs.ikol import base
from hmr_jax.body.model import BodyModel
from hmr_jax.convert import convert_checkpoint, read_torch_checkpoint
from hmr_jax.convert.tables import LAYOUTS
from hmr_jax.losses.reduce import finish
from hmr_jax.systems.ikol.checkpoint import CHECKPOINT as IKOL
from hmr_jax.systems.ikol.checkpoint import ikol_table
from hmr_jax.systems.ikol.decode import decode as decode_raw
from hmr_jax.systems.ikol.decode import merge_flipped
from hmr_jax.systems.ikol.losses import ikol_losses
from hmr_jax.systems.ikol.network import IkolNet
from hmr_jax.systems.ikol.published import EVAL_AUTOGRAD, EVAL_EFFICIENT, TRAIN
from tests.conftest import enable_x64
from tests.convert import torch_writer
from tests.systems.ikol.test_losses import published_batch

SEED = 11
SIZE_PX = 256
UNIT_M = 2.0  # the original's joints are in units of two metres
BEFORE_LAYER = {
    "pred_uvd_jts": "pred_uvd",
    "pred_shape": "pred_shape",
    "pred_delta_shape": "pred_delta_shape",
    "pred_phi": "pred_twist",
    "pred_leaf": "pred_leaf_quaternions",
}
BEHIND_LAYER = {
    "pred_xyz_jts_24": ("pred_joints_m", UNIT_M),
    "pred_xyz_jts_24_struct": ("pred_joints_struct_m", UNIT_M),
    "pred_theta_mats": ("pred_quaternions", 1.0),
    "pred_xyz_jts_17": ("pred_joints_17_m", UNIT_M),
    "pred_vertices50": ("pred_vertices_m", 1.0),
}


@pytest.fixture(scope="module")
def stored(parity_dir):
    with np.load(parity_dir / "ikol" / "ikol_net_public.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def state_dict(parity_dir, recipe):
    path = parity_dir / "ikol" / "ikol_state_dict_resnet34.json"
    entries = json.loads(path.read_text())
    names = [name for name in entries if not name.startswith("smpl.")]
    state = recipe.fill_state_dict({n: entries[n]["shape"] for n in names}, SEED)
    state["final_layer.weight"] = state["final_layer.weight"] * np.float32(10)
    state["decshape.weight"] = state["decshape.weight"] * np.float32(0.05)
    return state


@pytest.fixture(scope="module")
def variables(tmp_path_factory, state_dict):
    """Through a file as the original would have written it."""
    path = tmp_path_factory.mktemp("parity") / "model.pth"
    torch_writer.write_zip(path, torch_writer.tensors(state_dict, True))
    return convert_checkpoint(IKOL, read_torch_checkpoint(path))


@pytest.fixture(scope="module")
def body_fields(recipe):
    body = recipe.smpl_like(SEED)
    return {
        "template_m": body["v_template"],
        "shape_dirs_m": body["shapedirs"],
        "pose_dirs_m": body["posedirs"],
        "joint_regressor": body["J_regressor"],
        "skin_weights": body["weights"],
        "faces": body["f"].astype(np.int64) % 6890,
        "parents": tuple(int(p) for p in recipe.SMPL_PARENTS),
        "extra_joint_regressors": {"h36m_17": recipe.h36m_regressor(SEED)},
    }


def images(stored, dtype=np.float32):
    rng = np.random.default_rng([SEED, 2])
    x = rng.standard_normal((2, 3, SIZE_PX, SIZE_PX)).astype(np.float32)
    check = x.reshape(-1)[[0, 1, 2, 100000, 393215]]
    np.testing.assert_array_equal(check, stored["check_image"])
    return jnp.asarray(x.transpose(0, 2, 3, 1), dtype)


def camera(stored, dtype=np.float32):
    """The stored camera in metres: one sample was stored in millimetres."""
    to_m = 2.0 / stored["in_depth_factor"].astype(np.float64)
    fields = {
        "crop_to_image": stored["in_trans_inv"],
        "intrinsics_inv": stored["in_intrinsic_inv"],
        "root_cam_m": stored["in_joint_root"] * to_m,
    }
    return {name: jnp.asarray(value, dtype) for name, value in fields.items()}


def compare(
    found, stored, case, *, before=1e-5, behind=30.0, own_errors=0.0, prefix=""
):
    """Worst error as a multiple of its tolerance, per array; fails above one."""
    worst = {}
    for theirs, ours in BEFORE_LAYER.items():
        expected = stored[f"{case}/{prefix}{theirs}"]
        error = np.abs(np.asarray(found[ours]).reshape(expected.shape) - expected).max()
        own = stored[f"f32err/{case}/{prefix}{theirs}"]
        tolerance = max(before * np.abs(expected).max(), own_errors * own)
        worst[theirs] = error / tolerance
    for theirs, (ours, unit) in BEHIND_LAYER.items():
        if ours not in found:
            continue
        expected = stored[f"{case}/{prefix}{theirs}"]
        array = np.asarray(found[ours])
        array = array[:, ::50] if theirs == "pred_vertices50" else array
        error = np.abs(array.reshape(expected.shape) / unit - expected).max()
        worst[theirs] = error / (behind * stored[f"f32err/{case}/{prefix}{theirs}"])
    bad = {name: ratio for name, ratio in worst.items() if not ratio <= 1}
    assert not bad, f"{case}: multiples of the tolerance {bad}"
    return worst


@pytest.fixture(scope="module")
def raw_pair(stored, variables):
    """Raw outputs for the images and for their mirror images, one compilation."""
    x = images(stored)
    both = jnp.concatenate([x, x[:, :, ::-1]])
    apply = jax.jit(lambda v, x: IkolNet().apply(v, x, train=False))
    raw = apply(variables, both)
    return {k: v[:2] for k, v in raw.items()}, {k: v[2:] for k, v in raw.items()}


def test_stages_of_the_network(stored, raw_pair):
    raw, _ = raw_pair
    nchw = {k: np.moveaxis(np.asarray(v), -1, 1) for k, v in raw.items() if v.ndim == 4}
    found = {
        "feat_avg": raw["pooled"],
        "feat_sub": nchw["features"][:, ::16, ::2, ::2],
        "deconv_sub": nchw["heatmap_features"][:, ::16, ::8, ::8],
        "logits_sub": nchw["logits"][:, ::96, ::8, ::8],
    }
    for name, array in found.items():
        expected = stored[f"mid/{name}"]
        np.testing.assert_allclose(
            array, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name
        )


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("eval_efficient", EVAL_EFFICIENT),
        pytest.param("eval_autograd", EVAL_AUTOGRAD, marks=pytest.mark.slow),
    ],
)
def test_evaluation_and_flip_test(stored, raw_pair, body_fields, case, options):
    body = BodyModel.create(**body_fields)
    merged = merge_flipped(*raw_pair, image_size_px=SIZE_PX, published=True)
    plain = {name: raw_pair[0][name] for name in merged}
    decode = jax.jit(
        functools.partial(
            decode_raw, image_size_px=SIZE_PX, scheme="published", options=options
        )
    )
    compare(decode(plain, camera(stored), body), stored, case)
    compare(decode(merged, camera(stored), body), stored, case, prefix="fliptest_")


def train_step(stored, body, frozen, dtype):
    """The original's training pass: losses, outputs, running statistics, gradients."""
    net = IkolNet(
        dropout_rate=0.0, freeze_batch_norm=frozen, unbiased=True, dtype=dtype
    )
    batch = {k: v.astype(dtype) for k, v in published_batch(stored).items()}

    def loss(params, stats, x, cam, body):
        raw, new = net.apply(
            {"params": params, "batch_stats": stats},
            x,
            train=True,
            mutable=["batch_stats"],
        )
        out = decode_raw(
            raw, cam, body, image_size_px=SIZE_PX, scheme="published", options=TRAIN
        )
        terms = ikol_losses(out, batch, align_quaternion_signs=False)
        means = {name: finish(*term) for name, term in terms.items()}
        weights = base().losses.weights
        total = sum(weights.get(name, 0.0) * mean for name, mean in means.items())
        return total, (means, out, new["batch_stats"])

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def check_training(
    stored, case, result, *, loss_rtol, norm_rtol, before, behind, own_errors=0.0
):
    (total, (means, out, stats)), grads = result
    np.testing.assert_allclose(total, stored[f"{case}/total_loss"][0], rtol=loss_rtol)
    for name in ("beta", "twist", "uvd", "theta"):
        expected = stored[f"{case}/loss_{name}"][0]
        # the pose lies behind the layer: 30 times the original's own error
        own = behind * stored[f"f32err/{case}/loss_{name}"]
        atol = own if name == "theta" else 0
        np.testing.assert_allclose(
            means[name], expected, rtol=loss_rtol, atol=atol, err_msg=name
        )
    worst = compare(
        out, stored, case, before=before, behind=behind, own_errors=own_errors
    )
    flat, table = flatten_dict({"params": grads}), ikol_table(34)
    names = [str(name) for name in stored["param_names"]]
    for row, name in enumerate(names):
        path, layout = table.entries[name]
        gradient = LAYOUTS[layout].to_torch(np.asarray(flat[path], np.float64))
        norm = stored[f"{case}/grad_norm"][row]
        np.testing.assert_allclose(
            np.linalg.norm(gradient), norm, rtol=norm_rtol, err_msg=name
        )
        np.testing.assert_allclose(
            gradient.reshape(-1)[:4],
            stored[f"{case}/grad_first4"][row],
            rtol=0,
            atol=norm_rtol * norm,
            err_msg=name,
        )
    return worst, stats


@pytest.mark.slow
def test_training_with_frozen_statistics(stored, variables, body_fields):
    body = BodyModel.create(**body_fields)
    step = train_step(stored, body, True, jnp.float32)
    result = step(
        variables["params"],
        variables["batch_stats"],
        images(stored),
        camera(stored),
        body,
    )
    check_training(
        stored,
        "train_bnfrozen",
        result,
        loss_rtol=1e-5,
        norm_rtol=1e-3,
        before=1e-5,
        behind=30,
    )


@pytest.mark.slow
def test_training_in_float64(stored, variables, body_fields):
    case = "train_bnbatch"
    with enable_x64():
        body = BodyModel.create(**body_fields, dtype=jnp.float64)
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), variables)
        step = train_step(stored, body, False, jnp.float64)
        x, cam = images(stored, jnp.float64), camera(stored, jnp.float64)
        result = step(wide["params"], wide["batch_stats"], x, cam, body)
        _, stats = check_training(
            stored,
            case,
            result,
            loss_rtol=1e-9,
            norm_rtol=1e-8,
            before=1e-9,
            behind=1.0,
        )
    check_running_statistics(stored, case, stats, rtol=1e-9)


def check_running_statistics(stored, case, stats, rtol):
    places = {
        "preact.bn1": stats["backbone"]["bn1"],
        "preact.layer4.2.bn2": stats["backbone"]["layer4_2"]["bn2"],
        "deconv_layers.7": stats["deconv"]["bn2"],
    }
    for name, found in places.items():
        for theirs, ours in (("running_mean", "mean"), ("running_var", "var")):
            expected = stored[f"{case}/{name}.{theirs}"]
            np.testing.assert_allclose(
                found[ours], expected, rtol=0, atol=rtol * np.abs(expected).max()
            )


@pytest.mark.slow
def test_training_with_batch_statistics(stored, variables, body_fields):
    body = BodyModel.create(**body_fields)
    step = train_step(stored, body, False, jnp.float32)
    result = step(
        variables["params"],
        variables["batch_stats"],
        images(stored),
        camera(stored),
        body,
    )
    _, stats = check_training(
        stored,
        "train_bnbatch",
        result,
        loss_rtol=1e-4,
        norm_rtol=1e-2,
        before=1e-5,
        behind=30,
        # Statistics of two images amplify rounding: the original's own float32 run
        # misses 1e-5 in uvd by a factor of 9 (ours by 35, at 4 times its error).
        own_errors=30,
    )
    check_running_statistics(stored, "train_bnbatch", stats, rtol=1e-5)
