"""One checkpoint as a folder, local or remote: written whole, read with a check.

Orbax writes and reads the arrays, through its public functions alone. A local folder is
written under a temporary name and renamed; a remote one is made here and then sent,
its record last. What a run needs besides (its data position, its metrics) travels in
orbax's custom metadata, with checksums of the arrays.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from hmr_jax.errors import UserError
from hmr_jax.remote import Location, RemotePath, remove_tree
from hmr_jax.training.matching import checksums, shapes_checksum
from hmr_jax.training.processes import of_first

_KEY = "hmr_jax"  # of ours among orbax's custom metadata
_TEMPORARY = ".hmr_jax-tmp-"  # nobody else names a folder so
_SENDING, _SENT = ".hmr_jax-sending", ".hmr_jax-sent.json"
_NAME = re.compile(r"(\d+)(?:\.(\d+))?")


class DamagedError(UserError):
    """A checkpoint cannot be read, or its arrays are not those that were written."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What is kept beside a checkpoint's arrays.

    Attributes:
        run: names the run that wrote it; None for one of an earlier release.
        extra: JSON values of the loop (the position in the data).
        metrics: of the evaluation at this step, if there was one.
        checksums: of the arrays, if they were taken.
        shapes: checksum of their names and shapes.
    """

    run: str | None
    extra: dict[str, Any]
    metrics: dict[str, float] | None = None
    checksums: dict[str, int] | None = None
    shapes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As orbax's custom metadata."""
        ours = dataclasses.asdict(self)
        return {**ours.pop("extra"), _KEY: ours}

    @staticmethod
    def from_json(value: Any) -> "Record | None":
        """None where it is not a record of a run of ours."""
        if not isinstance(value, dict) or not (_KEY in value or "iterator" in value):
            return None
        extra = {name: item for name, item in value.items() if name != _KEY}
        return Record(**{"run": None, **value.get(_KEY, {})}, extra=extra)


def parse_name(name: str) -> tuple[int, int] | None:
    """Step and version of a folder's name: ``300``, or ``300.1`` beside another."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2] or 0)) if match else None


def list_names(directory: Location) -> list[str]:
    """Names in the folder of checkpoints that could be one, in order."""
    if not directory.is_dir():
        return []
    names = {path.name: parse_name(path.name) for path in directory.iterdir()}
    found = [(key, name) for name, key in names.items() if key is not None]
    return [name for _, name in sorted(found)]


def free_name(directory: Location, step: int) -> str:
    """The step, or the step with a number where that name is taken."""
    taken = [key[1] for name in list_names(directory) if (key := _at(name, step))]
    return f"{step}.{max(taken) + 1}" if taken else str(step)


def _at(name: str, step: int) -> tuple[int, int] | None:
    key = parse_name(name)
    return key if key and key[0] == step else None


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Orbax without meeting points: each process reads for itself, or does not."""
    context = ocp.Context()
    if jax.process_count() > 1:
        index = jax.process_index()
        context.multiprocessing.primary_host = index
        context.multiprocessing.active_processes = {index}
        context.multiprocessing.barrier_sync_key_prefix = f"process_{index}"
    with context:
        yield


def write(
    directory: Location, name: str, arrays: Mapping[str, Any], record: Record
) -> None:
    """Write a checkpoint: whole, or not there. All processes of a run call it.

    Args:
        directory: of the checkpoints, made where it is missing.
        name: of ``free_name``, process 0's.
        arrays: of the host, by name.
        record: its checksums are taken here.
    """
    record = dataclasses.replace(
        record, checksums=checksums(arrays), shapes=shapes_checksum(arrays)
    )
    main = jax.process_index() == 0
    if isinstance(directory, RemotePath):
        folder = pathlib.Path(tempfile.gettempdir())
    else:
        folder = directory
    temporary = _temporary(folder, of_first(uuid.uuid4().hex))
    try:
        if main:
            directory.mkdir(parents=True, exist_ok=True)
        ocp.save(temporary, dict(arrays), custom_metadata=record.to_json())
        if main and isinstance(directory, RemotePath):
            _send(temporary, directory / name, record)
        elif main:
            os.rename(temporary, folder / name)
    finally:
        if main and temporary.exists():
            remove_tree(temporary)


