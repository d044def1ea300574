"""Files beside the records that are damaged: an error in one line that names them."""

import functools
import gzip
import json
import shutil

import numpy as np
import pytest

from data_pipelines import records
from data_pipelines.builders import catalog, conversion, inputs, record_source, report
from data_pipelines.schema import RecordError
from hmr_jax.errors import UserError
from tests.data_pipelines.people import People, build_people

OTHERS = (None, [], {}, "x", -1, 1.5, [1], {"a": 1}, True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return build_people(tmp_path_factory.mktemp("people"), count=3)


@pytest.fixture
def folder(whole, tmp_path):
    path = tmp_path / whole.parent.name / whole.name
    shutil.copytree(whole, path)
    return path


def places(value, place=()):
    """Every place in nested JSON."""
    yield place
    if isinstance(value, dict | list):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*place, key))


def mutated(content):
    """The content with each of its values replaced, and without each of its keys."""
    for place in places(content):
        for other in OTHERS:
            copy = {"": json.loads(json.dumps(content))}
            within = functools.reduce(lambda v, k: v[k], ("", *place)[:-1], copy)
            within[("", *place)[-1]] = other
            yield copy[""]
        if place and isinstance(place[-1], str):
            copy = json.loads(json.dumps(content))
            del functools.reduce(lambda v, k: v[k], place[:-1], copy)[place[-1]]
            yield copy


def read_all(folder):
    directory = records.open_directory(folder)
    for split in directory.manifest["splits"]:
        directory.split(split)


def named_errors(read, contents, write, name):
    """How many contents are refused; every error is the user's and names a file."""
    refused = 0
    for content in contents:
        write(content)
        try:
            read()
        except UserError as error:
            assert name in str(error), content
            assert "\n" not in str(error)
            refused += 1
    return refused


def test_damaged_manifests_are_named(folder):
    path = folder / records.MANIFEST
    content = json.loads(path.read_text())
    contents = [json.dumps(c) for c in mutated(content)]
    contents += [path.read_text()[:n] for n in (0, 1, 50, 300)] + ["\ud800" * 3]
    refused = named_errors(
        lambda: read_all(folder),
        contents,
        lambda text: path.write_bytes(text.encode("utf-8", "surrogatepass")),
        str(folder),
    )
    # What is left is the same content: true for 1, 1.0 for 1.
    assert refused >= len(contents) - 10


def test_damaged_indices_are_named(folder, rng):
    path = folder / records.INDEX
    data = path.read_bytes()
    contents = [data[:n] for n in range(0, len(data), 37)]
    for _ in range(200):
        copy = bytearray(data)
        copy[rng.integers(len(data))] ^= int(rng.integers(1, 256))
        contents.append(bytes(copy))
    named_errors(lambda: read_all(folder), contents, path.write_bytes, str(folder))


def test_indices_of_objects_are_refused(folder):
    path = folder / records.INDEX
    with np.load(path) as index:
        arrays = dict(index)
    arrays["train/offset"] = np.array([0, 1, None])
    np.savez(path, **arrays, allow_pickle=True)
    with pytest.raises(RecordError, match="expected an index of records"):
        records.open_directory(folder)


def test_damaged_reports_are_named(folder):
    path = folder / report.REPORT
    content = json.loads(path.read_text())
    content["dropped"] = [{"split": "train", "reason": "far", "number": 2}]
    contents = [json.dumps(c) for c in mutated(content)] + ["", "{", "[1"]
    refused = named_errors(
        lambda: report.read(str(folder)), contents, path.write_text, report.REPORT
    )
    assert refused > 40


def test_damaged_notes_are_named(folder):
    path = folder / inputs.FILE
    content = inputs.read(str(folder)) | {
        "labels": {"a": [1, 2, "1"]},
        "listings": {"b*": [1, "2"]},
        "trees": {"c": [True, 1, "3"]},
        "pictures": {"d": [1, 2, "4"]},
    }
    contents = [gzip.compress(json.dumps(c).encode()) for c in mutated(content)]
    contents += [path.read_bytes()[:n] for n in (0, 1, 20, 40)] + [b"no gzip"]
    build = functools.partial(
        conversion.build,
        functools.partial(People, (("train", 3),)),
        folder.parent.parent,
        num_shards=2,
        progress=False,
    )
    named_errors(build, contents, path.write_bytes, str(folder))


PERSON = {"id": 1, "image_id": 7, "bbox": [1, 2, 30, 40]}
KEYPOINTS = [20, 20, 2] * 17
LABELS = {
    "coco": (
        "annotations/person_keypoints_train2017.json",
        {
            "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 64}],
            "annotations": [PERSON | {"keypoints": KEYPOINTS}],
        },
    ),
    "mpii": (
        "annot/train.json",
        [{"image": "a.png", "joints": [[9, 9]] * 16, "center": [9, 9], "scale": 1.0}],
    ),
    "posetrack": (
        "posetrack_data/annotations/train/v.json",
        {
            "images": [
                {"id": 7 + i, "file_name": f"images/v/{i}.png", "is_labeled": True}
                for i in range(2)
            ],
            "annotations": [
                PERSON | {"image_id": 7 + i, "track_id": 0, "keypoints": KEYPOINTS}
                for i in range(2)
            ],
        },
    ),
    "freihand": ("training_xyz.json", [[[0.01 * i, 0.02 * i, 0.7] for i in range(21)]]),
}


@pytest.mark.parametrize("name", LABELS)
def test_damaged_labels_of_datasets_are_named(name, tmp_path):
    file, content = LABELS[name]
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = People().example("train", "train_0")["image"]
    for place in (
        "train2017/a.png",
        "images/a.png",
        "images/v/0.png",
        "images/v/1.png",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(picture)
    for other, value in (("K", np.eye(3).tolist()), ("mano", [[0.1] * 61])):
        (tmp_path / f"training_{other}.json").write_text(json.dumps([value]))
    jpeg = tmp_path / "training" / "rgb" / "00000000.jpg"
    jpeg.parent.mkdir(parents=True)
    jpeg.write_bytes(picture)
    options = {"posetrack": {"min_frames": 2}, "freihand": {"backgrounds": 1}}

    def read():
        dataset = catalog.open_named(name, str(tmp_path), options.get(name))
        keys = record_source.checked_keys(dataset, "train")
        return list(record_source.checked_examples(dataset, "train", keys))

    path.write_text(json.dumps(content))
    assert read()
    texts = list(dict.fromkeys(json.dumps(c) for c in mutated(content)))
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(texts))[:250]
    contents = [texts[i] for i in chosen] + [json.dumps(content)[:-9], "", "[" * 99999]
    refused = named_errors(read, contents, path.write_text, str(tmp_path))
    assert refused > 20
