"""Every config is locked, complete, and describes a step that can be traced."""

import functools
import importlib.util
import json
import pathlib

import jax
import numpy as np
import pytest

from hmr_jax import systems
from hmr_jax.synthetic.proxies import ProxyOptions
from hmr_jax.synthetic.proxy_options import ProxyAugmentation
from hmr_jax.systems.hierprob import task as hierprob_task
from hmr_jax.systems.system import DEVICE_AXIS
from hmr_jax.training import optimizer, parallel, state, step

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
NAMES = sorted(
    path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("common", "ikol")
)
ON_RECORDS = [name for name in NAMES if not name.startswith("hierprob")]


def load(name, arg=None):
    path = CONFIGS / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"configs_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(arg), module


def blank_batch(size, side):
    shapes = {
        "image": (side, side, 3),
        "crop_to_image": (2, 3),
        "intrinsics_inv": (3, 3),
        "root_cam_m": (3,),
        "target_uvd": (24, 3),
        "target_uvd_weight": (24, 3),
        "target_quat": (24, 4),
        "target_quat_weight": (24, 1),
        "target_shape": (10,),
        "target_shape_weight": (1,),
        "target_twist": (23, 2),
        "target_twist_weight": (23, 2),
        "has_smpl": (1,),
        "joints_cam_m": (24, 4),
        "joints_h36m_cam_m": (17, 4),
        "pose_aa": (24, 3),
        "betas": (10,),
        "valid": (),
    }
    return {k: np.zeros((size, *shape), np.float32) for k, shape in shapes.items()}


@pytest.mark.parametrize("arg", [None, "quicktest", "published", "quicktest,published"])
@pytest.mark.parametrize("name", NAMES)
def test_builds_locked_and_as_json(name, arg):
    config, module = load(name, arg)
    assert "hmr-jax train --config=" in module.__doc__
    assert config.is_locked
    with pytest.raises(AttributeError, match="learning_rate"):
        config.optimizer.learnig_rate = 1.0
    json.dumps(config.to_dict())


@pytest.mark.parametrize("name", ON_RECORDS)
def test_every_source_can_be_built(name):
    layouts = pytest.importorskip("data_pipelines.builders.layouts")
    config, _ = load(name)
    assert abs(sum(config.data.sources.values()) - 1.0) < 1e-9
    # A config may leave open what it is evaluated on.
    for source in [*config.data.sources, *filter(None, [config.eval.source])]:
        assert source == "synthetic" or layouts.is_known(source)
    assert config.image_size_px % 32 == 0


def test_unknown_word():
    with pytest.raises(ValueError, match="'quickest'"):
        load("quickstart", "quickest")


def test_published_numbers():
    """specs/ikol.md section 13, both columns."""
    first, _ = load("ikol_pretrain")
    second, _ = load("ikol_finetune")
    for config, rate, epochs, batch in (
        (first, 1e-3, 399, 24),
        (second, 1e-4, 199, 64),
    ):
        assert config.optimizer.name == "adam"
        assert config.optimizer.learning_rate == rate
        assert config.optimizer.factor == 0.1
        assert config.optimizer.boundary_epochs == (50, 120)
        assert config.optimizer.weight_decay == 0.0
        assert config.train.num_epochs == epochs
        assert config.data.batch_size == batch
        assert (config.model.depth, config.image_size_px) == (34, 256)
        assert config.model.depth_bins == 64
        assert config.model.deconv_channels == (256, 256, 256)
        weights = config.losses.weights
        assert (weights.beta, weights.twist, weights.uvd) == (1.0, 0.01, 1.0)
        assert weights.theta == 0.01
    names = ("h36m_hybrik", "mpi_inf_3dhp_hybrik", "coco", "pw3d_hybrik")
    mixture = dict(zip(names, (0.3, 0.1, 0.4, 0.2), strict=True))
    assert first.data.sources.to_dict() == mixture
    mixture = dict(zip(names, (0.3, 0.4, 0.15, 0.15), strict=True))
    assert second.data.sources.to_dict() == mixture


def test_published_numbers_of_hierprob():
    """specs/hierprob.md sections 8 and 17."""
    config, _ = load("hierprob", "published")
    assert (config.optimizer.name, config.optimizer.learning_rate) == ("adam", 1e-4)
    assert (config.optimizer.b1, config.optimizer.b2) == (0.9, 0.999)
    assert config.optimizer.eps == 1e-8
    assert config.optimizer.schedule == "constant"
    assert config.optimizer.clip_global_norm == config.optimizer.weight_decay == 0
    assert (config.train.num_epochs, config.train.stage2_epoch) == (300, 66)
    assert config.data.batch_size == 72
    names = ("pose", "shape", "joints2d", "global_rotmat", "vertices", "joints3d")
    for stage, weights, on in (
        ("stage1", (80, 50, 5000, 5000, 0, 0), "mode"),
        ("stage2", (10, 80, 30000, 5000, 5000, 5000), "mode+samples"),
    ):
        section = config.losses[stage]
        assert section.weights.to_dict() == dict(zip(names, weights, strict=True))
        assert (section.joints2d_on, section.num_samples) == (on, 8)
        assert section.overreg == 1.005
    assert config.losses.normalizer == "published"
    assert (config.model.depth, config.model.width) == (18, 64)
    assert (config.model.embedding, config.model.pose_hidden) == (256, 128)
    options = hierprob_task.proxy_options(config, train=True)
    assert options == ProxyOptions(light_per_image=False, normal_seams=True)
    assert config.train.evaluate_every_epochs == 1
    assert config.eval.best_metric == "PVE-SC+MPJPE-PA"
    assert options.mean_camera_m == (0.0, -0.2, 2.5)


@pytest.mark.parametrize("arg", [None, "quicktest"])
def test_hierprob_options_are_known(arg):
    for name in ("hierprob", "hierprob_cpu"):
        config, _ = load(name, arg)
        hierprob_task.proxy_options(config, train=True)
        clean = hierprob_task.proxy_options(config, train=False).augmentation
        assert (clean == ProxyAugmentation.none()) == (name == "hierprob_cpu")
        assert len(hierprob_task.make_task(config, "stage1").weights) == 4
    with config.unlocked():
        config.data.synthetic.augmentation.swaps = 1.0
    with pytest.raises(ValueError, match="config.data.synthetic.augmentation: .*swaps"):
        hierprob_task.proxy_options(config, train=True)


@pytest.mark.parametrize(
    ("name", "arg"), [("quickstart", None), ("ikol_finetune", "published")]
)
def test_step_can_be_traced(name, arg, tiny_body):
    config, _ = load(name, arg)
    task = systems.get(config.system).task(config)
    tx, _ = optimizer.from_config(
        config.optimizer.to_dict(), total_steps=1000, steps_per_epoch=10
    )
    batch = blank_batch(2, config.image_size_px)
    start = jax.eval_shape(
        functools.partial(state.init_state, task, tx), jax.random.key(0), batch
    )
    mapped = parallel.map_step(
        functools.partial(
            step.step, task=task, tx=tx, axis_name=DEVICE_AXIS, accumulate=1
        ),
        devices=jax.devices()[:1],
    )
    batch = jax.tree.map(lambda x: x[None], batch)
    after, metrics = jax.eval_shape(mapped, start, batch, jax.random.key(1), tiny_body)
    assert jax.tree.map(np.shape, after.params) == jax.tree.map(np.shape, start.params)
    assert {"total", "uvd", "theta", "beta", "twist"} <= set(metrics)
