"""IKOL's evaluation under named protocols, its baseline and its pictures."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from hmr_jax.body.forward import body_forward, regress_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.evaluation.held_out import HeldOut, RecordLabels
from hmr_jax.evaluation.protocols import get_protocol
from hmr_jax.evaluation.report import format_table
from hmr_jax.evaluation.truth import target_vertices
from hmr_jax.geometry import alignment, rotations
from hmr_jax.render import draw
from hmr_jax.systems import crop_overlays, record_streams
from hmr_jax.systems.ikol.data import eval_batches, normalization
from hmr_jax.systems.ikol.task import make_task
from hmr_jax.systems.system import Batch, Evaluator

SHOWN_IN_TRAINING = 8
"""People on the sheet of pictures that appears while a run goes on."""


def held_out(
    config: Any,
    body: BodyModel,
    folder: str | os.PathLike,
    protocols: tuple[str, ...] = (),
    *,
    progress: bool = False,
) -> HeldOut:
    """The evaluation split of a config, to score predictors on.

    Args:
        config: an experiment.
        body: the body.
        folder: of the datasets.
        protocols: names; the config's by default.
        progress: show a bar.
    """
    from data_pipelines import storage

    read = record_streams.records_of(
        storage.join(folder, config.eval.source), config.eval.split
    )
    predict = make_task(config).predict
    assert predict is not None
    return HeldOut(
        predict,
        body,
        eval_batches(config, folder),
        tuple(protocols or config.eval.protocols),
        labels=RecordLabels(read),
        batch_size=config.eval.batch_size,
        limit=config.eval.limit,
        progress=progress,
    )


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
        body: the body.
        workdir: of the run, whose ``data`` is the default.
        protocols: names; the config's by default.
        progress: show a bar.
    """
    names = tuple(protocols or config.eval.protocols)
    folder = record_streams.data_dir(config, workdir)
    scorer = held_out(config, body, folder, names, progress=progress)
    mean_pose = functools.partial(mean_pose_predictor, config, body, folder)
    return Evaluator(
        metrics=[f"{p}/{m}" for p in names for m in get_protocol(p).metrics],
        score=scorer,
        table=format_table,
        draw=functools.partial(_draw, scorer, config, body),
        baselines={"mean pose": lambda: scorer.score(mean_pose())},
        shown_in_training=SHOWN_IN_TRAINING,
        predictions=scorer.predictions,
    )


def mean_pose_predictor(
    config: Any, body: BodyModel, folder: str | os.PathLike, *, num_records: int = 4000
) -> Callable[[Batch], dict[str, np.ndarray]]:
    """Answers every image with the training set's mean pose and shape.

    The mean of each joint's rotation is the one nearest to the mean matrix, root
    included.

    Args:
        config: an experiment.
        body: the body.
        folder: of the datasets.
        num_records: read at most, evenly spaced, from the first training source, by
            name, that has body poses (sets of keypoints alone have none).

    Returns:
        A predictor for ``HeldOut.score``.

    Raises:
        UserError: no training source has a body pose.
    """
    from data_pipelines import storage

    names = sorted(name for name, share in config.data.sources.items() if share > 0)
    found: Iterator[tuple[list, list]] = (
        _poses(storage.join(folder, name), config.data.split, num_records)
        for name in names
    )
    poses, betas = next((pair for pair in found if pair[0]), ([], []))
    if not poses:
        raise UserError(
            f"config.data.sources: expected one with body poses to take the mean of, "
            f"found {', '.join(names) or 'none'}"
        )
    matrices = rotations.axis_angle_to_matrix(jnp.asarray(np.stack(poses)))
    pose = np.asarray(alignment.fit_rotation(matrices.mean(0)))
    return functools.partial(
        _constant, body=body, pose=pose[None], betas=np.mean(betas, 0)[None]
    )


def _poses(path: str, split: str, num_records: int) -> tuple[list, list]:
    """Poses and shapes of records that have them, evenly spaced."""
    from data_pipelines import records

    size = len(records.open_directory(path).split(split))
    indices = np.unique(np.linspace(0, size - 1, min(size, num_records)).astype(int))
    labelled = [r for r in records.read_records(path, split, indices) if r["has_smpl"]]
    return [r["pose_aa"] for r in labelled], [r["betas"] for r in labelled]


def _constant(batch, *, body, pose, betas):
    posed = _pose_once(body, betas, pose)
    count = len(batch["image"])
    out = {name: np.repeat(x, count, 0) for name, x in posed.items()}
    truth = _truth(batch, body)
    if truth is not None:
        out["target_vertices_m"] = truth
    return out


@jax.jit
def _pose_once(body, betas, pose):
    posed = body_forward(body, betas, pose)
    joints_17 = regress_joints(body, posed.vertices_m, "h36m_17")
    return {
        "joints_h36m_17_m": joints_17,
        "joints_smpl_24_m": posed.joints_m,
        "vertices_m": posed.vertices_m,
    }


def _truth(batch, body):
    if "pose_aa" not in batch:
        return None
    names = ("pose_aa", "betas", "joints_h36m_cam_m")
    return _target_vertices(*(batch[name] for name in names), body)


_target_vertices = jax.jit(target_vertices)


def _draw(scorer: HeldOut, config, body, variables, count: int, folder) -> None:
    """Write ``overlays.png``: crops, and the predicted meshes over them."""
    pictures: list[np.ndarray] = []
    for batch in scorer.batches():
        predictions = scorer.predict(variables, batch)
        vertices = predictions["vertices_cam_m"]
        left = count - len(pictures)
        pictures += overlays(config, body, batch, vertices, left)
        if len(pictures) >= count:
            break
    path = folder / "overlays.png"
    draw.save_png(path, draw.contact_sheet(pictures, columns=4))
    logging.info("overlays: %s", path)


def overlays(
    config: Any, body: BodyModel, batch: Batch, vertices_cam_m: np.ndarray, count: int
) -> list[np.ndarray]:
    """``crop_overlays.overlays`` of crops as the network sees them.

    Args:
        config: an experiment.
        body: for its triangles.
        batch: of the evaluation.
        vertices_cam_m: [B, V, 3] predictions in the camera frame, metres.
        count: pictures at most.

    Returns:
        uint8 images [S, 2 S, 3].
    """
    mean, deviation = map(np.asarray, normalization(config))
    pictures = np.asarray(batch["image"]) * deviation + mean
    return crop_overlays.overlays(pictures, batch, vertices_cam_m, body.faces, count)
