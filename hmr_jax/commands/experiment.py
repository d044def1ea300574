"""From a config to what training, evaluation and export work with."""

import dataclasses
import importlib
import math
import os
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging

from hmr_jax.body.model import BodyModel
from hmr_jax.body.published_names import stated_gender
from hmr_jax.errors import UserError
from hmr_jax.remote import location
from hmr_jax.training.checkpoints import Checkpoints
from hmr_jax.training.matching import check_matches
from hmr_jax.training.state import init_key
from hmr_jax.training.task import Batch, Task, Variables

Config = Any
"""A locked ``ml_collections.ConfigDict`` with the fields of ``configs/common.py``."""


def load_body(config: Config) -> BodyModel:
    """The body a config names.

    Args:
        config: an experiment.

    Returns:
        The open body, or the one of ``body.path``: a file, or a folder of the published
        files of all genders, of which ``body.gender`` chooses one.

    Raises:
        FileNotFoundError: a named file is missing.
        UserError: a path without the regressor of the 17 joints, or a body of another
            gender.
    """
    wanted = config.body.get("gender") or "neutral"
    if not config.body.path:
        from hmr_jax.body.open_assets import load_open_body

        if wanted != "neutral":
            raise UserError(
                "config.body.gender (--gender): expected 'neutral' (the open body is "
                f"neutral; config.body.path names another), found {wanted!r}"
            )
        return load_open_body()
    from hmr_jax.body.readers import load_body as read

    for field, exists in (
        ("path", pathlib.Path.exists),
        ("h36m_regressor", pathlib.Path.is_file),
    ):
        path = config.body[field]
        if not path:
            raise UserError(
                f"config.body.{field}: expected a file (a body of your own needs the "
                "regressor of the 17 Human3.6M joints, [17, vertices] as .npy)"
            )
        if not exists(pathlib.Path(path)):
            raise FileNotFoundError(f"config.body.{field}: no such file: {path}")
    path = pathlib.Path(config.body.path)
    extra = {"h36m_17": config.body.h36m_regressor}
    if path.is_dir():
        body = read(path, gender=wanted, extra_regressors=extra)
    else:
        body = read(path, extra_regressors=extra)
        # A name that states no gender is read as neutral, and may be of any.
        stated = stated_gender(path)
        if stated not in (None, wanted):
            raise UserError(
                f"config.body.gender (--gender): expected {stated!r}, the gender "
                f"that the name of config.body.path states ({path}), found "
                f"{wanted!r}; a folder as config.body.path has a file for each gender"
            )
        body = dataclasses.replace(body, gender=wanted)
    if body.num_joints != 24:
        raise UserError(
            f"config.body.path: expected a body of 24 joints, found {body.num_joints}: "
            f"{config.body.path}"
        )
    rows = body.extra_joint_regressors["h36m_17"].shape[0]
    if rows != 17:
        raise UserError(
            f"config.body.h36m_regressor: expected 17 joints, found {rows}: "
            f"{config.body.h36m_regressor}"
        )
    return body


def make_task(config: Config) -> Task:
    """The task of the system a config names.

    Args:
        config: an experiment.

    Returns:
        The task.

    Raises:
        UserError: no such system.
    """
    return system(config).make_task(config)


SYSTEMS = {
    "ikol": "hmr_jax.commands.ikol_system",
    "hierprob": "hmr_jax.commands.hierprob_system",
}
"""Where the commands find what they need to know of each system."""


def system(config: Config) -> types.ModuleType:
    """The module of the system a config names.

    Args:
        config: an experiment.

    Returns:
        A module with ``make_task(config)``, ``make_assets(config, body)``,
        ``train_batches(config, workdir, assets)``, ``stages(config, steps_per_epoch,
        total)``, ``evaluation(config, task, body, workdir)``, ``score_and_draw(config,
        values, out)``, ``program_inputs(config)`` and ``example_inputs(config, body,
        workdir, count)``.

    Raises:
        UserError: no such system.
    """
    if config.system not in SYSTEMS:
        raise UserError(
            f"config.system: expected one of {sorted(SYSTEMS)}, found {config.system!r}"
        )
    return importlib.import_module(SYSTEMS[config.system])


def data_dir(config: Config, workdir: str | pathlib.Path | None) -> str:
    """Where a config's datasets lie.

    Args:
        config: an experiment.
        workdir: the run's folder, whose ``data`` is the default.

    Returns:
        The folder, local or remote (``gs://``).

    Raises:
        UserError: neither names one.
        FileNotFoundError: it is not there.
    """

    return existing_folder(config.data.dir, "config.data.dir", workdir)


