"""Evaluation of predictors on a config's held-out data, and pictures of them."""

import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hmr_jax import progress
from hmr_jax.body.forward import body_forward, regress_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.commands import experiment
from hmr_jax.errors import UserError
from hmr_jax.evaluation.evaluator import Report, evaluate
from hmr_jax.evaluation.labels import sample_labels
from hmr_jax.evaluation.protocols import get_protocol
from hmr_jax.geometry import alignment, rotations
from hmr_jax.training import ikol_task, parallel
from hmr_jax.training.task import Batch, Task, Variables


class Scorer:
    """Scores variables, or any predictor, on the evaluation split of a config.

    Args:
        config: an experiment.
        task: of ``experiment.make_task``.
        body: the body.
        folder: of the datasets.
        protocols: names; the config's by default.
        progress: show a bar.

    Raises:
        UserError: an unknown protocol, or no data to score on.
    """

    def __init__(
        self,
        config: Any,
        task: Task,
        body: BodyModel,
        folder: str | os.PathLike,
        *,
        protocols: tuple[str, ...] = (),
        progress: bool = False,
    ):
        self._config, self._body, self._progress = config, body, progress
        self._protocols = tuple(protocols or config.eval.protocols)
        for name in self._protocols:
            get_protocol(name)
        if task.predict is None:
            raise UserError(f"system {config.system!r} has nothing to predict")
        self._predict = parallel.map_predict(task.predict)
        self._assets = parallel.place(body)
        self._batches = experiment.eval_batches(config, folder)
        self._start = self._batches.state()
        self._labels = _Labels(config, folder)

    def batches(self) -> Iterator[Batch]:
        """One pass over the evaluation samples, from the start."""
        self._batches.restore(self._start)
        total = self._batches.num_records
        limit = self._config.eval.limit
        size = self._config.eval.batch_size
        count = -(-(min(limit, total) if limit else total) // size)
        yield from progress.bar(
            experiment.limited(self._batches, limit),
            total=count,
            desc="eval",
            unit="batch",
            disable=not self._progress,
            leave=False,
        )

    def __call__(self, variables: Variables) -> Report:
        """Score a model's variables."""
        placed = parallel.place(variables)
        return self.score(lambda batch: self._predict(placed, batch, self._assets))

    def predict(self, variables: Variables, batch: Batch) -> dict[str, np.ndarray]:
        """Predictions of a model for one batch."""
        return self._predict(variables, batch, self._assets)

    def score(self, predict: Callable[[Batch], Mapping[str, Any]]) -> Report:
        """Score any predictor of batches."""
        return evaluate(
            predict,
            self.batches(),
            self._protocols,
            labels_fn=self._labels,
            names_fn=lambda batch: self._batches.sample_ids(batch["sample_index"]),
        )


class _Labels:
    """What the names of a batch's records say, by which protocols report groups.

    Records are read a second time for it, once each for any number of evaluations.
    """

    def __init__(self, config: Any, folder: str | os.PathLike):
        from data_pipelines import records, storage

        path = storage.join(folder, config.eval.source)
        self._directory = records.open_directory(path)
        self._split = self._directory.split(config.eval.split)
        self._found: dict[int, dict[str, str]] = {}

    def __call__(self, batch: Batch) -> dict[str, list[str]]:
        """Label name to the label of each sample, empty where it is not known."""
        places = np.asarray(batch["sample_index"]).tolist()
        self._read(sorted(set(places) - set(self._found)))
        found = [self._found[place] for place in places]
        names = sorted(set().union(*found))
        return {name: [labels.get(name, "") for labels in found] for name in names}

    def _read(self, places: list[int]) -> None:
        from data_pipelines import records, schema

        if not places:
            return
        serialized = records.read_serialized(self._split, places)
        for place, data in zip(places, serialized, strict=True):
            record = schema.decode(data, self._directory.spec)
            self._found[place] = sample_labels(
                record["sample_id"],
                record["sequence_id"],
                int(record.get("activity_id", 0)),
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
        A predictor for ``Scorer.score``.

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


_target_vertices = jax.jit(ikol_task.target_vertices)


def overlays(
    config: Any, body: BodyModel, batch: Batch, vertices_cam_m: np.ndarray, count: int
) -> list[np.ndarray]:
    """Crops with the predicted mesh laid over them, beside the crops.

    Args:
        config: an experiment.
        body: for its triangles.
        batch: of the evaluation.
        vertices_cam_m: [B, V, 3] predictions in the camera frame, metres.
        count: pictures at most.

    Returns:
        uint8 images [S, 2 S, 3].
    """
    from data_pipelines.transforms.image import NORMALIZATIONS
    from hmr_jax.render import draw, shade

    size = config.image_size_px
    options = experiment.transform(config, train=False).options
    mean, deviation = map(np.asarray, NORMALIZATIONS[options.normalization])
    pictures = []
    rows = np.flatnonzero(np.asarray(batch["valid"]) > 0)[:count]
    for row in rows:
        crop = draw.to_uint8(np.asarray(batch["image"][row]) * deviation + mean)
        to_crop = np.linalg.inv(np.vstack([batch["crop_to_image"][row], [0, 0, 1]]))
        camera = to_crop @ np.linalg.inv(batch["intrinsics_inv"][row])
        shaded = shade.render_mesh(
            np.asarray(vertices_cam_m[row], np.float32),
            body.faces,
            (camera / camera[2, 2]).astype(np.float32),
            size,
            size,
        )
        mask = np.asarray(shaded.mask)[..., None]
        colour = np.asarray(shaded.image) / np.maximum(mask, 1e-6)
        rgba = np.concatenate([np.clip(colour, 0.0, 1.0), mask], -1)
        pictures.append(np.concatenate([crop, draw.overlay_mesh(crop, rgba)], 1))
    return pictures
