"""The training step: one pure function for one device, many devices, many hosts.

Exactness. The total is ``sum_n weight_n * sum_n / count_n``, where both sums run over
the whole batch: over every device, every process and every micro-batch. The counts
depend on the masks alone, so they are added up first; each shard then divides its own
sums by the global counts, and gradients are *added* over shards. A mean of per-device
means would be wrong as soon as the devices hold different numbers of valid samples.

Batch normalisation is the one part that sees a shard at a time. With the model built
for the step's axis name its statistics are taken over all devices, and devices are
exact; micro-batches of gradient accumulation keep statistics of their own (the running
averages then move once per micro-batch). Without the axis name each device normalises
by itself, as the published trainers do, and the running averages are averaged so that
replicas agree.

What a task does not train is not differentiated: its gradient is not even zeros.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from hmr_jax.errors import UserError
from hmr_jax.systems.system import Batch, Task, Terms, collections
from hmr_jax.training.state import TrainState
from hmr_jax.training.trainable import join, split, trained

_PREPARING, _SAMPLING = 2**31 - 1, 2**31 - 2
"""Folded into the step's key for ``Task.prepare`` and ``rngs['samples']``; devices
count from 0."""


def step(
    state: TrainState,
    batch: Batch,
    rng: jax.Array,
    assets: Any,
    *,
    task: Task,
    tx: optax.GradientTransformation,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> tuple[TrainState, Terms]:
    """One update of the parameters.

    Args:
        state: the run so far.
        batch: this device's part of the batch, [B, ...] each.
        rng: the run's key, the same at every step and on every device; the step folds
            in its number, so that a resumed run draws what the uninterrupted one would
            have drawn. Its share for the samples is the same on all devices, to be
            folded with ``batch_row``; that of dropout is of each device and
            micro-batch.
        assets: pytree handed to the task, the same on every device.
        task: what is trained.
        tx: the optimiser, of what the task trains.
        axis_name: the mapped axis over devices; None when the step is not mapped.
        accumulate: number of micro-batches each device's part is cut into. The result
            is that of the whole part at once (see above for batch normalisation).

    Returns:
        The next state and the metrics as (sum, count), equal on all devices: every
        loss term, ``total`` and the norms of parameters, gradient and update.

    Raises:
        UserError: the batch does not divide into ``accumulate``, or a weight names a
            loss the task does not have.
    """
    of_all = jax.random.fold_in(rng, state.step)
    device = jax.lax.axis_index(axis_name) if axis_name else jnp.zeros((), jnp.int32)
    size = jax.tree.leaves(batch)[0].shape[0]
    batch = {**batch, "batch_row": device * size + jnp.arange(size, dtype=jnp.int32)}
    if task.prepare is not None:
        batch = task.prepare(jax.random.fold_in(of_all, _PREPARING), batch, assets)
    micro_batches = _split(batch, accumulate)
    rngs = {
        "dropout": jax.random.fold_in(of_all, device),
        "samples": jax.random.fold_in(of_all, _SAMPLING),
    }
    add = _add_over(axis_name)

    counts = add(_count(state, micro_batches, rngs, assets, task))
    grads, sums, batch_stats = _gradients(
        state, micro_batches, rngs, assets, task, counts
    )
    grads, sums = add(grads), add(sums)
    if axis_name:
        batch_stats = jax.lax.pmean(batch_stats, axis_name)
    moving = task.trainable if task.moving is None else task.moving
    batch_stats = join(
        split(batch_stats, moving)[0], split(state.batch_stats, moving)[1]
    )

    # optax mixes Python numbers into its arithmetic, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        moved, still = trained(state.params, task.trainable)
        updates, opt_state = tx.update(grads, state.opt_state, moved)
        params = join(optax.apply_updates(moved, updates), still)
    metrics = _metrics(sums, counts, task.weights)
    for name, tree in (("param", params), ("grad", grads), ("update", updates)):
        metrics[f"{name}_norm"] = (optax.global_norm(tree), jnp.ones(()))
    return (
        TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
        ),
        metrics,
    )


def _split(batch: Batch, parts: int) -> Batch:
    """Cut [B, ...] leaves into [parts, B / parts, ...]."""

    def cut(path, leaf):
        if leaf.shape[0] % parts:
            raise UserError(
                f"batch{jax.tree_util.keystr(path)}: {leaf.shape[0]} samples per device"
                f" do not divide into {parts} micro-batches (accumulate={parts})"
            )
        return leaf.reshape(parts, leaf.shape[0] // parts, *leaf.shape[1:])

    return jax.tree_util.tree_map_with_path(cut, dict(batch))


def _add_over(axis_name):
    if axis_name is None:
        return lambda tree: tree
    return lambda tree: jax.lax.psum(tree, axis_name)


def _first(micro_batches: Batch) -> Batch:
    return jax.tree.map(lambda leaf: leaf[0], micro_batches)


def _num_parts(micro_batches: Batch) -> int:
    return jax.tree.leaves(micro_batches)[0].shape[0]


def _forward(params, batch_stats, batch, rngs, assets, task):
    return task.losses(
        collections(params, batch_stats),
        batch,
        assets,
        train=True,
        rngs=rngs,
    )


def _count(state, micro_batches, rngs, assets, task) -> dict[str, jax.Array]:
    """Counts over all micro-batches.

    They do not depend on the prediction, so the compiler drops the forward pass
    written here (tests/training/test_step.py counts the operations left).
    """

    def count(batch):
        terms, _, _ = _forward(
            state.params, state.batch_stats, batch, rngs, assets, task
        )
        unknown = sorted(set(task.weights) - set(terms))
        if unknown:
            raise UserError(
                f"loss weights {unknown} name no loss; the losses are {sorted(terms)}"
            )
        return {name: jnp.asarray(term[1], jnp.float32) for name, term in terms.items()}

    if _num_parts(micro_batches) == 1:
        return count(_first(micro_batches))
    return jax.tree.map(lambda x: x.sum(0), jax.lax.map(count, micro_batches))


def _divisor(count: jax.Array) -> jax.Array:
    """The count, or 1 where nothing was counted: an absent term is then 0 / 1."""
    return jnp.where(count > 0, count, jnp.ones_like(count))


def _gradients(state, micro_batches, rngs, assets, task, counts):
    """Gradients and loss sums added over micro-batches, and the last statistics."""
    moved, still = trained(state.params, task.trainable)

    def total(moved, batch_stats, batch, rngs):
        params = join(moved, still)
        terms, batch_stats, _ = _forward(params, batch_stats, batch, rngs, assets, task)
        sums = {name: jnp.asarray(term[0], jnp.float32) for name, term in terms.items()}
        value = jnp.zeros(())
        for name, weight in task.weights.items():
            value += jnp.float32(weight) * sums[name] / _divisor(counts[name])
        return value, (sums, batch_stats)

    def one(carry, inputs):
        grads, sums, batch_stats = carry
        batch, index = inputs
        own = {**rngs, "dropout": jax.random.fold_in(rngs["dropout"], index)}
        grad, (more, batch_stats) = jax.grad(total, has_aux=True)(
            moved, batch_stats, batch, own
        )
        add = lambda a, b: jax.tree.map(jnp.add, a, b)  # noqa: E731
        return (add(grads, grad), add(sums, more), batch_stats), None

    parts = _num_parts(micro_batches)
    zeros = (
        jax.tree.map(jnp.zeros_like, moved),
        {name: jnp.zeros(()) for name in counts},
        state.batch_stats,
    )
    if parts == 1:
        return one(zeros, (_first(micro_batches), 0))[0]
    return jax.lax.scan(one, zeros, (micro_batches, jnp.arange(parts)))[0]


def _metrics(sums, counts, weights) -> Terms:
    total = jnp.zeros(())
    for name, weight in weights.items():
        total += jnp.float32(weight) * sums[name] / _divisor(counts[name])
    metrics = {name: (sums[name], counts[name]) for name in sums}
    return {**metrics, "total": (total, jnp.ones(()))}
