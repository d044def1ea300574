"""What the trainer needs to know of a system: its callables and its loss weights.

The trainer itself knows no model, no loss and no body: a ``Task`` brings them, and
``assets`` (usually the body model) travels through the step as an argument.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

Batch = Mapping[str, Any]
"""Arrays by name, each with the batch as its first axis."""
Variables = dict[str, Any]
"""Flax collections: ``params`` and, where the model has them, ``batch_stats``."""
Terms = dict[str, tuple[jax.Array, jax.Array]]
"""Losses or metrics by name, each as (sum, count): nobody divides early."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A trainable system.

    Attributes:
        init: ``init(rng, batch) -> variables``, pure, so that ``jax.eval_shape`` gives
            the shapes without computing.
        losses: ``losses(variables, batch, assets, *, train, rngs) -> (terms,
            batch_stats, aux)``. Each term is (sum, count); the count depends on the
            batch's masks alone, never on the prediction. The step adds ``batch_row``
            [B] to the batch, each sample's place in the batch of all devices; what is
            random of a sample follows it (``sample_keys``, with ``rngs['samples']``),
            and so does not depend on the number of devices. ``batch_stats`` holds the
            updated running statistics (an empty dict for a model without them).
        weights: what each term's mean is multiplied by in the total. A term without a
            weight is logged and not trained.
        predict: ``predict(variables, batch, assets) -> dict`` of arrays with the batch
            first; None for a task that is never evaluated.
        prepare: ``prepare(rng, batch, assets) -> batch``, the training batch that
            ``losses`` sees, made on the device from what the iterator gave (and
            ``batch_row``, with a key that is the same on all devices): the step
            calls it once, in the same program. None leaves batches as they are.
    """

    init: Callable[..., Variables]
    losses: Callable[..., tuple[Terms, Any, Any]]
    weights: Mapping[str, float]
    predict: Callable[..., dict[str, Any]] | None = None
    prepare: Callable[..., Batch] | None = None


def collections(params: Any, batch_stats: Any) -> Variables:
    """The variables a model's ``apply`` takes; no empty ``batch_stats`` collection.

    Args:
        params: the trained parameters.
        batch_stats: running statistics, possibly empty.

    Returns:
        ``{'params': ..., 'batch_stats': ...}``.
    """
    variables = {"params": params}
    if batch_stats:
        variables["batch_stats"] = batch_stats
    return variables
