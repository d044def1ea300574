"""Hierarchical pose and shape distributions as a trainable task, from a config."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hmr_jax.errors import UserError
from hmr_jax.nn.proxy import NUM_CHANNELS, resized_representation
from hmr_jax.sample_keys import keys_of_rows
from hmr_jax.synthetic.pose_law import PoseLaw
from hmr_jax.synthetic.proxies import (
    ProxyAssets,
    ProxyOptions,
    make_batch,
)
from hmr_jax.synthetic.proxy_options import ProxyAugmentation
from hmr_jax.systems import hierprob
from hmr_jax.systems.hierprob.losses import NAMES, hierprob_losses
from hmr_jax.systems.network_arguments import network_values
from hmr_jax.systems.system import Batch, Task, Variables

JOINTS2D_ON = ("mode", "samples", "mode+samples")
STAGES = ("stage1", "stage2")


def make_model(config: Any) -> hierprob.HierProbNet:
    """The network a config's ``model`` section describes.

    Args:
        config: a whole experiment.

    Returns:
        The module; ``sync_batch_norm`` makes its statistics those of all devices.

    Raises:
        UserError: a field's value is none of those that are known.
    """
    values = network_values(config)
    values["hidden"] = values["hidden"] or None
    return hierprob.HierProbNet(**values)


def proxy_options(config: Any, *, train: bool) -> ProxyOptions:
    """How a config's training or validation pictures are made.

    Args:
        config: a whole experiment.
        train: else as ``eval.synthetic`` changes it.

    Returns:
        The options.

    Raises:
        UserError: an unknown field, or a value that makes no sense.
    """
    where = "config.data.synthetic" if train else "config.eval.synthetic"
    section = dict(config["data"]["synthetic"])
    changes = {} if train else dict(config["eval"]["synthetic"])
    parts = {"augmentation": ProxyAugmentation, "poses": PoseLaw}
    for name, kind in parts.items():
        values = dict(section[name]) | dict(changes.pop(name, {}))
        values = {k: _plain(v) for k, v in values.items()}
        section[name] = _made(kind, values, f"{where}.{name}")
    section |= changes
    if not section.pop("augment"):
        section["augmentation"] = ProxyAugmentation.none()
    values = {k: _plain(v) for k, v in section.items()}
    values["image_size_px"] = config["image_size_px"]
    return _made(ProxyOptions, values, where)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _made(kind: Any, values: Mapping[str, Any], where: str) -> Any:
    try:
        return kind(**values)
    except (TypeError, UserError) as error:  # a field of the wrong kind, or value
        raise UserError(f"{where}: {error}") from error


def _check_losses(section: Any, where: str) -> None:
    """Refuse a stage's losses that would only fail when that stage begins."""
    if section["joints2d_on"] not in JOINTS2D_ON:
        raise UserError(
            f"{where}.joints2d_on: expected one of {JOINTS2D_ON}, "
            f"found {section['joints2d_on']!r}"
        )
    if section["num_samples"] < 1:
        raise UserError(
            f"{where}.num_samples: expected at least 1, found {section['num_samples']}"
        )
    unknown = sorted(set(dict(section["weights"])) - set(NAMES))
    if unknown:
        raise UserError(
            f"{where}.weights: expected names of {sorted(NAMES)}, found {unknown}"
        )


def proxy_of(batch: Batch, image_size_px: int) -> jax.Array:
    """What the network sees of pictures and joints in them.

    Args:
        batch: ``image`` [B, size, size, 3] in [0, 1], ``joints2d_px`` [B, 17, 2] and
            ``joints2d_visible`` [B, 17].
        image_size_px: side of the pictures; heatmaps are as wide as in training.
    """
    image, joints = batch["image"], batch["joints2d_px"]
    visible = batch["joints2d_visible"]
    return resized_representation(image, joints, visible, image_size_px)[2]


def make_task(config: Any, stage: str = "stage2") -> Task:
    """One stage of the training; its assets are ``ProxyAssets``.

    Args:
        config: a whole experiment (``configs/hierprob.py`` lists the fields).
        stage: ``stage1`` or ``stage2``, whose section of ``losses`` counts. Both
            predict the same.

    Returns:
        The task. ``prepare`` renders the batch; ``predict`` gives ``decode``'s
        predictions of batches that ``proxy_of`` takes, with the body as its assets.

    Raises:
        UserError: a field's value is none of those that are known.
    """
    if stage not in STAGES:
        raise UserError(f"stage: expected one of {STAGES}, got {stage!r}")
    model = make_model(config)
    options = proxy_options(config, train=True)
    for name in STAGES:
        _check_losses(config["losses"][name], f"config.losses.{name}")
    section = config["losses"][stage]
    weights = {k: float(v) for k, v in dict(section["weights"]).items() if v}
    joints2d_on, num_samples = section["joints2d_on"], section["num_samples"]
    terms = functools.partial(
        hierprob_losses,
        overreg=section["overreg"],
        normalizer=config["losses"]["normalizer"],
        signs=config["model"]["signs"],
        image_size_px=float(config["image_size_px"]),
    )

    def init(rng, batch: Batch) -> Variables:
        del batch
        size = config["image_size_px"]
        proxy = jnp.zeros((1, size, size, NUM_CHANNELS), jnp.float32)
        return dict(model.init(rng, proxy, train=False))

    def prepare(rng, batch, assets: ProxyAssets) -> Batch:
        made = make_batch(rng, batch, assets, options)
        rows = {name: batch[name] for name in ("batch_row",) if name in batch}
        return {**made, **rows}

    def losses(variables, batch, assets: ProxyAssets, *, train, rngs):
        raw, new = model.apply(
            variables, batch["proxy"], train=train, mutable=["batch_stats"]
        )
        predictions = hierprob.decode(raw, assets.body)
        if joints2d_on != "mode":
            keys = rngs["dropout"]
            if "batch_row" in batch:
                keys = keys_of_rows(rngs["samples"], batch["batch_row"])
            samples = hierprob.decode_samples(keys, raw, assets.body, num_samples)[
                "sample_joints2d_norm"
            ]
            parts = [predictions["joints2d_norm"], samples]
            predictions["joints2d_norm"] = jnp.concatenate(
                parts if joints2d_on == "mode+samples" else parts[1:], 1
            )
        return terms(predictions, batch), new["batch_stats"], {}

    def predict(variables, batch, body):
        seen = proxy_of(batch, config["image_size_px"])
        raw = model.apply(variables, seen, train=False)
        return hierprob.decode(raw, body)

    return Task(init, losses, weights, predict, prepare)
