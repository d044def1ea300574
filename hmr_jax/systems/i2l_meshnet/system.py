"""I2L-MeshNet, from a config to tasks, data and evaluations."""

from typing import Any

from hmr_jax.errors import UserError
from hmr_jax.systems.i2l_meshnet.checkpoint import CHECKPOINT
from hmr_jax.systems.i2l_meshnet.data import (
    example_inputs,
    program_inputs,
    train_batches,
)
from hmr_jax.systems.i2l_meshnet.evaluate import evaluator
from hmr_jax.systems.i2l_meshnet.joints import joint_body
from hmr_jax.systems.i2l_meshnet.people import people
from hmr_jax.systems.i2l_meshnet.task import make_task, stage_of
from hmr_jax.systems.system import Stage, System


def stages(config: Any, steps_per_epoch: int, total: int) -> list[Stage]:
    """The stage that a config trains, to the end.

    Args:
        config: an experiment.
        steps_per_epoch: unused.
        total: length of the run.

    Raises:
        UserError: the second stage does not say which first stage it begins with.
    """
    del steps_per_epoch
    stage = stage_of(config)
    if stage == "param" and not (config.start.workdir or config.start.params):
        raise UserError(
            "config.start: expected workdir or params of a trained lixel stage, on "
            "which the param stage builds; found none"
        )
    return [Stage(stage, make_task(config), total)]


SYSTEM = System(
    task=make_task,
    stages=stages,
    body=joint_body,
    assets=lambda config, body: body,
    train_data=train_batches,
    evaluator=evaluator,
    evaluates_in_training=lambda config: bool(config.eval.source),
    inputs=program_inputs,
    examples=example_inputs,
    checkpoint=CHECKPOINT,
    people=people,
    padding=1.25,
)
