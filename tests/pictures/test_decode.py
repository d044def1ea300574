import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from hmr_jax import pictures

RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))
RAMP_8 = np.rint(RAMP * 255).astype(np.uint8)
RGB = np.stack([RAMP_8, RAMP_8[::-1, ::-1], np.full_like(RAMP_8, 200)], -1)
RGB[:10, :20] = (250, 10, 30)
GREY = np.repeat(RAMP_8[..., None], 3, -1)


def saved(image, kind, **options):
    """A file of Pillow's, of an array or one of its images."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def written(pixels, suffix, *options):
    """A file of OpenCV's; colours are BGR."""
    done, data = cv2.imencode(suffix, pixels, options)
    assert done
    return data.tobytes()


def bgr(pixels):
    return np.ascontiguousarray(pixels[..., ::-1])


def with_alpha(alpha=128):
    return np.dstack([RGB, np.full_like(RAMP_8, alpha)])


GREY_FILES = {
    "grey png": saved(RAMP_8, "PNG"),
    "16 bits png": saved(np.rint(RAMP * 65535).astype(np.uint16), "PNG"),
    "16 bits tiff": saved(np.rint(RAMP * 65535).astype(np.uint16), "TIFF"),
    "signed 16 bits tiff": written(np.rint(RAMP * 32767).astype(np.int16), ".tif"),
    "signed 8 bits tiff": written(np.rint(RAMP * 127).astype(np.int8), ".tif"),
    "32 bits of 8": saved(np.rint(RAMP * 255).astype(np.int32), "TIFF"),
    "32 bits of 16": saved(np.rint(RAMP * 65535).astype(np.int32), "TIFF"),
    "32 bits": saved(np.rint(RAMP * (2**31 - 1)).astype(np.int32), "TIFF"),
    "float to 1": saved(RAMP.astype(np.float32), "TIFF"),
    "float to 255": saved((RAMP * 255).astype(np.float32), "TIFF"),
    "float to 65535": saved((RAMP * 65535).astype(np.float32), "TIFF"),
    "float to 1e6": saved((RAMP * 1e6).astype(np.float32), "TIFF"),
    "double": written(RAMP, ".tif"),
    "double to 1e300": written(RAMP * 1e300, ".tif"),
    "grey and alpha tiff": saved(
        Image.merge("LA", [Image.fromarray(RAMP_8), Image.fromarray(0 * RAMP_8 + 200)]),
        "TIFF",
    ),
    "colour of floats": written(GREY.astype(np.float32) / 255, ".tif"),
    "grey and alpha png": saved(
        Image.merge("LA", [Image.fromarray(RAMP_8)] * 2), "PNG"
    ),
    "white is zero, 16 bits": saved(
        np.rint((1 - RAMP) * 65535).astype(np.uint16), "TIFF", tiffinfo={262: 0}
    ),
}
RGB_FILES = {
    "png": saved(RGB, "PNG"),
    "bmp": saved(RGB, "BMP"),
    "tiff": saved(RGB, "TIFF"),
    "webp": saved(RGB, "WEBP", lossless=True),
    "16 bits png": written(bgr(RGB).astype(np.uint16) * 257, ".png"),
    "16 bits tiff": written(bgr(RGB).astype(np.uint16) * 257, ".tif"),
    "float tiff": written(bgr(RGB).astype(np.float32) / 255, ".tif"),
    "alpha png": saved(with_alpha(), "PNG"),
    "transparent png": saved(with_alpha(0), "PNG"),
    "alpha webp": saved(with_alpha(), "WEBP", lossless=True, exact=True),
    "alpha bmp": saved(with_alpha(), "BMP"),
    "alpha tiff": saved(with_alpha(), "TIFF"),
    "16 bits, alpha png": written(
        with_alpha()[..., [2, 1, 0, 3]].astype(np.uint16) * 257, ".png"
    ),
    "16 bits, alpha tiff": written(
        with_alpha()[..., [2, 1, 0, 3]].astype(np.uint16) * 257, ".tif"
    ),
    "float, alpha tiff": written(
        with_alpha()[..., [2, 1, 0, 3]].astype(np.float32) / 255, ".tif"
    ),
    "cmyk jpeg": saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=100),
    "cmyk tiff": saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
}


