import io

import numpy as np
import pytest
from PIL import Image

from hmr_jax.pictures import read_header


def saved(kind, mode="RGB", size=(50, 20), **options):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind, options",
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"big_tiff": True}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": Image.Exif()}),
    ],
)
def test_size_is_read_without_the_pixels(kind, options):
    for size in ((50, 20), (1, 300), (257, 511)):
        header = read_header(saved(kind, size=size, **options))
        assert (header.width, header.height) == size
        assert header.upright_size == size
        assert header.kind.upper() == kind


def test_the_header_is_enough():
    for kind, length in (("PNG", 400), ("BMP", 26), ("JPEG", 700), ("WEBP", 40)):
        assert read_header(saved(kind, size=(400, 300))[:length]).width == 400


@pytest.mark.parametrize(
    "kind, mode, plain",
    [
        ("JPEG", "RGB", True),
        ("JPEG", "L", True),
        ("JPEG", "CMYK", False),
        ("PNG", "RGB", True),
        ("PNG", "L", True),
        ("PNG", "RGBA", False),
        ("PNG", "LA", False),
        ("PNG", "P", False),
        ("PNG", "1", False),
        ("PNG", "I;16", False),
        ("BMP", "RGB", False),
        ("TIFF", "RGB", False),
        ("WEBP", "RGB", False),
    ],
)
def test_plain_pictures_mean_the_same_to_any_decoder(kind, mode, plain):
    source = "L" if mode == "I;16" else mode
    if mode == "I;16":
        buffer = io.BytesIO()
        Image.fromarray(np.zeros((20, 50), np.uint16)).save(buffer, kind)
        data = buffer.getvalue()
    else:
        data = saved(kind, source)
    assert read_header(data).plain is plain


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_turned_picture_is_not_plain(kind):
    exif = Image.Exif()
    exif[274] = 8
    header = read_header(saved(kind, exif=exif))
    assert (header.orientation, header.plain) == (8, False)
    assert header.upright_size == (20, 50)


@pytest.mark.parametrize("data", [b"", b"BM", b"II*\0", b"\xff\xd8\xff\xe0", b"RIFF"])
def test_too_little_is_said(data):
    with pytest.raises(ValueError, match="expected|too early"):
        read_header(data)
