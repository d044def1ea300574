"""The ``hmr-jax`` command: finds the command asked for and runs it."""

import difflib
import functools
import importlib
import os
import select
import sys
from collections.abc import Callable, Sequence

COMMANDS = {
    "data": "build, list, check and show datasets",
    "train": "train a model from a config",
    "eval": "score a trained model on held-out data",
    "predict": "find bodies in pictures, with their uncertainty",
    "export": "write a trained model's parameters or its whole program",
    "convert": "turn a published PyTorch checkpoint into our parameters",
    "doctor": "say what this machine offers and what is missing",
}
_UNREAD = 128 + 13
"""What a shell reports of a process that a closed pipe ended."""


def usage() -> str:
    """The help text over all commands."""
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "hmr-jax COMMAND [--flag=value ...]",
            "",
            *(f"  {name.ljust(width)}  {line}" for name, line in COMMANDS.items()),
            "",
            "hmr-jax COMMAND --help says more about one of them.",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the words after ``hmr-jax``; those of the process by default.

    Returns:
        The exit code: 0 done, 1 could not be done, 2 wrong command line, 141 nobody
        reads the output any more (``hmr-jax data list | head``).
    """
    return _unless_unread(_main, list(sys.argv[1:] if argv is None else argv))


def _unless_unread(call: Callable[[list[str]], int | None], words: list[str]) -> int:
    """The code of a call; 141, without a word, if its output's reader has gone."""
    try:
        code = call(words) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _has_no_reader(sys.stdout.fileno()):
            raise  # another pipe, of a worker perhaps
        # What is still in the buffer must go somewhere when the process ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())  # noqa: T201
        return 0 if words else 2
    name, rest = words[0], words[1:]
    if name == "--version":
        from hmr_jax import __version__

        print(f"hmr-jax {__version__}")  # noqa: T201
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(COMMANDS)
        print(  # noqa: T201
            f"hmr-jax: error: no command {name!r}{hint} The commands are {known}.",
            file=sys.stderr,
        )
        return 2
    from hmr_jax.commands import cli

    module = importlib.import_module(f"hmr_jax.commands.{name}")
    return cli.run(name, functools.partial(_unless_unread, module.main), rest)


if __name__ == "__main__":
    sys.exit(main())
