"""Where a run's numbers go: TensorBoard event files and a JSON-lines log.

``tensorboardX`` makes the events. Its own writer has a queue and a thread, in which an
error (a full disk) would be lost; here events are written at once, to remote folders
too.
"""

import json
import os
import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hmr_jax.files import atomic_write
from hmr_jax.remote import Appended, location


class MetricWriter:
    """The interface; itself it writes nothing."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write numbers by name."""

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Write images, [H, W, C] each, uint8 or floats in [0, 1]."""

    def flush(self) -> None:
        """Write what is held back."""

    def close(self) -> None:
        """Flush and close."""


class MultiWriter(MetricWriter):
    """Passes all on to several writers."""

    def __init__(self, writers: Sequence[MetricWriter]):
        self._writers = tuple(writers)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write numbers by name."""
        for writer in self._writers:
            writer.write_scalars(step, scalars)

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Write images."""
        for writer in self._writers:
            writer.write_images(step, images)

    def flush(self) -> None:
        """Flush each."""
        for writer in self._writers:
            writer.flush()

    def close(self) -> None:
        """Close each."""
        for writer in self._writers:
            writer.close()


class JsonlWriter(MetricWriter):
    """One JSON object per line: ``{"step": ..., name: value, ...}``.

    Args:
        path: the file, made or continued.
        from_step: drop lines past this step first: a resumed run writes them again.
    """

    def __init__(self, path: str | os.PathLike, from_step: int = 0):
        found = location(path)
        kept = [row for row in read_jsonl(found) if row["step"] <= from_step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        with atomic_write(found) as temporary:
            temporary.write_text(text)
        self._file = Appended(found, start=text.encode())

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write one line."""
        row = {name: float(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": int(step), **row}).encode() + b"\n")
        self._file.push()

    def flush(self) -> None:
        """Write what is held back."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_jsonl(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Rows of a log up to the first that is none, as a killed run's last may be.

    Args:
        path: the log; a missing one is empty.

    Returns:
        One dict per line.
    """
    found = location(path)
    if not found.is_file():
        return []
    rows: list[dict[str, Any]] = []
    for line in found.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows


class EventWriter(MetricWriter):
    """TensorBoard event files.

    Args:
        directory: TensorBoard's ``--logdir``.
        from_step: a resumed run's step; TensorBoard hides what an earlier file of the
            folder holds past it.
    """

    def __init__(self, directory: str | os.PathLike, from_step: int = 0):
        from tensorboardX import summary
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        class Records(RecordWriter):
            """TensorBoard's framing, into a file that is open already."""

            def __init__(self, file: Appended):
                self._writer = file

        self._summary, self._event = summary, event_pb2.Event
        folder = location(directory)
        folder.mkdir(parents=True, exist_ok=True)
        host, pid = socket.gethostname(), os.getpid()
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{host}.{pid}"
        self._file = Appended(folder / name)
        self._records = Records(self._file)
        self._write(file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=from_step + 1, session_log=start)

    def _write(self, **fields) -> None:
        event = self._event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())

    def _write_summaries(self, step: int, summaries: Iterable[Any]) -> None:
        for summary in summaries:
            self._write(step=int(step), summary=summary)
        self._file.push()

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write numbers by name."""
        scalar = self._summary.scalar
        self._write_summaries(step, (scalar(k, float(v)) for k, v in scalars.items()))

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Write images, [H, W, C] each, uint8 or floats in [0, 1]."""
        for name, image in images.items():
            made = self._summary.image(name, np.asarray(image), dataformats="HWC")
            self._write_summaries(step, [made])

    def flush(self) -> None:
        """Write what is held back."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def run_writer(workdir: str | os.PathLike, from_step: int = 0) -> MetricWriter:
    """The writer of a run's folder: event files and ``log.jsonl``.

    Args:
        workdir: the run's folder.
        from_step: the step a resumed run continues from.

    Returns:
        A writer to both.
    """
    folder = location(workdir)
    return MultiWriter(
        [
            EventWriter(folder / "events", from_step),
            JsonlWriter(folder / "log.jsonl", from_step),
        ]
    )
