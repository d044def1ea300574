"""Files of boxes and 2D joints, in all layouts, whole and damaged."""

import json
import re

import numpy as np
import pytest

from hmr_jax.errors import UserError
from hmr_jax.predict import boxes as person_boxes

JOINTS = np.arange(51.0).reshape(17, 3)


def write(path, value):
    path.write_text(json.dumps(value))
    return str(path)


def test_cocos_results_and_the_simple_layout_agree(tmp_path):
    coco = [
        {"image_id": 139, "bbox": [1, 2, 3, 4], "score": 0.99, "category_id": 1},
        {"image_id": 139, "bbox": [9, 9, 9, 9], "score": 0.99, "category_id": 2},
        {"image_id": 139, "bbox": [5, 6, 7, 8], "score": 0.5, "category_id": 1},
        {"file_name": "b.png", "bbox": [0, 0, 1, 1]},
    ]
    found = person_boxes.read_boxes(write(tmp_path / "a.json", coco))
    simple = {"139": [[1, 2, 3, 4, 0.99], [5, 6, 7, 8, 0.5]], "b.png": [[0, 0, 1, 1]]}
    same = person_boxes.read_boxes(write(tmp_path / "b.json", simple))
    arrays = tmp_path / "c.npz"
    rows = [[1, 2, 3, 4, 0.99], [5, 6, 7, 8, 0.5], [0, 0, 1, 1, 1]]
    np.savez(arrays, names=["139", "139", "b.png"], boxes=np.array(rows))
    third = person_boxes.read_boxes(str(arrays))
    for table in (found, same, third):
        assert set(table) == {"139", "b.png"}
        np.testing.assert_array_equal(table["139"], rows[:2])
        np.testing.assert_array_equal(table["b.png"], rows[2:])
    for name in ("x/000000000139.jpg", "139.png"):
        assert len(person_boxes.entries_of(found, name)) == 2
    assert person_boxes.entries_of(found, "x/b.png")[0][4] == 1
    assert person_boxes.entries_of(found, "c.png") == []


def test_joints_of_one_or_more_persons(tmp_path):
    holed = JOINTS.tolist()
    holed[3] = [None, None, float("nan")]
    content = {"a.png": holed, "b.png": [JOINTS.tolist()] * 2, "c.png": []}
    found = person_boxes.read_joints2d(write(tmp_path / "a.json", content))
    np.testing.assert_array_equal(found["b.png"], [JOINTS, JOINTS])
    assert np.isnan(found["a.png"][0][3]).all()
    np.testing.assert_array_equal(found["a.png"][0][4], JOINTS[4])
    assert found["c.png"] == []
    keypoints = [{"image_id": 7, "keypoints": JOINTS.reshape(-1).tolist()}] * 2
    same = person_boxes.read_joints2d(write(tmp_path / "b.json", keypoints))
    np.testing.assert_array_equal(same["7"], found["b.png"])
    np.savez(tmp_path / "c.npz", names=["b", "b"], joints2d=np.stack([JOINTS] * 2))
    third = person_boxes.read_joints2d(str(tmp_path / "c.npz"))
    np.testing.assert_array_equal(third["b"], found["b.png"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a.png": JOINTS[:16].tolist()}, r"a\.png: expected 17 joints.*\(16, 3\)"),
        ({"a.png": [[1, 2]] * 17}, r"a\.png: expected 17 joints"),
        ({"a.png": [[1, 2, 3], [1]]}, r"a\.png: expected numbers"),
        ({"a.png": "text"}, r"a\.png: expected a list, found str"),
        ([{"image_id": 1}], r"entry 0: expected an object with 'keypoints'"),
        ([{"keypoints": [1] * 51}], r"entry 0: expected file_name or image_id"),
        ({"a.png": [[1, float("inf"), 1]] * 17}, r"a\.png: .*finite.*infinite"),
        ({"a.png": [[1, 1, float("inf")]] * 17}, r"a\.png: .*finite.*infinite"),
        ({"a.png": [[1, 1, 1e999]] * 17}, r"a\.png: .*finite.*infinite"),
        ("text", r"expected a list or an object of joints2d, found str"),
    ],
)
def test_joints_of_another_layout_are_refused(tmp_path, content, message):
    path = write(tmp_path / "a.json", content)
    with pytest.raises(ValueError, match=message):
        person_boxes.read_joints2d(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category_id": None}, r"category_id: expected a number.*found None"),
        ({"category_id": "person"}, r"category_id: expected a number.*found 'person'"),
        ({"score": None}, r"score: expected a number, found None"),
        ({"file_name": [1]}, r"expected file_name or image_id.*found \[1\]"),
        ({"bbox": None}, r"bbox: expected a list of numbers, found NoneType"),
        ({"bbox": ["a", 1, 2, 3]}, r"expected numbers"),
        ({"bbox": [10**400, 1, 2, 3]}, r"expected numbers"),
        ({"bbox": [{}, 1, 2, 3]}, r"expected numbers"),
        ({"bbox": [1, 2, None, 3]}, r"expected finite numbers, found 1, 2, nan, 3"),
        (
            {"bbox": [1, 2, 0, 3]},
            r"expected a width and .* found 1, 2, 0, 3",
        ),
        ({"bbox": [1, 2, 3, -4]}, r"expected a width and a height above 0"),
        ({"score": float("inf")}, r"expected finite numbers, found 1, 2, 3, 4, inf"),
        ({"score": float("nan")}, r"expected finite numbers"),
    ],
)
def test_entries_of_boxes_of_another_layout_are_named(tmp_path, changes, message):
    good = {"file_name": "a.png", "bbox": [1, 2, 3, 4], "category_id": 1, "score": 0.5}
    path = write(tmp_path / "a.json", [good, good | changes])
    with pytest.raises(ValueError, match=r"a\.json: entry 1: " + message):
        person_boxes.read_boxes(path)


