"""The optimiser and its learning-rate schedule, from plain values of a config."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from hmr_jax.errors import UserError

Schedule = Callable[[Any], Any]

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "multistep", "cosine")


def make_schedule(
    *,
    learning_rate: float,
    schedule: str = "constant",
    warmup_steps: int = 0,
    total_steps: int | None = None,
    boundary_steps: Sequence[int] = (),
    factor: float = 0.1,
    final_fraction: float = 0.0,
) -> Schedule:
    """The learning rate as a function of the step.

    Args:
        learning_rate: its peak.
        schedule: 'constant'; 'multistep', multiplied by ``factor`` at each boundary;
            'cosine', down to ``final_fraction`` of the peak at ``total_steps``.
        warmup_steps: steps of linear rise from 0 before the schedule takes over; the
            schedule's own steps are counted from the run's start all the same.
        total_steps: length of the run, needed by 'cosine'.
        boundary_steps: steps at which 'multistep' multiplies.
        factor: what 'multistep' multiplies by.
        final_fraction: where 'cosine' ends.

    Returns:
        ``schedule(step) -> learning rate``.

    Raises:
        UserError: an unknown name, or 'cosine' without a length.
    """
    if schedule == "constant":
        body = optax.constant_schedule(learning_rate)
    elif schedule == "multistep":
        scales = {int(step): factor for step in boundary_steps}
        body = optax.piecewise_constant_schedule(learning_rate, scales)
    elif schedule == "cosine":
        if not total_steps or total_steps <= warmup_steps:
            raise UserError(
                f"schedule 'cosine' needs total_steps > warmup_steps={warmup_steps}; "
                f"found {total_steps}"
            )
        decay = optax.cosine_decay_schedule(
            learning_rate, total_steps - warmup_steps, final_fraction
        )
        body = lambda step: decay(step - warmup_steps)  # noqa: E731
    else:
        raise UserError(
            f"optimizer.schedule: expected one of {SCHEDULES}, found {schedule!r}"
        )
    if not warmup_steps:
        return body
    rise = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    # join_schedules restarts the step count of the later schedule; ours does not.
    late = lambda step: body(step + warmup_steps)  # noqa: E731
    return optax.join_schedules([rise, late], [warmup_steps])


def make_optimizer(
    *,
    learning_rate: float | Schedule,
    name: str = "adam",
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    clip_global_norm: float | None = None,
) -> optax.GradientTransformation:
    """An optimiser by name.

    Args:
        learning_rate: a number or a schedule.
        name: 'adam', 'adamw' or 'sgd'.
        b1: Adam's decay of the first moment.
        b2: Adam's decay of the second moment.
        eps: Adam's epsilon, outside the square root.
        momentum: of 'sgd'.
        nesterov: of 'sgd'.
        weight_decay: decoupled in 'adamw', added to the gradient in 'adam' and 'sgd';
            of matrices and kernels only, never of biases and scales.
        clip_global_norm: scale gradients down to this norm; None leaves them.

    Returns:
        The transformation.

    Raises:
        UserError: an unknown name.
    """
    parts = []
    if clip_global_norm is not None:
        parts.append(optax.clip_by_global_norm(clip_global_norm))
    if weight_decay and name in ("adam", "sgd"):
        parts.append(optax.add_decayed_weights(weight_decay, mask=_kernels))
    if name == "adam":
        parts.append(optax.adam(learning_rate, b1, b2, eps))
    elif name == "adamw":
        parts.append(
            optax.adamw(
                learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=_kernels
            )
        )
    elif name == "sgd":
        parts.append(optax.sgd(learning_rate, momentum or None, nesterov))
    else:
        raise UserError(f"optimizer.name: expected one of {OPTIMIZERS}, found {name!r}")
    return optax.chain(*parts)


def from_config(
    config: Mapping[str, Any], *, total_steps: int, steps_per_epoch: int | None = None
) -> tuple[optax.GradientTransformation, Schedule]:
    """The optimiser and the schedule a config's ``optimizer`` section describes.

    Args:
        config: the arguments of ``make_schedule`` and ``make_optimizer`` by name;
            ``boundary_epochs`` may take the place of ``boundary_steps``.
        total_steps: length of the run.
        steps_per_epoch: what ``boundary_epochs`` are multiplied by.

    Returns:
        The optimiser and its schedule, the latter for logging.

    Raises:
        UserError: a value out of range, or epochs without their length.
    """
    values = dict(config)
    epochs = tuple(values.pop("boundary_epochs", ()))
    if epochs:
        if not steps_per_epoch:
            raise UserError("optimizer.boundary_epochs needs the length of an epoch")
        values["boundary_steps"] = tuple(
            int(round(epoch * steps_per_epoch)) for epoch in epochs
        )
    names = ["learning_rate", "schedule", "warmup_steps", "boundary_steps", "factor"]
    names += ["final_fraction"]
    # Configs have no None: their zero is 'no clipping'.
    values["clip_global_norm"] = values.get("clip_global_norm") or None
    chosen = {name: values.pop(name) for name in names if name in values}
    schedule = make_schedule(total_steps=total_steps, **chosen)
    return make_optimizer(learning_rate=schedule, **values), schedule


def _kernels(params: Any) -> Any:
    """Decay matrices and convolution kernels, not biases and normalisation scales."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
