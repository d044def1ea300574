"""What the commands share: flags, configs, and errors a user can read."""

import ast
import itertools
import logging as std_logging
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags, logging

from hmr_jax.commands import compilation_cache
from hmr_jax.errors import UserError
from hmr_jax.outside import json_digest, json_object, reading
from hmr_jax.remote import Location, location

SHORT = (UserError, OSError)
"""Errors whose message says all: a traceback would hide it. All others are shown whole,
for they are faults of the program."""
DATA_MODULES = ("tensorflow", "tensorflow_datasets", "h5py")


class UsageError(UserError):
    """The command line is wrong: exit code 2."""


class HelpShown(Exception):
    """``--help`` was asked for and printed: exit code 0."""


Define = Callable[[flags.FlagValues], None]


def parse(
    name: str,
    doc: str | None,
    define: Define,
    argv: Sequence[str],
    *,
    with_config: bool = False,
) -> tuple[flags.FlagValues, list[str]]:
    """Read a command's flags.

    Args:
        name: the command, as typed after ``hmr-jax``.
        doc: its help text.
        define: defines its flags on the values given.
        argv: the words after the command.
        with_config: also take ``--config=FILE[:argument]`` and
            ``--config.field=value``.

    Returns:
        The flags and the words that are not flags.

    Raises:
        UsageError: an unknown flag or config field, or a value of the wrong type.
        HelpShown: help was asked for.
    """
    values = flags.FlagValues()
    flags.DEFINE_bool(
        "debug", False, "Show where an error was raised.", flag_values=values
    )
    if with_config:
        from ml_collections import config_flags

        _let_configs_import_each_other(argv)
        of_run = _recorded_config(argv)
        if of_run is not None:
            config_flags.DEFINE_config_dict(
                "config",
                of_run,
                "The run's own config; --config.field=value changes a field.",
                lock_config=True,
                flag_values=values,
                sys_argv=[name, *argv],
            )
        else:
            config_flags.DEFINE_config_file(
                "config",
                None,
                "Config file. FILE:quicktest shrinks it for a trial run; "
                "--config.field=value changes a field.",
                lock_config=True,
                flag_values=values,
                sys_argv=[name, *argv],
            )
    define(values)
    if any(word in ("--help", "-help", "-h", "--helpfull") for word in argv):
        print(_help(name, doc, values))
        raise HelpShown
    try:
        rest = values([f"hmr-jax {name}", *argv])[1:]
    except flags.Error as error:
        # ml_collections puts the whole traceback of a config file into its message.
        lines = str(error).strip().splitlines()
        text = lines[-1] if "Traceback" in str(error) else " ".join(lines)
        raise UsageError(f"{text} (hmr-jax {name} --help lists the flags)") from error
    # How a locked config refuses a field; the message brings the nearest name.
    except (KeyError, AttributeError) as error:
        text = str(error.args[0])
        if text[:1] + text[-1:] in ("''", '""'):  # a KeyError holds the repr of it
            text = ast.literal_eval(text)
        text = " ".join(text.split())
        raise UsageError(f"the config has no field {text}") from error
    if with_config:
        _check_config(values)
        compilation_cache.optimize_as(values.config)
    return values, rest


def _recorded_config(argv: Sequence[str]) -> Any:
    """The config of the run in ``--workdir``, where ``--config`` names no file."""
    given = {}
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name in ("config", "workdir"):
            given[name] = value if equals else following
    path = location(given.get("workdir", "")) / "run.json"
    if "config" in given or "workdir" not in given or not path.is_file():
        return None
    import ml_collections

    record = json_object(path.read_bytes(), path, "the record of a run")
    with reading(path, "the record of a run (or give --config)"):
        digest = record.get("config_sha256")  # records of before have none
        if digest is not None and digest != json_digest(record["config"]):
            raise ValueError("a config that does not fit its checksum")
        return ml_collections.ConfigDict(record["config"]).lock()


def _let_configs_import_each_other(argv: Sequence[str]) -> None:
    """Put the folder above the config's on the path: ``from configs import common``."""
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        name, _, value = word.lstrip("-").partition("=")
        if name == "config":
            path = pathlib.Path((value or following).split(":")[0])
            if not path.is_file():
                raise UsageError(f"--config: no such file: {path}")
            for folder in (pathlib.Path.cwd(), path.resolve().parents[1]):
                if str(folder) not in sys.path:
                    sys.path.append(str(folder))


