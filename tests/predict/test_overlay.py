"""Bodies in their places in the whole picture."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from hmr_jax.predict import overlay
from hmr_jax.predict.overlay import Overlays, draw_people, fitting
from hmr_jax.predict.persons import Person

CAMERA = [0.8, 0.1, -0.2]


@pytest.fixture(scope="module")
def quad(tiny_body):
    """Only the faces are of use."""
    return dataclasses.replace(tiny_body, faces=jnp.array([[0, 1, 2], [0, 2, 3]]))


def result(centre, side, uncertainty=None, camera=CAMERA):
    """A rectangle from -0.5 to 0.5 m across and from 0 to 1 m up."""
    corners = [[-0.5, 0, 0], [0.5, 0, 0], [0.5, 1, 0], [-0.5, 1, 0]]
    arrays = {
        "vertices_m": np.array(corners, np.float32),
        "camera": np.array(camera, np.float32),
        "crop_box_px": np.array([*centre, side, side], np.float32),
    }
    if uncertainty is not None:
        arrays["vertex_uncertainty_m"] = np.full(4, uncertainty, np.float32)
    return arrays


def touched(before, after):
    """First and last column, first and last row of what changed."""
    rows, columns = np.nonzero((before != after).any(-1))
    return [columns.min(), columns.max(), rows.min(), rows.max()]


def by_hand(centre, side, scale=1.0):
    s, tx, ty = CAMERA
    columns = [centre[0] + 0.5 * side * s * (x + tx) for x in (-0.5, 0.5)]
    rows = [centre[1] + 0.5 * side * s * (-y + ty) for y in (1, 0)]  # y is up
    return scale * (np.array(columns + rows) + 0.5) - 0.5


@pytest.mark.parametrize(("centre", "side"), [((90, 60), 100), ((150.3, 110.7), 151.0)])
def test_a_body_is_where_its_camera_and_box_say(quad, centre, side):
    picture = np.zeros((180, 240, 3), np.uint8)
    shown = draw_people(picture, [result(centre, side)], quad)
    assert shown.shape == picture.shape and not picture.any()
    expected = by_hand(centre, side)
    np.testing.assert_allclose(touched(picture, shown), expected, atol=1.0)
    low, high = np.ceil(expected[::2]).astype(int), expected[1::2].astype(int)
    inside = shown[low[1] + 1 : high[1] - 1, low[0] + 1 : high[0] - 1]
    assert inside.min() > 60  # no holes


def test_large_pictures_are_drawn_smaller(quad):
    picture = np.zeros((1000, 4000, 3), np.uint8)
    small = fitting(picture)
    assert small.shape == (400, 1600, 3)
    assert fitting(small) is small
    centre, side = (2100, 480), 700
    shown = draw_people(small, [result(centre, side)], quad, scale=0.4)
    expected = by_hand(centre, side, 0.4)
    np.testing.assert_allclose(touched(small, shown), expected, atol=1.0)


def test_bodies_beyond_the_border_are_cut_off(quad):
    picture = np.zeros((50, 60, 3), np.uint8)
    shown = draw_people(picture, [result((0, 45), 100)], quad)
    left, right, top, bottom = by_hand((0, 45), 100)
    assert left < 0 and top < 0
    found = touched(picture, shown)
    np.testing.assert_allclose(found, [0, right, 0, bottom], atol=1.0)
    nowhere = [
        result((500, 45), 100),
        result((30, 25), 50, camera=[0, 0, 0]),
        result((30, 25), 50, camera=[np.nan, 0, 0]),
    ]
    np.testing.assert_array_equal(draw_people(picture, nowhere, quad), picture)


@pytest.mark.parametrize("turn", [1, -1])
def test_who_is_larger_is_in_front(quad, turn):
    picture = np.zeros((120, 120, 3), np.uint8)
    sure, unsure = result((60, 60), 80, 0.0), result((60, 60), 100, 0.2)
    shown = draw_people(picture, [sure, unsure][::turn], quad)
    red, _, blue = shown[40, 60].astype(int)
    assert red > blue + 40
    in_front = draw_people(picture, [unsure], quad)
    np.testing.assert_array_equal(shown[40, 60], in_front[40, 60])  # hides the other
    alone = draw_people(picture, [sure], quad)[40, 60].astype(int)
    assert alone[2] > alone[0] + 40


def person(name, index):
    return Person(pathlib.Path(f"{name}.png"), name, index, np.zeros(4), 1.0, None)


def test_a_picture_is_written_with_its_last_person(quad, tmp_path):
    picture = np.zeros((100, 120, 3), np.uint8)
    people = [person("a", 0), person("a", 1)]
    one, other = result((40, 60), 60), result((90, 60), 40)
    path = tmp_path / "a_overlay.png"

    def run(first, second, new=(True, True), drawn=True):
        overlays = Overlays(tmp_path, quad, drawn=drawn)
        overlays.begin(picture, people)
        overlays.add(people[0], first, new=new[0])
        assert not (any(new) and drawn) or path.stat().st_size == before
        overlays.add(people[1], second, new=new[1])
        return np.array(Image.open(path)) if path.is_file() else None

    path.write_bytes(b"before")
    before = 6
    both = run(one, other)
    np.testing.assert_array_equal(both, draw_people(picture, [one, other], quad))
    path.write_bytes(b"before")
    np.testing.assert_array_equal(
        run(one, None), draw_people(picture, [one], quad), "the other one failed"
    )
    path.write_bytes(b"before")
    np.testing.assert_array_equal(run(one, other, (False, True)), both)
    # all results were there: only what is missing is drawn
    kept = path.stat().st_mtime_ns
    run(one, other, (False, False))
    assert path.stat().st_mtime_ns == kept
    Overlays(tmp_path, quad).forget(people[0])
    assert not path.exists()
    assert run(one, other, (False, False)) is not None
    path.unlink()
    assert run(one, other, drawn=False) is None


def test_pictures_of_all_sizes_take_few_programs():
    assert max(overlay._WINDOWS_PX) >= overlay.LONGEST_PX + 2
    assert len(overlay._WINDOWS_PX) < 8
