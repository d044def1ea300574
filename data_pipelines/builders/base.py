"""Any dataset to records on disk: one builder on TFDS, three ways to run it.

The conversion runs in this process, with worker processes, or as an Apache Beam
pipeline on any runner. The result is a TFDS directory (``tfds.builder_from_directory``
reads it) with our manifest and index beside the shards.
"""

import contextlib
import fcntl
import functools
import importlib.util
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
import tqdm
from absl import logging

from data_pipelines import records, schema
from data_pipelines.builders import workers
from data_pipelines.builders.source import (
    Factory,
    Key,
    RecordSource,
    checked_examples,
)

_KEY_SPACE = 2**128
"""Without Beam, TFDS sorts by 128-bit keys through buckets over their whole range."""


class RecordBuilder(  # type: ignore[call-arg]
    tfds.core.GeneratorBasedBuilder, skip_registration=True
):
    """The TFDS builder of a ``RecordSource``; use it through ``build``.

    Args:
        source: the dataset.
        factory: opens the same source in other processes.
        data_dir: parent of ``name/version``.
        num_workers: processes; 0 converts in this one.
        chunk_size: keys converted per task of a worker or of Beam.
        beam: True converts on Apache Beam.
        progress: show a bar with the rate and the time left.
    """

    VERSION = tfds.core.Version(schema.SCHEMA_VERSION)
    name = "records"
    # Nothing is downloaded. Left to itself TFDS looks for checksums beside this file,
    # for which it imports importlib_resources, which it does not depend on.
    code_path = None
    url_infos = None

    def __init__(
        self,
        source: RecordSource,
        factory: Factory,
        *,
        data_dir: str,
        num_workers: int = 0,
        chunk_size: int = 16,
        beam: bool = False,
        progress: bool = True,
    ):
        self.name = source.name
        self._source = source
        self._factory = factory
        self._num_workers = num_workers
        self._chunk_size = chunk_size
        self._beam = beam
        self._progress = progress
        super().__init__(data_dir=data_dir)

    def _info(self) -> tfds.core.DatasetInfo:
        metadata = {"schema_version": schema.SCHEMA_VERSION, **describe(self._source)}
        return tfds.core.DatasetInfo(
            builder=self,
            features=schema.tfds_features(self._source.spec),
            description=self._source.description or self._source.name,
            citation=self._source.citation,
            metadata=tfds.core.MetadataDict(metadata),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Any]:
        return {s: self._generate_examples(s) for s in self._source.splits()}

    def _generate_examples(self, split: str):
        keys = self._source.keys(split)
        if len(set(keys)) != len(keys):
            raise schema.RecordError(
                f"{self.name}: split {split}: expected unique keys, found "
                f"{len(keys) - len(set(keys))} repeated"
            )
        if self._beam:
            return _beam_transform(self._factory, split, keys, self._chunk_size)
        return self._generate_here(split, keys)

    def _generate_here(self, split: str, keys: Sequence[Key]) -> Iterator:
        stride = _KEY_SPACE // max(len(keys), 1)
        with contextlib.ExitStack() as stack:
            if self._num_workers:
                pool = workers.Workers(
                    self._factory, self._num_workers, self._chunk_size
                )
                stack.callback(pool.close)
                examples = pool.examples(split, keys)
            else:
                # All keys at once: a source that works ahead is not interrupted.
                examples = checked_examples(self._source, split, keys)
            bar = stack.enter_context(
                tqdm.tqdm(
                    total=len(keys),
                    desc=f"{self.name} {split}",
                    unit="record",
                    disable=not self._progress,
                )
            )
            for position, record in enumerate(examples):
                bar.update()
                yield position * stride, record

    # TFDS announces a download here; there is none.
    def _log_download_bytes(self) -> None:
        logging.info("writing records to %s", self.data_dir)

    def _log_download_done(self) -> None:
        logging.info("wrote records to %s", self.data_dir)

    def _download_and_prepare(self, *args, **kwargs) -> None:
        super()._download_and_prepare(*args, **kwargs)
        path = pathlib.Path(self.data_dir)
        shards = {
            name: [pathlib.Path(f).name for f in split.filepaths]
            for name, split in self.info.splits.items()
        }
        records.write_index(path, shards, self._source.spec, describe(self._source))


def describe(source: RecordSource) -> dict[str, Any]:
    """What of a source goes into the metadata, as JSON values."""
    content = {
        "name": source.name,
        "joint_set": source.spec.joint_set,
        "traits": source.traits,
        "config": source.config(),
    }
    return json.loads(json.dumps(content))


