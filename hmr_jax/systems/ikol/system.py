"""IKOL, from a config to tasks, data and evaluations."""

from typing import Any

from hmr_jax.systems.bodies import load_body
from hmr_jax.systems.ikol.checkpoint import CHECKPOINT
from hmr_jax.systems.ikol.data import example_inputs, program_inputs, train_batches
from hmr_jax.systems.ikol.evaluate import evaluator
from hmr_jax.systems.ikol.people import people
from hmr_jax.systems.ikol.task import make_task
from hmr_jax.systems.system import Stage, System


def stages(config: Any, steps_per_epoch: int, total: int) -> list[Stage]:
    """One stage, to the end."""
    del steps_per_epoch
    return [Stage("joints to body", make_task(config), total)]


SYSTEM = System(
    task=make_task,
    stages=stages,
    body=load_body,
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
