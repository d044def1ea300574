"""Paths of other file systems answer as local ones do."""

import pathlib
import uuid

import pytest

from hmr_jax import remote
from hmr_jax.errors import UserError
from hmr_jax.files import atomic_write, locked


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        return remote.location(tmp_path / "run")
    return remote.location(f"memory://{uuid.uuid4().hex}/run")


def test_both_kinds_answer_alike(folder):
    assert not folder.exists() and not folder.is_dir()
    with atomic_write(folder / "a" / "run.json") as temporary:
        temporary.write_text("{}")
    assert folder.is_dir() and (folder / "a").is_dir()
    assert (folder / "a" / "run.json").is_file()
    assert (folder / "a" / "run.json").read_text() == "{}"
    assert (folder / "a" / "run.json").suffix == ".json"
    assert [path.name for path in (folder / "a").iterdir()] == ["run.json"]
    (folder / "a" / "run.json").unlink()
    assert not (folder / "a" / "run.json").exists()
    (folder / "a" / "run.json").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "b.txt").write_text("b")
    remote.remove_tree(folder)
    assert not folder.exists()


def test_a_file_grows(folder):
    folder.mkdir(parents=True, exist_ok=True)
    file = remote.Appended(folder / "log")
    file.write(b"one\n")
    file.push()
    file.write(b"two\n")
    file.flush()
    assert (folder / "log").read_bytes() == b"one\ntwo\n"
    file.write(b"three\n")
    file.close()
    assert (folder / "log").read_bytes() == b"one\ntwo\nthree\n"


def test_a_failed_remote_write_leaves_the_old_file():
    path = remote.location(f"memory://{uuid.uuid4().hex}/out.txt")
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"


def test_what_is_local_stays_local(tmp_path):
    assert remote.location("runs/a") == pathlib.Path("runs/a")
    assert remote.location(f"file://{tmp_path}") == tmp_path
    assert not remote.is_remote("runs/a:b") and remote.is_remote("gs://bucket/a")


def test_unknown_file_systems_are_named():
    with pytest.raises(UserError, match="nosuch://bucket/a: expected a local path or"):
        remote.location("nosuch://bucket/a")


def test_a_lock_is_held_once_and_freed(tmp_path):
    with locked(tmp_path / "run", "training here"):
        with pytest.raises(UserError, match=r"run: another process is training here"):
            with locked(tmp_path / "run", "training here"):
                pass
    with locked(tmp_path / "run", "training here"):
        pass
