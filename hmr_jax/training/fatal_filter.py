"""Stands between a process's error stream and the terminal: no C++ stack, a message.

JAX's runtime ends a process whose peers or coordinator are lost by a fatal log line, a
stack trace and an abort, from a thread that Python cannot reach. This program, started
by its path with the stream as its input, passes everything on as it comes, and puts a
sentence in place of that line and what follows it. The reason that the line gives is
part of the sentence.
"""

import os
import re
import signal

FATAL = b"Terminating process because the JAX distributed service detected fatal"
LOST = (
    "another process of this run was lost, so this one ends too. The checkpoints are "
    "whole: start all processes again to go on from the newest."
)
LATE = (
    "this process waited too long for another one of this run, which was lost or is "
    "very slow, so this one ends. The checkpoints are whole: start all processes again "
    "to go on from the newest."
)
SEEN = "What the runtime saw: "
_REASON = b"absl::Status: "
_START = re.compile(rb"F\d{4} \d\d:\d\d:")
_POSSIBLE_START = re.compile(rb"F\d{0,4}[^\n]{0,400}\Z")


def split(data: bytes) -> tuple[bytes, bytes, bool]:
    """What to pass on, what to hold back, and whether the fatal line has come.

    Args:
        data: bytes not yet passed on.

    Returns:
        The two parts, the second from the fatal line on where that has come.
    """
    place = data.find(FATAL)
    if place >= 0:
        starts = [match.start() for match in _START.finditer(data, 0, place)]
        start = starts[-1] if starts else place
        return data[:start], data[start:], True
    held = _POSSIBLE_START.search(data)
    if held is None:
        return data, b"", False
    return data[: held.start()], data[held.start() :], False


def message(fatal: bytes) -> bytes:
    """The sentence in place of the fatal line and what follows it, with its reason."""
    line = fatal.split(b"\n", 1)[0].rstrip()
    reason = line.partition(_REASON)[2] or line[line.find(FATAL) :]
    return f"\nhmr-jax: error: {LOST} {SEEN}".encode() + reason + b"\n"


def main() -> None:
    """Copy standard input to standard error until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for whom we listen to
        signal.signal(number, signal.SIG_IGN)
    held, lost, told = b"", False, False
    while data := os.read(0, 1 << 16):
        held += data
        if not lost:
            passed, held, lost = split(held)
            _write(passed)
        if lost and not told and b"\n" in held:
            _write(message(held))
            told = True
    if not told:
        _write(message(held) if lost else held)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]


if __name__ == "__main__":
    main()
