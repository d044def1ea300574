"""What the commands need to know of IKOL: records, protocols, overlays, programs."""

import itertools
from typing import Any

import jax
import numpy as np
from absl import logging

from hmr_jax.body.model import BodyModel
from hmr_jax.commands import experiment, scoring
from hmr_jax.commands.results import Results
from hmr_jax.errors import UserError
from hmr_jax.evaluation.evaluator import format_table
from hmr_jax.evaluation.protocols import get_protocol
from hmr_jax.remote import Location, location
from hmr_jax.render import draw
from hmr_jax.training import ikol_task
from hmr_jax.training.task import Task

SHOWN_IN_TRAINING = 8
"""People on the sheet of pictures that appears while a run goes on."""


def make_task(config: Any) -> Task:
    """IKOL as a task."""
    return ikol_task.make_task(config)


def make_assets(config: Any, body: BodyModel) -> BodyModel:
    """What travels through the training step: the body."""
    del config
    return body


def train_batches(config: Any, workdir: Any, assets: Any) -> Any:
    """The stream of training batches, see ``experiment.train_batches``."""
    del assets
    return experiment.train_batches(config, experiment.data_dir(config, workdir))


def stages(config: Any, steps_per_epoch: int, total: int) -> list[tuple[Task, int]]:
    """One stage, to the end."""
    del steps_per_epoch
    return [(make_task(config), total)]


def _check_best(config) -> None:
    """Refuse a choice of the best checkpoint that no evaluation could serve."""
    protocols = tuple(config.eval.protocols)
    if config.eval.best_protocol not in protocols:
        raise UserError(
            f"config.eval.best_protocol: expected one of eval.protocols {protocols}, "
            f"found {config.eval.best_protocol!r}"
        )
    protocol = get_protocol(config.eval.best_protocol)
    metrics: tuple[str, ...]
    metrics = ("PVE",) if protocol.joint_set == "vertices" else ("MPJPE", "PA-MPJPE")
    if protocol.groups is not None:
        metrics += ("PCK", "AUC")
    if not config.eval.best_metric.startswith(metrics):
        raise UserError(
            f"config.eval.best_metric: expected one of {metrics}, "
            f"found {config.eval.best_metric!r}"
        )


def evaluation(config: Any, task: Task, body: BodyModel, workdir: Any) -> Any:
    """The periodic evaluation, or None where the config names no data for it.

    After each, ``overlays.png`` in the workdir shows what is predicted so far.
    """
    if not config.eval.source:
        return None
    _check_best(config)
    scorer = scoring.Scorer(config, task, body, experiment.data_dir(config, workdir))

    def evaluate(variables, step):
        del step
        metrics = experiment.flat_metrics(scorer(variables).values())
        best = experiment.best_by(config)["best_metric"]
        if best not in metrics:
            raise UserError(
                "config.eval.best_protocol/best_metric: expected one of "
                f"{sorted(metrics)}, found {best!r}"
            )
        if jax.process_index() == 0:
            path = location(workdir) / "overlays.png"
            _draw(scorer, variables, config, body, SHOWN_IN_TRAINING, path)
        return metrics

    return evaluate


def score_and_draw(config: Any, values: Any, out: Location) -> None:
    """Score a trained model under the config's protocols; draw overlays.

    Args:
        config: an experiment.
        values: flags of ``hmr-jax eval``.
        out: folder of the results.
    """
    body, task, trained = experiment.load_chosen(config, values)
    folder = experiment.data_dir(config, values.workdir)
    scorer = scoring.Scorer(
        config,
        task,
        body,
        folder,
        protocols=tuple(values.protocols),
        progress=True,
    )
    with Results(config, trained.origin, out, format_table) as results:
        results.add("trained", scorer(trained.variables))
        if values.baselines:
            untrained = experiment.initial_variables(task, config)
            results.add("untrained network", scorer(untrained))
            mean_pose = scoring.mean_pose_predictor
            results.add_baseline(
                "mean pose", lambda: scorer.score(mean_pose(config, body, folder))
            )
        if values.pictures > 0:
            path = out / "overlays.png"
            _draw(scorer, trained.variables, config, body, values.pictures, path)


def _draw(scorer, variables, config, body, count, path) -> None:
    pictures: list[np.ndarray] = []
    for batch in scorer.batches():
        predictions = scorer.predict(variables, batch)
        vertices = predictions["vertices_cam_m"]
        left = count - len(pictures)
        pictures += scoring.overlays(config, body, batch, vertices, left)
        if len(pictures) >= count:
            break
    draw.save_png(path, draw.contact_sheet(pictures, columns=4))
    logging.info("overlays: %s", path)


def program_inputs(config: Any) -> dict[str, tuple[int, ...]]:
    """Inputs of the exported program and their shapes after the batch axis."""
    size = config.image_size_px
    return {
        "image": (size, size, 3),
        "crop_to_image": (2, 3),
        "intrinsics_inv": (3, 3),
        "root_cam_m": (3,),
    }


def example_inputs(
    config: Any, body: BodyModel, workdir: Any, count: int
) -> dict[str, np.ndarray]:
    """Inputs to compare an exported program with its model on.

    Args:
        config: an experiment.
        body: unused.
        workdir: of the run, whose held-out data are preferred to noise.
        count: samples.
    """
    del body
    held_out = _held_out(config, workdir, count)
    return held_out or _example_inputs(config.image_size_px, count)


def _held_out(config, workdir, count: int):
    """Crops of the evaluation split, or None where the data are not at hand."""
    try:
        folder = experiment.data_dir(config, workdir)
        batches = experiment.eval_batches(config, folder)
        parts = list(itertools.islice(batches, -(-count // config.eval.batch_size)))
    except (OSError, UserError, ImportError) as error:
        logging.info("verifying on images of noise, not on held-out ones: %s", error)
        return None
    names = program_inputs(config)
    return {n: np.concatenate([part[n] for part in parts])[:count] for n in names}


def _example_inputs(size_px: int, count: int):
    """Crops of noise before a plain camera."""
    rng = np.random.default_rng(0)
    camera = np.array(
        [[1.5 * size_px, 0, size_px / 2], [0, 1.5 * size_px, size_px / 2], [0, 0, 1]]
    )
    repeat = lambda x: np.repeat(np.asarray(x, np.float32)[None], count, 0)  # noqa: E731
    shape = (count, size_px, size_px, 3)
    return {
        "image": rng.standard_normal(shape).astype(np.float32),
        "crop_to_image": repeat(np.eye(2, 3)),
        "intrinsics_inv": repeat(np.linalg.inv(camera)),
        "root_cam_m": repeat([0.0, 0.0, 4.0]),
    }