@functools.cache
def _cached_source(factory: Factory) -> RecordSource:
    """One source per process and factory, for Beam's workers."""
    return factory()


def _beam_chunk(factory: Factory, split: str, chunk) -> list:
    places, keys = zip(*chunk, strict=True)
    source = _cached_source(factory)
    return list(zip(places, checked_examples(source, split, keys), strict=True))


def beam_is_installed() -> bool:
    """Whether ``apache_beam`` can be imported."""
    return importlib.util.find_spec("apache_beam") is not None


def _beam_transform(factory: Factory, split: str, keys: Sequence[Key], chunk_size: int):
    import apache_beam as beam

    placed = list(enumerate(keys))
    return (
        beam.Create(list(workers.chunks(placed, chunk_size)))
        | "Reshuffle" >> beam.Reshuffle()
        | "Convert" >> beam.FlatMap(functools.partial(_beam_chunk, factory, split))
    )


@contextlib.contextmanager
def _sole_builder(parent: pathlib.Path) -> Iterator[None]:
    """Hold the dataset's lock, and clear what a killed conversion left behind."""
    parent.mkdir(parents=True, exist_ok=True)
    with open(parent / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise schema.RecordError(
                f"{parent}: another process is converting this dataset"
            ) from error
        for path in parent.glob(f"{records.INCOMPLETE}*"):
            logging.warning("removing the remains of an interrupted run: %s", path)
            shutil.rmtree(path)
        yield


def _differences(expected: dict, found: dict, prefix: str = "") -> list[str]:
    lines = []
    for key in sorted(set(expected) | set(found)):
        a, b = expected.get(key), found.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: expected {a!r}, found {b!r}")
    return lines


def _already_built(path: pathlib.Path, source: RecordSource) -> bool:
    if not path.is_dir():
        return False
    directory = records.open_directory(path)
    expected = describe(source)
    found = {key: directory.manifest.get(key) for key in expected}
    differences = _differences(expected, found)
    if directory.spec != source.spec:
        differences.append(f"spec: expected {source.spec}, found {directory.spec}")
    if differences:
        raise schema.RecordError(
            f"{path}: holds records of another configuration ({'; '.join(differences)})"
            "; remove it or choose another data_dir"
        )
    for name in source.splits():
        directory.split(name)
    return True


def build(
    factory: Factory,
    data_dir: str | os.PathLike,
    *,
    num_workers: int = 0,
    chunk_size: int = 16,
    num_shards: int | None = None,
    beam_runner: Any = None,
    beam_options: Any = None,
    progress: bool = True,
) -> pathlib.Path:
    """Convert a dataset to records, all or nothing.

    An interrupted conversion leaves no readable directory and may be run again; one
    that was done with the same configuration returns at once.

    Args:
        factory: opens the ``RecordSource``; picklable where there are workers or Beam.
        data_dir: the records go to ``data_dir/name/version``.
        num_workers: worker processes; 0 converts in this one.
        chunk_size: keys converted per task of a worker or of Beam.
        num_shards: files per split; by default TFDS chooses by size.
        beam_runner: name of a Beam runner (``DirectRunner``, ...) to convert on Beam.
        beam_options: Beam's pipeline options.
        progress: show a bar with the rate and the time left.

    Returns:
        The directory of records.

    Raises:
        RecordError: a record breaks the schema, or the directory exists with another
            configuration; naming both.
    """
    on_beam = beam_runner is not None or beam_options is not None
    if on_beam and not beam_is_installed():
        raise ImportError(
            "conversion on Beam needs apache-beam: pip install 'hmr_jax[beam]'"
        )
    tfds.disable_progress_bar()
    source = factory()
    parent = pathlib.Path(data_dir).expanduser() / source.name
    path = parent / schema.SCHEMA_VERSION
    with _sole_builder(parent):
        if _already_built(path, source):
            logging.info("%s: already built, nothing to do", path)
            return path
        builder = RecordBuilder(
            source,
            factory,
            data_dir=str(parent.parent),
            num_workers=num_workers,
            chunk_size=chunk_size,
            beam=on_beam,
            progress=progress,
        )
        config = tfds.download.DownloadConfig(
            num_shards=num_shards,
            beam_runner=beam_runner,
            beam_options=beam_options,
            try_download_gcs=False,
        )
        with tempfile.TemporaryDirectory() as nothing_to_download:
            builder.download_and_prepare(
                download_dir=nothing_to_download, download_config=config
            )
    return path