def _send(local: pathlib.Path, path: RemotePath, record: Record) -> None:
    """Copy the files; the record, which makes them a checkpoint, comes last."""
    (path / _SENDING).write_bytes(b"")
    for file in sorted(file for file in local.rglob("*") if file.is_file()):
        (path / file.relative_to(local).as_posix()).put(file)
    (path / _SENT).write_text(json.dumps(record.to_json()))
    (path / _SENDING).unlink()


def _temporary(directory: pathlib.Path, name: str) -> pathlib.Path:
    return directory / f"{_TEMPORARY}{name}"


def read_record(path: Location) -> Record | None:
    """What is kept beside a checkpoint's arrays.

    Args:
        path: of a folder.

    Returns:
        The record; None where the folder is no whole checkpoint of a run.
    """
    try:
        if isinstance(path, RemotePath):
            return Record.from_json(json.loads((path / _SENT).read_text()))
        with _alone():
            return Record.from_json(ocp.metadata(path).custom_metadata)
    # Orbax and fsspec have no one error for a folder that is something else.
    except Exception:  # noqa: BLE001
        return None


def read(path: Location, prepare: Callable[[Any], Any]) -> dict[str, Any]:
    """Read a checkpoint's arrays and compare their checksums.

    Args:
        path: of the folder.
        prepare: takes the tree of shapes that the folder holds and gives the tree of
            arrays to read it as, or None to read it as it lies there; raises where the
            shapes are not those wanted.

    Returns:
        Arrays of the host by name.

    Raises:
        DamagedError: naming the folder and what is wrong with it.
    """
    with _fetched(path) as local:
        found = _guarded(path, ocp.metadata, local)
        record = Record.from_json(found.custom_metadata)
        if not isinstance(found.metadata, dict) or (
            record and record.shapes not in (None, shapes_checksum(found.metadata))
        ):
            raise DamagedError(f"{path}: damaged: the names or shapes of its arrays")
        values = _guarded(path, ocp.load, local, prepare(found.metadata))
    values = jax.tree.map(np.asarray, values)
    if record and record.checksums and record.checksums != checksums(values):
        raise DamagedError(f"{path}: damaged: its arrays are not those written")
    return values


@contextlib.contextmanager
def _fetched(path: Location) -> Iterator[pathlib.Path]:
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory() as folder:
            path.get_tree(pathlib.Path(folder))
            yield pathlib.Path(folder)
    else:
        yield path


def _guarded(path: Location, call: Callable[..., Any], *args: Any) -> Any:
    try:
        with _alone():
            return call(*args)
    # What a damaged file raises depends on the byte: orbax, tensorstore, json, numpy.
    except Exception as error:  # noqa: BLE001
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise DamagedError(
            f"{path}: damaged: {type(error).__name__}: {lines[0][:200]}"
        ) from error


def remove(path: Location) -> None:
    """Remove a checkpoint at once, as far as a reader can see."""
    if isinstance(path, RemotePath):
        (path / _SENDING).write_bytes(b"")
        (path / _SENT).unlink(missing_ok=True)
        path.remove_tree()
    else:
        temporary = _temporary(path.parent, uuid.uuid4().hex)
        os.rename(path, temporary)
        remove_tree(temporary)


def clear_unfinished(directory: Location) -> None:
    """Remove what a killed run of ours left of writing or removing a checkpoint."""
    if not directory.is_dir():
        return
    found: list[Location] = [*directory.iterdir()]
    for path in found:
        if path.name.startswith(_TEMPORARY):
            remove_tree(path)
        elif isinstance(path, RemotePath) and parse_name(path.name):
            if (path / _SENDING).is_file() and not (path / _SENT).is_file():
                remove_tree(path)
