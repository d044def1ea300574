"""Scoring of hierarchical distributions on 3DPW and SSP-3D: table, files, pictures."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from hmr_jax import progress
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.evaluation.held_out import limited
from hmr_jax.files import atomic_write
from hmr_jax.remote import Location
from hmr_jax.systems import record_streams
from hmr_jax.systems.hierprob import dataset_rules
from hmr_jax.systems.hierprob import scores as scoring
from hmr_jax.systems.hierprob import task as tasks
from hmr_jax.systems.system import Variables

Config = Any
PATIENCE = 64
"""So many frames from the start on without a 2D joint are an error, and so are all."""
Results = Iterator[tuple[dict[str, Any], scoring.Prediction, scoring.Fields, int]]


def data_folder(config: Config, workdir: str | None) -> str:
    """Where the evaluated datasets lie.

    Args:
        config: an experiment.
        workdir: the run's folder, whose ``data`` is the default.

    Returns:
        ``eval.data_dir``, local or remote.

    Raises:
        UserError: neither names one.
        FileNotFoundError: it is not there.
    """
    field = "config.eval.data_dir"
    return record_streams.existing_folder(config.eval.data_dir, field, workdir)


def load_bodies(config: Config, neutral: BodyModel) -> dict[str, BodyModel]:
    """The bodies of the labels, by gender.

    Args:
        config: an experiment; ``eval.male_body`` and ``eval.female_body`` name files.
        neutral: stands for a gender without a file.

    Returns:
        A body for each gender.

    Raises:
        FileNotFoundError: a named file is missing.
        UserError: a body is of another kind than the neutral one.
    """
    bodies = dict.fromkeys(dataset_rules.GENDERS, neutral)
    missing = []
    for gender in dataset_rules.GENDERS[1:]:
        field = f"{gender}_body"
        path = config.eval.get(field, "")
        if path:
            bodies[gender] = _read_body(config, field, gender, neutral)
        else:
            missing.append(f"config.eval.{field}")
    if missing:
        logging.warning(
            "%s: not given, so that these labels are posed with the neutral body; the "
            "published numbers are of labels posed with bodies of their gender",
            " and ".join(missing),
        )
    return bodies


def _read_body(
    config: Config, field: str, gender: str, neutral: BodyModel
) -> BodyModel:
    from hmr_jax.body.readers import load_body

    path, regressor = config.eval[field], config.body.h36m_regressor
    if not pathlib.Path(path).exists():
        raise FileNotFoundError(f"config.eval.{field}: no such file: {path}")
    extra = {"h36m_17": regressor} if regressor else {}
    body = load_body(path, gender=gender, extra_regressors=extra)
    for what in ("num_vertices", "num_joints", "num_betas"):
        expected, found = getattr(neutral, what), getattr(body, what)
        if found != expected:
            raise UserError(
                f"config.eval.{field}: {path}: expected {what} {expected} as the "
                f"predicted body's, found {found}"
            )
    if not regressor and "h36m_17" in neutral.extra_joint_regressors:
        raise UserError(
            "config.body.h36m_regressor: expected a file, which config.eval."
            f"{field} needs too"
        )
    return body


class DatasetValidation:
    """Scores predictors on one pass over a dataset's records.

    Args:
        config: an experiment; ``eval.source`` names the dataset.
        body: the predicted body, neutral.
        folder: of the datasets.
        show: a progress bar.

    Raises:
        UserError: an unknown dataset.
        data_pipelines.schema.RecordError: there are no such records.
    """

    def __init__(
        self, config: Config, body: BodyModel, folder: str, *, show: bool = False
    ):
        from data_pipelines import reading, storage
        from data_pipelines.transforms.hierprob import (
            HierprobTransform,
            hierprob_options,
        )

        self.rules = dataset_rules.rules_of(config.eval.source)
        self.body = body
        self._config, self._progress = config, show
        self._path = storage.join(folder, config.eval.source)
        options = hierprob_options(self.rules.crop, image_size_px=dataset_rules.SIZE_PX)
        self._batches = reading.make_dataset(
            self._path,
            split=config.eval.split,
            batch_size=config.eval.batch_size,
            transform=HierprobTransform(options),
            num_epochs=1,
        )
        self._start = self._batches.state()
        bodies = load_bodies(config, body)
        placed = {id(one): jax.device_put(one) for one in bodies.values()}
        self._bodies = {gender: placed[id(one)] for gender, one in bodies.items()}
        self._key = jax.random.key(config.eval.seed)
        self._predict = self._compiled(tasks.make_model(config))

    def _compiled(self, model: Any) -> Callable[..., Any]:
        size, num_samples = self._config.image_size_px, self._config.eval.num_samples
        in_picture = self.rules.in_picture

        def predict(variables, batch, body, key):
            image = batch["image"][..., :3]
            proxy = dataset_rules.network_input(image, batch["keypoints_px"], size)
            raw = model.apply(variables, proxy, train=False)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, batch["sample_index"])
            return proxy, dataset_rules.predict_frames(
                keys, raw, body, num_samples, in_picture=in_picture
            )

        return jax.jit(predict)

    def batches(self) -> Iterator[dict[str, np.ndarray]]:
        """Batches from the start; ``valid`` ends at ``eval.limit``."""
        self._batches.restore(self._start)
        total, limit = self._batches.num_records, self._config.eval.limit
        count = min(limit, total) if limit else total
        yield from progress.bar(
            limited(self._batches, limit),
            total=-(-count // self._config.eval.batch_size),
            desc="eval",
            unit="batch",
            disable=not self._progress,
            leave=False,
        )

    def _results(self, predict: Callable[..., Any]) -> Results:
        frames = unseen = 0
        for batch in self.batches():
            count = int(np.asarray(batch["valid"]).sum())
            labelled = np.asarray(batch["has_smpl"]).reshape(-1)[:count] > 0
            if not labelled.all():
                row = int(batch["sample_index"][np.argmin(labelled)])
                raise UserError(
                    f"{self._path}: record {row}: expected a labelled body "
                    "(has_smpl 1), found none"
                )
            seen = np.asarray(batch["keypoints_px"])[:count, :, 2].max(-1) > 0
            frames, unseen = frames + count, unseen + int((~seen).sum())
            if frames == unseen >= PATIENCE:
                self._refuse_without_joints(frames)
            target = dataset_rules.gendered_truth(self._bodies, batch)
            if self.rules.in_picture:
                target |= dataset_rules.picture_truth(batch)
            proxy, prediction = predict(batch)
            made = {"image": batch["image"][..., :3], "proxy": proxy}
            made |= {"sample_index": batch["sample_index"]}
            yield made, prediction, target, count
        if frames == unseen > 0:
            self._refuse_without_joints(frames)
        if unseen:
            logging.warning(
                "%s: %d of %d records have no 2D joint", self._path, unseen, frames
            )

    def _refuse_without_joints(self, frames: int) -> None:
        raise UserError(
            f"{self._path}: expected 2D joints, found none in {frames} records; 3DPW "
            "needs hrnet_results_centred.npy beside its cropped frames when it is built"
        )

    def results(self, variables: Variables) -> Results:
        """Crops, predictions, targets and how many samples count, batch by batch.

        Args:
            variables: of the model.
        """
        placed = jax.device_put(variables)
        body = self._bodies["neutral"]
        names = ("image", "keypoints_px", "sample_index")

        def predict(batch):
            arrays = {name: batch[name] for name in names}
            return self._predict(placed, arrays, body, self._key)

        return self._results(predict)

    def score(self, predict: Callable[..., scoring.Prediction]) -> scoring.Scores:
        """Score any predictor ``(batch, None) -> Prediction``."""
        found = self._results(lambda batch: (None, predict(batch, None)))
        return dataset_rules.score_dataset((one[1:] for one in found), self.rules)

    def __call__(self, variables: Variables) -> scoring.Scores:
        """Score a model's variables.

        Args:
            variables: of the model.

        Returns:
            The dataset's metrics; ``published`` holds each metric (metres, pixels,
            shares), ``fname``, ``pose``, ``shape`` and ``cam``.
        """
        frames, places = dataset_rules.PerFrame(), []

        def seen():
            for made, prediction, target, count in self.results(variables):
                frames.add(prediction.raw, count)
                places.extend(np.asarray(made["sample_index"])[:count].tolist())
                yield prediction, target, count

        scores = dataset_rules.score_dataset(seen(), self.rules)
        names = {"fname": np.array(self._names(places))}
        return scores._replace(
            source=self._config.eval.source,
            published=dict(scores.per_frame) | names | frames.arrays(),
        )

    def _names(self, places: list[int]) -> list[str]:
        """Names of the pictures, as in the dataset's own files."""
        read = record_streams.records_of(self._path, self._config.eval.split)
        if self._config.eval.source == "ssp_3d":
            return [record["sequence_id"] for record in read(places)]
        return [f"{record['sample_id']}.png" for record in read(places)]


def write_per_frame(scores: scoring.Scores, out: Location) -> None:
    """Write the published files ``<name>_per_frame.npy``.

    Args:
        scores: of ``DatasetValidation``; the first axis of each array is the frames.
        out: their folder.
    """
    for name, array in scores.published.items():
        with atomic_write(out / f"{name}_per_frame.npy") as path:
            np.save(path, array)
