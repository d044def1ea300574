"""Tables of video labels: one joblib file a split, arrays of one row a frame."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.builders.joblib_files import read_joblib
from data_pipelines.builders.published_dataset import PublishedDataset
from data_pipelines.builders.published_files import join
from data_pipelines.builders.record_source import Key
from hmr_jax.pictures.names import canonical

_PLACE = "place in the video"
_DATA_FOLDER = re.compile(r"^(?:.*?/)?data/")


class Rows:
    """Some rows of an array, under the numbers that they have in the whole.

    Args:
        rows: their numbers.
        array: the whole, or what stands for it.
    """

    def __init__(self, rows: Sequence[int], array: np.ndarray):
        self._at = {row: place for place, row in enumerate(rows)}
        self._values = array[list(rows)]
        self.shape, self.ndim = array.shape, array.ndim

    def __getitem__(self, row: int) -> Any:
        return self._values[self._at[row]]


class FrameTables(PublishedDataset):
    """A dataset whose labels are arrays over frames, with the images beside them.

    Args:
        raw: the folder that the authors call ``data``.
        images: folder of the images instead; a name in the database follows it after
            its own ``data/``.

    Attributes:
        kept: arrays to keep in memory; files may hold others, such as features.
    """

    kept: Sequence[str] = ()

    def __init__(self, raw: str, *, images: str | None = None):
        super().__init__(raw)
        self.images = images or self.raw
        self._arrays: dict[str, dict[str, Any]] = {}
        self._places: dict[str, Any] = {}

    def database_path(self, split: str) -> str:
        """The file of a split."""
        raise NotImplementedError

    def load(self, split: str, fields: Sequence[str]) -> dict[str, np.ndarray]:
        """The arrays of a split, read once.

        Args:
            split: name.
            fields: arrays that must be there.

        Raises:
            RecordError: one is missing.
        """
        if split not in self._arrays:
            path = self.database_path(split)
            content = self.parse(
                path, "a joblib file", lambda data: read_joblib(data, source=path)
            )
            if not isinstance(content, dict):
                raise self.wrong(path, "a dictionary", type(content).__name__)
            self.require(path, content, fields)
            self._arrays[split] = {
                str(name): np.asarray(value)
                for name, value in content.items()
                if name in self.kept
            }
        return self._arrays[split]

    def labels_of(self, split: str, keys: Sequence[Key]) -> Any:
        """The rows of some keys, where the file has been read already."""
        arrays = self._arrays.get(split)
        if arrays is None:
            return None
        rows = sorted({row for key in keys for row in self.rows_of(split, int(key))})
        if "vid_name" in arrays:
            arrays = arrays | {_PLACE: self._place(split)}
        return {name: Rows(rows, array) for name, array in arrays.items()}

    def take_labels(self, split: str, labels: Any) -> None:
        """Keep rows that another process read; those of the shard before go."""
        self._places = {split: labels.pop(_PLACE)} if _PLACE in labels else {}
        self._arrays = {split: labels}

    def rows_of(self, split: str, key: int) -> Sequence[int]:
        """The rows that an example is made of."""
        return (key,)

    def check_lengths(
        self, split: str, fields: Sequence[str], longer: Sequence[str] = ()
    ) -> int:
        """The number of frames, which every given array must have as its first size.

        Args:
            split: name of a loaded split.
            fields: arrays to compare; missing ones are left out.
            longer: arrays that may be longer.

        Raises:
            RecordError: naming the array and both numbers.
        """
        arrays = self._arrays[split]
        number = len(arrays["img_name"])
        for name in fields:
            if name not in arrays:
                continue
            array = arrays[name]
            found = len(array) if array.ndim else 0
            if found != number and not (name in longer and found > number):
                raise self.wrong(
                    self.database_path(split),
                    f"{name} of {number} frames like img_name",
                    found,
                )
        return number

    def usable(self, split: str, boxes: np.ndarray) -> np.ndarray:
        """Which frames have a box [N, 4] (centre and size); the others are dropped."""
        finite = np.isfinite(boxes).all(-1)
        good = finite & (np.where(finite[:, None], boxes, 0)[:, 2:] > 0).all(-1)
        if not good.all():
            self.dropped[split, "no box"] = int((~good).sum())
        return good

    def frame_labels(self, split: str, index: int) -> dict[str, Any]:
        """The fields that say which frame of which video a row is."""
        arrays = self._arrays[split]
        labels: dict[str, Any] = {"sample_id": f"{split}_{index:07d}"}
        if "vid_name" in arrays:
            labels["sequence_id"] = text(arrays["vid_name"][index])
            labels["frame_id"] = self._place(split)[index]
        if "frame_id" in arrays:
            number = re.search(r"(\d+)\D*$", text(arrays["frame_id"][index]))
            labels["frame_id"] = int(number[1]) if number else index
        return labels

    def _place(self, split: str) -> np.ndarray:
        """Each frame's number in its video, from 0 [N]."""
        if split not in self._places:
            names = self._arrays[split]["vid_name"]
            number = np.arange(len(names))
            starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
            lengths = np.diff(np.append(starts, len(names)))
            self._places[split] = number - np.repeat(starts, lengths)
        return self._places[split]

    def image_path(self, name: str) -> str:
        """The path of an image that the database names.

        Args:
            name: relative to the authors' repository, so that it holds ``data/``, or
                to the folder of images.
        """
        return join(self.images, _DATA_FOLDER.sub("", canonical(name)))

    def read_row_image(self, name: str) -> dict[str, Any]:
        """The image that the database names; see ``PublishedFiles.read_named``."""
        path = self.image_path(name)
        return self.read_named(
            self.images, path[len(self.images.rstrip("/")) :].lstrip("/")
        )

    def row(self, split: str, name: str, index: int, shape: tuple) -> np.ndarray:
        """One frame of an array.

        Args:
            split: name.
            name: of the array.
            index: of the frame.
            shape: its expected sizes.

        Raises:
            RecordError: it has others.
        """
        found = np.asarray(self._arrays[split][name][index], np.float64)
        if found.shape != shape:
            expected = f"{name} of shape [N, {', '.join(map(str, shape))}]"
            raise self.wrong(self.database_path(split), expected, list(found.shape))
        return found


def text(value: Any) -> str:
    """A name, which Python 2 and HDF5 may have stored as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
