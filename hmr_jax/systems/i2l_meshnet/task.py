"""I2L-MeshNet's two stages as trainable tasks, from a config."""

import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from hmr_jax.body.forward import regress_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.systems.bodies import load_body, load_hand
from hmr_jax.systems.i2l_meshnet import decode, losses
from hmr_jax.systems.i2l_meshnet.joints import (
    NUM_ENDS,
    Ends,
    ends_of,
    joint_set_of,
)
from hmr_jax.systems.i2l_meshnet.network import I2lMeshNet
from hmr_jax.systems.i2l_meshnet.targets import i2l_targets, posed_fit
from hmr_jax.systems.network_arguments import network_values
from hmr_jax.systems.system import Batch, Task, Variables

STAGES = tuple(losses.NAMES)
HEAD = "param_regressor"
_HEATMAP_STRIDE_PX = 4
_LABELS = ("pose_aa", "betas", "translation_m", "intrinsics", "image_to_crop")


class Sizes(NamedTuple):
    """What of a body the network is told.

    Attributes:
        vertices: of the mesh.
        rotations: joints that turn.
        joints: of the network.
        betas: shape coefficients.
    """

    vertices: int
    rotations: int
    joints: int
    betas: int


_SIZES: dict[str, Sizes] = {}
"""Of bodies that were read, by their section of a config."""


def sizes(config: Any) -> Sizes:
    """Those of a config's body, which is read once."""
    section, hand = config["body"], bool(config["hand"])
    fields = [section[name] for name in ("path", "gender", "h36m_regressor")]
    key = json.dumps([*fields, hand])
    if key not in _SIZES:
        body = load_hand(config) if hand else load_body(config)
        joints = body.num_joints + NUM_ENDS
        found = Sizes(body.num_vertices, body.num_joints, joints, body.num_betas)
        _SIZES[key] = found
    return _SIZES[key]


def stage_of(config: Any) -> str:
    """The stage that a config trains.

    Raises:
        UserError: there is no such stage.
    """
    stage = config["train"]["stage"]
    if stage not in STAGES:
        raise UserError(
            f"config.train.stage: expected one of {STAGES}, found {stage!r}"
        )
    return stage


def make_model(config: Any) -> I2lMeshNet:
    """The network a config's ``model`` section describes, for its body.

    Args:
        config: a whole experiment.

    Returns:
        The module; ``sync_batch_norm`` makes its statistics those of all devices.

    Raises:
        UserError: a field's value is none of those that are known.
    """
    values = network_values(config)
    for name in ("deconv_channels", "hidden"):
        values[name] = tuple(values[name])
    if len(values["deconv_channels"]) != 3:
        raise UserError(
            "config.model.deconv_channels: expected 3 numbers (a 32nd of the side "
            f"becomes a quarter), found {list(values['deconv_channels'])}"
        )
    of_body = sizes(config)
    return I2lMeshNet(
        num_joints=of_body.joints,
        num_vertices=of_body.vertices,
        num_rotations=of_body.rotations,
        num_betas=of_body.betas,
        parameters=stage_of(config) == "param",
        cells=cells_of(config),
        **values,
    )


def cells_of(config: Any) -> int:
    """Cells of each axis of the heat maps."""
    return config["image_size_px"] // _HEATMAP_STRIDE_PX


def space_of(config: Any) -> dict[str, Any]:
    """The space of the heat maps, as ``to_camera`` and ``i2l_targets`` take it."""
    return {
        "heatmap_size": cells_of(config),
        "image_size_px": config["image_size_px"],
        "depth_range_m": config["depth_range_m"],
    }


