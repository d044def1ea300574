import unicodedata

import pytest

from hmr_jax.pictures import names

COMPOSED = "caf\u00e9.jpg"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.mark.parametrize(
    "spelled, plain",
    [
        ("a.jpg", "a.jpg"),
        ("./x//a.jpg", "x/a.jpg"),
        ("x\\y\\a.jpg", "x/y/a.jpg"),
        (".\\x\\.\\a.jpg", "x/a.jpg"),
        ("C:\\x\\a.jpg", "C:/x/a.jpg"),
        ("/x/a.jpg", "/x/a.jpg"),
        ("\ufeffx/a.jpg", "x/a.jpg"),
        (DECOMPOSED, COMPOSED),
        ("../a.jpg", "../a.jpg"),
    ],
)
def test_spellings_of_one_name(spelled, plain):
    assert names.canonical(spelled) == plain
    assert names.canonical(plain) == plain


@pytest.mark.parametrize(
    "picture, name",
    [
        ("photos/a.jpg", "photos\\a.jpg"),
        ("photos/a.jpg", "./photos/a.jpg"),
        ("photos/a.jpg", "val2017/a.jpg"),
        ("photos/a.jpg", "/data/photos/a.jpg"),
        ("photos/a.jpg", "C:\\data\\photos\\a.jpg"),
        ("/data/photos/a.jpg", "photos/a.jpg"),
        ("photos/a.jpg", "a"),
        ("photos/a.jpg", "train/a"),
        ("photos/a.b.jpg", "a.b"),
        (DECOMPOSED, COMPOSED),
        ("x/" + COMPOSED, DECOMPOSED),
        ("x/12.jpg", "0012"),
        ("x/0012.jpg", "12"),
        ("COCO_val2014_000000000139.jpg", "139"),
        ("000000000139.jpg", "139"),
        ("x/000000000139.jpg", "COCO_train2014_000000000139.jpg"),
        ("x/COCO_val2014_000000000139.jpg", "val2017/000000000139.jpg"),
        ("COCO_val2014_000000000139.jpg", "000000000139"),
        ("COCO_val2014_000000000139.jpg", "COCO_train2014_000000000139"),
    ],
)
def test_names_that_mean_a_picture(picture, name):
    found = names.NameIndex(["b.jpg", name, "photos/c.jpg"]).find(picture)
    assert found is not None and found.names == [name]


@pytest.mark.parametrize(
    "picture, name",
    [
        ("a.jpg", "a.png"),
        ("a.jpg", "aa.jpg"),
        ("a.jpg", "b/a.jpg/c.jpg"),
        ("12.jpg", "0012.jpg"),
        ("12.jpg", "1"),
        ("x12.jpg", "12"),
        ("a_000000000139.jpg", "139"),
        ("COCO_val2014_139.jpg", "139"),
        ("000000000139.png", "COCO_val2014_000000000139.jpg"),
        ("\u00b2.jpg", "2"),
        ("A.jpg", "a.jpg"),
    ],
)
def test_names_that_mean_another_picture(picture, name):
    assert names.NameIndex([name]).find(picture) is None


def test_more_folders_in_common_decide():
    index = names.NameIndex(["u/a.jpg", "v/a.jpg", "w/v/a.jpg", "a.jpg"])
    for picture, name in (
        ("u/a.jpg", "u/a.jpg"),
        ("x/u/a.jpg", "u/a.jpg"),
        ("v/a.jpg", "v/a.jpg"),
        ("w/v/a.jpg", "w/v/a.jpg"),
        ("z/a.jpg", "a.jpg"),
    ):
        assert index.find(picture).names == [name]
    unclear = names.NameIndex(["u/a.jpg", "v/a.jpg"]).find("w/a.jpg")
    assert sorted(unclear.names) == ["u/a.jpg", "v/a.jpg"]


def test_every_name_goes_to_one_picture():
    found = names.assign(
        ["u/a.jpg", "v/a.jpg", "b.jpg", "c.jpg"], ["u/a.jpg", "b", "d.jpg"]
    )
    # v/a.jpg would fit u/a.jpg too, but less well: nobody gave it a name
    assert found.names == {"u/a.jpg": "u/a.jpg", "b.jpg": "b"}
    assert found.problems == {} and found.unused == ["d.jpg"]


def test_what_is_not_clear_is_said():
    found = names.assign(["u/a.jpg", "v/a.jpg"], ["a.jpg"])
    assert found.names == {} and found.unused == []
    assert set(found.problems) == {"u/a.jpg", "v/a.jpg"}
    said = "'a.jpg' fits several pictures: u/a.jpg, v/a.jpg"
    assert found.problems["v/a.jpg"] == said
    found = names.assign(["w/a.jpg"], ["u/a.jpg", "v/a.jpg"])
    assert found.problems == {"w/a.jpg": "several names fit it: u/a.jpg, v/a.jpg"}
    found = names.assign(["a.jpg", "a.png"], ["a"])
    assert found.names == {} and len(found.problems) == 2
    found = names.assign(["a.jpg", "a.png"], ["a", "a.png"])
    assert found.names == {"a.jpg": "a", "a.png": "a.png"}


def test_many_folders_of_equal_names_are_quick():
    """Without an index every picture would be compared with every name."""
    paths = [f"videos/{i}/0001.jpg" for i in range(2_000)]
    found = names.assign(paths, [path.removeprefix("videos/") for path in paths])
    assert len(found.names) == 2_000 and not found.problems
    found = names.assign(paths, [f"other/{path}" for path in paths[1:]] * 2)
    assert len(found.names) == 1_999 and list(found.problems) == paths[:1]
    found = names.assign(paths, [f"{i}x/0001.jpg" for i in range(2_000)])
    assert len(found.problems) == 2_000 and not found.unused
