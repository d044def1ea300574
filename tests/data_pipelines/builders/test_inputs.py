"""What a finished dataset was made of, and that a rebuild notices what has changed."""

import functools
import json
import os
import shutil

import numpy as np
import pytest

from data_pipelines import records, schema
from data_pipelines.builders import (
    catalog,
    conversion,
    layouts,
    record_source,
    synthetic,
)
from data_pipelines.builders.published_dataset import PublishedDataset
from hmr_jax.errors import UserError
from tests.data_pipelines.builders.test_conversion import Samples
from tests.data_pipelines.people import People, encode_image, make_record


class Asking(PublishedDataset):
    """Asks its files everything that a source can ask."""

    name = "asking"
    spec = People.spec
    file_options = ("body",)

    def __init__(self, raw, *, body="", shift=0.0):
        super().__init__(raw)
        self.body, self.shift = body, shift

    def splits(self):
        return ("train",)

    def keys(self, split):
        return [
            f"{path.rpartition('/')[2]} {entry}"
            for path in self.glob(split, "labels", "*.json")
            for entry in self.read_json(path)
        ]

    def example(self, split, key):
        number = int(str(key).rpartition(" ")[2])
        image = self.read_image(self.path("images", f"{number}.png"))
        if self.exists(self.path("shift.json")):
            number += self.read_json(self.path("shift.json"))
        if self.body:
            number += self.read_json(self.body)
        record = make_record(number)
        record["betas"] = record["betas"] + self.shift
        return record | image | {"sample_id": str(key)}


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    for name in ("labels", "images"):
        (folder / name).mkdir(parents=True)
    (folder / "labels" / "a.json").write_text("[0, 1]")
    for number in range(4):
        data = make_record(number)["image"] + b"a comment"
        (folder / "images" / f"{number}.png").write_bytes(data)
    (tmp_path / "body.json").write_text("10")
    return folder


def build(tmp_path, raw="raw", **arguments):
    keywords = {k: arguments.pop(k) for k in ("body", "shift") if k in arguments}
    factory = functools.partial(Asking, str(tmp_path / raw), **keywords)
    return conversion.build(factory, tmp_path / "out", progress=False, **arguments)


def samples(path):
    return [r["sample_id"] for r in records.read_records(path, "train")]


def test_what_has_not_changed_is_kept(tmp_path, raw, monkeypatch):
    path = build(tmp_path, num_shards=2)
    shutil.copytree(raw, tmp_path / "moved")  # other times, the same files
    shutil.rmtree(raw)
    monkeypatch.setattr(Asking, "example", None)
    assert build(tmp_path, "moved") == path


def write_unnoticed(path, text):
    """Content of the same size, and a file that looks as old as before."""
    before = path.stat()
    assert len(text) == before.st_size
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def other_picture(raw):
    path = raw / "images" / "1.png"
    path.write_bytes(path.read_bytes()[:-1] + b"s")


CHANGES = {
    "labels/a.json: has changed": lambda raw: write_unnoticed(
        raw / "labels" / "a.json", "[2, 1]"
    ),
    r"labels/\*.json: 1 files before, 2 now": lambda raw: (
        raw / "labels" / "b.json"
    ).write_text("[2]"),
    "shift.json: is new": lambda raw: (raw / "shift.json").write_text("1"),
    "images/1.png: has changed": other_picture,
    r"images/0.png: \d+ bytes before, \d+ now": lambda raw: (
        raw / "images" / "0.png"
    ).write_bytes(encode_image(np.full((64, 64, 3), 255, np.uint8))),
    "images/0.png: is gone": lambda raw: (raw / "images" / "0.png").unlink(),
    "<body>: has changed": lambda raw: write_unnoticed(raw.parent / "body.json", "11"),
}


