"""Both stages as tasks: what trains, what stands still, what is predicted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hmr_jax.errors import UserError
from hmr_jax.systems.i2l_meshnet import evaluate, joints, losses, system
from hmr_jax.systems.i2l_meshnet.data import _with_camera
from hmr_jax.systems.i2l_meshnet.task import make_task
from hmr_jax.training import state, step
from tests.systems.i2l_meshnet.test_joints import files, of_file

__all__ = ["files"]
COUNT, SIDE = 4, 32


def made(files, name="lixel", **changes):
    small = {"image_size_px": SIDE, "model.width": 4, "train.stage": name}
    small |= {"model.sync_batch_norm": False}  # the steps here are not mapped
    small |= {"model.deconv_channels": (4, 4, 4), "model.hidden": (8, 6)}
    return of_file(files, **(small | changes))


def labelled_batch(seed=0):
    """Bodies before a camera, all in the crop, as the transform gives them."""
    rng = np.random.default_rng(seed)
    camera = np.array([[40.0, 0, 16], [0, 40, 16], [0, 0, 1]])
    tiled = lambda x: np.tile(x, (COUNT, *[1] * np.ndim(x)))  # noqa: E731
    batch = {
        "image": rng.random((COUNT, SIDE, SIDE, 3)),
        "intrinsics": tiled(camera),
        "image_to_crop": tiled(np.eye(2, 3)),
        "crop_to_image": tiled(np.eye(2, 3)),
        "extrinsics": tiled(np.eye(4)),
        "flipped": np.zeros(COUNT),
        "turn_rad": np.zeros(COUNT),
        "image_width_px": np.full(COUNT, SIDE),
        "pose_aa": 0.2 * rng.standard_normal((COUNT, 24, 3)),
        "betas": rng.standard_normal((COUNT, 10)),
        "translation_m": rng.uniform(-0.1, 0.1, (COUNT, 3)) + [0, 0, 4],
        "translation_world_m": np.zeros((COUNT, 3)),
        "has_smpl": np.ones((COUNT, 1)),
        "is_3d": np.ones((COUNT, 1)),
        "root_depth_m": np.zeros(COUNT),
        "orig_joint_img": rng.uniform(0, 8, (COUNT, 29, 3)),
        "orig_joint_cam_m": 0.3 * rng.standard_normal((COUNT, 29, 3)),
        "orig_joint_valid": np.ones((COUNT, 29, 1)),
        "orig_joint_trunc": np.ones((COUNT, 29, 1)),
        "fit_check_cam_m": np.zeros((COUNT, 17, 4)),
        "valid": np.ones(COUNT),
    }
    return {k: np.asarray(v, np.float32) for k, v in batch.items()}


def one_step(config, seed=0):
    task, body = make_task(config), joints.joint_body(config)
    tx = optax.sgd(0.1)
    start = jax.jit(functools.partial(state.init_state, task, tx))(
        jax.random.key(0), labelled_batch()
    )
    run = jax.jit(functools.partial(step.step, task=task, tx=tx))
    after, metrics = run(start, labelled_batch(seed), jax.random.key(1), body)
    return start, after, jax.device_get(metrics)


def moved(before, after):
    """Parts of the network in which anything changed."""
    return {
        part
        for part in before
        if any(
            np.any(a != b)
            for a, b in zip(
                *map(jax.tree.leaves, (before[part], after[part])), strict=True
            )
        )
    }


def test_first_stage_trains_everything(files):
    start, after, metrics = one_step(made(files))
    parts = {"pose_backbone", "pose_net", "pose2feat", "mesh_backbone", "mesh_net"}
    assert moved(start.params, after.params) == parts
    assert moved(start.batch_stats, after.batch_stats) == parts
    assert set(losses.LIXEL) <= set(metrics)
    mean = {name: metrics[name][0] / metrics[name][1] for name in losses.LIXEL}
    total = sum(mean.values()) - 0.9 * mean["mesh_normal"]
    np.testing.assert_allclose(metrics["total"][0], total, rtol=1e-5)
    assert all(np.isfinite(value) and value > 0 for value in mean.values())


@pytest.mark.parametrize("published", [False, True])
def test_second_stage_trains_its_head_alone(files, published):
    changes = {"train.update_lixel_statistics": published}
    start, after, metrics = one_step(made(files, "param", **changes))
    assert moved(start.params, after.params) == {"param_regressor"}
    statistics = moved(start.batch_stats, after.batch_stats)
    assert statistics == (set(start.batch_stats) if published else {"param_regressor"})
    assert all(metrics[name][0] > 0 for name in losses.PARAM)


def test_a_batch_without_any_label(files):
    """Nothing to learn from: no loss, no gradient, nothing that is not finite."""
    config = made(files)
    task, body = make_task(config), joints.joint_body(config)
    batch = labelled_batch()
    for name in ("has_smpl", "is_3d", "orig_joint_valid", "orig_joint_trunc"):
        batch[name] = np.zeros_like(batch[name])
    tx = optax.sgd(0.1)
    start = jax.jit(functools.partial(state.init_state, task, tx))(
        jax.random.key(0), batch
    )
    run = jax.jit(functools.partial(step.step, task=task, tx=tx))
    after, metrics = run(start, batch, jax.random.key(1), body)
    assert metrics["total"][0] == metrics["grad_norm"][0] == 0
    assert moved(start.params, after.params) == set()


@pytest.fixture(scope="module")
def predicted(files):
    """Of the second stage, with batches as the evaluation has them."""
    config = made(files, "param")
    task, body = make_task(config), joints.joint_body(config)
    batch = dict(_with_camera(config, body, labelled_batch()))
    variables = task.init(jax.random.key(0), batch)
    return config, body, batch, jax.jit(task.predict)(variables, batch, body)


def test_depths_come_from_the_labelled_body_where_none_is_given(predicted):
    config, body, batch, out = predicted
    ends = joints.ends_of(config, body.num_vertices)
    truth = evaluate.truth(config, body, ends, batch)
    np.testing.assert_allclose(batch["root_depth_m"], 4, atol=1.0)
    np.testing.assert_allclose(out["target_vertices_m"], truth["vertices_m"], atol=1e-5)
    given = labelled_batch() | {"root_depth_m": np.full(COUNT, 7, np.float32)}
    kept = _with_camera(config, body, given)["root_depth_m"]
    np.testing.assert_array_equal(kept, 7)
    nothing = labelled_batch() | {"has_smpl": np.zeros((COUNT, 1), np.float32)}
    nothing["sample_index"] = np.arange(COUNT) + 30
    with pytest.raises(UserError, match="found neither in record 30.*rootnet"):
        _with_camera(config, body, nothing)


def test_both_meshes_are_predicted(predicted):
    _, body, batch, out = predicted
    for name in ("vertices_m", "vertices_cam_m", "param_vertices_m"):
        assert out[name].shape == (COUNT, body.num_vertices, 3)
        assert np.isfinite(out[name]).all()
    h36m = np.asarray(body.extra_joint_regressors["h36m_17"])
    for branch in ("", "param_"):
        expected = np.einsum("jv,bvc->bjc", h36m, out[f"{branch}vertices_m"])
        found = out[f"{branch}joints_h36m_17_m"]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    # The parameters' body has its root where the heat maps have it, in the picture.
    rows = np.asarray(body.extra_joint_regressors["i2l_smpl_29"])[:1]
    root = np.einsum("jv,bvc->bjc", rows, out["param_vertices_m"])[:, 0]
    np.testing.assert_allclose(root[:, 2], batch["root_depth_m"], atol=1e-4)


def test_truth_is_of_the_dataset_where_it_has_all_joints(predicted):
    config, body, batch, _ = predicted
    ends = joints.ends_of(config, body.num_vertices)
    own = np.random.default_rng(1).random((COUNT, 17, 4)).astype(np.float32)
    own[..., 3] = 1
    own[1, 3, 3] = 0  # one joint is missing: the body's own are taken
    found = evaluate.truth(config, body, ends, {**batch, "fit_check_cam_m": own})
    plain = evaluate.truth(config, body, ends, batch)
    name = "joints_h36m_17_m"
    np.testing.assert_array_equal(found[name][1], plain[name][1])
    # The pelvis is the first in both orders; right and left legs change places.
    np.testing.assert_array_equal(found[name][0, 0], own[0, 0, :3])
    assert not np.allclose(found[name][0], plain[name][0])


def test_protocols_of_both_branches(files):
    assert evaluate.protocols_of(made(files)) == ("pw3d_14", "pve")
    both = ("pw3d_14", "pve", "pw3d_14_param", "pve_param")
    assert evaluate.protocols_of(made(files, "param")) == both
    assert evaluate.protocols_of(made(files), ("pve",)) == ("pve",)


def test_what_a_config_gets_wrong_is_named(files):
    with pytest.raises(UserError, match="train.stage: .*'both'"):
        make_task(made(files, "both"))
    with pytest.raises(UserError, match="config.start: expected workdir or params"):
        system.stages(made(files, "param"), 1, 2)
    with pytest.raises(UserError, match="weights.lixel: .*mesh_fot"):
        wrong = made(files)
        with wrong.unlocked():
            wrong.losses.weights.lixel.mesh_fot = 1.0
        make_task(wrong)
    with pytest.raises(UserError, match="deconv_channels: expected 3"):
        make_task(made(files, **{"model.deconv_channels": (4, 4)}))


def test_published_numbers():
    """Sections 2, 8 and 9 of the specification."""
    from tests.test_configs import load

    runs = {
        "i2l_lixel": (1e-4, 26, (20, 24)),
        "i2l_param": (1e-4, 10, (4, 8)),
        "i2l_freihand_lixel": (1e-4, 25, (17, 21)),
        "i2l_freihand_param": (1e-5, 5, (1,)),
    }
    for name, (rate, epochs, boundaries) in runs.items():
        found, _ = load(name, "published")
        assert found.optimizer.name == "adam"
        assert found.optimizer.learning_rate == rate
        assert found.optimizer.boundary_epochs == boundaries
        assert (found.optimizer.factor, found.optimizer.weight_decay) == (0.1, 0)
        assert found.train.num_epochs == epochs
        assert found.data.batch_size == 64
        assert found.image_size_px == 256
        assert (found.model.depth, found.model.width) == (50, 64)
        assert found.model.sigma == 2.5
        assert found.depth_range_m == (0.3 if "freihand" in name else 2.0)
        assert found.train.update_lixel_statistics
        assert found.losses.weights.lixel.mesh_normal == 0.1
        assert not found.model.sync_batch_norm


def test_people_find_the_depth_at_which_bones_are_as_long(files):
    """Predictions are laid where their own heat maps are in the crop."""
    from hmr_jax.systems.i2l_meshnet.people import people
    from hmr_jax.systems.system import Seen

    made_config = made(files, "param")
    task, body = make_task(made_config), joints.joint_body(made_config)
    variables = task.init(jax.random.key(0), labelled_batch())
    side, count = 48, 2
    camera = np.array([[300.0, 0, 120], [0, 300, 90], [0, 0, 1]])
    affine = np.array([[0.5, 0, 100], [0, 0.5, 60]])
    seen = Seen(
        jnp.asarray(
            np.random.default_rng(0).random((count, side, side, 3)), jnp.float32
        ),
        jnp.asarray(np.tile(affine, (count, 1, 1)), jnp.float32),
        jnp.asarray(np.tile(np.linalg.inv(camera), (count, 1, 1)), jnp.float32),
        None,
        None,
        None,
    )
    out = jax.jit(people(made_config, {}))(variables, body, seen)
    assert out["joints2d_crop_px"].shape == (count, 24, 2)
    assert out["param_vertices_m"].shape == out["vertices_m"].shape
    assert ((out["joints2d_crop_px"] > 0) & (out["joints2d_crop_px"] < side)).all()
    np.testing.assert_allclose(out["joints_m"][:, 0], 0, atol=1e-5)
    pixels = np.einsum("ij,bj->bi", camera, out["root_cam_m"])
    crop = (pixels[:, :2] / pixels[:, 2:] - affine[:, 2]) / 0.5
    np.testing.assert_allclose(crop, out["joints2d_crop_px"][:, 0], atol=1e-2)
