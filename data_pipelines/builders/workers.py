"""Shards converted by worker processes."""

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_pipelines.builders import shards
from data_pipelines.builders.shards import Shard
from data_pipelines.builders.source import Factory, RecordSource
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


def _write(shard: Shard, folder: str, skip_bad: int) -> Shard:
    assert _source is not None, "the worker opens its source first"
    shards.write(_source, shard, folder, skip_bad=skip_bad, on_record=_count)
    return shard


def write_all(
    factory: Factory,
    todo: Sequence[Shard],
    folder: str,
    *,
    num_workers: int,
    skip_bad: int,
    on_records: Callable[[int], None],
) -> Iterator[Shard]:
    """Convert shards in spawned processes, each with its own source.

    Args:
        factory: picklable; called once in each process.
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
    # Shards wait here and not in the pool's queue: their keys are pickled there.
    waiting = list(reversed(todo))
    running: set[concurrent.futures.Future] = set()
    try:
        while waiting or running:
            while waiting and len(running) < 2 * num_workers:
                running.add(pool.submit(_write, waiting.pop(), folder, skip_bad))
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
