"""Data parallelism over devices and hosts: the only file that maps over devices.

The state has no device axis: it goes in with ``in_axes=None`` and comes out with
``out_axes=None``. The latter takes one device's value *without checking* that the
others agree; ``map_step(..., check_replicas=True)`` returns them all for a test.
A single device takes the same path, mapped over one.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hmr_jax.errors import UserError
from hmr_jax.systems.system import DEVICE_AXIS
from hmr_jax.training import processes


def map_step(
    step: Callable[..., Any],
    *,
    devices: Sequence[jax.Device] | None = None,
    check_replicas: bool = False,
) -> Callable[..., Any]:
    """Map a step over devices.

    Args:
        step: ``step(state, batch, rng, assets) -> (state, metrics)`` that adds over
            ``DEVICE_AXIS``.
        devices: the devices, all of them by default.
        check_replicas: give every device's result a leading axis, for tests that
            compare them.

    Returns:
        The mapped step. ``batch`` has a leading device axis (``shard_batch``), nothing
        else has. The state passed in is donated: use the one that comes back.
    """
    out = 0 if check_replicas else None
    return jax.pmap(
        step,
        axis_name=DEVICE_AXIS,
        in_axes=(None, 0, None, None),
        out_axes=(out, out),
        devices=devices,
        donate_argnums=() if check_replicas else (0,),
    )


def map_predict(
    predict: Callable[..., Any], *, devices: Sequence[jax.Device] | None = None
) -> Callable[..., Any]:
    """Map a prediction over this process's devices, hiding the device axis.

    Args:
        predict: ``predict(variables, batch, assets)``, leaves with the batch first.
        devices: the devices, this process's by default.

    Returns:
        A function of the same arguments on host batches of any size: rows are repeated
        up to a multiple of the number of devices and cut off again.
    """
    devices = list(devices or jax.local_devices())
    mapped = jax.pmap(
        predict, axis_name=DEVICE_AXIS, in_axes=(None, 0, None), devices=devices
    )

    def call(variables: Any, batch: Mapping[str, Any], assets: Any) -> Any:
        size = len(next(iter(batch.values())))
        missing = -size % len(devices)
        if missing:
            pad = lambda x: np.concatenate([x, np.repeat(x[-1:], missing, 0)])  # noqa: E731
            batch = {name: pad(np.asarray(value)) for name, value in batch.items()}
        outputs = mapped(variables, shard_batch(batch, devices), assets)
        join = lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:size]  # noqa: E731
        return jax.tree.map(join, outputs)

    return call


def shard_batch(
    batch: Mapping[str, Any], devices: Sequence[jax.Device] | None = None
) -> dict[str, Any]:
    """Cut this process's batch among its devices and start copying it there.

    Args:
        batch: numpy arrays [B, ...].
        devices: this process's devices by default.

    Returns:
        Arrays [devices, B / devices, ...], each device's part on that device.

    Raises:
        UserError: the batch does not divide among the devices.
    """
    devices = list(devices or jax.local_devices())
    sharding = NamedSharding(_mesh(devices), PartitionSpec(DEVICE_AXIS))

    def cut(name, leaf):
        leaf = np.asarray(leaf)
        if leaf.shape[0] % len(devices):
            raise UserError(
                f"batch[{name!r}]: {leaf.shape[0]} samples do not divide among "
                f"{len(devices)} devices"
            )
        return leaf.reshape(len(devices), -1, *leaf.shape[1:])

    cut_batch = {name: cut(name, leaf) for name, leaf in batch.items()}
    return jax.device_put(cut_batch, sharding)


def place(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
    """Put a tree on every device of this process once, without adding an axis.

    Args:
        tree: arrays equal on all processes.
        devices: this process's devices by default.

    Returns:
        The tree on the devices, so that mapped calls copy nothing.
    """
    devices = list(devices or jax.local_devices())
    return jax.device_put(tree, NamedSharding(_mesh(devices), PartitionSpec()))


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    return Mesh(np.asarray(devices), (DEVICE_AXIS,))


def start_processes(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Join this process to the others of a run, before JAX's first computation.

    Returns when all are connected: from then on they may be late for each other.

    Args:
        coordinator: ``host:port`` of process 0; None leaves a lone process alone, and
            ``'auto'`` lets JAX find everything in the cluster's environment.
        num_processes: number of processes in the run.
        process_id: this process's number, from 0.

    Raises:
        UserError: a coordinator without the two numbers, or they without it.
        ProcessLostError: another process is gone, or does not come to the meeting.
    """
    if not coordinator:
        if num_processes is not None or process_id is not None:
            raise UserError(
                "coordinator: expected host:port beside the number of processes and "
                "this process's id, found none"
            )
        return
    if os.environ.get("JAX_PLATFORMS", "").startswith("cpu"):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if coordinator == "auto":
        jax.distributed.initialize()
    elif num_processes is None or process_id is None:
        raise UserError(
            f"coordinator {coordinator!r} needs the number of processes and this "
            f"process's id; found {num_processes} and {process_id}"
        )
    else:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    processes.watch_peers()
    with processes.ending_together():
        _meet()
    logging.info(
        "process %d of %d, %d local of %d devices",
        jax.process_index(),
        jax.process_count(),
        jax.local_device_count(),
        jax.device_count(),
    )


def _meet() -> None:
    """Connect the processes of a run; to be called when all of them have just started.

    The runtime connects processes in the first exchange between the same devices, and
    gloo, which exchanges for CPUs, ends the run where one comes to it 30 s after
    another. Compiling and opening data may well take that much longer on one of them.
    Processes that are connected wait for each other for half an hour and more. So all
    exchanges there will be are made once here, before any such work.
    """
    if jax.process_count() == 1:
        return
    processes.gather("")  # between the devices of equal place in each process
    devices = jax.local_device_count()
    everywhere = jax.pmap(lambda x: jax.lax.psum(x, "all"), axis_name="all")
    jax.block_until_ready(everywhere(np.ones(devices, np.float32)))