def existing_folder(given: str, field: str, workdir: str | pathlib.Path | None) -> str:
    """The folder of datasets that a field names, or the workdir's ``data``.

    Args:
        given: the field's value; empty for the default.
        field: its name, for messages.
        workdir: the run's folder.

    Returns:
        The folder, local or remote.

    Raises:
        UserError: neither names one.
        FileNotFoundError: it is not there.
    """
    from data_pipelines import storage

    if given:
        path = storage.clean(given)
    elif workdir:
        path = storage.join(workdir, "data")
    else:
        raise UserError(f"{field}: expected a folder (or give --workdir)")
    try:
        with storage.reported(path):
            there = storage.is_dir(path)
    except OSError as error:  # a file system that TensorFlow does not reach
        raise UserError(f"{error}; --{field}=DIR names another folder") from error
    if not there:
        raise FileNotFoundError(
            f"no datasets: {path} does not exist; 'hmr-jax data build' makes one, "
            f"--{field}=DIR names another"
        )
    return path


def transform(config: Config, *, train: bool) -> Any:
    """What turns records into the batches of a config's system.

    Args:
        config: an experiment.
        train: with augmentation.

    Returns:
        A ``data_pipelines.transforms.ikol.IkolTransform``.

    Raises:
        UserError: an option that it does not have.
    """
    from data_pipelines.transforms import ikol, ikol_options

    chosen = {
        name: value
        for name, value in dict(config.data.options).items()
        if train or name in ikol_options.TEST_KEYS
    }
    try:
        options = ikol.ikol_options(
            config.data.loader,
            train=train,
            published=config.data.published_labels,
            image_size_px=config.image_size_px,
            depth_range_m=config.depth_range_m,
            **chosen,
        )
    except TypeError as error:
        raise UserError(f"config.data.options: {error}") from error
    return ikol.IkolTransform(options)


def train_batches(config: Config, folder: str | os.PathLike) -> Any:
    """The endless, resumable iterator of training batches of this process.

    Args:
        config: an experiment.
        folder: of the datasets.

    Returns:
        A ``data_pipelines.reading.RecordIterator``.

    Raises:
        UserError: no sources, or a batch size that the processes cannot share.
    """
    from data_pipelines import reading, storage

    sources = dict(config.data.sources)
    if not sources:
        raise UserError("config.data.sources: expected at least one dataset")
    names = sorted(name for name, share in sources.items() if share > 0)
    if not names:
        raise UserError("config.data.sources: expected a positive share")
    return reading.make_dataset(
        [storage.join(folder, name) for name in names],
        split=config.data.split,
        batch_size=_share(config.data.batch_size, "config.data.batch_size"),
        transform=transform(config, train=True),
        seed=config.seed,
        shuffle=True,
        weights=[sources[name] for name in names] if len(names) > 1 else None,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.data.num_threads or None,
    )


def eval_batches(config: Config, folder: str | os.PathLike) -> Any:
    """One pass over the evaluation split, the last batch padded.

    Every process reads all of it: evaluations then need no exchange and agree.

    Args:
        config: an experiment.
        folder: of the datasets.

    Returns:
        A ``data_pipelines.reading.RecordIterator``.
    """
    from data_pipelines import reading, storage

    if not config.eval.source:
        raise UserError("config.eval.source: expected the name of a dataset")
    return reading.make_dataset(
        storage.join(folder, config.eval.source),
        split=config.eval.split,
        batch_size=config.eval.batch_size,
        transform=transform(config, train=False),
        num_epochs=1,
        num_threads=config.data.num_threads or None,
    )


def limited(batches: Any, limit: int) -> Iterator[Batch]:
    """The first samples of an iterator of batches.

    Args:
        batches: with ``valid`` [B].
        limit: number of samples; 0 takes all.

    Yields:
        Batches; samples past the limit are marked as not valid.
    """
    left = limit if limit > 0 else math.inf
    for batch in batches:
        if left <= 0:
            return
        valid = np.asarray(batch["valid"])
        kept = valid * (np.cumsum(valid) <= left)
        left -= valid.sum()
        yield {**batch, "valid": kept.astype(valid.dtype)}


def _share(batch_size: int, name: str) -> int:
    if batch_size < 1 or batch_size % jax.device_count():
        raise UserError(
            f"{name}: expected a multiple of the {jax.device_count()} devices, "
            f"found {batch_size}"
        )
    return batch_size // jax.process_count()


def num_steps(config: Config, steps_per_epoch: int) -> int:
    """The length of a run.

    Args:
        config: an experiment.
        steps_per_epoch: of its data.

    Returns:
        ``train.num_steps``, or ``train.num_epochs`` in steps.

    Raises:
        UserError: the config gives neither, or both.
    """
    steps, epochs = config.train.num_steps, config.train.num_epochs
    if (steps > 0) == (epochs > 0):
        raise UserError(
            "config.train: expected one of num_steps and num_epochs to be positive, "
            f"found {steps} and {epochs}"
        )
    return steps or epochs * steps_per_epoch


