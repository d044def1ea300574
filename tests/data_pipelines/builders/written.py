"""What the tests of builders share: images to write, and reading everything back."""

import functools
import importlib.util
import pathlib
import pickle
import sys

import numpy as np
from PIL import Image

from data_pipelines import schema
from data_pipelines.builders import conversion, record_source


def write_image(path, size=(48, 36), seed=0):
    """A small image of the suffix's format at a path; returns the file's bytes."""
    rng = np.random.default_rng([11, seed])
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


def read_all(dataset, split):
    """Every validated record of a split by its sample_id."""
    keys = dataset.keys(split)
    found = list(record_source.checked_examples(dataset, split, keys))
    labels_suffice(dataset, split, keys, found)
    return {record["sample_id"]: record for record in found}


BY_FILE = ("agora", "human_data", "mpi_inf_3dhp", "pw3d", "surreal")
"""Their records read a file of labels each, of which the last one is held."""


def labels_suffice(dataset, split, keys, expected):
    """Assert that a worker makes the records of labels that this process read."""
    labels = dataset.labels_of(split, keys)
    if labels is None or dataset.name in BY_FILE:
        return
    worker = type(dataset)(**dataset.arguments)
    read = worker.read_bytes

    def read_picture(path, what="a file", *, is_label=True):
        assert not is_label, f"{path}: is read again"
        return read(path, what, is_label=False)

    worker.read_bytes = read_picture
    worker.take_labels(split, pickle.loads(pickle.dumps(labels)))
    found = record_source.checked_examples(worker, split, keys)
    for record, other in zip(expected, found, strict=True):
        same(record, other, 0)


def built(make, folder, split):
    """The records of a split that a whole conversion wrote, by sample_id."""
    import tensorflow as tf

    path = pathlib.Path(conversion.build(make, folder, progress=False))
    found = {}
    for shard in sorted(path.glob(f"*-{split}.tfrecord*")):
        for serialized in tf.data.TFRecordDataset(str(shard)):
            record = schema.decode(serialized.numpy(), make().spec)
            found[record["sample_id"]] = record
    return found


def same(found, expected, tolerance=1e-5):
    """Assert that some fields of a record have the expected values."""
    for name, value in expected.items():
        if isinstance(value, str | bytes):
            assert found[name] == value, name
        else:
            np.testing.assert_allclose(
                found[name], value, rtol=1e-6, atol=tolerance, err_msg=name
            )


def same_records(first, second):
    """Assert that two sets of records by name are equal."""
    assert first.keys() == second.keys()
    for name, record in first.items():
        same(second[name], record, 0)


@functools.cache
def pose_hg_inputs(parity_dir):
    """The module that makes the raw annotations behind pose_hg's vectors."""
    path = parity_dir / "pose_hg" / "inputs_posehg3d.py"
    spec = importlib.util.spec_from_file_location("inputs_posehg3d", path)
    module = importlib.util.module_from_spec(spec)
    if str(parity_dir) not in sys.path:  # it imports recipe.py
        sys.path.insert(0, str(parity_dir))
    spec.loader.exec_module(module)
    module.original = 11  # the seed of the public set, a global of some functions
    return module


def joblib_wrapped(array, alignment=None):
    """The pickle of a wrapper up to its BUILD, and the bytes that follow."""
    state = {
        "subclass": "numpy.ndarray",
        "shape": array.shape,
        "order": "C",
        "dtype": array.dtype,
        "allow_mmap": False,
        "numpy_array_alignment_bytes": alignment,
    }
    build = b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81"
    data = pickle.dumps(array, 2) if array.dtype.hasobject else array.tobytes()
    return build + pickle.dumps(state, 2)[2:-1] + b"b", data


def joblib_dump(arrays, alignment=None):
    """The file of a dictionary of arrays, since joblib 0.10."""
    out = b"\x80\x02}"
    for name, array in arrays.items():
        head, data = joblib_wrapped(array, alignment)
        out += b"X" + len(name).to_bytes(4, "little") + name.encode() + head
        if alignment is not None and not array.dtype.hasobject:
            padding = -(len(out) + 1) % alignment
            out += bytes([padding]) + b"\xff" * padding
        out += data + b"s"
    return out + b"."
