"""Reading what the owners of datasets publish: files by name, with clear errors.

Every path goes through TensorFlow's file system layer, so that ``gs://`` works, and
nothing in a pickle is ever run.
"""

import collections
import contextlib
import functools
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines import storage
from data_pipelines.builders import picture_files
from data_pipelines.builders.inputs import list_data
from data_pipelines.builders.record_source import RecordSource
from data_pipelines.schema import RecordError
from hmr_jax import pictures
from hmr_jax.body import npz
from hmr_jax.body.unpickle import load_pickle
from hmr_jax.errors import UserError
from hmr_jax.outside import reading
from hmr_jax.pictures.names import canonical


class UnreadableImageError(RecordError):
    """An image that cannot be decoded; ``--skip_bad`` may leave its record out."""


def join(*parts: str) -> str:
    """A path, local or remote, of its parts."""
    first, *rest = (str(part) for part in parts)
    return "/".join([first.rstrip("/") or "/", *(part.strip("/") for part in rest)])


class PublishedFiles(RecordSource):
    """The files of a dataset, each read under one guard and noted in ``inputs``.

    Args:
        raw: folder, local or remote, that holds them.

    Attributes:
        dropped: (split, reason) -> number of persons or frames left out.
    """

    def __init__(self, raw: str):
        self.raw = str(raw)
        self.dropped: collections.Counter[tuple[str, str]] = collections.Counter()
        self._hidden: dict[str, set[str]] = {}
        self._folders: dict[str, picture_files.PictureFolder] = {}

    def drop(self, split: str, reason: str, number: int = 1) -> None:
        """Count persons or frames of the raw data that become no record."""
        self.dropped[split, reason] += number

    def path(self, *parts: str) -> str:
        """A path below the raw folder."""
        return join(self.raw, *parts)

    def wrong(self, path: str, expected: str, found: object) -> RecordError:
        """The error of a file whose content is not as published.

        Args:
            path: of the file.
            expected: what the published release has there.
            found: what is there.
        """
        return RecordError(f"{self.name}: {path}: expected {expected}, found {found}")

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        there = storage.exists(path)
        self.inputs.note_presence(path, there)
        return there

    def glob(self, split: str, *parts: str) -> list[str]:
        """Paths below the raw folder that match a pattern, sorted.

        Args:
            split: among whose dropped things hidden files count (``files.is_hidden``).
            parts: of the pattern.
        """
        pattern = self.path(*parts)
        shown, hidden = list_data(pattern)
        self.inputs.note_listing(pattern, shown)
        if hidden:
            seen = self._hidden.setdefault(split, set())
            seen.update(hidden)
            self.dropped[split, "hidden file, no data"] = len(seen)
        return shown

    def read_bytes(
        self, path: str, expected: str = "a file", *, is_label: bool = True
    ) -> bytes:
        """The content of a file.

        Args:
            path: of the file.
            expected: what it is, for the error.
            is_label: no picture and no video, of which there are many.

        Raises:
            RecordError: it is not there or cannot be read.
        """
        import tensorflow as tf

        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                data = file.read()
        except tf.errors.NotFoundError as error:
            self.inputs.note_presence(path, False)
            raise self.wrong(path, expected, "no such file") from error
        except tf.errors.OpError as error:
            raise self.wrong(path, expected, error.message) from error
        note = self.inputs.note_label if is_label else self.inputs.note_picture
        note(path, data)
        return data

    def parse(
        self,
        path: str,
        expected: str,
        parse: Callable[[bytes], Any],
        *,
        is_label: bool = True,
    ) -> Any:
        """What a parser makes of a file, under the guard of ``outside.reading``.

        Args:
            path: of the file.
            expected: what it is, for the error.
            parse: gets the content.
            is_label: as for ``read_bytes``.

        Raises:
            RecordError: naming dataset and file, whatever the parser raises.
        """
        data = self.read_bytes(path, expected, is_label=is_label)
        with self._named(), reading(path, expected):
            return parse(data)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Make the errors of readers ``RecordError``s with the dataset's name."""
        try:
            yield
        except RecordError:
            raise
        except UserError as error:
            raise RecordError(f"{self.name}: {error}") from error

    def read_json(self, path: str) -> Any:
        """The content of a JSON file."""
        return self.parse(path, "a JSON file", json.loads)

    def read_pickle(self, path: str) -> Any:
        """Arrays and plain objects of a pickle of any protocol, Python 2's included.

        Strings of Python 2 are read as latin1.
        """
        return self.parse(path, "a pickle", lambda data: load_pickle(data, source=path))

    def read_npz(self, path: str) -> dict[str, Any]:
        """The entries of an .npz file; objects through the restricted unpickler."""
        return self.parse(
            path, "an .npz archive", lambda data: npz.read_npz(data, source=path)
        )

    def read_npy(self, path: str) -> np.ndarray:
        """The array of an .npy file."""
        return self.parse(
            path, "an .npy file", lambda data: npz.read_npy(data, source=path)
        )

    def read_mat(self, path: str, *names: str) -> dict[str, Any]:
        """Variables of a MATLAB file up to version 7.

        Structs are objects with attributes; arrays lose axes of length one.
        """
        import scipy.io

        def parse(data: bytes) -> dict[str, Any]:
            return scipy.io.loadmat(
                io.BytesIO(data), squeeze_me=True, struct_as_record=False
            )

        content = self.parse(path, "a MATLAB file (version 5 to 7)", parse)
        self.require(path, content, names)
        return content

    def read_h5(self, path: str, read: Callable[[Any], Any]) -> Any:
        """What ``read`` takes from an HDF5 file (MATLAB 7.3 included).

        Args:
            path: of the file.
            read: gets the open ``h5py.File``.
        """
        import h5py

        def parse(data: bytes) -> Any:
            with h5py.File(io.BytesIO(data), "r") as file:
                return read(file)

        return self.parse(path, "an HDF5 file", parse)

    def require(self, path: str, content: Any, names: Sequence[str]) -> None:
        """Check that a mapping read from a file has some keys.

        Raises:
            RecordError: naming the file and the first key that is missing, or that it
                is no mapping.
        """
        if not hasattr(content, "keys") and not isinstance(content, set):
            raise self.wrong(path, "named entries", f"a {type(content).__name__}")
        for name in names:
            if name not in content:
                keys = ", ".join(str(key) for key in list(content)[:12])
                raise self.wrong(path, f"an entry named {name!r}", keys or "none")

    @functools.cached_property
    def _sizes(self) -> dict[str, tuple[int, int]]:
        return {}

    def read_image(
        self, path: str, size_px: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """A picture's file as the record's fields of its image.

        Args:
            path: of the file.
            size_px: width and height by the annotation; see ``picture_files.fields``.

        Returns:
            ``image`` (JPEG or PNG), ``image_height``, ``image_width``.

        Raises:
            UnreadableImageError: it is missing or no image.
        """
        try:
            data = self.read_bytes(path, "an image", is_label=False)
        except RecordError as error:
            raise UnreadableImageError(str(error)) from error
        return self.image_fields(data, path, size_px)

    def read_named(
        self, folder: str, name: str, size_px: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """As ``read_image``, of a picture that an annotation names.

        Args:
            folder: in which the name begins.
            name: in any spelling of ``hmr_jax.pictures.names``.
            size_px: as for ``read_image``.
        """
        if not isinstance(name, str):
            found = self.wrong(folder, "the name of a picture", repr(name)[:80])
            raise UnreadableImageError(str(found))
        path = join(folder, canonical(name))
        try:
            return self.read_image(path, size_px)
        except UnreadableImageError:
            if storage.exists(path):
                raise
            if folder not in self._folders:
                self._folders[folder] = picture_files.PictureFolder(folder)
            found = self._folders[folder].find(name)
            if found is None:
                raise
        return self.read_image(found, size_px)

    def read_pixels(self, path: str) -> np.ndarray:
        """A picture's file as RGB, uint8 [H, W, 3].

        Raises:
            UnreadableImageError: it is missing or no image.
        """
        return pictures.decode_picture(self.read_image(path)["image"], path)

    def image_fields(
        self, data: bytes, where: str, size_px: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """As ``read_image``, of bytes at hand.

        Args:
            data: an encoded image.
            where: names it in the error.
            size_px: as for ``read_image``.
        """
        try:
            return picture_files.fields(data, where, size_px)
        except pictures.UnreadablePictureError as error:
            raise self._no_image(where, error) from error

    def _no_image(self, where: str, error: Exception) -> UnreadableImageError:
        said = str(error).removeprefix(f"{where}: ")
        return UnreadableImageError(f"{self.name}: {where}: expected an image: {said}")

    def image_size(self, path: str) -> tuple[int, int]:
        """Width and height of a picture's file, turned upright, from its header."""
        import tensorflow as tf

        if path not in self._sizes:
            try:
                self._sizes[path] = picture_files.size_of_file(path)
            except (tf.errors.OpError, pictures.UnreadablePictureError) as error:
                raise self._no_image(path, error) from error
            self.inputs.note_picture(path, None)
        return self._sizes[path]
