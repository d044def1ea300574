"""Which pictures and which persons are predicted."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from hmr_jax.predict import boxes, persons
from hmr_jax.predict.persons import Choice, persons_in

PATH = pathlib.Path("x/a.png")
NEAR, FAR, UNSURE = [40, 30, 20, 20, 0.99], [0, 0, 20, 20, 0.98], [0, 0, 90, 70, 0.5]


def boxes_of(*rows):
    return {"a.png": [np.array(row, float) for row in rows]}


def found_in(choice):
    return persons_in(PATH, "a", 100, 80, choice)


def test_persons_are_those_of_certain_boxes():
    found, reason = found_in(Choice(boxes=boxes_of(FAR, UNSURE, NEAR)))
    assert [p.index for p in found] == [0, 1] and not reason
    np.testing.assert_array_equal([p.box_xywh_px for p in found], [FAR[:4], NEAR[:4]])
    assert [p.score for p in found] == [0.98, 0.99]
    found, _ = found_in(Choice(boxes=boxes_of(FAR, UNSURE, NEAR), nearest_centre=True))
    np.testing.assert_array_equal(found[0].box_xywh_px, NEAR[:4])
    assert len(found) == 1 and found[0].index == 0
    found, _ = found_in(Choice(boxes=boxes_of(FAR, UNSURE, NEAR), threshold=0.4))
    assert len(found) == 3


@pytest.mark.parametrize(
    "table, said",
    [
        ({}, "no box: the file does not mention it"),
        ({"b.png": []}, "no box: the file does not mention it"),
        (boxes_of(), "no box: the file has no person for a.png"),
        (boxes_of(UNSURE), "none of 1 boxes has a score above 0.95"),
    ],
)
def test_pictures_without_persons_and_the_true_reason(table, said):
    found, reason = found_in(Choice(boxes=table))
    assert not found and reason == said
    (whole,), _ = found_in(Choice(boxes=table, whole_if_none=True))
    np.testing.assert_array_equal(whole.box_xywh_px, [0, 0, 100, 80])
    assert "no box" in whole.note


def test_pictures_without_boxes_or_joints():
    (whole,), _ = found_in(Choice())
    np.testing.assert_array_equal(whole.box_xywh_px, [0, 0, 100, 80])
    assert whole.joints is None and not whole.note
    found, reason = found_in(Choice(joints={"b.png": [np.ones((17, 3))]}))
    assert not found and reason == "no 2D joints: the file does not mention it"


JOINTS = np.tile([[50.0, 40.0, 0.9]], (17, 1))


def with_joint(*values):
    joints = JOINTS.copy()
    joints[3] = values
    return joints


@pytest.mark.parametrize(
    "box, said",
    [
        ([1, 1, 0, 5, 1.0], "size, found 0 x 5"),
        ([1, 1, 5, -5, 1.0], "size, found 5 x -5"),
        ([1, 1, 5, 5, np.inf], "finite numbers, found 1, 1, 5, 5, inf"),
        ([1, np.nan, 5, 5, 1.0], "finite numbers"),
        ([1e6, 1, 5, 5, 1.0], "place in the picture of 100 x 80"),
        ([-50, 0, 50, 80, 1.0], "place in the picture of 100 x 80"),
        ([0, 0, 1e6, 50, 1.0], "as large as the picture"),
        ([-300, 0, 350, 50, 1.0], "as large as the picture"),
    ],
)
def test_boxes_that_cannot_be_this_pictures_are_refused(box, said):
    with pytest.raises(
        ValueError, match=rf"a\.png: the file: a\.png: person 1: .*{said}"
    ):
        found_in(Choice(boxes=boxes_of(NEAR, box)))


@pytest.mark.parametrize("place", [(1e6, 40), (50, -1e6), (201, 40), (50, -101)])
def test_joints_far_outside_the_picture_are_refused(place):
    joints = {"a.png": [JOINTS, with_joint(*place, 0.9)]}
    with pytest.raises(
        ValueError, match=r"a\.png: the file: a\.png: person 1: .*near it, .*joint 3 at"
    ):
        found_in(Choice(joints=joints))


@pytest.mark.parametrize(
    "joint", [(199, 40, 0.9), (-5, 85, 0.9), (1e6, 40, 0.0), (np.nan, np.nan, np.nan)]
)
def test_joints_near_the_picture_or_missing_are_not(joint):
    found, _ = found_in(Choice(joints={"a.png": [with_joint(*joint)]}))
    assert len(found) == 1


def test_of_two_pictures_of_one_name_only_the_one_that_is_meant_has_boxes():
    table = boxes.Table({"x/a.png": [np.array(NEAR)]})
    both = table.for_pictures(["x/a.png", "y/a.png"])
    assert len(found_in(Choice(boxes=both))[0]) == 1
    other = pathlib.Path("y/a.png")
    found, reason = persons_in(other, "a", 100, 80, Choice(boxes=both))
    assert not found and "does not mention it" in reason
    unclear = boxes.Table(boxes_of(NEAR), "boxes.json")
    unclear = unclear.for_pictures(["x/a.png", "y/a.png"])
    with pytest.raises(
        ValueError,
        match=r"y/a\.png: expected one .* in boxes\.json, but 'a\.png' fits",
    ):
        persons_in(other, "a", 100, 80, Choice(boxes=unclear))


def test_joints_go_with_boxes_or_make_them():
    first, second = np.ones((17, 3)), np.ones((17, 3))
    second[:, :2] = [[50.0, 40.0]]
    second[0, :2], second[16] = [30.0, 20.0], [90.0, 70.0, 0.1]
    joints = {"a": [first, second]}
    found, _ = found_in(Choice(joints=joints, boxes=boxes_of(UNSURE, NEAR)))
    assert len(found) == 1
    np.testing.assert_array_equal(found[0].joints, second)
    with pytest.raises(ValueError, match=r"a\.png: .*found 1 and 2"):
        found_in(Choice(joints=joints, boxes=boxes_of(NEAR)))
    found, _ = found_in(Choice(joints=joints))
    # the first has its joints in one place; an uncertain ankle makes no box
    np.testing.assert_array_equal(found[0].box_xywh_px, [0, 0, 100, 80])
    assert "no two joints" in found[0].note
    np.testing.assert_allclose(found[1].box_xywh_px, [28, 18, 24, 24])
    found, _ = found_in(Choice(joints=joints, cropped=True))
    for person in found:
        np.testing.assert_array_equal(person.box_xywh_px, [0, 0, 100, 80])


def test_files_of_unknown_pictures(caplog):
    def check(*names):
        table = boxes.Table(dict.fromkeys(names, []))
        pictures = ["x/a.png", "x/0012.jpg"]
        persons.check_known(table.for_pictures(pictures), "--boxes")

    check("a.png", "12")
    check("a", "d.png")
    assert "--boxes: 1 of 2 entries belong to no picture: d.png" in caplog.text
    with pytest.raises(ValueError, match=r"--boxes: none of its 2 .*d\.png, e\.png"):
        check("d.png", "e.png")


def test_listing(tmp_path, monkeypatch):
    for name in ("b.JPG", "a.png", "a.jpg", "c.txt", "._a.jpg", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    words = [str(tmp_path), str(tmp_path / "a.png"), "a.jpg", "x/../b.JPG"]
    (tmp_path / "x").mkdir()
    paths = persons.list_pictures(words)
    assert [path.name for path in paths] == ["a.jpg", "a.png", "b.JPG"]
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        persons.list_pictures([str(tmp_path / "none")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no pictures"):
        persons.list_pictures([str(tmp_path / "empty")])


def test_reading(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[274] = 6  # the camera was turned: to be shown after a quarter turn
    picture.save(tmp_path / "a.png", exif=exif)
    found = persons.read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(found, np.rot90(pixels, -1))
    picture.convert("L").save(tmp_path / "grey.png")
    assert persons.read_picture(tmp_path / "grey.png").shape == (20, 30, 3)
    picture.save(tmp_path / "b.jpg")
    data = (tmp_path / "b.jpg").read_bytes()
    for name, content in (("cut.jpg", data[: len(data) // 2]), ("no.jpg", b"text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: no whole picture"):
            persons.read_picture(tmp_path / name)
