"""Streams of batches from records, for the systems that learn from datasets."""

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

from hmr_jax.errors import UserError
from hmr_jax.systems.system import Batch


def data_dir(config: Any, workdir: str | pathlib.Path | None) -> str:
    """Where a config's datasets lie.

    Args:
        config: an experiment.
        workdir: the run's folder, whose ``data`` is the default.

    Returns:
        The folder, local or remote (``gs://``).

    Raises:
        UserError: neither names one.
        FileNotFoundError: it is not there.
    """

    return existing_folder(config.data.dir, "config.data.dir", workdir)


def existing_folder(given: str, field: str, workdir: str | pathlib.Path | None) -> str:
    """The folder of datasets that a field names, or the workdir's ``data``.

    Args:
        given: the field's value; empty for the default.
        field: its name, for messages.
        workdir: the run's folder.

    Returns:
        The folder, local or remote.

    Raises:
        UserError: neither names one.
        FileNotFoundError: it is not there.
    """
    from data_pipelines import storage

    if given:
        path = storage.clean(given)
    elif workdir:
        path = storage.join(workdir, "data")
    else:
        raise UserError(f"{field}: expected a folder (or give --workdir)")
    try:
        with storage.reported(path):
            there = storage.is_dir(path)
    except OSError as error:  # a file system that TensorFlow does not reach
        raise UserError(f"{error}; --{field}=DIR names another folder") from error
    if not there:
        raise FileNotFoundError(
            f"no datasets: {path} does not exist; 'hmr-jax data build' makes one, "
            f"--{field}=DIR names another"
        )
    return path


def train_stream(config: Any, folder: str | os.PathLike, transform: Any) -> Any:
    """The endless, resumable iterator of training batches of this process.

    Args:
        config: an experiment.
        folder: of the datasets.
        transform: record to sample.

    Returns:
        A ``data_pipelines.reading.RecordIterator``.

    Raises:
        UserError: no sources, or a batch size that the processes cannot share.
    """
    from data_pipelines import reading, storage

    sources = dict(config.data.sources)
    if not sources:
        raise UserError("config.data.sources: expected at least one dataset")
    names = sorted(name for name, share in sources.items() if share > 0)
    if not names:
        raise UserError("config.data.sources: expected a positive share")
    return reading.make_dataset(
        [storage.join(folder, name) for name in names],
        split=config.data.split,
        batch_size=share_of_process(config.data.batch_size),
        transform=transform,
        seed=config.seed,
        shuffle=True,
        weights=[sources[name] for name in names] if len(names) > 1 else None,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        num_threads=config.data.num_threads or None,
    )


def eval_stream(config: Any, folder: str | os.PathLike, transform: Any) -> Any:
    """One pass over the evaluation split, the last batch padded.

    Every process reads all of it: evaluations then need no exchange and agree.

    Args:
        config: an experiment.
        folder: of the datasets.
        transform: record to sample.

    Returns:
        A ``data_pipelines.reading.RecordIterator``.
    """
    from data_pipelines import reading, storage

    if not config.eval.source:
        raise UserError("config.eval.source: expected the name of a dataset")
    return reading.make_dataset(
        storage.join(folder, config.eval.source),
        split=config.eval.split,
        batch_size=config.eval.batch_size,
        transform=transform,
        num_epochs=1,
        num_threads=config.data.num_threads or None,
    )


def share_of_process(batch_size: int) -> int:
    """This process's share of ``config.data.batch_size``.

    Raises:
        UserError: the devices cannot share it evenly.
    """
    if batch_size < 1 or batch_size % jax.device_count():
        raise UserError(
            "config.data.batch_size: expected a multiple of the "
            f"{jax.device_count()} devices, found {batch_size}"
        )
    return batch_size // jax.process_count()


def records_of(path: str, split: str) -> Callable[[list[int]], Iterator[Any]]:
    """How to read records of a dataset by their places in a split.

    Args:
        path: of the dataset.
        split: its name.

    Returns:
        A function of places that yields decoded records.
    """
    from data_pipelines import records, schema

    directory = records.open_directory(path)
    files = directory.split(split)

    def read(places: list[int]) -> Iterator[Any]:
        if places:
            for data in records.read_serialized(files, places):
                yield schema.decode(data, directory.spec)

    return read


class Mapped:
    """A stream whose batches are changed on their way.

    Args:
        stream: of batches, resumable.
        change: batch to batch.
    """

    def __init__(self, stream: Any, change: Callable[[Batch], Batch]):
        self._stream, self._change = stream, change

    def __iter__(self) -> "Mapped":
        return self

    def __next__(self) -> Batch:
        """The next batch, changed."""
        return self._change(next(self._stream))

    def __getattr__(self, name: str) -> Any:
        """Everything else is the stream's: position, lengths, names of records."""
        return getattr(self._stream, name)
