"""Drawing: what lands where, and files that are whole or absent."""

import numpy as np
import pytest

from hmr_jax.render import draw


@pytest.fixture
def grey():
    return np.full((40, 60, 3), 100, np.uint8)


def test_overlay_blends_by_coverage(grey):
    rgba = np.zeros((40, 60, 4), np.float32)
    rgba[:20] = (1.0, 0.0, 0.0, 1.0)
    result = draw.overlay_mesh(grey, rgba, opacity=0.5)
    np.testing.assert_array_equal(result[30, 30], grey[0, 0])
    np.testing.assert_allclose(result[10, 10], [178, 50, 50], atol=1)
    with pytest.raises(ValueError, match="rgba"):
        draw.overlay_mesh(grey, rgba[:10])


def test_skeleton_draws_bones_and_skips_what_is_hidden(grey):
    joints = np.array([[10.0, 10.0], [50.0, 10.0], [50.0, 30.0], [np.nan, 5.0]])
    parents = (-1, 0, 1, 2)
    names = ("pelvis", "left_hip", "right_knee", "left_foot")
    result = draw.draw_skeleton(grey, joints, parents, joints=names, width_px=1)
    assert tuple(result[10, 30]) == draw.LEFT_RGB
    assert tuple(result[20, 50]) == draw.RIGHT_RGB
    assert tuple(result[10, 10]) == (255, 255, 255)
    hidden = draw.draw_skeleton(grey, joints, parents, visible=np.array([1, 0, 1, 1]))
    np.testing.assert_array_equal(hidden[10, 30], grey[0, 0])
    np.testing.assert_array_equal(grey, 100)  # the input is left alone
    with pytest.raises(ValueError, match="expected 4 joints, got 3"):
        draw.draw_skeleton(grey, joints[:3], parents)
    draw.draw_skeleton(grey, joints * 1e12, parents)  # far outside: no overflow


def test_boxes(grey):
    result = draw.draw_boxes(grey, np.array([5.0, 6.0, 20.0, 10.0]), colour=(1, 2, 3))
    assert tuple(result[6, 15]) == (1, 2, 3)
    assert tuple(result[16, 15]) == (1, 2, 3)
    assert tuple(result[11, 15]) == (100, 100, 100)
    draw.draw_boxes(grey, np.array([[5.0, 5.0, -3.0, 2.0]]))


def test_contact_sheet_lays_out_rows(grey):
    images = [grey, grey[:, :30], np.zeros((40, 60, 3), np.float32)]
    sheet = draw.contact_sheet(images, columns=2, captions=["a", "b", "c"], gap_px=2)
    height = 40 + draw.CAPTION_BAND_PX + 2
    assert sheet.shape == (2 * height + 2, 2 * 62 + 2, 3)
    assert tuple(sheet[2, 2]) == (100, 100, 100)
    assert tuple(sheet[2 + height, 2]) == (0, 0, 0)
    assert tuple(sheet[-5, -5]) == (255, 255, 255)
    with pytest.raises(ValueError, match="captions"):
        draw.contact_sheet(images, captions=["a"])
    with pytest.raises(ValueError, match="pictures"):
        draw.contact_sheet([])


def test_png_round_trip_is_exact_and_files_are_whole(tmp_path, rng):
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw.decode_image(draw.encode_image(image)), image)
    grey = image[..., 0]
    np.testing.assert_array_equal(
        draw.decode_image(draw.encode_image(grey)), grey[..., None].repeat(3, -1)
    )
    draw.save_png(tmp_path / "new" / "a.png", image)
    draw.save_jpeg(tmp_path / "new" / "a.jpg", image)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["a.jpg", "a.png"]
    read = draw.decode_image((tmp_path / "new" / "a.png").read_bytes())
    np.testing.assert_array_equal(read, image)
    with pytest.raises(ValueError, match="image_format"):
        draw.encode_image(image, "bmp")


def test_bytes_and_unit_floats_are_the_same_picture(rng):
    image = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw.to_uint8(image / 255.0), image)
    assert draw.to_uint8(np.array([-1.0, np.nan, 2.0])).tolist() == [0, 0, 255]
    with pytest.raises(ValueError, match="height, width, 3"):
        draw.draw_boxes(image[..., 0], np.zeros(4))