@pytest.mark.parametrize("message", CHANGES)
def test_what_has_changed_is_refused_and_named(tmp_path, raw, message):
    body = str(tmp_path / "body.json")
    path = build(tmp_path, body=body)
    fingerprint = records.open_directory(path).fingerprint
    CHANGES[message](raw)
    with pytest.raises(schema.RecordError, match=rf"{message}.*--rebuild"):
        build(tmp_path, body=body)
    assert records.open_directory(path).fingerprint == fingerprint


def test_a_rebuild_replaces_what_was_there_when_it_is_whole(tmp_path, raw):
    path = build(tmp_path)
    assert samples(path) == ["a.json 0", "a.json 1"]
    (raw / "labels" / "b.json").write_text('[2, "broken"]')
    with pytest.raises(schema.RecordError, match="broken"):
        build(tmp_path, rebuild=True, num_shards=4)
    assert samples(path) == ["a.json 0", "a.json 1"]
    (raw / "labels" / "b.json").write_text("[2, 3]")
    assert build(tmp_path, rebuild=True) == path
    assert samples(path) == ["a.json 0", "a.json 1", "b.json 2", "b.json 3"]
    assert sorted(p.name for p in path.parent.iterdir()) == [".lock", path.name]
    assert build(tmp_path) == path  # and that is up to date


def test_options_make_another_dataset(tmp_path, raw):
    build(tmp_path)
    with pytest.raises(schema.RecordError, match=r"config.shift: expected 1.0, found"):
        build(tmp_path, shift=1.0)
    with pytest.raises(schema.RecordError, match=r"config.body: expected True, found"):
        build(tmp_path, body=str(tmp_path / "body.json"))


def test_files_that_workers_read_count_too(tmp_path, raw):
    body = str(tmp_path / "body.json")
    build(tmp_path, body=body, num_workers=2, num_shards=2)
    write_unnoticed(tmp_path / "body.json", "11")
    with pytest.raises(schema.RecordError, match="<body>: has changed"):
        build(tmp_path, body=body)


def test_a_conversion_goes_on_but_for_shards_whose_files_changed(
    tmp_path, raw, monkeypatch
):
    (raw / "labels" / "a.json").write_text("[0, 1, 2, 3]")
    last = (raw / "images" / "3.png").read_bytes()
    (raw / "images" / "3.png").write_text("no picture")
    with pytest.raises(schema.RecordError, match="3.png: expected an image"):
        build(tmp_path, num_shards=4)
    asked, example = [], Asking.example

    def watched(self, split, key):
        asked.append(key)
        return example(self, split, key)

    monkeypatch.setattr(Asking, "example", watched)
    (raw / "images" / "3.png").write_bytes(last)
    other_picture(raw)
    build(tmp_path, num_shards=4)
    assert asked == ["a.json 1", "a.json 3"]


def test_notes_of_many_labels_are_not_repeated_in_every_shard(tmp_path):
    """A body counts for every shard; one of many labels for those that follow it."""
    (tmp_path / "body.json").write_text("1")
    paths = [tmp_path / "raw" / f"{i}.json" for i in range(100)]
    (tmp_path / "raw").mkdir()
    source = Asking(str(tmp_path / "raw"), body=str(tmp_path / "body.json"))
    source.read_json(source.body)
    for path in paths:
        path.write_text("1")
        source.read_json(str(path))
    assert len(source.inputs.taken()["labels"]) == 101
    source.read_json(str(paths[3]))
    assert set(source.inputs.taken()["labels"]) == {"<body>", "3.json"}
    assert len(source.inputs.notes()["labels"]) == 101


def test_records_of_an_earlier_version_are_kept(tmp_path, raw, monkeypatch):
    before = {"shift": 0.0, "body_digest": ""}
    with monkeypatch.context() as earlier:
        earlier.setattr(Asking, "config", lambda self: before)
        path = build(tmp_path)
    (path / "inputs.json.gz").unlink()
    assert build(tmp_path) == path
    with pytest.raises(schema.RecordError, match="config.shift"):
        build(tmp_path, shift=1.0)


