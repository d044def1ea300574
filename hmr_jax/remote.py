"""Paths of other file systems (``gs://``, ``s3://``, ``memory://``) beside local ones.

``location`` turns what a user typed into a path object: a ``pathlib.Path``, or a
``RemotePath`` that answers the same few questions through fsspec. An object store knows
neither appending nor renaming: files are written whole, and one that grows is kept on
this machine and sent again from time to time.
"""

import io
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any, Union

from hmr_jax.errors import UserError

SEND_EVERY_S = 30.0
"""A growing remote file is sent at most this often, and when it is closed."""


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path names another file system than this machine's."""
    text = os.fspath(path)
    return "://" in text and not text.startswith("file://")


def location(path: str | os.PathLike) -> "Location":
    """The path object of a local or remote path.

    Args:
        path: as typed, for example ``runs/a``, ``file:///runs/a`` or ``gs://bucket/a``.

    Returns:
        A ``pathlib.Path`` or a ``RemotePath``.

    Raises:
        UserError: no such file system, or the package that reaches it is missing.
    """
    if isinstance(path, RemotePath | pathlib.Path):
        return path
    if is_remote(path):
        return RemotePath(os.fspath(path))
    return pathlib.Path(os.fspath(path).removeprefix("file://"))


class RemotePath(os.PathLike[str]):
    """A file or folder that fsspec reaches, with the methods of ``pathlib.Path``.

    Args:
        url: with its scheme, for example ``gs://bucket/runs/a``.

    Raises:
        UserError: no such file system, or the package that reaches it is missing.
    """

    def __init__(self, url: str):
        import fsspec

        self._url = url.rstrip("/")
        try:
            self._fs, self._key = fsspec.core.url_to_fs(self._url)
        except (ValueError, ImportError) as error:
            raise UserError(
                f"{url}: expected a local path or a file system that fsspec reaches: "
                f"{error}"
            ) from error

    def __fspath__(self) -> str:
        return self._url

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"RemotePath({self._url!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and other._url == self._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __truediv__(self, name: str | os.PathLike) -> "RemotePath":
        return RemotePath(f"{self._url}/{os.fspath(name)}")

    @property
    def name(self) -> str:
        """The last part."""
        return self._url.rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """The ending of the name with its dot."""
        return pathlib.PurePosixPath(self.name).suffix

    def absolute(self) -> "RemotePath":
        """Itself: a remote path has no working folder."""
        return self

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        self._fs.invalidate_cache()
        return self._fs.exists(self._key)

    def is_file(self) -> bool:
        """Whether there is a file."""
        self._fs.invalidate_cache()
        return self._fs.isfile(self._key)

    def is_dir(self) -> bool:
        """Whether there is a folder (in an object store: anything below it)."""
        self._fs.invalidate_cache()
        return self._fs.isdir(self._key)

    def iterdir(self) -> Iterator["RemotePath"]:
        """What a folder holds."""
        self._fs.invalidate_cache()
        for key in self._fs.ls(self._key, detail=False):
            name = key.rstrip("/").rsplit("/", 1)[-1]
            if name and name != self.name:  # some stores list the folder itself
                yield self / name

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Make the folder, where the file system knows folders."""
        del parents
        self._fs.makedirs(self._key, exist_ok=exist_ok)

    def open(self, mode: str = "r") -> IO[Any]:
        """The file, to read or to write whole."""
        return self._fs.open(self._key, mode)

    def read_bytes(self) -> bytes:
        """The file's content."""
        return self._fs.cat_file(self._key)

    def read_text(self) -> str:
        """The file's content as text."""
        return self.read_bytes().decode()

    def write_bytes(self, data: bytes) -> None:
        """Write the file whole."""
        self._fs.pipe_file(self._key, data)

    def write_text(self, text: str) -> None:
        """Write the file whole."""
        self.write_bytes(text.encode())

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        if not missing_ok or self.is_file():
            self._fs.rm_file(self._key)

    def put(self, local: str | os.PathLike) -> None:
        """Write the file from one of this machine."""
        self._fs.put_file(os.fspath(local), self._key)

    def get_tree(self, local: pathlib.Path) -> None:
        """Copy all files at or below this folder into a local one."""
        for key, info in self._fs.find(self._key, detail=True).items():
            target = local / key.removeprefix(self._key).lstrip("/")
            if info.get("type") == "file":
                target.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(key, os.fspath(target))

    def remove_tree(self) -> None:
        """Remove the folder and all it holds."""
        self._fs.rm(self._key, recursive=True)


Location = Union[pathlib.Path, RemotePath]  # noqa: UP007 -- a name to annotate with


def remove_tree(path: Location) -> None:
    """Remove a folder, local or remote, and all it holds."""
    if isinstance(path, RemotePath):
        path.remove_tree()
    else:
        shutil.rmtree(path)


def check_writable(folder: Location) -> None:
    """Refuse a remote folder that cannot be written, before work begins.

    Args:
        folder: made where it is missing.

    Raises:
        UserError: naming the folder and the reason.
    """
    if not isinstance(folder, RemotePath):
        return
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    # Each file system has errors of its own for what it cannot or may not do.
    except Exception as error:  # noqa: BLE001
        raise UserError(
            f"{folder}: expected a folder that can be written: "
            f"{type(error).__name__}: {error}"
        ) from error


class Appended:
    """A binary file to append to, local or remote.

    Args:
        path: made where it is missing.
        start: its content so far.
    """

    def __init__(self, path: Location, start: bytes = b""):
        self._path = path
        self._sent_s = time.monotonic()
        self._file: IO[bytes]
        if isinstance(path, RemotePath):
            self._file = tempfile.TemporaryFile()
            self._file.write(start)
        else:
            self._file = path.open("ab")
        self.flush()

    def write(self, data: bytes) -> None:
        """Append."""
        self._file.write(data)

    def push(self) -> None:
        """Make what was written visible: at once, or soon where that costs much."""
        self._file.flush()
        waited_s = time.monotonic() - self._sent_s
        if isinstance(self._path, RemotePath) and waited_s >= SEND_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Make what was written visible now."""
        self._file.flush()
        if isinstance(self._path, RemotePath):
            self._file.seek(0)
            self._path.write_bytes(self._file.read())
            self._file.seek(0, io.SEEK_END)
            self._sent_s = time.monotonic()

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()
