"""I2L-MeshNet's evaluation: both meshes side by side, a baseline and pictures.

Source: specs/i2l_meshnet.md section 13.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from hmr_jax.body.forward import regress_joints
from hmr_jax.body.joint_sets import map_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.evaluation.held_out import HeldOut, RecordLabels
from hmr_jax.evaluation.protocols import PROTOCOLS, array_key, get_protocol
from hmr_jax.evaluation.report import format_table
from hmr_jax.render import draw
from hmr_jax.systems import crop_overlays, record_streams
from hmr_jax.systems.i2l_meshnet.data import eval_batches, transform
from hmr_jax.systems.i2l_meshnet.joints import Ends, ends_of, joint_set_of
from hmr_jax.systems.i2l_meshnet.targets import posed_fit
from hmr_jax.systems.i2l_meshnet.task import make_task, stage_of
from hmr_jax.systems.system import Batch, Evaluator

SHOWN_IN_TRAINING = 8
"""People on the sheet of pictures that appears while a run goes on."""


def protocols_of(config: Any, given: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The config's protocols and, in the second stage, their twins of the parameters.

    Args:
        config: an experiment.
        given: names that take the config's place, as they are.

    Raises:
        UserError: an unknown name.
    """
    if given:
        return tuple(get_protocol(name).name for name in given)
    names = [get_protocol(name).name for name in config.eval.protocols]
    if stage_of(config) == "param":
        twins = [f"{name}_param" for name in names]
        names += [name for name in twins if name in PROTOCOLS]
    return tuple(names)


def evaluator(
    config: Any,
    body: BodyModel,
    workdir: Any,
    *,
    protocols: tuple[str, ...] = (),
    progress: bool = False,
) -> Evaluator:
    """Scores under protocols on records, see ``System``.

    Args:
        config: an experiment.
        body: of ``joint_body``.
        workdir: of the run, whose ``data`` is the default.
        protocols: names; the config's by default.
        progress: show a bar.
    """
    from data_pipelines import storage

    names = protocols_of(config, tuple(protocols))
    folder = record_streams.data_dir(config, workdir)
    read = record_streams.records_of(
        storage.join(folder, config.eval.source), config.eval.split
    )
    predict = make_task(config).predict
    assert predict is not None
    ends = ends_of(config, body.num_vertices)
    scorer = HeldOut(
        predict,
        body,
        eval_batches(config, body, folder),
        names,
        labels=RecordLabels(read),
        targets=functools.partial(truth, config, body, ends),
        batch_size=config.eval.batch_size,
        limit=config.eval.limit,
        progress=progress,
    )
    mean = functools.partial(mean_mesh_predictor, config, body, folder)
    return Evaluator(
        metrics=[f"{p}/{m}" for p in names for m in get_protocol(p).metrics],
        score=scorer,
        table=format_table,
        draw=functools.partial(_draw, scorer, body),
        baselines={"mean mesh": lambda: scorer.score(mean())},
        shown_in_training=SHOWN_IN_TRAINING,
        predictions=scorer.predictions,
    )


def truth(config: Any, body: BodyModel, ends: Ends, batch: Batch) -> dict[str, Any]:
    """The truth of a batch under the evaluator's names.

    Args:
        config: an experiment.
        body: of ``joint_body``.
        ends: of the body.
        batch: of ``eval_batches``.

    Returns:
        Vertices of the labelled body; joints regressed from them or, where the dataset
        has all 17 of Human3.6M, those. Metres, before the camera.

    Source: specs/i2l_meshnet.md sections 13.1 and 13.2.
    """
    hand = bool(config.hand)
    scored = joint_set_of(config) if hand else "h36m_17"
    chosen = {k: v for k, v in batch.items() if k != "image"}
    vertices, joints = _posed_truth(body, chosen, hand, ends.posed, scored)
    weight = np.asarray(batch["has_smpl"]).reshape(-1, 1)
    joints, weights = np.asarray(joints), np.repeat(weight, joints.shape[1], 1)
    if not hand:
        index, _ = map_joints("h36m_right_first_17", scored)
        own = np.asarray(batch["fit_check_cam_m"])[:, index]
        whole = np.asarray((own[..., 3] > 0).all(axis=1))
        joints = np.where(whole[:, None, None], own[..., :3], joints)
        weights = np.where(whole[:, None], own[..., 3], weights)
    return {
        array_key("vertices"): vertices,
        "weights_vertices": weight,
        array_key(scored): joints,
        f"weights_{scored}": weights,
    }


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _posed_truth(body, batch, hand, vertices, scored):
    mesh, _ = posed_fit(body, batch, hand=hand, joint_vertices=vertices)
    return mesh, regress_joints(body, mesh, scored)


