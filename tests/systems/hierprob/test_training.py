"""One training step of both stages against the original's loss and gradients."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs.hierprob import get_config
from hmr_jax.body.model import BodyModel
from hmr_jax.convert import convert_checkpoint
from hmr_jax.convert.tables import LAYOUTS
from hmr_jax.losses.reduce import finish
from hmr_jax.systems import hierprob
from hmr_jax.systems.hierprob import checkpoint as tables
from hmr_jax.systems.hierprob import losses
from tests.systems.hierprob.inputs import SEED, load_inputs, load_vectors

pytestmark = pytest.mark.slow
WEIGHTS = {
    f"step{n}": get_config().losses[f"stage{n}"].weights.to_dict() for n in (1, 2)
}
NET = hierprob.HierProbNet(signs="lapack_new", unbiased=True)


@pytest.fixture(scope="module")
def stored(parity_dir):
    return load_vectors(parity_dir, "body")


@pytest.fixture(scope="module")
def inputs(parity_dir, recipe):
    return load_inputs(parity_dir, recipe)


@pytest.fixture(scope="module")
def variables(parity_dir, recipe):
    path = parity_dir / "hierprob" / "manifest_net.json"
    state = recipe.fill_state_dict(json.loads(path.read_text()), SEED)
    return convert_checkpoint(tables.CHECKPOINT, state | tables.CONSTANTS)


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
        extra_joint_regressors={"h36m_17": inputs.regressor_h36m(SEED)},
    )


def targets(inputs, body):
    draw = inputs.uniform("step.vis", SEED, 0, 1, 2, 17)
    batch = {
        "target_pose_rotmats": inputs.rotations("step.pose", SEED, 2, 23),
        "target_global_rotmat": inputs.rotations("step.glob", SEED, 2),
        "target_shape": np.float32(1.25) * inputs.normal("step.beta", SEED, 2, 10),
        "target_joints2d_px": inputs.joints2d("step", SEED, 2, 256),
        "target_joints2d_visible": (draw > 0.2).astype(np.float32),
    }
    batch = {name: jnp.asarray(value) for name, value in batch.items()}
    posed = hierprob.decode(
        {
            "shape_mean": batch["target_shape"],
            "global_rotmat": batch["target_global_rotmat"],
            "pose_mode": batch["target_pose_rotmats"],
            "camera": jnp.ones((2, 3)),
        },
        body,
    )
    names = ("vertices_m", "joints3d_m")
    return batch | {f"target_{name}": posed[name] for name in names}


def loss(params, stats, proxy, batch, body, weights):
    raw, new = NET.apply(
        {"params": params, "batch_stats": stats},
        proxy,
        train=True,
        mutable=["batch_stats"],
    )
    terms = losses.hierprob_losses(
        hierprob.decode(raw, body),
        batch,
        image_size_px=256.0,
        normalizer="published",
        signs="lapack_new",
    )
    total = sum(weights[name] * finish(*term) for name, term in terms.items())
    return total, (raw, new["batch_stats"])


def test_training_step(stored, inputs, variables, body):
    proxy = jnp.asarray(inputs.proxy("net", SEED, 2).transpose(0, 2, 3, 1))
    batch = jax.jit(functools.partial(targets, inputs))(body)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    places = tables.hierprob_table().entries
    names = [str(name) for name in stored["param_names"]]
    for stage, weights in WEIGHTS.items():
        (total, (raw, stats)), grads = step(
            variables["params"], variables["batch_stats"], proxy, batch, body, weights
        )
        np.testing.assert_allclose(total, stored[f"{stage}_loss"], rtol=5e-6)
        flat = flatten_dict({"params": grads})
        ours = {
            name: LAYOUTS[places[name].layout].to_torch(
                np.asarray(flat[places[name].path])
            )
            for name in names
        }
        norms = np.array([np.linalg.norm(g.astype(np.float64)) for g in ours.values()])
        off = np.abs(norms / stored[f"{stage}_gradnorm"] - 1)
        assert off.max() <= 5e-3, names[off.argmax()]
        assert np.median(off) <= 1e-4
        for key, expected in stored.items():
            if key.startswith(f"{stage}_grad:"):
                name = key.split(":")[1]
                limit = 2e-2 if name.endswith("bn1.weight") else 2e-4
                atol = limit * np.abs(expected).max()
                np.testing.assert_allclose(
                    ours[name], expected, rtol=0, atol=atol, err_msg=key
                )
        if stage == "step1":
            check_forward(stored, raw, stats)
            check_adam(stored, variables, ours, places)


def check_forward(stored, raw, stats):
    for name, found in (
        ("F", raw["pose_fisher_matrix"]),
        ("mode", raw["pose_mode"]),
        ("S", np.abs(raw["pose_s"])),
    ):
        expected = stored[f"step_{name}"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5, err_msg=name)
    backbone = stats["backbone"]
    for theirs, found in (
        ("bn1", backbone["bn1"]),
        ("layer4.1.bn2", backbone["layer4_1"]["bn2"]),
    ):
        for kind, name in (("mean", "running_mean"), ("var", "running_var")):
            expected = stored[f"step_buf:image_encoder.{theirs}.{name}"]
            np.testing.assert_allclose(found[kind], expected, rtol=0, atol=1e-5)


def check_adam(stored, variables, gradients, places):
    """The first step of Adam has the gradient's sign, lr times."""
    flat = flatten_dict({"params": variables["params"]})
    for name in ("fc1.bias", "fc_cam.weight"):
        before = np.asarray(flat[places[name].path])
        before = LAYOUTS[places[name].layout].to_torch(before)
        g = gradients[name]
        error = np.abs(before - 1e-4 * g / (np.abs(g) + 1e-8) - stored[f"adam1:{name}"])
        assert np.mean(error <= 2e-6) >= 0.99
        assert error.max() <= 2.1e-4
