"""Whole files or none."""

import pytest

from hmr_jax.files import atomic_directory, atomic_write


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]


def test_a_write_replaces_the_file_and_keeps_the_suffix(tmp_path):
    with atomic_write(tmp_path / "sub" / "out.npz") as temporary:
        assert temporary.suffix == ".npz"
        temporary.write_text("new")
    assert (tmp_path / "sub" / "out.npz").read_text() == "new"


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    for text in ("one", "two"):
        with atomic_directory(tmp_path / "run") as temporary:
            (temporary / f"{text}.txt").write_text(text)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["two.txt"]
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "run") as temporary:
        raise RuntimeError
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["two.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
