"""Backgrounds: repeatable pictures, and clear errors for folders."""

import numpy as np
import pytest
from PIL import Image

from hmr_jax.errors import UserError
from hmr_jax.render.draw import save_jpeg, save_png
from hmr_jax.synthetic.backgrounds import FolderBackgrounds, ProceduralBackgrounds


@pytest.mark.parametrize("size", [17, 64])
def test_procedural_pictures_are_repeatable_and_various(size):
    make = ProceduralBackgrounds()
    pictures = [make(np.random.default_rng(seed), size) for seed in range(24)]
    again = [make(np.random.default_rng(seed), size) for seed in range(24)]
    np.testing.assert_array_equal(pictures, again)
    assert {p.shape for p in pictures} == {(size, size, 3)}
    assert {p.dtype for p in pictures} == {np.dtype(np.uint8)}
    means = np.array([p.mean() for p in pictures])
    assert means.std() > 20 and np.median([p.std() for p in pictures]) > 10


def test_folder_gives_crops_of_its_pictures(tmp_path):
    red = np.zeros((40, 90, 3), np.uint8) + np.array([200, 0, 0], np.uint8)
    save_png(tmp_path / "a" / "red.png", red)
    save_jpeg(tmp_path / "wide.jpg", np.full((300, 500, 3), 90, np.uint8), 95)
    (tmp_path / "notes.txt").write_text("not a picture")
    make = FolderBackgrounds(tmp_path)
    assert [path.name for path in make.paths] == ["red.png", "wide.jpg"]
    pictures = [make(np.random.default_rng(seed), 32) for seed in range(12)]
    colours = {tuple(int(c) for c in p[16, 16]) for p in pictures}
    assert colours == {(200, 0, 0), (90, 90, 90)}
    np.testing.assert_array_equal(make(np.random.default_rng(5), 32), pictures[5])


def test_folder_without_pictures(tmp_path):
    with pytest.raises(ValueError, match="found none"):
        FolderBackgrounds(tmp_path / "missing")


def test_unreadable_picture_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"broken\.png"):
        FolderBackgrounds(tmp_path)(np.random.default_rng(0), 16)


def test_what_is_no_data_is_left_out(tmp_path):
    for name in ("a.png", "._a.png", ".thumbnails/a.png", "__MACOSX/a.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        save_png(path, np.zeros((4, 4, 3), np.uint8))
    assert [p.name for p in FolderBackgrounds(tmp_path).paths] == ["a.png"]


def test_pictures_mean_what_they_mean_elsewhere(tmp_path):
    """Of 16 bits, and turned by EXIF: the left half is dark, the right one bright."""
    dark_left = np.zeros((40, 40), np.uint16)
    dark_left[:, 20:] = 40000
    Image.fromarray(dark_left).save(tmp_path / "deep.png")
    shown = FolderBackgrounds(tmp_path, stretch=True)(np.random.default_rng(0), 8)
    assert shown[:, 0].max() == 0 and shown[:, -1].min() == round(40000 / 257)
    (tmp_path / "deep.png").unlink()
    turn = Image.Exif()
    turn[274] = 6  # a quarter turn clockwise shows it upright
    stored = np.rot90(dark_left // 256).astype(np.uint8)
    Image.fromarray(stored).save(tmp_path / "turned.jpg", exif=turn, quality=95)
    shown = FolderBackgrounds(tmp_path, stretch=True)(np.random.default_rng(0), 8)
    assert shown[:, 0].max() < 8 and shown[:, -1].min() > 140


def test_other_formats_are_never_decoded(tmp_path):
    (tmp_path / "a.jpg").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"
    )
    with pytest.raises(UserError, match=r"a\.jpg: .*expected a JPEG"):
        FolderBackgrounds(tmp_path)(np.random.default_rng(0), 16)
