"""Shards converted elsewhere: by worker processes, or by Apache Beam on any runner."""

import concurrent.futures
import importlib.util
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_pipelines.builders import shards
from data_pipelines.builders.record_source import Factory, RecordSource
from data_pipelines.builders.shards import Shard
from data_pipelines.schema import RecordError

_source: RecordSource | None = None
_records_done: Any = None
_POLL_SECONDS = 0.5


def _leave_with_parent() -> None:
    """End this worker when its parent is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _open_source(factory: Factory, records_done: Any) -> None:
    global _source, _records_done
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _source, _records_done = factory(), records_done


def _count() -> None:
    with _records_done.get_lock():
        _records_done.value += 1


def _write(shard: Shard, folder: str, skip_bad: int, labels: Any) -> Shard:
    assert _source is not None, "the worker opens its source first"
    shards.write(
        _source, shard, folder, skip_bad=skip_bad, on_record=_count, labels=labels
    )
    return shard


def write_in_processes(
    factory: Factory,
    source: RecordSource,
    todo: Sequence[Shard],
    folder: str,
    *,
    num_workers: int,
    skip_bad: int,
    on_records: Callable[[int], None],
) -> Iterator[Shard]:
    """Convert shards in spawned processes, each with its own source.

    Annotations that ``source`` has read go with the shards, so that no process reads
    them again.

    Args:
        factory: picklable; called once in each process.
        source: of this process, whose keys the shards hold.
        todo: shards to write.
        folder: where they go.
        num_workers: number of processes.
        skip_bad: bad records that each may leave out.
        on_records: called now and then with the number of further records done.

    Yields:
        Each shard when it is finished, in any order.

    Raises:
        RecordError: from a worker; or a worker process was ended from outside.
    """
    context = multiprocessing.get_context("spawn")
    records_done = context.Value("q", 0)
    pool = concurrent.futures.ProcessPoolExecutor(
        min(num_workers, len(todo)),
        mp_context=context,
        initializer=_open_source,
        initargs=(factory, records_done),
    )
    seen = 0
    # Shards wait here and not in the pool's queue: keys and labels are pickled there.
    waiting = list(reversed(todo))
    running: set[concurrent.futures.Future] = set()
    try:
        while waiting or running:
            while waiting and len(running) < 2 * num_workers:
                shard = waiting.pop()
                labels = source.labels_of(shard.split, shard.keys)
                running.add(pool.submit(_write, shard, folder, skip_bad, labels))
            done, running = concurrent.futures.wait(
                running, _POLL_SECONDS, concurrent.futures.FIRST_COMPLETED
            )
            count = records_done.value
            on_records(count - seen)
            seen = count
            for future in done:
                yield future.result()
    except concurrent.futures.BrokenExecutor as error:
        raise RecordError(
            "a worker process ended before its work was done (out of memory, or "
            "killed); finished shards are kept: start the conversion again, perhaps "
            "with fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def has_beam() -> bool:
    """Whether ``apache_beam`` can be imported."""
    return importlib.util.find_spec("apache_beam") is not None


def write_on_beam(
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
        options: Beam's pipeline options, or words such as ``--project=NAME``.
        skip_bad: bad records that each shard may leave out.

    Raises:
        RecordError: a bad record, as a worker named it.
    """
    import apache_beam

    if isinstance(options, list | tuple):
        from apache_beam.options.pipeline_options import PipelineOptions

        options = PipelineOptions(list(options))

    class Write(apache_beam.DoFn):
        def setup(self):
            self._source = factory()

        def process(self, element):
            shards.write(self._source, element, folder, skip_bad=skip_bad)

    try:
        with apache_beam.Pipeline(runner=runner, options=options) as pipeline:
            _ = (
                pipeline
                | "Shards" >> apache_beam.Create(list(todo), reshuffle=False)
                | "Share" >> apache_beam.Reshuffle()
                | "Write" >> apache_beam.ParDo(Write())
            )
    except RuntimeError as error:
        # Beam wraps what a worker raised and leaves its type in the text alone.
        ours = (RecordError.__name__, shards.TooManyBadError.__name__)
        if any(f"{name}: " in str(error) for name in ours):
            raise RecordError(str(error)) from error
        raise
