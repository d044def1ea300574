"""Genders of bodies, and the codes that published files have for them."""

from typing import Any

from hmr_jax.errors import UserError

GENDERS = ("neutral", "female", "male")
_CODES = {
    **{"n": "neutral", "neutral": "neutral"},
    **{"f": "female", "female": "female"},
    **{"m": "male", "male": "male"},
}


def gender_of_code(code: Any, where: str) -> str:
    """The gender that a file's code stands for.

    Args:
        code: ``m``, ``f``, ``n`` or the whole word, in any case, as text or bytes.
        where: file and field, for the error.

    Returns:
        One of ``GENDERS``.

    Raises:
        UserError: another code, which is named.
    """
    text = code.decode("latin1") if isinstance(code, bytes) else str(code)
    if text.strip().lower() not in _CODES:
        raise UserError(
            f"{where}: expected a gender (m, f, n or a word), found {text!r}"
        )
    return _CODES[text.strip().lower()]
