"""Trained models: where they lie, whether they fit, and what training starts from."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging

from hmr_jax.errors import UserError
from hmr_jax.metrics.kinds import higher_is_better
from hmr_jax.remote import location
from hmr_jax.systems.system import Batch, System, Variables
from hmr_jax.training.checkpoints import Checkpoints
from hmr_jax.training.matching import check_matches
from hmr_jax.training.state import init_key
from hmr_jax.training.trainable import join, split

Config = Any
STARTS = ("backbone", "params", "workdir")
"""Fields of ``config.start``, of which at most one is given."""


def blank_batch(system: System, config: Config) -> Batch:
    """A batch of one sample that is good enough to initialise a model."""
    shapes = system.inputs(config)
    return {k: np.zeros((1, *shape), np.float32) for k, shape in shapes.items()}


def initial_variables(system: System, config: Config) -> Variables:
    """The variables of an untrained model.

    Args:
        system: whose model it is.
        config: an experiment.

    Returns:
        Host arrays; the same as a run with this seed starts from.
    """
    made = jax.jit(system.task(config).init)(
        init_key(config.seed), blank_batch(system, config)
    )
    return jax.device_get(made)


def variable_shapes(system: System, config: Config) -> Variables:
    """Shapes of a model's variables, without computing any."""
    return jax.eval_shape(
        system.task(config).init, jax.random.key(0), blank_batch(system, config)
    )


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
    system: System,
    config: Config,
    *,
    workdir: str | None = None,
    params: str | None = None,
    which: str = "best",
    without: str = "",
) -> Trained:
    """Read a trained model.

    Args:
        system: whose model it is.
        config: its experiment.
        workdir: a run's folder.
        params: or a file written by export or convert.
        which: 'best', 'latest' or a step, of the run's checkpoints.
        without: regular expression of whole dotted names of variables that are neither
            expected nor looked at, as ``head\\..*``.

    Returns:
        The variables, less those that match ``without``.

    Raises:
        UserError: neither or both are given, or the variables belong to another
            model; the error names arrays, expected and found shapes.
        FileNotFoundError: there is no such file or checkpoint.
    """
    shapes = variable_shapes(system, config)
    if params and not workdir:
        from hmr_jax.export.params import load_params

        variables = load_params(params)
        return Trained(_checked(shapes, variables, params, without), params, None)
    if not workdir or params:
        raise UserError("expected either a workdir or a file of parameters")
    folder = location(workdir) / "checkpoints"
    with Checkpoints(folder, **best_by(config), read_only=True) as store:
        variables, step, origin = store.read_variables(which)
    variables = _checked(shapes, variables, origin, without)
    logging.info("loaded %s", origin)
    return Trained(variables, origin, step)


def _checked(
    shapes: Variables, variables: Variables, origin: str, without: str
) -> Variables:
    """Variables that are wanted, if they are finite and those of the model."""
    if without:
        shapes, variables = (_less(tree, without) for tree in (shapes, variables))
    check_matches(shapes, variables, origin)
    check_finite(variables, origin)
    return variables


def _less(variables: Variables, without: str) -> Variables:
    return {name: split(tree, without)[1] for name, tree in variables.items()}


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


def best_by(config: Config) -> dict[str, Any]:
    """The arguments of ``Checkpoints`` that choose the best one.

    Raises:
        UserError: no metric has such a name.
    """
    metric = config.eval.best_metric
    names = metric.split("+")
    # Of several metrics the evaluation counts how often they were the best so far.
    larger = len(names) > 1 or higher_is_better(names[0])
    return {
        "best_metric": f"{config.eval.best_protocol}/{metric}",
        "best_mode": "max" if larger else "min",
    }


def start_from(
    system: System, config: Config
) -> Callable[[Variables], Variables] | None:
    """What ``config.start`` does to the initial variables.

    Args:
        system: whose model it is.
        config: an experiment.

    Returns:
        A function of the initial variables; None where nothing is to be loaded. Of a
        run or a file what matches ``config.start.dont_load`` stays initial; all else
        must be there, and nothing more.

    Raises:
        UserError: more than one start is given, or it does not fit the model.
    """
    given = {name: config.start[name] for name in STARTS if config.start[name]}
    if len(given) > 1:
        raise UserError(f"config.start: expected at most one of {sorted(given)}")
    if not given:
        return None
    if "backbone" in given:
        from hmr_jax.convert.checkpoints import load_backbone, with_backbone

        shapes = variable_shapes(system, config)
        names = system.checkpoint.backbones
        backbone = load_backbone(given["backbone"], template=shapes, names=names)
        return lambda variables: with_backbone(variables, backbone, names=names)
    without = _pattern(config.start.dont_load)
    trained = load_trained(system, config, **given, without=without)

    if not without:
        return lambda _: trained.variables

    def begin(variables: Variables) -> Variables:
        return {
            name: join(trained.variables.get(name, {}), split(tree, without)[0])
            for name, tree in variables.items()
        }

    return begin


def _pattern(text: str) -> str:
    """A regular expression of a config."""
    try:
        re.compile(text)
    except re.error as error:
        raise UserError(
            f"config.start.dont_load: expected a regular expression, found {text!r} "
            f"({error})"
        ) from error
    return text


def starts_elsewhere(config: Config) -> bool:
    """Whether a config names what training starts from."""
    return any(config.start[name] for name in STARTS)
