"""Files that are whole or absent, files that are no data, and locks of folders."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator

from hmr_jax.errors import UserError
from hmr_jax.remote import RemotePath, is_remote


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data.

    Files that begin with a dot are what systems leave in folders of data: ``._a.jpg``
    (what macOS keeps beside ``a.jpg``), ``.DS_Store``, ``.ipynb_checkpoints``.

    Args:
        name: without its folder.
    """
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")


def _temporary_sibling(path: pathlib.Path) -> pathlib.Path:
    """A name beside ``path`` with its suffix, by which writers choose the format."""
    stem = f".{path.name.removesuffix(path.suffix)}.{uuid.uuid4().hex[:8]}.tmp"
    return path.with_name(stem + path.suffix)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary path that replaces ``path`` when the block ends without error.

    Args:
        path: the file to write, local or remote (``gs://``); its folder is made where
            it is missing.

    Yields:
        A path of this machine: in the same folder, or in a temporary one from where a
        remote file is sent as a whole. Nothing is left of it when the block raises.
    """
    if is_remote(path):
        with _sent(RemotePath(os.fspath(path))) as temporary:
            yield temporary
        return
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _sent(path: RemotePath) -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory() as folder:
        temporary = pathlib.Path(folder) / path.name
        yield temporary
        path.put(temporary)


def _named(error: OSError, path: pathlib.Path) -> OSError:
    """The same error, with the file where a full disk names none."""
    if error.filename is not None or error.errno is None:
        return error
    return OSError(error.errno, error.strerror, str(path))


@contextlib.contextmanager
def atomic_directory(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends without error.

    Args:
        path: the folder to make; an existing one is replaced as a whole.

    Yields:
        An empty folder beside ``path``. Nothing is left of it when the block raises.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            old = _temporary_sibling(path)
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def locked(folder: str | os.PathLike, what: str) -> Iterator[None]:
    """Hold a folder's lock; the system frees it however the process ends.

    Args:
        folder: made where it is missing. A remote one has no lock.
        what: what may happen there once at a time, for the message.

    Raises:
        UserError: another process holds it; naming the folder and that process.
    """
    if is_remote(folder):
        yield
        return
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise UserError(
                f"{folder}: another process is {what}: {lock.read().strip()}"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield
