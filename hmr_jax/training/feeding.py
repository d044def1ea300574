"""Batches on their way to the devices: resumable iterators and a reader one ahead."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from absl import logging

from hmr_jax.errors import UserError
from hmr_jax.systems.system import Batch


@runtime_checkable
class ResumableIterator(Protocol):
    """An iterator of batches that can say where it is and go back there.

    ``state()`` gives JSON values, equal on all processes of a run.
    """

    def __next__(self) -> Batch:
        """The next batch."""

    def state(self) -> Any:
        """Where the iterator is."""

    def restore(self, state: Any) -> None:
        """Go to where ``state`` was taken."""


class ReplayingIterator:
    """Makes any iterator resumable by reading it again from its start.

    Exact when the factory gives the same stream each time.

    Args:
        make_iterator: gives a fresh iterator over the batches.
    """

    def __init__(self, make_iterator: Callable[[], Iterator[Batch]]):
        self._make_iterator = make_iterator
        self.restore({"batches": 0})

    def __iter__(self) -> "ReplayingIterator":
        return self

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self._batches += 1
        return batch

    def state(self) -> dict[str, int]:
        """Number of batches read."""
        return {"batches": self._batches}

    def restore(self, state: dict[str, int]) -> None:
        """Start again and skip as many batches."""
        self._iterator = iter(self._make_iterator())
        self._batches = 0
        for _ in range(state["batches"]):
            next(self)


def resumable(make_iterator: Callable[[], Any]) -> Any:
    """The factory's iterator, made resumable where it is not.

    Args:
        make_iterator: gives an iterator over batches.

    Returns:
        Its own iterator where that has ``state`` and ``restore``, else a
        ``ReplayingIterator``.
    """
    iterator = iter(make_iterator())
    if isinstance(iterator, ResumableIterator):
        return iterator
    return ReplayingIterator(make_iterator)


def go_on(iterator: Any, state: Any, *, other_data: bool) -> None:
    """Set an iterator to where a run stands.

    Args:
        iterator: at its start.
        state: of the run's checkpoint.
        other_data: where the stream is another one (other records, another seed or
            batch size), begin it instead, with an epoch later than the run's.

    Raises:
        UserError: it is another one, and ``other_data`` is False.
    """
    try:
        iterator.restore(state)
    except UserError as error:
        if not other_data:
            raise UserError(
                f"{error}; resume_with_other_data=True goes on with other data"
            ) from error
        fresh = iterator.state()
        if "epoch" in fresh and "epoch" in state:
            fresh = {**fresh, "epoch": state["epoch"] + 1, "step": 0}
            iterator.restore(fresh)
        logging.warning("the data begin anew, at %s: %s", fresh, error)


class Prefetcher:
    """Reads and copies batches in a thread while the devices work.

    Args:
        iterator: resumable iterator of host batches.
        put: starts a batch's copy to the devices.
        ahead: number of batches kept ready.

    Each item is ``(batch on the devices, iterator's state after this batch)``: the
    position a checkpoint must keep is that of the batch used, not of the last read.
    """

    def __init__(self, iterator: Any, put: Callable[[Batch], Any], ahead: int = 1):
        self._iterator, self._put = iterator, put
        self._queue: queue.Queue = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            item: Any
            try:
                batch = next(self._iterator)
                item = (self._put(batch), self._iterator.state())
            except StopIteration:
                item = UserError(
                    "the training data ended: expected a stream at least as long as "
                    "the run (repeat it)"
                )
            # Whatever the reader raises must reach the loop, not die in this thread.
            except Exception as error:  # noqa: BLE001
                item = error
            while not self._stop.is_set():
                try:
                    self._queue.put(item, timeout=0.1)
                    break
                except queue.Full:
                    continue
            if isinstance(item, Exception):
                return

    def __iter__(self) -> "Prefetcher":
        return self

    def __next__(self) -> tuple[Any, Any]:
        item = self._queue.get()
        if isinstance(item, Exception):
            raise item
        return item

    def close(self) -> None:
        """Stop reading and wait for the thread."""
        self._stop.set()
        self._thread.join()
