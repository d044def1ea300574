"""The one reader of pictures: any file of a picture as RGB of 8 bits.

What a picture means here, whatever it is stored as:

- Colours are RGB, uint8, [height, width, 3]. Grey is three equal channels, palettes and
  CMYK become RGB without colour profiles, alpha is left out: the colours as they are
  stored. (TIFF of 8 bits alone: nothing is left of colours that are fully transparent.)
- Black is 0 and white 255. Numbers of 16 bits are scaled from their whole range, signed
  ones from their positive half. Numbers of 32 bits and floats do not say what white is:
  it is the first of 1 (floats only), 255, 65535 that no number exceeds (floats: not by
  more than twice, what exceeds it is white), else the type's largest number (floats:
  the picture's). What is negative or not a number is black.
- It is turned upright as EXIF says, unless asked not to.
- Of several pages or frames it is the first.

Only JPEG, PNG, BMP, WebP and TIFF are ever given to a decoder, and only if their
headers say that they have at most ``MAX_PIXELS`` pixels.
"""

import os
import pathlib

import cv2
import numpy as np

from hmr_jax.errors import UserError
from hmr_jax.pictures import header as headers

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
"""Of files that are taken for pictures in a folder."""
MAX_PIXELS = 2**29 // 3
"""Half a gibibyte of RGB; pictures with more are refused before they are decoded."""
MAX_BYTES = 2**31
_WHITES = (1, 255, 65535)
_FLOAT_SLACK = 2.0


class UnreadablePictureError(UserError):
    """A file is no picture, not whole, too large, or cannot be read."""


def read_picture(path: str | os.PathLike, *, upright: bool = True) -> np.ndarray:
    """Read a picture's file.

    Args:
        path: the file.
        upright: turned as EXIF says; else as it is stored, as many labels are.

    Returns:
        RGB, uint8 [height, width, 3]; see the module.

    Raises:
        UnreadablePictureError: naming the file, what was expected and what was found.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(12)
            size = os.fstat(file.fileno()).st_size
            if headers.kind_of(data) and size <= MAX_BYTES:
                data += file.read()
    except (OSError, ValueError) as error:  # ValueError: a name with a null in it
        raise UnreadablePictureError(f"{path}: cannot be read: {error}") from error
    if size > MAX_BYTES:
        raise UnreadablePictureError(
            f"{path}: expected at most {MAX_BYTES} bytes, found {size}"
        )
    return decode_picture(data, str(path), upright=upright)


def decode_picture(data: bytes, where: str, *, upright: bool = True) -> np.ndarray:
    """Decode a picture's file that is in memory.

    Args:
        data: the file's bytes.
        where: names it in the error.
        upright: turned as EXIF says; else as it is stored, as many labels are.

    Returns:
        RGB, uint8 [height, width, 3]; see the module.

    Raises:
        UnreadablePictureError: naming ``where``, what was expected and what was found.
    """
    try:
        header = headers.read_header(data)
        if header.width * header.height > MAX_PIXELS:
            raise ValueError(
                f"expected at most {MAX_PIXELS} pixels, found {header.width} x "
                f"{header.height}"
            )
        if header.cut_off:  # OpenCV would make room for all that a chunk says it has
            raise ValueError(f"the {header.kind} file is cut off at {len(data)} bytes")
        pixels = _decoded(data, header, upright)
    except ValueError as error:
        raise UnreadablePictureError(f"{where}: no whole picture: {error}") from error
    return _rgb(to_8_bits(pixels))


def _decoded(data: bytes, header: headers.Header, upright: bool) -> np.ndarray:
    """Numbers as they are stored: grey, BGR, or BGR and alpha (TIFF alone)."""
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    if not upright:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    tiff = header.kind == headers.TIFF
    if tiff:  # else alpha is multiplied in, or four channels of floats are refused
        flags = cv2.IMREAD_UNCHANGED
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        said = " ".join(str(error).split())
        raise ValueError(f"the {header.kind} file cannot be decoded: {said}") from error
    if pixels is None:
        raise ValueError(
            f"the {header.kind} file of {len(data)} bytes and {header.width} x "
            f"{header.height} pixels is damaged, cut off, or of a rare layout"
        )
    return _of_tiff(pixels, header, upright) if tiff else pixels


def _of_tiff(pixels: np.ndarray, header: headers.Header, upright: bool) -> np.ndarray:
    """What OpenCV leaves undone when it gives a TIFF file's numbers unchanged."""
    if pixels.ndim == 3 and pixels.shape[2] == 4 and pixels.dtype == np.uint8:
        # OpenCV multiplied the alpha in; other types it gives as they are stored.
        alpha = np.maximum(pixels[..., 3:].astype(np.float32), 1)
        colours = np.rint(pixels[..., :3] * (255 / alpha))
        pixels = np.minimum(colours, 255).astype(np.uint8)
    if header.white_is_zero and pixels.dtype != np.uint8:  # of 8 bits: done
        pixels = 255 - to_8_bits(pixels)
    # OpenCV turns TIFF files upright whatever it is asked.
    return pixels if upright else _turned_back(pixels, header.orientation)


def _turned_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """An upright picture as it is stored, by EXIF's orientation."""
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels)


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Numbers of any type as bytes, by the rule of the module.

    Args:
        pixels: of any shape and type.

    Returns:
        uint8 of the same shape.
    """
    if pixels.dtype == np.uint8:
        return pixels
    white = _white(pixels)
    numbers = pixels.astype(np.result_type(pixels, np.float32))
    shares = np.nan_to_num(numbers, nan=0.0, posinf=white, neginf=0.0) / white
    return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)


def _white(pixels: np.ndarray) -> float:
    """The number that is white."""
    whole = pixels.dtype.kind in "iu"
    if whole and pixels.dtype.itemsize <= 2:
        return float(np.iinfo(pixels.dtype).max)
    seen = pixels if whole else pixels[np.isfinite(pixels)]
    largest = float(seen.max(initial=0))
    slack = 1.0 if whole else _FLOAT_SLACK
    last = float(np.iinfo(pixels.dtype).max) if whole else largest
    whites = _WHITES[1:] if whole else _WHITES
    return next((float(w) for w in whites if largest <= w * slack), last)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """Grey, grey and alpha, BGR, or BGR and alpha as RGB."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels <= 2:
        grey = pixels if pixels.ndim == 2 else pixels[..., 0]
        return np.repeat(grey[..., None], 3, axis=-1)
    return np.ascontiguousarray(pixels[..., 2::-1])
