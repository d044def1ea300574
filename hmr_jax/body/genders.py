"""Genders of bodies, and the codes that files have for them."""

from typing import Any

import numpy as np

GENDERS = ("neutral", "female", "male")
_CODES = {name[:length]: name for name in GENDERS for length in (1, len(name))}


def gender_of_code(code: Any) -> str | None:
    """The gender that a file's code stands for.

    Args:
        code: a whole word or its first letter, in any case; text, bytes or an array of
            one.

    Returns:
        One of ``GENDERS``; None for another code.
    """
    single = isinstance(code, np.ndarray | np.generic) and code.size == 1
    value = code.item() if single else code
    text = value.decode("latin1") if isinstance(value, bytes) else str(value)
    return _CODES.get(text.strip().lower())