@pytest.mark.parametrize("kind", sorted(GREY_FILES))
def test_grey_of_any_type_is_the_same_ramp(kind):
    pixels = pictures.decode_picture(GREY_FILES[kind], "a")
    assert (pixels.dtype, pixels.shape) == (np.uint8, (48, 64, 3))
    np.testing.assert_allclose(pixels.astype(int), GREY, atol=1)
    assert abs(pixels.mean() - 127.5) < 0.5


@pytest.mark.parametrize("kind", sorted(RGB_FILES))
def test_colours_of_any_type_are_the_same_picture(kind):
    pixels = pictures.decode_picture(RGB_FILES[kind], "a")
    assert pixels.dtype == np.uint8
    # The CMYK JPEG is the only one that loses something: blocks at the red corner.
    tolerance = 40 if kind == "cmyk jpeg" else 1
    np.testing.assert_allclose(pixels.astype(int), RGB, atol=tolerance)
    assert np.abs(pixels.astype(int) - RGB).mean() < 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_a_palette_gives_its_colours(kind):
    image = Image.fromarray(RGB).quantize(64)
    pixels = pictures.decode_picture(saved(image, kind), "a")
    np.testing.assert_array_equal(pixels, np.array(image.convert("RGB")))


def test_floats_overshoot_without_losing_the_picture():
    ramp = RAMP.astype(np.float32) * 1.02 - 0.01
    ramp[0, :3] = np.nan, np.inf, -np.inf
    pixels = pictures.decode_picture(saved(ramp, "TIFF"), "a")[..., 0]
    assert pixels[0, :3].tolist() == [0, 255, 0]
    expected = np.rint(np.clip(ramp[1:], 0, 1) * 255)
    np.testing.assert_allclose(pixels[1:].astype(int), expected, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "16 bits TIFF"])
