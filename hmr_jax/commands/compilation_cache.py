"""How programs are compiled: kept between commands, so that a second start is quick.

The folder is ``hmr_jax/xla`` in ``$XDG_CACHE_HOME`` or ``~/.cache``. The environment
variable ``HMR_JAX_CACHE`` names another one, or ``off`` for none. Where JAX's own
``JAX_COMPILATION_CACHE_DIR`` is set, JAX's settings are left as they are. It may be
deleted at any time, and shared by commands that run at once.
"""

import os
import pathlib
import tempfile
from typing import Any

from absl import logging

VARIABLE = "HMR_JAX_CACHE"
MAX_BYTES = 2 * 1024**3
"""What was not used for longest makes room for what is new."""
_MIN_COMPILE_S = 0.1
"""Quicker programs are compiled again: reading them back would save nothing."""


def folder() -> pathlib.Path | None:
    """Where compiled programs are kept; None where they are not."""
    if of_jax := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return pathlib.Path(of_jax)
    given = os.environ.get(VARIABLE, "")
    if given.lower() == "off":
        return None
    if given:
        return pathlib.Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the standard ignores relative ones
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(base, "hmr_jax", "xla")


def set_up() -> None:
    """Let JAX keep its programs; to be called before the first is compiled.

    A folder that cannot be written costs a warning and nothing else.
    """
    path = folder()
    if path is None or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        logging.warning(
            "compiled programs are not kept: %s (%s=off, or another folder there, "
            "ends this message)",
            error,
            VARIABLE,
        )
        return
    import jax

    for name, value in (
        ("jax_compilation_cache_dir", str(path)),
        ("jax_compilation_cache_max_size", MAX_BYTES),
        ("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_S),
        ("jax_persistent_cache_min_entry_size_bytes", 0),
    ):
        jax.config.update(name, value)


def optimize_as(config: Any) -> None:
    """Compile what follows with few optimisations if ``config.compile_fast`` says so.

    Args:
        config: an experiment, or None; those recorded by earlier releases lack the
            field.
    """
    if config is None or not config.get("compile_fast", False):
        return
    import jax

    jax.config.update("jax_disable_most_optimizations", True)


def describe() -> str:
    """A line on where the programs are and how large they are."""
    path = folder()
    if path is None:
        return f"off ({VARIABLE}=off)"
    files = [file for file in path.glob("*") if file.is_file()] if path.is_dir() else []
    programs = [file for file in files if file.name.endswith("-cache")]
    size = sum(file.stat().st_size for file in files)
    return f"{path}, {len(programs)} programs, {size / 1e6:.0f} MB"
