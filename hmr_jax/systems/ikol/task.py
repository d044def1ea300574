"""IKOL as a trainable task, from a config."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.evaluation.truth import target_vertices
from hmr_jax.systems.ikol.decode import decode, flip_test
from hmr_jax.systems.ikol.layer import SCHEMES
from hmr_jax.systems.ikol.losses import heatmap_loss, ikol_losses
from hmr_jax.systems.ikol.network import IkolNet
from hmr_jax.systems.ikol.published import EVAL_AUTOGRAD, TRAIN
from hmr_jax.systems.network_arguments import network_values
from hmr_jax.systems.system import Batch, Task, Variables

_EXTENSIONS = ("rotmat", "joints")
_RAW = ("uvd", "twist", "leaf_quaternions", "shape")
_CAMERA = ("crop_to_image", "intrinsics_inv", "root_cam_m")


def make_model(config: Any) -> IkolNet:
    """The network a config's ``model`` section describes.

    Args:
        config: a whole experiment.

    Returns:
        The module; ``sync_batch_norm`` makes its statistics those of all devices.
    """
    values = network_values(config)
    values["deconv_channels"] = tuple(values["deconv_channels"])
    values["mean_betas"] = tuple(values["mean_betas"]) or None
    return IkolNet(**values)


def make_task(config: Any) -> Task:
    """IKOL's network, layer and losses as a task; its assets are the body.

    Args:
        config: a whole experiment (``configs/ikol.py`` lists the fields).

    Returns:
        The task. ``predict`` gives what the evaluator scores, in metres; NaN in all of
        a sample where the network's output or the camera is not finite.
    """
    if config["ik"]["scheme"] not in SCHEMES:
        raise UserError(
            f"config.ik.scheme: expected one of {SCHEMES}, "
            f"found {config['ik']['scheme']!r}"
        )
    model = make_model(config)
    weights = {
        name: float(weight)
        for name, weight in dict(config["losses"]["weights"]).items()
        if weight
    }
    terms = functools.partial(
        ikol_losses,
        align_quaternion_signs=config["losses"]["align_quaternion_signs"],
        extensions=any(name in weights for name in _EXTENSIONS),
    )
    to_body = _decoder(config, TRAIN)
    predict_raw, to_predicted_body = make_predict(config, model)

    def init(rng, batch: Batch) -> Variables:
        # Initialising needs no more than one image.
        images = jnp.asarray(batch["image"][:1])
        return dict(model.init(rng, images, train=False))

    def losses(variables, batch, body, *, train, rngs):
        raw, new = model.apply(
            variables, batch["image"], train=train, rngs=rngs, mutable=["batch_stats"]
        )
        predictions = to_body(
            raw,
            batch,
            body,
            vertices=False,
            layer_mask=batch["has_smpl"][:, 0] > 0,
        )
        values = terms(predictions, batch)
        if "heatmap" in weights:
            values["heatmap"] = heatmap_loss(raw["logits"], batch)
        return values, new["batch_stats"], {}

    def predict(variables, batch, body):
        raw = predict_raw(variables, batch["image"])
        out = to_predicted_body(raw, batch, body)
        # The layer saw the rest pose where these are not finite: no prediction.
        finite = _finite(
            [raw["uvd"], out["pred_joints_m"], *(batch[name] for name in _CAMERA)]
        )
        out = {name: _spoilt(value, finite) for name, value in out.items()}
        return scored(out, batch, body)

    return Task(init, losses, weights, predict)


def _decoder(config: Any, published: Any) -> Callable[..., dict[str, Array]]:
    """``decode`` as a config says, with options of the published scheme."""
    return functools.partial(
        decode,
        image_size_px=config["image_size_px"],
        depth_range_m=config["depth_range_m"],
        scheme=config["ik"]["scheme"],
        gradient_bound=config["ik"]["gradient_bound"],
        options=published if config["ik"]["scheme"] == "published" else None,
    )


def make_predict(config: Any, model: IkolNet) -> tuple[Callable, Callable]:
    """The two halves of a prediction.

    Args:
        config: a whole experiment.
        model: its network.

    Returns:
        ``(variables, images) -> raw`` with the flip test where ``eval.flip_test`` says
        so, NaN in ``uvd`` where an output of the network is not finite; and ``(raw,
        camera, body) -> predictions`` of ``decode``.
    """
    published = config["ik"]["scheme"] == "published"
    flip = config["eval"]["flip_test"]

    def predict_raw(variables, images):
        def apply(images):
            # Merging two passes would hide what is not finite in one of them.
            raw = model.apply(variables, images, train=False)
            finite = _finite(raw[name] for name in _RAW)
            return {**raw, "uvd": _spoilt(raw["uvd"], finite)}

        return flip_test(apply, images, published=published) if flip else apply(images)

    return predict_raw, _decoder(config, EVAL_AUTOGRAD)


def _finite(arrays: Iterable[Array]) -> Bool[Array, "batch"]:
    """Rows in which every array is finite."""
    rows = [jnp.isfinite(x).all(tuple(range(1, x.ndim))) for x in arrays]
    return functools.reduce(jnp.logical_and, rows)


def _spoilt(values: Array, finite: Bool[Array, "batch"]) -> Array:
    """Values with NaN in the rows that are not finite; flags are left alone."""
    if not jnp.issubdtype(values.dtype, jnp.floating):
        return values
    rows = finite.reshape(-1, *(1,) * (values.ndim - 1))
    return jnp.where(rows, values, jnp.nan)


def scored(
    predictions: Mapping[str, jax.Array], batch: Batch, body: BodyModel
) -> dict[str, jax.Array]:
    """Predictions under the names of ``hmr_jax.evaluation``.

    Args:
        predictions: of ``decode``.
        batch: with the labels, where ``target_vertices_m`` is wanted.
        body: the body.

    Returns:
        ``joints_h36m_17_m``, ``joints_smpl_24_m``, ``vertices_m`` and
        ``vertices_cam_m``; with labels also ``target_vertices_m``, in the frame of the
        labelled 17 joints.
    """
    out = {
        "joints_h36m_17_m": predictions["pred_joints_17_m"],
        "joints_smpl_24_m": predictions["pred_joints_struct_m"],
        "vertices_m": predictions["pred_vertices_m"],
        "vertices_cam_m": predictions["pred_vertices_cam_m"],
    }
    if {"pose_aa", "betas", "joints_h36m_cam_m"} <= set(batch):
        out["target_vertices_m"] = target_vertices(
            batch["pose_aa"], batch["betas"], batch["joints_h36m_cam_m"], body
        )
    return out