def make_task(config: Any) -> Task:
    """The stage that a config trains; its assets are the body of ``joint_body``.

    Args:
        config: a whole experiment (``configs/i2l_lixel.py`` lists the fields).

    Returns:
        The task. ``prepare`` makes the targets; ``predict`` gives what is scored.

    Raises:
        UserError: a field's value is none of those that are known.
    """
    stage, model = stage_of(config), make_model(config)
    hand, joint_set = bool(config["hand"]), joint_set_of(config)
    ends = ends_of(config, sizes(config).vertices)
    weights = _weights(config, stage)
    update = bool(config["train"]["update_lixel_statistics"])
    targets: Callable[..., dict[str, Array]] = functools.partial(
        i2l_targets,
        hand=hand,
        joint_vertices=ends.posed,
        published_pelvis=config["data"]["published_labels"],
        check_fits=config["data"]["check_fits"],
        **space_of(config),
    )

    def init(rng, batch: Batch) -> Variables:
        images = jnp.asarray(batch["image"][:1])
        rows = jnp.zeros((model.num_joints, model.num_vertices), jnp.float32)
        return dict(model.init(rng, images, rows, train=False))

    def prepare(rng, batch, body) -> Batch:
        del rng
        return {**batch, **targets(body, batch)}

    def compute(variables, batch, body, *, train, rngs):
        del rngs
        raw, new = model.apply(
            variables,
            batch["image"],
            body.extra_joint_regressors[joint_set],
            train=train,
            train_lixel=update or stage == "lixel",
            mutable=["batch_stats"],
        )
        if stage == "lixel":
            terms = losses.lixel_losses(raw, batch, body.faces)
        else:
            found = decode.posed(raw, body, joint_set, hand=hand)
            terms = losses.param_losses({**raw, **found}, batch)
        return terms, new["batch_stats"], {}

    def predict(variables, batch, body):
        raw = model.apply(
            variables,
            batch["image"],
            body.extra_joint_regressors[joint_set],
            train=False,
        )
        return predictions(config, raw, batch, body, ends)

    own = rf"{HEAD}\..*"
    trainable = ".*" if stage == "lixel" else own
    moving = ".*" if update or stage == "lixel" else own
    return Task(init, compute, weights, predict, prepare, trainable, moving)


def _weights(config: Any, stage: str) -> dict[str, float]:
    section = dict(config["losses"]["weights"][stage])
    unknown = sorted(set(section) - set(losses.NAMES[stage]))
    if unknown:
        raise UserError(
            f"config.losses.weights.{stage}: expected names of "
            f"{sorted(losses.NAMES[stage])}, found {unknown}"
        )
    return {name: float(weight) for name, weight in section.items() if weight}


def predictions(
    config: Any,
    raw: dict[str, Array],
    batch: Batch,
    body: BodyModel,
    ends: Ends,
) -> dict[str, Array]:
    """The network's output under the names of ``hmr_jax.evaluation``.

    Args:
        config: a whole experiment.
        raw: of the network.
        batch: ``crop_to_image``, ``intrinsics_inv`` and ``root_depth_m`` [B]; with
            labels of a body, the truth is computed too.
        body: of ``joint_body``.
        ends: of the body.

    Returns:
        Metres. ``vertices_m`` and ``vertices_cam_m`` [B, V, 3], the mesh of the heat
        maps before the camera, and its joints: ``joints_h36m_17_m`` of a body,
        ``joints_mano_21_m`` of a hand. In the second stage the same of the parameters
        as ``param_...``, placed where the heat maps have the root, and ``pose_rotmats``
        and ``betas``. With labels ``target_vertices_m``.
    """
    hand, joint_set = bool(config["hand"]), joint_set_of(config)
    scored = joint_set if hand else "h36m_17"
    space, depth = space_of(config), batch["root_depth_m"]
    mesh = decode.to_camera(raw["vertices_cells"], depth, batch, **space)
    out = {"vertices_m": mesh, "vertices_cam_m": mesh}
    out[f"joints_{scored}_m"] = regress_joints(body, mesh, scored)
    if "betas" in raw:
        found = decode.posed(raw, body, joint_set, hand=hand)["vertices_cam_m"]
        # The root in the picture, at the depth it was given.
        middle = jnp.full_like(depth[:, None, None], space["heatmap_size"] / 2)
        root = jnp.concatenate([raw["mesh_joints_cells"][:, :1, :2], middle], -1)
        found = found + decode.to_camera(root, depth, batch, **space)
        out |= {
            "param_vertices_m": found,
            f"param_joints_{scored}_m": regress_joints(body, found, scored),
            "pose_rotmats": raw["rotmats"],
            "betas": raw["betas"],
        }
    if set(_LABELS) <= set(batch):
        target, _ = posed_fit(body, batch, hand=hand, joint_vertices=ends.posed)
        out["target_vertices_m"] = target
    return out


def labelled_root_depth(
    body: BodyModel, batch: Batch, *, hand: bool, ends: Ends
) -> np.ndarray:
    """Depth [B] of the labelled bodies' roots, metres; 0 where there is no body."""
    names = (
        *("translation_m", "translation_world_m", "extrinsics", "intrinsics"),
        *("pose_aa", "betas", "flipped", "image_width_px"),
    )
    chosen = {name: batch[name] for name in names}
    depth = _root_depth(body, chosen, hand, ends.posed)
    return np.asarray(depth) * np.asarray(batch["has_smpl"])[:, 0]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _root_depth(body, batch, hand, vertices):
    _, joints = posed_fit(body, batch, hand=hand, joint_vertices=vertices)
    return joints[:, 0, 2]
