"""Every number of a config that makes no sense is refused by name."""

import pathlib

import pytest

from hmr_jax.errors import UserError
from hmr_jax.training import settings

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for path in (ROOT / "configs").glob("*.py")
    if path.name not in ("__init__.py", "common.py", "ikol.py")
)


def config_of(name):
    import importlib

    return importlib.import_module(f"configs.{name}").get_config("").to_dict()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_our_own_configs_pass(path):
    settings.check(config_of(path.stem))


def changed(config, field, value):
    *parents, last = field.split(".")
    section = config
    for name in parents:
        section = section[name]
    section[last] = value
    return config


WRONG = [
    ("quickstart", "seed", -1),
    ("quickstart", "image_size_px", 100),
    ("quickstart", "optimizer.learning_rate", -1e-3),
    ("quickstart", "optimizer.learning_rate", float("nan")),
    ("quickstart", "optimizer.b1", 1.0),
    ("quickstart", "train.log_every", 0),
    ("quickstart", "train.keep_latest", 0),
    ("quickstart", "train.keep_latest", -1),
    ("quickstart", "train.accumulate", 0),
    ("quickstart", "train.checkpoint_every", -1),
    ("quickstart", "data.batch_size", 0),
    ("quickstart", "data.num_threads", -2),
    ("quickstart", "eval.batch_size", 0),
    ("quickstart", "eval.limit", -1),
    ("quickstart", "model.dropout_rate", 1.0),
    ("quickstart", "losses.weights.uvd", float("inf")),
    ("quickstart", "data.sources.synthetic", -0.5),
    ("quickstart", "model.deconv_channels", (256, 0)),
    ("hierprob", "train.stage2_epoch", -1),
    ("hierprob", "losses.stage2.num_samples", 0),
    ("hierprob", "eval.textures.suit_share", 1.5),
    ("hierprob", "data.poses.stride", 0),
]


@pytest.mark.parametrize(("name", "field", "value"), WRONG)
def test_what_makes_no_sense_is_named(name, field, value):
    config = changed(config_of(name), field, value)
    with pytest.raises(UserError, match=rf"config\.{field}.*: expected .*, found"):
        settings.check(config)


def test_every_range_is_a_field_of_some_config():
    configs = [config_of(path.stem) for path in CONFIGS]

    def is_there(config, field):
        return settings._of(config, field) is not None

    unknown = [f for f in settings.RANGES if not any(is_there(c, f) for c in configs)]
    assert unknown == []
