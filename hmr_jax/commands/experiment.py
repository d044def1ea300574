"""The trained model that a command's flags choose."""

from typing import Any

from hmr_jax import systems
from hmr_jax.systems.system import System, Task
from hmr_jax.training.trained import Trained, load_trained


def load_chosen(config: Any, values: Any) -> tuple[System, Any, Task, Trained]:
    """The system, the body, the task and the trained model that flags choose.

    Args:
        config: the experiment.
        values: parsed flags ``workdir``, ``params`` (which goes first), ``checkpoint``.

    Returns:
        All four.
    """
    system = systems.get(config.system)
    body, task = system.body(config), system.task(config)
    trained = load_trained(
        system,
        config,
        workdir=None if values.params else values.workdir,
        params=values.params,
        which=values.checkpoint,
    )
    return system, body, task, trained