def mean_mesh_predictor(
    config: Any, body: BodyModel, folder: str | os.PathLike, *, num_records: int = 2000
) -> Callable[[Batch], dict[str, np.ndarray]]:
    """Answers every image with the training set's mean mesh.

    Args:
        config: an experiment.
        body: of ``joint_body``.
        folder: of the datasets.
        num_records: read at most, from all training sources.

    Returns:
        A predictor for ``HeldOut.score``: the mean of the meshes from their roots, as
        the camera sees them, put at the root's depth in the middle of the crop.

    Raises:
        UserError: no training source has a body pose.
    """
    stream = record_streams.train_stream(config, folder, transform(config, train=False))
    total, count = 0.0, 0.0
    ends = ends_of(config, body.num_vertices)
    scored = joint_set_of(config) if config.hand else "h36m_17"
    for _ in range(max(1, num_records // config.data.batch_size)):
        batch = {k: v for k, v in next(stream).items() if k != "image"}
        mesh, joints = _posed_truth(body, batch, bool(config.hand), ends.posed, scored)
        weight = np.asarray(batch["has_smpl"]).reshape(-1, 1, 1)
        relative = np.where(weight > 0, np.asarray(mesh - joints[:, :1]), 0.0)
        total, count = total + relative.sum(0), count + float(weight.sum())
    if not count:
        raise UserError(
            "config.data.sources: expected one with body poses to take the mean of, "
            f"found {', '.join(sorted(config.data.sources)) or 'none'}"
        )
    return functools.partial(_constant, config, body, np.float32(total / count), scored)


def _constant(config, body, mesh, scored, batch):
    middle = np.full((len(batch["image"]), 2), config.image_size_px / 2, np.float32)
    affine = np.asarray(batch["crop_to_image"])
    pixels = np.einsum("bij,bj->bi", affine[:, :, :2], middle) + affine[:, :, 2]
    ones = np.ones_like(pixels[:, :1])
    rays = np.einsum(
        "bij,bj->bi", batch["intrinsics_inv"], np.concatenate([pixels, ones], 1)
    )
    root = rays / rays[:, 2:] * np.asarray(batch["root_depth_m"])[:, None]
    vertices = jnp.asarray(mesh[None] + root[:, None])
    joints = np.asarray(regress_joints(body, vertices, scored))
    out = {"vertices_m": np.asarray(vertices), array_key(scored): joints}
    return out | {f"param_{name}": value for name, value in out.items()}


def _draw(scorer: HeldOut, body, variables, count: int, folder) -> None:
    """Write ``overlays.png``, and ``overlays_param.png`` of the parameters' bodies."""
    names = {"vertices_m": "overlays.png", "param_vertices_m": "overlays_param.png"}
    pictures: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for batch in scorer.batches():
        found = scorer.predict(variables, batch)
        left = count - len(pictures["vertices_m"])
        for name in set(names) & set(found):
            crops = np.asarray(batch["image"])
            pictures[name] += crop_overlays.overlays(
                crops, batch, found[name], body.faces, left
            )
        if len(pictures["vertices_m"]) >= count:
            break
    for name, made in pictures.items():
        if made:
            path = folder / names[name]
            draw.save_png(path, draw.contact_sheet(made, columns=4))
            logging.info("overlays: %s", path)
