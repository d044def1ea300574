"""The systems, one room for each paper, and the only table of them."""

import importlib

from hmr_jax.errors import UserError
from hmr_jax.systems.system import System

NAMES = ("hierprob", "i2l_meshnet", "ikol")
"""Rooms of this package that hold a trainable system."""


def get(name: str) -> System:
    """The system of that name, imported when it is asked for.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    if name not in NAMES:
        raise UserError(
            f"config.system: expected one of {sorted(NAMES)}, found {name!r}"
        )
    return importlib.import_module(f"hmr_jax.systems.{name}.system").SYSTEM
