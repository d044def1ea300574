"""Shards converted as an Apache Beam pipeline, on any runner."""

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

from data_pipelines.builders import shards
from data_pipelines.builders.shards import Shard
from data_pipelines.builders.source import Factory
from data_pipelines.schema import RecordError


def is_installed() -> bool:
    """Whether ``apache_beam`` can be imported."""
    return importlib.util.find_spec("apache_beam") is not None


def write_all(
    factory: Factory,
    todo: Sequence[Shard],
    folder: str,
    *,
    runner: Any,
    options: Any,
    skip_bad: int,
) -> None:
    """Convert shards on Beam.

    Args:
        factory: opens the source on each worker; picklable.
        todo: shards to write.
        folder: where they go; every worker must see it under this path.
        runner: name of a runner, or the runner.
        options: Beam's pipeline options.
        skip_bad: bad records that each shard may leave out.

    Raises:
        RecordError: a bad record, as a worker named it.
    """
    import apache_beam

    write = functools.partial(_Write, factory, folder, skip_bad)
    try:
        with apache_beam.Pipeline(runner=runner, options=options) as pipeline:
            _ = (
                pipeline
                | "Shards" >> apache_beam.Create(list(todo), reshuffle=False)
                | "Share" >> apache_beam.Reshuffle()
                | "Write" >> apache_beam.ParDo(_do_fn(write))
            )
    except RuntimeError as error:
        # Beam wraps what a worker raised and leaves its type in the text alone.
        ours = (RecordError.__name__, shards.TooManyBadError.__name__)
        if any(f"{name}: " in str(error) for name in ours):
            raise RecordError(str(error)) from error
        raise


class _Write:
    """Opens the source once per worker and writes shards of it."""

    def __init__(self, factory: Factory, folder: str, skip_bad: int):
        self._source = factory()
        self._folder, self._skip_bad = folder, skip_bad

    def __call__(self, shard: Shard) -> None:
        shards.write(self._source, shard, self._folder, skip_bad=self._skip_bad)


def _do_fn(make: Any) -> Any:
    import apache_beam

    class WriteShard(apache_beam.DoFn):
        def setup(self):
            self._write = make()

        def process(self, element):
            self._write(element)

    return WriteShard()