def test_a_part_of_a_dataset_notes_its_files_too(tmp_path, raw):
    def make():
        return catalog.Selected(Asking(str(raw)), limit=1)

    conversion.build(make, tmp_path / "out", progress=False)
    (raw / "shift.json").write_text("1")
    with pytest.raises(schema.RecordError, match="shift.json: is new"):
        conversion.build(make, tmp_path / "out", progress=False)


def test_bodies_and_backgrounds_of_rendered_people(tmp_path, raw):
    (raw / "images" / "._0.png").write_text("what macOS leaves")

    def make():
        return synthetic.SyntheticRecords(
            Samples,
            {"train": 2},
            seed=1,
            size_px=32,
            files={"body": str(tmp_path / "body.json")},
            picture_folders={"backgrounds": str(raw / "images")},
        )

    conversion.build(make, tmp_path / "out", progress=False)
    conversion.build(make, tmp_path / "out", progress=False)
    (raw / "images" / "._1.png").write_text("no picture")
    conversion.build(make, tmp_path / "out", progress=False)
    shutil.copy(raw / "images" / "0.png", raw / "images" / "4.png")
    with pytest.raises(schema.RecordError, match="<backgrounds>: 4 files before, 5"):
        conversion.build(make, tmp_path / "out", progress=False)
    (raw / "images" / "4.png").unlink()
    write_unnoticed(tmp_path / "body.json", "11")
    with pytest.raises(schema.RecordError, match="<body>: 1 files before, others"):
        conversion.build(make, tmp_path / "out", progress=False)


class Plain(record_source.RecordSource):
    """Has no arguments."""

    name = "plain"

    def splits(self):
        return ()

    def keys(self, split):
        return ()


class More(Asking):
    """Hands what it does not know on."""

    def __init__(self, raw, *, own=3, **others):
        super().__init__(raw, **others)
        self.own = own


def test_arguments_are_captured_without_init_and_with_more():
    assert Plain().config() == {}
    assert Asking("x", shift=2.0).config() == {"body": False, "shift": 2.0}
    config = More("x", shift=1.5, body="b").config()
    assert config["own"] == 3 and config["shift"] == 1.5 and config["body"] is True


WRONG = {
    "agora": {"fit": "x"},
    "coco": {"people": "x"},
    "flic_full": {"joint_set": "x"},
    "freihand": {"layout": "x"},
    "human_data": {},
    "int_db": {"dataset": "x"},
    "lsp": {"joint_set": "x"},
    "mpi_inf_3dhp": {"rule": "x"},
    "muco_3dhp": {"people": "x"},
    "occlusion_person": {"joint_set": "x"},
    "penn_action": {"box": "x"},
    "posetrack": {"box": "x"},
    "pw3d": {"boxes": "x"},
    "pw3d_hierprob": {"layout": "x"},
    "surreal": {"train_frames": "x"},
    "vibe_db": {"dataset": "x"},
    "no_dataset": {},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_are_the_users_errors(name, tmp_path):
    with pytest.raises(UserError, match="expected"):
        catalog.open_named(name, str(tmp_path), WRONG[name])


@pytest.mark.parametrize(
    ("name", "layout"), [(n, k) for n, kinds in layouts.DATASETS.items() for k in kinds]
)
def test_every_option_of_every_dataset_is_captured(name, layout, tmp_path):
    options = set(catalog.options_of(layouts.Choice(name, layout, {})))
    given = {"layout": layout}
    given |= {"human_data": {"train": "a.npz"}}.get(name, {})
    given |= {"hierprob_sequences": {"body": "b"}}.get(layout, {})
    source = catalog.open_named(name, str(tmp_path), given)
    config = source.config()
    assert set(config) == options | set(layouts.DATASETS[name][layout].given)
    files = set(source.file_options)
    assert files <= options
    for option in files:
        assert config[option] is bool(given.get(option))
    paths = {o for o in options if "smpl" in o or "mano" in o or o == "body"}
    assert paths <= files
    json.dumps(config)