def _check_config(values: flags.FlagValues) -> None:
    import ml_collections

    if values.config is None or isinstance(values.config, ml_collections.ConfigDict):
        return
    path = str(values["config"].default or "").split(":")[0]
    raise UsageError(f"--config: cannot read a config from {path}")


def config_of_run(values: flags.FlagValues) -> Any:
    """The config given, or else the one the workdir's run was started with.

    Args:
        values: flags with ``config`` and ``workdir``.

    Returns:
        A locked config.

    Raises:
        UsageError: neither is there.
        FileNotFoundError: the workdir is not there.
    """
    if values.config is not None:
        return values.config
    if not values.workdir:
        raise UsageError("missing --config or --workdir")
    path = existing(values.workdir, "--workdir") / "run.json"
    raise UsageError(f"missing --config ({path} is not there to take it from)")


def require(values: flags.FlagValues, *names: str) -> None:
    """Refuse to go on without some flags.

    Args:
        values: a command's flags.
        names: those it cannot do without.

    Raises:
        UsageError: naming the missing ones.
    """
    missing = [f"--{name}" for name in names if not values[name].value]
    if missing:
        raise UsageError(f"missing {', '.join(missing)}")


def no_more(rest: Sequence[str]) -> None:
    """Refuse words that are not flags.

    Raises:
        UsageError: naming them.
    """
    if rest:
        raise UsageError(f"unexpected {' '.join(rest)!r}; flags are --name=value")


def existing(path: str, what: str) -> Location:
    """A path that must exist.

    Args:
        path: file or folder.
        what: what it is, for the message.

    Returns:
        The path.

    Raises:
        FileNotFoundError: it does not exist.
    """
    found = location(path)
    if not found.exists():
        raise FileNotFoundError(f"{what}: no such file or folder: {found}")
    return found


def run(name: str, main: Callable[[list[str]], int | None], argv: list[str]) -> int:
    """Run a command and turn its errors into messages and exit codes.

    Args:
        name: the command, as typed after ``hmr-jax``.
        main: the command.
        argv: the words after it.

    Returns:
        0 done; 1 it could not be done; 2 the command line is wrong; 130 interrupted.
    """
    set_up_logging()
    compilation_cache.set_up()
    try:
        return main(argv) or 0
    except HelpShown:
        return 0
    except KeyboardInterrupt:
        print(f"hmr-jax {name}: interrupted", file=sys.stderr)
        return 130
    # The one place that stands above everything else: nothing is swallowed here.
    except Exception as error:  # noqa: BLE001
        return _report(name, error, debug="--debug" in argv)


def _report(name: str, error: Exception, *, debug: bool) -> int:
    """Print an error, with its traceback unless it is meant for the user; the code."""
    missing = isinstance(error, ModuleNotFoundError) and error.name in DATA_MODULES
    short = isinstance(error, SHORT) or missing
    if debug or not short:
        traceback.print_exception(error)
    message = str(error) or type(error).__name__
    if missing:
        message += "; data need more packages: pip install 'hmr_jax[data]'"
    if not short:
        message = f"{type(error).__name__}: {message} (a fault of the program)"
    print(f"hmr-jax {name}: error: {message}", file=sys.stderr)
    return 2 if isinstance(error, UsageError) else 1


def set_up_logging() -> None:
    """Show our own messages and everybody's warnings."""
    # TensorFlow's C++ side greets with two notes at each start otherwise; reading
    # records uses nothing that oneDNN would speed up.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # ours are our own; absl's logging waits for them
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    handler.setFormatter(std_logging.Formatter("%(message)s"))
    handler.addFilter(_ours_or_warning)


def _ours_or_warning(record: std_logging.LogRecord) -> bool:
    ours = ("hmr_jax", "data_pipelines")
    return record.levelno >= std_logging.WARNING or any(
        part in ours for part in pathlib.Path(record.pathname).parts
    )


def _help(name: str, doc: str | None, values: flags.FlagValues) -> str:
    lines = [f"hmr-jax {name}", "", (doc or "").strip(), "", "Flags:"]
    skipped = ("flagfile", "undefok")
    for flag_name in sorted(values):
        flag = values[flag_name]
        if flag_name in skipped or flag.name != flag_name:
            continue
        default = "" if flag.default in (None, "", False) else f" [{flag.default}]"
        lines.append(f"  --{flag_name}: {flag.help}{default}")
    return "\n".join(lines)
