"""Where a run's numbers go: TensorBoard event files and a JSON-lines log.

``clu.metric_writers`` imports TensorFlow, which training must not need. These writers
have the methods of its ``MetricWriter`` (a test holds the two together), so that either
serves, and write event files with TensorBoard's own record writer.
"""

import io
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from hmr_jax.files import atomic_write
from hmr_jax.remote import Appended, location


class MetricWriter:
    """The interface; a method not overridden writes nothing."""

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write numbers by name."""

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Write images, [H, W, C] or [N, H, W, C], uint8 or floats in [0, 1]."""

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Write texts (markdown)."""

    def write_histograms(
        self,
        step: int,
        arrays: Mapping[str, Any],
        num_buckets: Mapping[str, int] | None = None,
    ) -> None:
        """Write distributions of values."""

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Write the run's settings, flat."""

    def write_summaries(
        self,
        step: int,
        values: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write tensors for a plug-in."""

    def write_videos(self, step: int, videos: Mapping[str, Any]) -> None:
        """Write videos."""

    def write_audios(
        self, step: int, audios: Mapping[str, Any], *, sample_rate: int
    ) -> None:
        """Write sounds."""

    def flush(self) -> None:
        """Write what is held back."""

    def close(self) -> None:
        """Flush and close."""


class MultiWriter(MetricWriter):
    """Passes scalars, images, texts and settings on to several writers."""

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

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Write texts."""
        for writer in self._writers:
            writer.write_texts(step, texts)

    def write_histograms(
        self,
        step: int,
        arrays: Mapping[str, Any],
        num_buckets: Mapping[str, int] | None = None,
    ) -> None:
        """Write distributions of values."""
        for writer in self._writers:
            writer.write_histograms(step, arrays, num_buckets)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Write the run's settings."""
        for writer in self._writers:
            writer.write_hparams(hparams)

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
    """TensorBoard event files, written without TensorFlow.

    Args:
        directory: TensorBoard's ``--logdir``.
        from_step: a resumed run's step; TensorBoard hides what an earlier file of the
            folder holds past it.
    """

    def __init__(self, directory: str | os.PathLike, from_step: int = 0):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event_pb2, self._summary_pb2 = event_pb2, summary_pb2
        folder = location(directory)
        folder.mkdir(parents=True, exist_ok=True)
        host, pid = socket.gethostname(), os.getpid()
        name = f"events.out.tfevents.{time.time_ns() // 1000}.{host}.{pid}"
        self._file = Appended(folder / name)
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=from_step + 1, session_log=start)

    def _write(self, **fields) -> None:
        event = self._event_pb2.Event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())

    def _write_values(self, step, values) -> None:
        summary = self._summary_pb2.Summary(value=values)
        self._write(step=int(step), summary=summary)
        self._file.push()

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Write numbers by name."""
        value = self._summary_pb2.Summary.Value
        self._write_values(
            step, [value(tag=k, simple_value=float(v)) for k, v in scalars.items()]
        )

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Write images, [H, W, C] or [N, H, W, C], uint8 or floats in [0, 1]."""
        values = []
        for name, stack in images.items():
            stack = np.asarray(stack)
            stack = stack[None] if stack.ndim == 3 else stack
            for index, image in enumerate(stack):
                tag = name if len(stack) == 1 else f"{name}/{index}"
                image = self._summary_pb2.Summary.Image(
                    height=image.shape[0],
                    width=image.shape[1],
                    colorspace=image.shape[2],
                    encoded_image_string=_png(image),
                )
                values.append(self._summary_pb2.Summary.Value(tag=tag, image=image))
        self._write_values(step, values)

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Write texts (markdown)."""
        from tensorboard.compat.proto import tensor_pb2, types_pb2

        values = []
        for name, text in texts.items():
            tensor = tensor_pb2.TensorProto(
                dtype=types_pb2.DT_STRING, string_val=[text.encode()]
            )
            metadata = self._summary_pb2.SummaryMetadata(
                plugin_data=self._summary_pb2.SummaryMetadata.PluginData(
                    plugin_name="text"
                )
            )
            values.append(
                self._summary_pb2.Summary.Value(
                    tag=name, tensor=tensor, metadata=metadata
                )
            )
        self._write_values(step, values)

    def write_histograms(
        self,
        step: int,
        arrays: Mapping[str, Any],
        num_buckets: Mapping[str, int] | None = None,
    ) -> None:
        """Write distributions of values, in 30 equal buckets unless told."""
        values = []
        for name, array in arrays.items():
            array = np.asarray(array, np.float64).ravel()
            count, edges = np.histogram(array, (num_buckets or {}).get(name, 30))
            histo = self._summary_pb2.HistogramProto(
                min=array.min(),
                max=array.max(),
                num=array.size,
                sum=array.sum(),
                sum_squares=np.square(array).sum(),
                bucket_limit=edges[1:].tolist(),
                bucket=count.tolist(),
            )
            values.append(self._summary_pb2.Summary.Value(tag=name, histo=histo))
        self._write_values(step, values)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Write the run's settings as a table."""
        rows = [f"| {name} | {value} |" for name, value in hparams.items()]
        self.write_texts(
            0, {"config": "\n".join(["| field | value |", "|-|-|", *rows])}
        )

    def flush(self) -> None:
        """Write what is held back."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _png(image: np.ndarray) -> bytes:
    if image.dtype != np.uint8:
        image = (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


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
