"""Hierarchical distributions, from a config to tasks, data and evaluations."""

from typing import Any

from absl import logging

from hmr_jax.errors import UserError
from hmr_jax.systems.bodies import load_body
from hmr_jax.systems.hierprob import data, task, validation
from hmr_jax.systems.hierprob.checkpoint import CHECKPOINT
from hmr_jax.systems.hierprob.evaluate import evaluates_in_training, evaluator
from hmr_jax.systems.hierprob.people import people
from hmr_jax.systems.system import Stage, System


def stages(config: Any, steps_per_epoch: int, total: int) -> list[Stage]:
    """The two stages of a run, which share the optimiser's state.

    Args:
        config: an experiment.
        steps_per_epoch: of its poses.
        total: length of the run.

    Returns:
        Those of at least one step, in order.

    Raises:
        UserError: the second stage's beginning is given twice.
    """
    epoch, step = config.train.stage2_epoch, config.train.stage2_step
    if min(epoch, step) < 0:
        raise UserError(
            "config.train: expected stage2_epoch and stage2_step of 0 or more, "
            f"found {epoch} and {step}"
        )
    if epoch and step:
        raise UserError(
            "config.train: expected one of stage2_epoch and stage2_step to be zero, "
            f"found {epoch} and {step}"
        )
    switch = min(step or epoch * steps_per_epoch, total)
    if switch == total:
        logging.warning(
            "the second stage would begin at step %d; the run of %d steps has none",
            step or epoch * steps_per_epoch,
            total,
        )
    ends = (("stage1", switch), ("stage2", total))
    return [
        Stage(stage, task.make_task(config, stage), end)
        for number, (stage, end) in enumerate(ends)
        if end > (0, switch)[number]
    ]


SYSTEM = System(
    task=task.make_task,
    stages=stages,
    body=load_body,
    assets=data.make_assets,
    train_data=data.train_batches,
    evaluator=evaluator,
    evaluates_in_training=evaluates_in_training,
    inputs=validation.program_inputs,
    examples=validation.example_inputs,
    checkpoint=CHECKPOINT,
    people=people,
    needs_joints2d=True,
)