def test_spellings_of_a_name_are_one_entry(tmp_path):
    rows = {"x\\a.png": [[1, 2, 3, 4]], "./x/a.png": [[5, 6, 7, 8]]}
    found = person_boxes.read_boxes(write(tmp_path / "a.json", rows))
    assert set(found) == {"x/a.png"} and len(found["x/a.png"]) == 2
    for name in ("x/a.png", "/data/x/a.png", "y/a.png", "x\\a.png"):
        assert len(person_boxes.entries_of(found, name)) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_how_a_file_is_written(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"a.png": [[1, 2, 3, 4]]}).encode(encoding))
    assert set(person_boxes.read_boxes(str(path))) == {"a.png"}


def test_other_things_than_persons_are_counted(tmp_path):
    entry = {"file_name": "a.png", "bbox": [1, 2, 0, 4], "category_id": 3}
    found = person_boxes.read_boxes(write(tmp_path / "a.json", [entry, entry]))
    assert found == {"a.png": []} and found.others == {"a.png": 2}
    said = r"a\.json has 2 entries for a\.png, none of category 1 \(a person\)$"
    assert re.search(said, person_boxes.find(found, "a.png").reason)


@pytest.mark.parametrize(
    "data",
    [b"", b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}", b"\xff\xfe\x00", b"\x00"],
)
def test_what_is_no_json_is_named(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    for read in (person_boxes.read_boxes, person_boxes.read_joints2d):
        with pytest.raises(ValueError, match=r"a\.json: expected"):
            read(str(path))


def test_a_missing_file_name_leaves_the_number(tmp_path):
    entry = {"file_name": None, "image_id": 7, "bbox": [1, 2, 3, 4], "category_id": 1.0}
    assert set(person_boxes.read_boxes(write(tmp_path / "a.json", [entry]))) == {"7"}


def test_arrays_of_another_kind_are_named(tmp_path):
    path = tmp_path / "a.npz"
    boxes = np.array([[1.0, 2, 3, 4]])
    np.savez(path, names=["a"], boxes=np.array([None], object))
    with pytest.raises(
        ValueError, match=r"a\.npz: boxes: expected numbers, found object"
    ):
        person_boxes.read_boxes(str(path))
    np.savez(path, names=np.array([None], object), boxes=boxes)
    with pytest.raises(ValueError, match=r"a\.npz: names: .* found None in row 0"):
        person_boxes.read_boxes(str(path))
    np.savez(path, names=np.array([0.5]), boxes=boxes)
    with pytest.raises(ValueError, match=r"a\.npz: names: expected .* found 0\.5"):
        person_boxes.read_boxes(str(path))
    np.savez(path, names=np.array({"a": 1}, object), boxes=boxes)
    with pytest.raises(ValueError, match=r"a\.npz: names: expected an array"):
        person_boxes.read_boxes(str(path))
    with open(path, "wb") as file:
        np.save(file, boxes)  # another format under this suffix
    with pytest.raises(ValueError, match=r"a\.npz: expected"):
        person_boxes.read_boxes(str(path))
    for names in (np.array([b"a.png"]), np.array(["a.png"], object)):
        np.savez(path, names=names, boxes=boxes)
        assert set(person_boxes.read_boxes(str(path))) == {"a.png"}


def damaged(data, rng):
    """The bytes with a few of them changed, left out or replaced by a word of JSON."""
    words = (b"null", b"NaN", b"Infinity", b"1e999", b"[]", b"{}", b'""', b"[" * 50)
    data, place = bytearray(data), int(rng.integers(len(data)))
    kind = rng.integers(3)
    if kind == 0:
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
    elif kind == 1:
        del data[place : place + int(rng.integers(1, 40))]
    else:
        word = words[rng.integers(len(words))]
        data[place : place + len(word)] = word
    return bytes(data)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_damaged_files_are_named_whatever_is_damaged(tmp_path, suffix):
    rng = np.random.default_rng(0)
    coco = [{"image_id": 7, "bbox": [1, 2, 3, 4], "score": 0.9, "category_id": 1}] * 2
    path = tmp_path / f"damaged{suffix}"
    if suffix == ".npz":
        np.savez_compressed(path, names=["a", "b"], boxes=np.ones((2, 5)))
        whole = path.read_bytes()
    else:
        whole = json.dumps(coco).encode()
    outcomes = set()
    for _ in range(300):
        path.write_bytes(damaged(whole, rng))
        try:
            person_boxes.read_boxes(str(path))
            outcomes.add("read")
        except UserError as error:
            assert str(path) in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file.*none"):
        person_boxes.read_boxes(str(tmp_path / "none.json"))
    (tmp_path / "cut.json").write_text('{"a.png": [[1, 2')
    with pytest.raises(ValueError, match=r"cut\.json: expected boxes in a \.json file"):
        person_boxes.read_boxes(str(tmp_path / "cut.json"))
    np.savez(tmp_path / "other.npz", box=np.zeros(3))
    with pytest.raises(ValueError, match=r"names and boxes, found box"):
        person_boxes.read_boxes(str(tmp_path / "other.npz"))
    np.savez(tmp_path / "odd.npz", names=["a"], boxes=np.zeros((2, 4)))
    with pytest.raises(ValueError, match="as many names as rows"):
        person_boxes.read_boxes(str(tmp_path / "odd.npz"))
    whole = (tmp_path / "odd.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.npz: expected an \.npz archive"):
        person_boxes.read_boxes(str(tmp_path / "cut.npz"))
    with pytest.raises(ValueError, match=r"expected a \.json or \.npz"):
        person_boxes.read_boxes(write(tmp_path / "a.txt", {}))
    with pytest.raises(ValueError, match=r"a\.png: expected boxes"):
        person_boxes.read_boxes(write(tmp_path / "b.json", {"a.png": [[1, 2, 3]]}))


def test_boxes_around_joints():
    joints = np.zeros((17, 3))
    joints[[1, 4, 9], :2] = [[10, 20], [30, 60], [500, 500]]
    visible = np.zeros(17, bool)
    visible[[1, 4]] = True
    found = person_boxes.tight_box(joints, visible, 1.5)
    np.testing.assert_allclose(found, [20 - 15, 40 - 30, 30, 60])
    for few in ([], [1], [2, 3]):  # the last are in one place
        visible[:] = False
        visible[few] = True
        assert np.isnan(person_boxes.tight_box(joints, visible, 1.5)).all()


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([0, 0, 10, 10], ""),
        ([-5, -5, 10, 10], ""),
        ([0, 0, 0, 10], "size"),
        ([0, 0, 10, -1], "size"),
        ([0, np.nan, 10, 10], "finite"),
        ([-10, 0, 10, 10], "expected a place"),
        ([40, 0, 10, 10], "expected a place"),
        ([0, 30, 10, 10], "expected a place"),
        ([-40, -40, 120, 110], ""),
        ([-41, -40, 120, 110], "as large as the picture"),
    ],
)
def test_boxes_that_cannot_be_used(box, said):
    found = person_boxes.box_problem(np.array([*box, 1.0]), 40, 30)
    assert said in found and bool(said) == bool(found)


def test_the_nearest_centre():
    boxes = list(np.array([[0, 0, 10, 10], [30, 40, 20, 10], [0, 0, 100, 80]]))
    assert person_boxes.nearest_centre(boxes, 80, 90) == 1
    assert person_boxes.nearest_centre(boxes, 100, 80) == 2
