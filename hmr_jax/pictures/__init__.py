"""Pictures from outside: the one reader of them, and the one rule of their names.

Imports nothing of the project but its errors, so that every room may use it.
"""

from hmr_jax.pictures.decode import (
    MAX_PIXELS,
    SUFFIXES,
    UnreadablePictureError,
    decode_picture,
    read_picture,
)
from hmr_jax.pictures.header import Header, read_header

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Header",
    "UnreadablePictureError",
    "decode_picture",
    "read_header",
    "read_picture",
]
