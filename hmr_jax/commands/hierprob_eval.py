"""Scoring of hierarchical probability distributions: tables, files, pictures."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.typing import ArrayLike

from hmr_jax.body.forward import body_forward
from hmr_jax.body.landmarks import lsp_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.commands import experiment, hierprob_system
from hmr_jax.commands.results import Results
from hmr_jax.evaluation import hierprob as scoring
from hmr_jax.geometry.alignment import fit_rotation
from hmr_jax.geometry.cameras import to_camera_axes
from hmr_jax.geometry.rotations import axis_angle_to_matrix
from hmr_jax.models.hierprob import vertex_spread
from hmr_jax.remote import Location
from hmr_jax.render import draw, uncertainty
from hmr_jax.synthetic.pose_bank import PoseBank

TILE_PX = 192
OPACITY = 0.85


def score_and_draw(config: Any, values: Any, out: Location) -> None:
    """Score a trained model on what a config evaluates on; draw examples.

    Args:
        config: an experiment.
        values: flags of ``hmr-jax eval``.
        out: folder of ``eval.json`` and the pictures.
    """
    body, task, trained = experiment.load_chosen(config, values)
    validation = hierprob_system.Validation(config, body, show=True)
    with open_results(config, trained, out) as results:
        results.add("trained", validation(trained.variables))
        if values.baselines:
            untrained = experiment.initial_variables(task, config)
            results.add("untrained network", validation(untrained))
            results.add_baseline(
                "mean pose", lambda: score_mean_body(config, body, validation)
            )
        if values.pictures > 0:
            found = validation.results(trained.variables)
            draw_examples(found, validation.assets.body, values.pictures, out)


def open_results(config: Any, trained: experiment.Trained, out: Location) -> Results:
    """The rows of this system's evaluations.

    Args:
        config: an experiment.
        trained: the trained model.
        out: folder of ``eval.json``.
    """
    source, table = config.eval.source, scoring.format_scores
    return Results(config, trained.origin, out, table, source=source)


def score_mean_body(config: Any, body: BodyModel, validation: Any) -> scoring.Scores:
    """Scores of the mean pose of the training set, whatever the picture.

    Args:
        config: an experiment.
        body: the body.
        validation: has ``score(predict)``.
    """
    poses = hierprob_system.load_poses(config.data.poses, "train", config.seed)
    return validation.score(mean_body(body, poses))


def mean_body(body: BodyModel, poses: PoseBank) -> Any:
    """Answers every picture with the bank's mean pose, seen from the front.

    Args:
        body: the body.
        poses: of the training set.

    Returns:
        A function for ``Validation.score``.
    """
    mean = fit_rotation(axis_angle_to_matrix(jnp.asarray(poses.poses_aa)).mean(0))
    mean = mean.at[0].set(jnp.eye(3))
    betas = jnp.zeros(body.num_betas)
    posed = body_forward(body, betas, mean).vertices_m
    rest = body_forward(body, betas, jnp.zeros((body.num_joints, 3))).vertices_m
    one = {"vertices_m": posed, "zero_pose_vertices_m": rest}
    if "h36m_17" in body.extra_joint_regressors:
        one["joints3d_m"] = lsp_joints(body, posed)

    def predict(made, key):
        del key
        count = len(made["image"])
        mode = {k: jnp.repeat(v[None], count, 0) for k, v in one.items()}
        return scoring.Prediction(mode, {}, {})

    return predict


def draw_examples(
    results: Iterable[Any], body: BodyModel, count: int, out: Location
) -> None:
    """Picture, input, body over the picture, side view and truth of some samples.

    Args:
        results: batches with ``image`` and ``proxy``, predictions, targets, and how
            many samples of each count.
        body: the predicted body.
        count: at most so many samples are drawn.
        out: folder of ``predictions.png``.
    """
    tiles: list[np.ndarray] = []
    for made, prediction, target, valid in results:
        for index in range(min(valid, count - len(tiles))):
            found = (made, prediction, target)
            made_one, guess, truth = jax.tree.map(lambda x, i=index: x[i], found)
            tiles.append(_row(made_one, guess, truth, body))
        if len(tiles) >= count:
            break
    path = out / "predictions.png"
    draw.save_png(path, draw.contact_sheet(tiles, columns=2))
    logging.info("pictures: %s", path)


def _resized(image: ArrayLike) -> np.ndarray:
    return draw.resized(draw.to_uint8(np.asarray(image)), TILE_PX, TILE_PX)


def _row(made, prediction, target, body) -> np.ndarray:
    spread = None
    if prediction.samples:
        spread = uncertainty.uncertainty_colours(
            vertex_spread(prediction.samples["vertices_m"])
        )
    image = _resized(made["image"])
    proxy = np.asarray(made["proxy"])
    seen = np.repeat(np.clip(proxy[..., :1], 0.0, 1.0), 3, -1)
    seen[..., 2] = np.maximum(seen[..., 2], proxy[..., 1:].max(-1))
    mode = to_camera_axes(jnp.asarray(prediction.mode["vertices_m"]))
    truth = to_camera_axes(jnp.asarray(target["vertices_m"]))
    picture = uncertainty.render_weak_perspective(
        mode,
        body.faces,
        jnp.asarray(prediction.raw["camera"]),
        TILE_PX,
        vertex_rgb=spread,
    )
    over = uncertainty.over(image, picture, OPACITY)
    side = uncertainty.view(mode, body.faces, TILE_PX, degrees=90, vertex_rgb=spread)
    true_side = uncertainty.view(truth, body.faces, TILE_PX, degrees=90)
    names = ("picture", "input", "prediction", "its side", "true side")
    tiles = [image, _resized(seen), over, side, true_side]
    return draw.contact_sheet(tiles, columns=5, captions=names, gap_px=2)
