"""Which pictures and which persons are predicted."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from hmr_jax.commands import predict_inputs
from hmr_jax.commands.predict_inputs import Choice, persons_in

PATH = pathlib.Path("x/a.png")
NEAR, FAR, UNSURE = [40, 30, 20, 20, 0.99], [0, 0, 20, 20, 0.98], [0, 0, 90, 70, 0.5]


def boxes(*rows):
    return {"a.png": [np.array(row, float) for row in rows]}


def persons(choice):
    return persons_in(PATH, "a", 100, 80, choice)


def test_persons_are_those_of_certain_boxes():
    found, reason = persons(Choice(boxes=boxes(FAR, UNSURE, NEAR)))
    assert [p.index for p in found] == [0, 1] and not reason
    np.testing.assert_array_equal([p.box_xywh_px for p in found], [FAR[:4], NEAR[:4]])
    assert [p.score for p in found] == [0.98, 0.99]
    found, _ = persons(Choice(boxes=boxes(FAR, UNSURE, NEAR), nearest_centre=True))
    np.testing.assert_array_equal(found[0].box_xywh_px, NEAR[:4])
    assert len(found) == 1 and found[0].index == 0
    found, _ = persons(Choice(boxes=boxes(FAR, UNSURE, NEAR), threshold=0.4))
    assert len(found) == 3


def test_pictures_without_persons():
    for table in ({}, boxes(), boxes(UNSURE), boxes([1, 1, 0, 5, 1.0])):
        found, reason = persons(Choice(boxes=table))
        assert not found and "boxes with a score above 0.95" in reason
        (whole,), _ = persons(Choice(boxes=table, whole_if_none=True))
        np.testing.assert_array_equal(whole.box_xywh_px, [0, 0, 100, 80])
        assert "no box" in whole.note
    (whole,), _ = persons(Choice())
    np.testing.assert_array_equal(whole.box_xywh_px, [0, 0, 100, 80])
    assert whole.joints is None and not whole.note
    found, reason = persons(Choice(joints={"b.png": [np.ones((17, 3))]}))
    assert not found and "no 2D joints" in reason


def test_joints_go_with_boxes_or_make_them():
    first, second = np.ones((17, 3)), np.ones((17, 3))
    second[:, :2] = [[50.0, 40.0]]
    second[0, :2], second[16] = [30.0, 20.0], [90.0, 70.0, 0.1]
    joints = {"a": [first, second]}
    found, _ = persons(Choice(joints=joints, boxes=boxes(UNSURE, NEAR)))
    assert len(found) == 1
    np.testing.assert_array_equal(found[0].joints, second)
    with pytest.raises(ValueError, match=r"a\.png: .*found 1 and 2"):
        persons(Choice(joints=joints, boxes=boxes(NEAR)))
    found, _ = persons(Choice(joints=joints))
    # the first has its joints in one place; an uncertain ankle makes no box
    np.testing.assert_array_equal(found[0].box_xywh_px, [0, 0, 100, 80])
    assert "no two joints" in found[0].note
    np.testing.assert_allclose(found[1].box_xywh_px, [28, 18, 24, 24])
    found, _ = persons(Choice(joints=joints, cropped=True))
    for person in found:
        np.testing.assert_array_equal(person.box_xywh_px, [0, 0, 100, 80])


def test_files_of_unknown_pictures(caplog):
    paths = [pathlib.Path("x/a.png"), pathlib.Path("x/0012.jpg")]
    predict_inputs.warn_of_unknown({"a.png": [], "12": []}, paths, "--boxes")
    predict_inputs.warn_of_unknown({"a": [], "d.png": []}, paths, "--boxes")
    with pytest.raises(ValueError, match=r"--boxes: none of its 2 .*d\.png, e\.png"):
        predict_inputs.warn_of_unknown({"d.png": [], "e.png": []}, paths, "--boxes")


def test_listing(tmp_path):
    for name in ("b.JPG", "a.png", "a.jpg", "c.txt"):
        (tmp_path / name).write_bytes(b"")
    paths = predict_inputs.list_pictures([str(tmp_path), str(tmp_path / "a.png")])
    assert [path.name for path in paths] == ["a.jpg", "a.png", "b.JPG"]
    names = predict_inputs.result_names(paths)
    assert list(names.values()) == ["a_jpg", "a_png", "b"]
    other = tmp_path / "more" / "b.JPG"
    with pytest.raises(ValueError, match=r"different file names.*more"):
        predict_inputs.result_names([*paths, other])
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        predict_inputs.list_pictures([str(tmp_path / "none")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no pictures"):
        predict_inputs.list_pictures([str(tmp_path / "empty")])


def test_reading(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[274] = 6  # the camera was turned: to be shown after a quarter turn
    picture.save(tmp_path / "a.png", exif=exif)
    found = predict_inputs.read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(found, np.rot90(pixels, -1))
    picture.convert("L").save(tmp_path / "grey.png")
    assert predict_inputs.read_picture(tmp_path / "grey.png").shape == (20, 30, 3)
    picture.save(tmp_path / "b.jpg")
    data = (tmp_path / "b.jpg").read_bytes()
    for name, content in (("cut.jpg", data[: len(data) // 2]), ("no.jpg", b"text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: not a whole picture"):
            predict_inputs.read_picture(tmp_path / name)
