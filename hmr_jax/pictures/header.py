"""What the first bytes of a picture's file say, without decoding any of its pixels.

OpenCV has no function for it, and Pillow's does not know floats of three channels.
"""

import dataclasses
import struct
from collections.abc import Iterator

JPEG, PNG, BMP, WEBP, TIFF = "JPEG", "PNG", "BMP", "WebP", "TIFF"
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG's frame headers."""
_JPEG_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers of JPEG that no length follows."""
_TIFF_FORMATS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_WIDTH, _HEIGHT, _PHOTOMETRIC, _ORIENTATION = 256, 257, 262, 274
_MAX_ENTRIES = 4096


@dataclasses.dataclass(frozen=True)
class Header:
    """What a picture's file says of itself.

    Attributes:
        kind: one of ``JPEG``, ``PNG``, ``BMP``, ``WEBP``, ``TIFF``.
        width: pixels, as they are stored.
        height: pixels, as they are stored.
        orientation: of EXIF; 1 where the stored picture is upright, 5 to 8 where
            turning it upright exchanges width and height.
        plain: any decoder shows it as ``decode_picture`` does: a JPEG or PNG of 8 bits
            and of one or three channels without alpha, stored upright.
        white_is_zero: TIFF only: small numbers are light.
        cut_off: a chunk of a PNG or WebP file goes beyond the bytes that are there.
    """

    kind: str
    width: int
    height: int
    orientation: int = 1
    plain: bool = False
    white_is_zero: bool = False
    cut_off: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the picture turned upright."""
        size = (self.width, self.height)
        return size[::-1] if self.orientation >= 5 else size


def kind_of(data: bytes) -> str | None:
    """The kind of a file by its first 12 bytes; None where it is none of ours."""
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(b"BM"):
        return BMP
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return TIFF
    return None


def read_header(data: bytes) -> Header:
    """Read a picture's header.

    Args:
        data: the file's bytes, or the first of them.

    Returns:
        Its kind, size and what else reading it needs.

    Raises:
        ValueError: it is none of JPEG, PNG, BMP, WebP and TIFF, or ends too early; the
            error says what was found, not where.
    """
    kind = kind_of(data)
    if kind is None:
        raise ValueError(
            "expected a JPEG, PNG, BMP, WebP or TIFF file, found one that begins "
            f"{data[:8]!r}"
        )
    read = {JPEG: _jpeg, PNG: _png, BMP: _bmp, WEBP: _webp, TIFF: _tiff}[kind]
    try:
        header = read(data)
    except (struct.error, IndexError) as error:
        raise ValueError(f"the header of the {kind} file ends too early") from error
    if header.width < 1 or header.height < 1:
        raise ValueError(
            f"expected a size, found {header.width} x {header.height} pixels"
        )
    return header


def _jpeg(data: bytes) -> Header:
    orientation, place = 1, 2
    while True:
        while data[place] != 0xFF:  # garbage between segments is allowed
            place += 1
        while data[place] == 0xFF:
            place += 1
        marker, place = data[place], place + 1
        if marker in _JPEG_ALONE:
            continue
        (length,) = struct.unpack_from(">H", data, place)
        segment = data[place + 2 : place + length]
        if marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            orientation = _exif_orientation(segment[6:])
        if marker in _JPEG_SIZES:
            bits, height, width, channels = struct.unpack_from(">BHHB", segment)
            plain = bits == 8 and channels in (1, 3) and orientation == 1
            return Header(JPEG, width, height, orientation, plain)
        if marker in (0xD9, 0xDA):  # the pixels begin, or the file ends
            raise IndexError
        place += max(length, 2)


def _png(data: bytes) -> Header:
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR":
        raise ValueError(f"expected IHDR first in a PNG file, found {data[12:16]!r}")
    orientation, end = 1, 0
    for name, start, end in _chunks(data, 8, ">I4s", padded=False, tail=4):
        if name == b"IEND":
            break  # what follows is no part of the picture
        if name == b"eXIf":
            orientation = _exif_orientation(data[start:end])
    plain = bits == 8 and colour in (0, 2) and orientation == 1
    return Header(PNG, width, height, orientation, plain, cut_off=end > len(data))


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return Header(BMP, width, abs(height))  # negative: the first row is the top


def _webp(data: bytes) -> Header:
    width = height = end = 0
    orientation = 1
    for name, start, end in _chunks(data, 12, "<4sI", padded=True, tail=0):
        if name == b"EXIF":
            exif = data[start:end].removeprefix(b"Exif\0\0")
            orientation = _exif_orientation(exif)
        if width:
            continue
        if name == b"VP8X":
            low = struct.unpack_from("<HBHB", data, start + 4)
            width = 1 + low[0] + (low[1] << 16)
            height = 1 + low[2] + (low[3] << 16)
        elif name == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, start + 1)
            width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif name == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, start + 6)
            width, height = width & 0x3FFF, height & 0x3FFF
    return Header(WEBP, width, height, orientation, cut_off=end > len(data))


def _chunks(
    data: bytes, place: int, layout: str, *, padded: bool, tail: int
) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk of a PNG or RIFF file, by what it says."""
    while place + 8 <= len(data):
        first, second = struct.unpack_from(layout, data, place)
        name, length = (first, second) if layout[1] == "4" else (second, first)
        yield name, place + 8, place + 8 + length
        place += 8 + length + (length % 2 if padded else 0) + tail


def _tiff(data: bytes) -> Header:
    tags = _tiff_tags(data)
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise ValueError("expected a TIFF file's width and height, found none")
    return Header(
        TIFF,
        tags[_WIDTH],
        tags[_HEIGHT],
        _turn(tags.get(_ORIENTATION, 1)),
        white_is_zero=tags.get(_PHOTOMETRIC) == 0,
    )


def _exif_orientation(exif: bytes) -> int:
    """The orientation in EXIF's own small TIFF file; 1 where it is damaged."""
    try:
        return _turn(_tiff_tags(exif).get(_ORIENTATION, 1))
    except (struct.error, IndexError):
        return 1


def _turn(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1


def _tiff_tags(data: bytes) -> dict[int, int]:
    """The first whole number of each entry of a TIFF file's first directory."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:3] == b"+" or data[3:4] == b"+"
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    place += 8 if big else 2
    tags: dict[int, int] = {}
    for entry in range(min(count, _MAX_ENTRIES)):
        start = place + entry * (20 if big else 12)
        tag, type_ = struct.unpack_from(order + "HH", data, start)
        if type_ in _TIFF_FORMATS:
            value = struct.unpack_from(
                order + _TIFF_FORMATS[type_], data, start + (12 if big else 8)
            )
            tags[tag] = value[0]
    return tags
