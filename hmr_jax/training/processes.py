"""Several processes of one run: they start alike, stop together, and end together."""

import atexit
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from hmr_jax.errors import UserError
from hmr_jax.training import fatal_filter

_GRACE_S = 2.0
"""The coordinator outlives others by so much where all of them end with an error."""
_SIGNS = ("Gloo", "NCCL", "nccl", "coordination service", "Connection closed by peer")
_SIGNS_OF_WAITING = ("DEADLINE_EXCEEDED", "timed out", "Timed out", "timeout")
_failed = False


class ProcessLostError(UserError):
    """Another process is gone or much too late; the message says what was seen."""


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """Where two JSON values differ.

    Args:
        before: one value.
        now: the other.
        name: what the whole is called.

    Returns:
        One line per differing leaf: ``name.field: before -> now``.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        return [
            line
            for key in sorted(before.keys() | now.keys())
            for line in differences(
                before.get(key), now.get(key), f"{name}.{key}" if name else key
            )
        ]
    return [] if before == now else [f"{name}: {before!r} -> {now!r}"]


def check_same(values: Mapping[str, Any]) -> None:
    """Refuse to start where the processes of a run do not have the same in hand.

    Args:
        values: JSON values by name, this process's.

    Raises:
        UserError: on every process; naming the process and what differs.
    """
    if jax.process_count() == 1:
        return
    first, *others = (json.loads(text) for text in gather(json.dumps(values)))
    for number, found in enumerate(others, start=1):
        lines = differences(first, found)
        if lines:
            raise UserError(
                f"process {number} does not start as process 0 does: "
                f"{'; '.join(lines[:6])}; all processes of a run need the same config "
                "and one shared --workdir"
            )


def of_first(text: str) -> str:
    """Process 0's text, on all processes, which wait for each other here."""
    return text if jax.process_count() == 1 else gather(text)[0]


def gather(text: str) -> list[str]:
    """This text of every process, in their order."""
    from jax.experimental import multihost_utils

    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(len(data))).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(data)] = data
    rows = multihost_utils.process_allgather(padded)
    return [
        bytes(row[:size]).decode()
        for row, size in zip(rows, sizes.tolist(), strict=True)
    ]


class StopSignal:
    """Whether SIGTERM or Ctrl-C asked for an end, on this process or on another."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def _handle(self, number, frame) -> None:
        del frame
        if self._event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._event.set()
        if jax.process_count() > 1:
            # JAX's own handler of SIGTERM tells the other processes.
            os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; to be asked after each, by all processes.

        With several processes JAX finds the first step that none of them has passed.
        """
        if jax.process_count() == 1:
            return self._event.is_set()
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopSignal]:
    """Listen for SIGTERM and Ctrl-C; a second Ctrl-C interrupts at once."""
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT]
    if jax.process_count() == 1:
        numbers.append(signal.SIGTERM)
    before = {number: signal.signal(number, stop._handle) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Let an error of this process end the others soon, and say so of theirs.

    Raises:
        ProcessLostError: in place of the runtime's error, where another one is gone.
    """
    global _failed
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        _failed = True
        if not isinstance(error, UserError) and any(s in str(error) for s in _SIGNS):
            raise ProcessLostError(_explained(str(error))) from error
        raise


def _explained(reason: str) -> str:
    """What the loss of another process means, and the runtime's words for it."""
    waited = any(sign in reason for sign in _SIGNS_OF_WAITING)
    meaning = fatal_filter.LATE if waited else fatal_filter.LOST
    return f"{meaning} {fatal_filter.SEEN}{reason.splitlines()[0]}"


def watch_peers() -> None:
    """Prepare this process, one of several, for the loss of another."""
    program = pathlib.Path(fatal_filter.__file__)
    sys.stderr.flush()
    filtering = subprocess.Popen(
        [sys.executable, "-S", str(program)], stdin=subprocess.PIPE
    )
    assert filtering.stdin is not None
    os.dup2(filtering.stdin.fileno(), 2)
    filtering.stdin.close()
    atexit.register(_leave)


def _leave() -> None:
    """End without JAX's meeting at the exit, where others may never come."""
    if not _failed:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    if jax.process_index() == 0:
        time.sleep(_GRACE_S)
    os._exit(1)
