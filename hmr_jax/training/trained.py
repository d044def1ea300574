"""Trained models: where they lie, whether they fit, and what training starts from."""

import dataclasses
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

Config = Any


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
) -> Trained:
    """Read a trained model.

    Args:
        system: whose model it is.
        config: its experiment.
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
    shapes = variable_shapes(system, config)
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
        from hmr_jax.convert.checkpoints import load_backbone, with_backbone

        shapes = variable_shapes(system, config)
        backbone = load_backbone(given["backbone"], template=shapes)
        return lambda variables: with_backbone(variables, backbone)
    trained = load_trained(system, config, **given)
    return lambda _: trained.variables
