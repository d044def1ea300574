"""Names of results: unique, lasting, and never over what others wrote."""

import os
import pathlib

import pytest

from hmr_jax.predict import names as predict_names
from hmr_jax.predict import outputs
from hmr_jax.predict.names import LEDGER, MAX_BYTES, OVERVIEW, SUMMARY


def plan(out, *paths):
    """Names of pictures; they are noted, as a run does."""
    names = predict_names.plan(out, [pathlib.Path(path) for path in paths])
    predict_names.write_ledger(out, names)
    return list(names.of.values())


@pytest.mark.parametrize(
    "paths, expected",
    [
        (["x/a.jpg", "x/b.jpg"], ["a", "b"]),
        (["x/a.jpg", "x/a.png"], ["a_jpg", "a_png"]),
        (["x/a.jpg", "x/a.png", "x/a_jpg.png"], ["x_a_jpg", "a_png", "a_jpg_png"]),
        (["x/a.jpg", "y/a.jpg"], ["x_a_jpg", "y_a_jpg"]),
        (["p/x/a.jpg", "q/x/a.jpg"], ["p_x_a_jpg", "q_x_a_jpg"]),
        (["x/A.jpg", "y/a.png"], ["A_jpg", "a_png"]),  # one name on many disks
        (["x/caf\u00e9.jpg", "y/cafe\u0301.png"], ["caf\u00e9_jpg", "cafe\u0301_png"]),
        (["x/a.b.jpg", "x/a.jpg"], ["a.b", "a"]),
    ],
)
def test_names_are_unique(tmp_path, monkeypatch, paths, expected):
    monkeypatch.chdir(tmp_path)
    assert plan(tmp_path / "out", *paths) == expected


def test_even_names_that_look_the_same_in_every_folder_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = plan(tmp_path / "out", "x_y/a.jpg", "x/y_a.jpg", "x/y/a.jpg", "x_y_a.jpg")
    assert len(set(found)) == 4


def test_a_picture_keeps_its_name_whatever_is_added(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    assert plan(out, "x/a.jpg") == ["a"]
    assert plan(out, "x/a.jpg", "x/a.png") == ["a", "a_png"]
    assert plan(out, "y/a.jpg") == ["a_jpg"]  # not the name of another picture
    assert plan(out, "x/a.png", tmp_path / "x" / "a.jpg") == ["a_png", "a"]


def test_a_folder_reached_by_a_link_is_the_same(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    out = tmp_path / "out"
    assert plan(out, tmp_path / "x" / "a.jpg") == ["a"]
    assert plan(out, tmp_path / "link" / "a.png", tmp_path / "link" / "a.jpg") == [
        "a_png",
        "a",
    ]


def test_names_last_when_pictures_and_results_move_together(tmp_path):
    plan(tmp_path / "one" / "out", tmp_path / "one" / "x" / "a.jpg")
    (tmp_path / "one").rename(tmp_path / "two")
    moved = tmp_path / "two" / "x"
    found = plan(tmp_path / "two" / "out", moved / "a.png", moved / "a.jpg")
    assert found == ["a_png", "a"]


@pytest.mark.parametrize(
    "foreign",
    [
        "a_0.png",
        "a_12.npz",
        "a_0_samples.png",
        "a_overlay.png",
        *(f"a_0.{kind}" for kind in outputs.MESH_FORMATS),
    ],
)
def test_files_of_others_keep_their_names(tmp_path, foreign):
    out = tmp_path / "out"
    out.mkdir()
    (out / foreign).write_text("mine")
    (out / "b_note.txt").write_text("mine")
    paths = tmp_path / "x" / "a.jpg", tmp_path / "x" / "b.jpg"
    assert plan(out, *paths) == ["a_jpg", "b"]
    assert plan(out, *paths) == ["a_jpg", "b"]


@pytest.mark.parametrize("name", [SUMMARY, OVERVIEW, LEDGER])
def test_fixed_names_of_others_are_refused(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=f"{name}.*not written by predict"):
        plan(tmp_path, tmp_path / "x" / "a.jpg")
    assert (tmp_path / name).read_text() == "{}"


def test_the_pictures_folder_is_no_folder_for_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for out in ("x", "./x", "x/../x", "link", tmp_path / "x"):
        with pytest.raises(ValueError, match=r"--out: .* which holds x/a\.jpg"):
            plan(pathlib.Path(out), "y/b.jpg", "x/a.jpg")
    assert not list((tmp_path / "x").iterdir())
    assert plan(pathlib.Path("x/out"), "x/a.jpg") == ["a"]


@pytest.mark.parametrize(
    "content", ["", "[", "[]", "{}", '{"made_by": "hmr-jax predict"}', "[" * 100_000]
)
def test_a_damaged_note_is_named(tmp_path, content):
    (tmp_path / LEDGER).write_text(content)
    with pytest.raises(ValueError, match=rf"{LEDGER}: "):
        plan(tmp_path, tmp_path / "x" / "a.jpg")


def test_names_that_no_result_can_have(tmp_path):
    long = tmp_path / "x" / f"{'y' * (MAX_BYTES + 1)}.jpg"
    wide = tmp_path / "x" / ("\u4eba" * (MAX_BYTES // 3 + 1) + ".jpg")
    odd = pathlib.Path(os.fsdecode(os.fsencode(tmp_path / "x") + b"/caf\xe9.jpg"))
    good = tmp_path / "x" / "a.jpg"
    names = predict_names.plan(tmp_path, [long, good, odd, wide])
    assert names.of == {good: "a"} and set(names.problems) == {long, odd, wide}
    assert f"at most {MAX_BYTES} bytes" in names.problems[long]
    assert names.problems[odd] == r"expected a name in UTF-8, found caf\xe9.jpg"


def test_the_longest_name_leaves_room_for_what_is_written(tmp_path):
    from hmr_jax.files import atomic_write

    name = "y" * MAX_BYTES
    with atomic_write(tmp_path / f"{name}_99999_samples.png") as temporary:
        temporary.write_bytes(b"")
    assert len(list(tmp_path.iterdir())) == 1


def test_long_names_in_two_folders(tmp_path):
    stem = "y" * MAX_BYTES
    names = predict_names.plan(
        tmp_path, [tmp_path / "x" / f"{stem}.jpg", tmp_path / "z" / f"{stem}.jpg"]
    )
    assert not names.of
    assert all("no free name" in said for said in names.problems.values())
