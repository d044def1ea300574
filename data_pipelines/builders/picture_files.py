"""Pictures of published datasets: any file as a record stores it, by any spelling.

What a picture means and which names mean it is ``hmr_jax.pictures``'s to say.
"""

from typing import Any

import cv2
import numpy as np

from data_pipelines import storage
from hmr_jax import pictures
from hmr_jax.files import is_hidden
from hmr_jax.pictures.names import NameIndex, canonical

_FIRST_BYTES = 1 << 16
"""Enough for most headers."""


def fields(
    data: bytes, where: str, size_px: tuple[int, int] | None = None
) -> dict[str, Any]:
    """A picture's file as the record's fields of its image.

    A JPEG or PNG file that every decoder shows in the same way is kept as it is;
    others (of 16 bits, CMYK, palettes, alpha, turned by EXIF, of other formats) become
    PNG.

    Args:
        data: the file.
        where: names it in the error.
        size_px: width and height by the annotation. A picture that EXIF turns is
            stored upright, unless it is so large as the annotation says only without
            the turn: then the labels are in the pixels as they are stored.

    Returns:
        ``image``, ``image_height``, ``image_width``.

    Raises:
        UnreadablePictureError: it is no picture, or not a whole one.
    """
    header = _header(data, where)
    stored = (header.width, header.height)
    upright = size_px != stored or header.upright_size == stored
    pixels = pictures.decode_picture(data, where, upright=upright)
    height, width = pixels.shape[:2]
    kept = data if header.plain else png(pixels)
    return {"image": kept, "image_height": height, "image_width": width}


def _header(data: bytes, where: str) -> pictures.Header:
    try:
        return pictures.read_header(data)
    except ValueError as error:
        raise pictures.UnreadablePictureError(f"{where}: {error}") from error


def size_of_file(path: str) -> tuple[int, int]:
    """Width and height of a picture turned upright, from its first bytes if possible.

    Raises:
        UnreadablePictureError: it is no picture.
        tensorflow.errors.OpError: it cannot be read.
    """
    chunks = storage.read_chunks(path, _FIRST_BYTES)
    first = next(chunks, b"")
    try:
        return pictures.read_header(first).upright_size
    except ValueError:
        return _header(first + b"".join(chunks), path).upright_size


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of grey [H, W] or RGB [H, W, 3] pixels, uint8."""
    stored = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
    done, data = cv2.imencode(".png", stored)
    assert done, "PNG takes any bytes"
    return data.tobytes()


class PictureFolder:
    """The pictures of a folder and its subfolders by the names that files give them.

    Args:
        folder: listed once.
    """

    def __init__(self, folder: str):
        self._folder = folder.rstrip("/")
        names = []
        for path in storage.files_below(self._folder):
            name = path[len(self._folder) :].lstrip("/")
            if name.lower().endswith(pictures.SUFFIXES):
                if not any(map(is_hidden, name.split("/"))):
                    names.append(name)
        self._index = NameIndex(names)
        self._of_stem: dict[str, list[str]] = {}
        for name in names:
            self._of_stem.setdefault(name.rpartition(".")[0], []).append(name)
        self._stems = NameIndex(self._of_stem)

    def find(self, name: str) -> str | None:
        """The picture that a name means.

        Args:
            name: as an annotation has it.

        Returns:
            Its path; None where there is none, or several fit equally well. A picture
            in another folder than the name says is not meant by it.
        """
        match = self._index.find(name)
        names = [] if match is None else match.names
        if match is None and (match := self._stems.find(name)) is not None:
            names = [whole for stem in match.names for whole in self._of_stem[stem]]
        if len(names) != 1:
            return None
        (found,) = names
        said, lies = (canonical(n).split("/")[:-1] for n in (name, found))
        both = min(len(said), len(lies))
        if said[len(said) - both :] != lies[len(lies) - both :]:
            return None
        return f"{self._folder}/{found}"
