"""Records converted by worker processes, in order and without piling up."""

import collections
import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from typing import TypeVar

from data_pipelines import schema
from data_pipelines.builders.source import Factory, Key, RecordSource, checked_examples

T = TypeVar("T")
_source: RecordSource | None = None


def _leave_with_parent() -> None:
    """End this worker when its parent is killed; it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _open_source(factory: Factory) -> None:
    global _source
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _source = factory()


def _convert(split: str, keys: Sequence[Key]) -> list[schema.Record]:
    assert _source is not None, "the worker opens its source first"
    return list(checked_examples(_source, split, keys))


def chunks(keys: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Consecutive slices of at most ``size`` keys."""
    return (keys[i : i + size] for i in range(0, len(keys), size))


class Workers:
    """A pool of spawned processes, each with its own source.

    Args:
        factory: picklable; called once in each process.
        count: number of processes.
        chunk_size: keys converted per task.
    """

    def __init__(self, factory: Factory, count: int, chunk_size: int):
        self._chunk_size = chunk_size
        self._window = 2 * count
        self._pool = concurrent.futures.ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_open_source,
            initargs=(factory,),
        )

    def examples(self, split: str, keys: Sequence[Key]) -> Iterator[schema.Record]:
        """Records of the keys in their order.

        Args:
            split: name of the split.
            keys: of the examples.

        Yields:
            Validated records; at most two chunks per process wait at a time.
        """
        waiting: collections.deque = collections.deque()
        for chunk in chunks(keys, self._chunk_size):
            waiting.append(self._pool.submit(_convert, split, chunk))
            if len(waiting) > self._window:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    def close(self) -> None:
        """End the processes; tasks not yet begun are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)