def test_pictures_are_turned_upright_unless_asked_not_to(kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = Image.fromarray(RGB)
    if kind.startswith("16"):
        image = Image.fromarray(RAMP_8.astype(np.uint16) * 257)
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = saved(image, kind.split()[-1], exif=exif, **lossless)
    opened = Image.open(io.BytesIO(data))
    if kind.startswith("16"):  # Pillow would clip, not scale
        turned = ImageOps.exif_transpose(opened)
        expected = np.repeat(np.array(turned)[..., None] // 257, 3, -1)
    else:
        expected = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    upright = pictures.decode_picture(data, "a")
    np.testing.assert_allclose(upright.astype(int), expected, atol=1)
    assert pictures.read_header(data).upright_size == upright.shape[1::-1]
    stored = pictures.decode_picture(data, "a", upright=False)
    plain = pictures.decode_picture(saved(image, kind.split()[-1], **lossless), "a")
    np.testing.assert_array_equal(stored, plain)


def test_files_are_read_and_named(tmp_path):
    path = tmp_path / "a.jpg"  # the content counts, not the suffix
    path.write_bytes(saved(RGB, "PNG"))
    np.testing.assert_array_equal(pictures.read_picture(path), RGB)
    with pytest.raises(pictures.UnreadablePictureError, match=r"b\.png: cannot be"):
        pictures.read_picture(tmp_path / "b.png")
    with pytest.raises(pictures.UnreadablePictureError, match="too long"):
        pictures.read_picture(tmp_path / ("x" * 300 + ".png"))
    with pytest.raises(pictures.UnreadablePictureError, match="cannot be read"):
        pictures.read_picture(tmp_path / "a\0.png")
    with pytest.raises(pictures.UnreadablePictureError, match="cannot be read"):
        pictures.read_picture(tmp_path)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
NO_PICTURES = {
    "eps": EPS,
    "gif": saved(RGB[..., 0], "GIF"),
    "jpeg 2000": written(bgr(RGB), ".jp2"),
    "portable pixmap": written(bgr(RGB), ".ppm"),
    "radiance": written(bgr(RGB).astype(np.float32), ".hdr"),
    "text": b"hello",
    "nothing": b"",
}


@pytest.mark.parametrize("kind", sorted(NO_PICTURES))
def test_other_formats_reach_no_decoder(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(cv2, "imdecode", None)
    path = tmp_path / "a.jpg"
    path.write_bytes(NO_PICTURES[kind])
    with pytest.raises(
        pictures.UnreadablePictureError, match=r"a\.jpg: .*expected a JPEG, PNG, BMP"
    ):
        pictures.read_picture(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.6, 0.9, 0.99])
def test_what_is_cut_off_is_refused_and_named(kind, share):
    noise = np.random.default_rng(0).integers(0, 255, (90, 80, 3), np.uint8)
    data = saved(noise, kind)
    with pytest.raises(pictures.UnreadablePictureError, match=r"there/a\.x: "):
        pictures.decode_picture(data[: int(share * len(data))], "there/a.x")


def png_of_size(width, height):
    """A small PNG file that says it is large."""

    def chunk(name, data):
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def resaid(kind, width, height):
    """A picture of 64 x 48 whose header says another size."""
    if kind == "PNG":
        return png_of_size(width, height)
    data = bytearray(saved(RGB, kind, **({"lossless": True} if kind == "WEBP" else {})))
    if kind == "BMP":
        struct.pack_into("<ii", data, 18, width, height)
    elif kind == "JPEG":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    elif kind == "WEBP":
        bits = (width - 1) & 0x3FFF | ((height - 1) & 0x3FFF) << 14
        struct.pack_into("<I", data, data.index(b"VP8L") + 9, bits)
    else:
        for tag, size in ((256, width), (257, height)):
            (place,) = struct.unpack_from("<I", data, 4)
            while struct.unpack_from("<H", data, place + 2)[0] != tag:
                place += 12
            struct.pack_into("<HII", data, place + 4, 4, 1, size)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_bombs_of_pixels_are_refused_before_they_are_decoded(kind, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", None)
    side = 16383 if kind == "WEBP" else 60000
    data = resaid(kind, side, side)
    with pytest.raises(
        pictures.UnreadablePictureError, match=rf"at most \d+ pixels, found {side} x"
    ):
        pictures.decode_picture(data, "a")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_room_is_made_only_for_chunks_that_are_there(kind, monkeypatch):
    """OpenCV takes 4 GB for a PNG file of 200 bytes that says so."""
    monkeypatch.setattr(cv2, "imdecode", None)
    data = bytearray(saved(RGB, kind))
    layout, place = (">I", 33) if kind == "PNG" else ("<I", 16)
    struct.pack_into(layout, data, place, 2**32 - 2)
    with pytest.raises(pictures.UnreadablePictureError, match="cut off at"):
        pictures.decode_picture(bytes(data), "a")


def test_damaged_files_end_in_one_error():
    """Whatever bytes change, the reader gives a picture or its own error."""
    rng = np.random.default_rng(0)
    outcomes = set()
    for kind in ("JPEG", "PNG", "BMP", "TIFF", "WEBP"):
        exif = Image.Exif()
        exif[274] = 6
        turned = {} if kind == "BMP" else {"exif": exif}
        original = saved(RGB, kind, **turned)
        for _ in range(60):
            data = bytearray(original)
            for place in rng.integers(0, min(200, len(data)), 3):
                data[place] = rng.integers(256)
            try:
                pixels = pictures.decode_picture(bytes(data), "where")
                assert pixels.dtype == np.uint8
                outcomes.add("read")
            except pictures.UnreadablePictureError as error:
                assert "where" in str(error)
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}