def initial_variables(task: Task, config: Config) -> Variables:
    """The variables of an untrained model.

    Args:
        task: of ``make_task``.
        config: the same experiment.

    Returns:
        Host arrays; the same as a run with this seed starts from.
    """
    made = jax.jit(task.init)(init_key(config.seed), blank_batch(config))
    return jax.device_get(made)


def variable_shapes(task: Task, config: Config) -> Variables:
    """Shapes of a model's variables, without computing any."""
    return jax.eval_shape(task.init, jax.random.key(0), blank_batch(config))


def blank_batch(config: Config) -> Batch:
    """A batch that is good enough to initialise a model."""
    size = config.image_size_px
    return {"image": np.zeros((1, size, size, 3), np.float32)}


@dataclasses.dataclass(frozen=True)
class Trained:
    """Variables of a trained model and where they come from.

    Attributes:
        variables: host arrays.
        origin: path of the checkpoint or file.
        step: of the checkpoint; None for a file.
    """

    variables: Variables
    origin: str
    step: int | None


def load_trained(
    config: Config,
    task: Task,
    *,
    workdir: str | None = None,
    params: str | None = None,
    which: str = "best",
) -> Trained:
    """Read a trained model.

    Args:
        config: its experiment.
        task: of ``make_task``.
        workdir: a run's folder.
        params: or a file written by export or convert.
        which: 'best', 'latest' or a step, of the run's checkpoints.

    Returns:
        The variables.

    Raises:
        UserError: neither or both are given, or the variables belong to another
            model; the error names arrays, expected and found shapes.
        FileNotFoundError: there is no such file or checkpoint.
    """
    shapes = variable_shapes(task, config)
    if params and not workdir:
        from hmr_jax.export.params import load_params

        variables = load_params(params)
        check_matches(shapes, variables, params)
        check_finite(variables, params)
        return Trained(variables, params, None)
    if not workdir or params:
        raise UserError("expected either a workdir or a file of parameters")
    folder = location(workdir) / "checkpoints"
    with Checkpoints(folder, **best_by(config), read_only=True) as store:
        variables, step, origin = store.read_variables(which)
    check_matches(shapes, variables, origin)
    check_finite(variables, origin)
    logging.info("loaded %s", origin)
    return Trained(variables, origin, step)


def check_finite(variables: Variables, origin: str) -> None:
    """Refuse a model with NaN or infinity in it, whose answers would look fine.

    Args:
        variables: host arrays.
        origin: names them in the error.

    Raises:
        UserError: naming the arrays.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(variables)
    bad = [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, array in leaves
        if not np.isfinite(np.asarray(array, np.float32)).all()
    ]
    if bad:
        raise UserError(
            f"{origin}: expected finite numbers, found NaN or infinity in "
            f"{', '.join(bad[:6])} ({len(bad)} of {len(leaves)} arrays)"
        )


def load_chosen(config: Config, values: Any) -> tuple[BodyModel, Task, Trained]:
    """The body, the task and the trained model that a command's flags choose.

    Args:
        config: the experiment.
        values: parsed flags ``workdir``, ``params`` (which goes first), ``checkpoint``.

    Returns:
        All three.
    """
    body, task = load_body(config), make_task(config)
    trained = load_trained(
        config,
        task,
        workdir=None if values.params else values.workdir,
        params=values.params,
        which=values.checkpoint,
    )
    return body, task, trained


def best_by(config: Config) -> dict[str, Any]:
    """The arguments of ``Checkpoints`` that choose the best one."""
    metric = config.eval.best_metric
    larger = metric.startswith(("PCK", "AUC")) or "+" in metric
    return {
        "best_metric": f"{config.eval.best_protocol}/{metric}",
        "best_mode": "max" if larger else "min",
    }


def start_from(config: Config, task: Task) -> Callable[[Variables], Variables] | None:
    """What ``config.start`` does to the initial variables.

    Args:
        config: an experiment.
        task: of ``make_task``.

    Returns:
        A function of the initial variables; None where nothing is to be loaded.

    Raises:
        UserError: more than one start is given, or it does not fit the model.
    """
    given = {name: value for name, value in config.start.items() if value}
    if len(given) > 1:
        raise UserError(f"config.start: expected at most one of {sorted(given)}")
    if not given:
        return None
    if "backbone" in given:
        from hmr_jax.convert.systems import load_backbone, with_backbone

        shapes = variable_shapes(task, config)
        backbone = load_backbone(given["backbone"], template=shapes)
        return lambda variables: with_backbone(variables, backbone)
    trained = load_trained(config, task, **given)
    return lambda _: trained.variables


def flat_metrics(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Numbers of an evaluation as ``protocol/metric``, the overall ones alone."""
    return {
        f"{protocol}/{metric}": float(value)
        for protocol, metrics in values.items()
        for metric, value in metrics.items()
        if metric not in "xyz" and "/" not in metric
    }
