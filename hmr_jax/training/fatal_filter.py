"""Stands between a process's error stream and the terminal: no C++ stack, a message.

JAX's runtime ends a process whose peers or coordinator are lost by a fatal log line, a
stack trace and an abort, from a thread that Python cannot reach. This program, started
by its path with the stream as its input, passes everything on as it comes, and puts a
sentence in place of that line and what follows it.
"""

import os
import re
import signal

FATAL = b"Terminating process because the JAX distributed service detected fatal"
LOST = (
    "another process of this run was lost, so this one ends too. The checkpoints are "
    "whole: start all processes again to go on from the newest."
)
_START = re.compile(rb"F\d{4} \d\d:\d\d:")
_POSSIBLE_START = re.compile(rb"F\d{0,4}[^\n]{0,400}\Z")


def split(data: bytes) -> tuple[bytes, bytes, bool]:
    """What to pass on, what to hold back, and whether the fatal line has come.

    Args:
        data: bytes not yet passed on.
    """
    place = data.find(FATAL)
    if place >= 0:
        starts = [match.start() for match in _START.finditer(data, 0, place)]
        return data[: starts[-1] if starts else place], b"", True
    held = _POSSIBLE_START.search(data)
    if held is None:
        return data, b"", False
    return data[: held.start()], data[held.start() :], False


def main() -> None:
    """Copy standard input to standard error until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for whom we listen to
        signal.signal(number, signal.SIG_IGN)
    held, lost = b"", False
    while data := os.read(0, 1 << 16):
        if lost:
            continue
        passed, held, lost = split(held + data)
        if lost:
            passed += f"\nhmr-jax: error: {LOST}\n".encode()
        _write(passed)
    _write(held)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]


if __name__ == "__main__":
    main()
