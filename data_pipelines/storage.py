"""Files and folders, local or remote, through TensorFlow's file system layer.

A path is a string; ``gs://bucket/folder`` and any other scheme that TensorFlow knows
stand beside local ones. Writing goes to a temporary name first, so that a file is
either whole or absent.
"""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator

Location = pathlib.Path | str
"""What callers are given: a ``pathlib.Path`` on this machine, else a string."""


def _gfile():
    import tensorflow as tf

    return tf.io.gfile


def is_local(path: str | os.PathLike) -> bool:
    """Whether a path lies in this machine's file system."""
    return "://" not in os.fspath(path)


def clean(path: str | os.PathLike) -> str:
    """A path as a string without ``~`` and without a slash at its end."""
    text = os.fspath(path).removeprefix("file://")
    if is_local(text):
        return str(pathlib.Path(text).expanduser())
    return text.rstrip("/")


def location(path: str) -> Location:
    """The path as callers are given it."""
    return pathlib.Path(path) if is_local(path) else path


def join(folder: str | os.PathLike, *names: str) -> str:
    """The path of something in a folder."""
    return "/".join([clean(folder).rstrip("/"), *names])


def parent(path: str) -> str:
    """The folder that holds a path."""
    return path.rsplit("/", 1)[0]


def name(path: str) -> str:
    """The last part of a path."""
    return path.rsplit("/", 1)[-1]


@contextlib.contextmanager
def reported(path: str) -> Iterator[None]:
    """Turn TensorFlow's errors about a path into an ``OSError`` that names it."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(f"{path}: {error.message}") from error


def exists(path: str) -> bool:
    """Whether there is a file or folder."""
    return _gfile().exists(path)


def is_dir(path: str) -> bool:
    """Whether there is a folder."""
    return _gfile().isdir(path)


def size(path: str) -> int:
    """Bytes of a file."""
    return os.stat(path).st_size if is_local(path) else _gfile().stat(path).length


def size_and_change(path: str) -> tuple[int, int | None]:
    """Bytes of a file and, of a local one, the time of its last change (ns)."""
    if is_local(path):
        found = os.stat(path)
        return found.st_size, found.st_mtime_ns
    return size(path), None


def glob(pattern: str) -> list[str]:
    """Paths that match a pattern, in no order."""
    return _gfile().glob(pattern)


def names(folder: str) -> list[str]:
    """Names of what a folder holds, sorted; none where there is no folder."""
    if not is_dir(folder):
        return []
    return sorted(entry.rstrip("/") for entry in _gfile().listdir(folder))


def walk(folder: str) -> Iterator[str]:
    """Every folder at or below one, parents first."""
    for found, _, _ in _gfile().walk(folder):
        yield found.rstrip("/")


def files_below(folder: str) -> Iterator[str]:
    """Every file in a folder and its subfolders, in no order."""
    for found, _, files in _gfile().walk(folder):
        yield from (join(found.rstrip("/"), file) for file in files)


def make_dir(path: str) -> None:
    """Make a folder and its parents where they are missing."""
    with reported(path):
        _gfile().makedirs(path)


def read_bytes(path: str) -> bytes:
    """The content of a file."""
    with _gfile().GFile(path, "rb") as file:
        return file.read()


def read_chunks(path: str, size: int) -> Iterator[bytes]:
    """The content of a file, some bytes at a time."""
    with _gfile().GFile(path, "rb") as file:
        while chunk := file.read(size):
            yield chunk


def write_bytes(path: str, data: bytes) -> None:
    """Write a file, whole or not at all; its folder must be there."""
    temporary = temporary_name(path)
    with reported(path):
        with _gfile().GFile(temporary, "wb") as file:
            file.write(data)
        move(temporary, path)


def copy_in(local: str | os.PathLike, path: str) -> None:
    """Copy a file of this machine to a path, whole or not at all."""
    temporary = temporary_name(path)
    with reported(path):
        _gfile().copy(os.fspath(local), temporary, overwrite=True)
        move(temporary, path)


def temporary_name(path: str) -> str:
    """A new name beside a path that ``is_temporary`` knows."""
    return join(parent(path), f".{name(path)}.{uuid.uuid4().hex[:8]}.tmp")


def is_temporary(file_name: str) -> bool:
    """Whether a name is one of ``temporary_name``."""
    return file_name.startswith(".") and file_name.endswith(".tmp")


def move(path: str, to: str) -> None:
    """Rename a file, or a local folder; a file replaces what was there."""
    if is_local(path):
        os.replace(path, to)
    else:
        _gfile().rename(path, to, overwrite=True)


def remove_tree(folder: str) -> None:
    """Remove a folder, where there is one, and all it holds."""
    if is_dir(folder):
        _gfile().rmtree(folder)


def remove(path: str) -> None:
    """Remove a file."""
    _gfile().remove(path)
