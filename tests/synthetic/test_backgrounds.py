"""Backgrounds: repeatable pictures, and clear errors for folders."""

import numpy as np
import pytest

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
