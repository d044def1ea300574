"""Small made-up datasets in published layouts: what their tests share."""

import io
import json
import pathlib
import pickle
import struct

import numpy as np
from PIL import Image

from data_pipelines import records
from data_pipelines.builders import conversion, record_source
from tests.data_pipelines.builders.written import labels_suffice


def picture(seed: int, size=(64, 48), kind: str = "JPEG") -> bytes:
    """An image file (width, height) of noise."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def put(path: pathlib.Path, content) -> pathlib.Path:
    """Write bytes, or anything else as JSON, below folders made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes):
        content = json.dumps(plain(content)).encode()
    path.write_bytes(content)
    return path


def plain(value):
    """Arrays as lists, at any depth."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def rodrigues(vector) -> np.ndarray:
    """The rotation matrix of an axis-angle vector that is not zero."""
    angle = np.linalg.norm(vector)
    x, y, z = np.asarray(vector) / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def pixels(points, focal, centre) -> np.ndarray:
    """A pinhole camera, written out."""
    points = np.asarray(points, np.float64)
    x = focal[0] * points[..., 0] / points[..., 2] + centre[0]
    y = focal[1] * points[..., 1] / points[..., 2] + centre[1]
    return np.stack([x, y], axis=-1)


def read(dataset, split: str) -> dict:
    """Every validated record of a split by its name, in order."""
    keys = dataset.keys(split)
    found = list(record_source.checked_examples(dataset, split, keys))
    assert [r["sample_id"] for r in found] == list(keys)
    labels_suffice(dataset, split, keys, found)
    return {record["sample_id"]: record for record in found}


def build(factory, data_dir) -> records.RecordDirectory:
    """The dataset converted through TFDS, without a progress bar."""
    return records.open_directory(conversion.build(factory, data_dir, progress=False))


def close(found, expected, atol: float = 1e-5) -> None:
    """Equal within float32."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol)


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Text and the bytes of arrays are one type of string in Python 2."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value):
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def python2_pickle(value) -> bytes:
    """A pickle of arrays and plain objects as Python 2 and its numpy wrote it."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"numpy._core.", b"numpy.core.")
