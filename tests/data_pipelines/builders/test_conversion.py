import contextlib
import functools
import importlib.machinery
import json
import os
import pathlib
import signal
import subprocess
import sys
import types

import pytest
import tensorflow_datasets as tfds

from data_pipelines import records, schema
from data_pipelines.builders import catalog, conversion, runners, synthetic
from data_pipelines.builders.published_dataset import Entry, PublishedDataset
from hmr_jax.errors import UserError
from hmr_jax.files import locked
from tests.data_pipelines import people
from tests.data_pipelines.people import People, build_people, make_record

ROOT = pathlib.Path(__file__).parents[3]


def contents(path):
    return [r["sample_id"] for r in records.read_records(path, "train")]


def test_tfds_reads_what_the_builder_wrote(tmp_path):
    path = build_people(tmp_path, count=5)
    builder = tfds.builder_from_directory(str(path))
    assert builder.info.splits["train"].num_examples == 5
    assert builder.info.metadata["joint_set"] == "smpl_24"
    example = next(iter(builder.as_dataset(split="train")))
    assert example["image"].shape == (64, 64, 3)
    assert example["sample_id"].numpy() == b"person_0000"


def test_tfds_loads_a_dataset_by_its_name(tmp_path):
    build_people(tmp_path, count=5, num_shards=2)
    found, info = tfds.load("people_smpl_24", data_dir=str(tmp_path), with_info=True)
    names = [example["sample_id"].numpy() for example in found["train"]]
    assert names == [b"person_%04d" % number for number in range(5)]
    assert info.splits["train"].shard_lengths == [3, 2]
    assert info.full_name == f"people_smpl_24/{schema.SCHEMA_VERSION}"


def test_a_second_build_does_nothing_and_another_config_is_refused(
    tmp_path, monkeypatch
):
    path = build_people(tmp_path, count=4)
    before = (path / records.MANIFEST).stat().st_mtime_ns
    monkeypatch.setattr(People, "example", None)
    assert build_people(tmp_path, count=4) == path
    assert (path / records.MANIFEST).stat().st_mtime_ns == before
    with pytest.raises(
        schema.RecordError, match="config.counts.train: expected 5, found 4"
    ):
        build_people(tmp_path, count=5)


def test_worker_processes_write_the_same_records(tmp_path):
    alone = build_people(tmp_path / "a", count=7)
    shared = build_people(tmp_path / "b", count=7, num_workers=2)
    fingerprints = {records.open_directory(p).fingerprint for p in (alone, shared)}
    assert len(fingerprints) == 1


def test_a_failed_conversion_keeps_finished_shards(tmp_path):
    with pytest.raises(schema.RecordError, match="key 'train_3'.*field betas.*finite"):
        build_people(tmp_path, count=5, broken=3)
    parent = tmp_path / "people_smpl_24"
    unfinished = parent / "incomplete.1.1.0"
    assert sorted(p.name for p in parent.iterdir()) == [".lock", unfinished.name]
    assert sorted(p.name for p in unfinished.iterdir()) == [
        ".parts",
        "people_smpl_24-train.tfrecord-00000-of-00002",
    ]
    with pytest.raises(schema.RecordError, match="expected one directory"):
        records.open_directory(tmp_path)
    assert len(contents(build_people(tmp_path, count=5))) == 5
    assert sorted(p.name for p in parent.iterdir()) == [".lock", "1.1.0"]


KILLED = """
import os, sys
from tests.data_pipelines import people

example = people.People.example

def killed(self, split, key):
    if key == "train_7":
        os.kill(os.getpid(), 9)
    return example(self, split, key)

people.People.example = killed
people.build_people(sys.argv[1], count=12, num_shards=4)
"""


def test_a_killed_conversion_goes_on_at_the_shard_it_stood_at(tmp_path, monkeypatch):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    parent = tmp_path / "people_smpl_24"
    assert sorted(p.name for p in parent.iterdir()) == [".lock", "incomplete.1.1.0"]
    with pytest.raises(schema.RecordError, match="expected one directory"):
        records.open_directory(tmp_path)
    asked, example = [], People.example

    def watched(self, split, key):
        asked.append(key)
        return example(self, split, key)

    monkeypatch.setattr(People, "example", watched)
    path = build_people(tmp_path, count=12, num_shards=4)
    assert asked == [f"train_{i}" for i in range(6, 12)]
    assert sorted(p.name for p in parent.iterdir()) == [".lock", path.name]
    assert not list(path.glob(".*"))
    whole = build_people(tmp_path / "whole", count=12, num_shards=4)
    fingerprints = {records.open_directory(p).fingerprint for p in (path, whole)}
    assert len(fingerprints) == 1


class Listed(PublishedDataset):
    """Records of a list in a file, which notes every process that reads it."""

    name = "listed"
    spec = People.spec

    def splits(self):
        return ("train",)

    def entries(self, split):
        with open(self.path("readers"), "a") as file:
            file.write(f"{os.getpid()}\n")
        for number in self.read_json(self.path("list.json")):
            yield Entry(f"person_{number:04d}", number)

    def record(self, split, key, data):
        return make_record(data) | {"sample_id": key}


@pytest.mark.parametrize("limit", [0, 5])
def test_worker_processes_do_not_read_the_labels_again(tmp_path, limit):
    (tmp_path / "list.json").write_text("[3, 1, 4, 0, 5, 9, 2, 6]")
    factory = functools.partial(open_listed, str(tmp_path), limit)
    paths = [
        conversion.build(
            factory, tmp_path / f"out{n}", num_workers=n, num_shards=4, progress=False
        )
        for n in (0, 2)
    ]
    readers = (tmp_path / "readers").read_text().split()
    assert readers == [str(os.getpid())] * 2
    alone, shared = map(records.open_directory, paths)
    assert alone.fingerprint == shared.fingerprint


def open_listed(raw, limit):
    source = Listed(raw)
    return catalog.Selected(source, ("train",), limit) if limit else source


class Labelled(PublishedDataset):
    """Three records of labels in a file; one of them may be broken."""

    name = "labelled"
    spec = People.spec

    def splits(self):
        return ("train",)

    def keys(self, split):
        return list(range(len(self.read_json(self.path("labels.json")))))

    def example(self, split, key):
        label = self.read_json(self.path("labels.json"))[key]
        if label == "broken":
            raise schema.RecordError("broken")
        return make_record(key)


def test_labels_that_changed_since_the_last_start_begin_anew(tmp_path, monkeypatch):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    seen, example = [], Labelled.example

    def watched(self, split, key):
        seen.append(key)
        return example(self, split, key)

    monkeypatch.setattr(Labelled, "example", watched)

    def asked(*labels):
        """The records that a conversion of these labels reads."""
        seen.clear()
        (raw / "labels.json").write_text(json.dumps(labels))
        source = catalog.Selected(Labelled(str(raw)), limit=3)
        with contextlib.suppress(schema.RecordError):
            conversion.build(lambda: source, out, num_shards=3, progress=False)
        return sorted(set(seen))

    assert asked("a", "b", "broken") == [0, 1, 2]
    assert asked("a", "b", "broken") == [2]
    assert asked("changed", "b", "broken") == [0, 1, 2]
    assert asked("changed", "b", "broken") == [2]
    assert asked("changed", "b", "as good") == [0, 1, 2]
    assert records.verify(out / "labelled" / schema.SCHEMA_VERSION) == {"train": 3}


class EndsItsWorker(People):
    """Kills the process that converts its fourth record, once."""

    def example(self, split, key):
        mark = pathlib.Path(os.environ["HMR_JAX_TEST_MARK"])
        if key == "train_4" and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().example(split, key)


def test_a_lost_worker_is_reported_and_its_shard_done_again(tmp_path, monkeypatch):
    monkeypatch.setenv("HMR_JAX_TEST_MARK", str(tmp_path / "mark"))
    build = functools.partial(conversion.build, EndsItsWorker, tmp_path / "out")
    with pytest.raises(schema.RecordError, match="a worker process ended"):
        build(num_workers=1, num_shards=5, progress=False)
    unfinished = tmp_path / "out" / "people_smpl_24" / "incomplete.1.1.0"
    assert len(list(unfinished.glob("*.tfrecord*"))) == 2
    path = build(num_shards=5, progress=False)
    assert records.verify(path) == {"train": 10}


def test_remains_of_another_conversion_are_cleared(tmp_path):
    with pytest.raises(schema.RecordError, match="key 'train_3'"):
        build_people(tmp_path, count=5, broken=3)
    unfinished = tmp_path / "people_smpl_24" / "incomplete.1.1.0"
    (unfinished.parent / "incomplete.old").mkdir()
    assert len(contents(build_people(tmp_path, count=6))) == 6
    names = sorted(p.name for p in unfinished.parent.iterdir())
    assert names == [".lock", "1.1.0"]


def test_only_one_conversion_at_a_time(tmp_path):
    with (
        locked(tmp_path / "people_smpl_24", "converting"),
        pytest.raises(
            UserError, match=r"people_smpl_24: another process is converting"
        ),
    ):
        build_people(tmp_path, count=3)


class TwiceTheSameKey(People):
    def keys(self, split):
        return ["train_0", "train_1", "train_0"]


class TooFew(People):
    def examples(self, split, keys):
        return list(super().examples(split, keys))[:-1]


@pytest.mark.parametrize(
    ("source", "message"),
    [(TwiceTheSameKey, "unique keys, found 1 repeated"), (TooFew, "found fewer")],
)
def test_wrong_sources_are_refused(tmp_path, source, message):
    with pytest.raises(schema.RecordError, match=message):
        conversion.build(source, tmp_path, progress=False)


class Samples:
    """Stands in for the renderer."""

    def __init__(self, split, count, seed, size_px):
        self._arguments = (split, count, seed, size_px)

    def __len__(self):
        return self._arguments[1]

    def samples(self, indices):
        split, _, seed, size_px = self._arguments
        for index in indices:
            record = make_record(100 * seed + index, size=(size_px, size_px))
            yield record | {"sample_id": f"{split}/{index}"}


def test_synthetic_records_come_from_the_injected_source(tmp_path):
    factory = functools.partial(
        synthetic.SyntheticRecords,
        Samples,
        {"train": 5, "test": 2},
        seed=3,
        size_px=32,
        config={"body": "open"},
    )
    path = conversion.build(factory, tmp_path, progress=False)
    directory = records.open_directory(path)
    assert path.parent.name == "synthetic"
    assert directory.manifest["config"]["body"] == "open"
    assert contents(path) == [f"train/{i}" for i in range(5)]
    assert records.verify(path) == {"train": 5, "test": 2}


def test_beam_is_optional_and_named(tmp_path):
    if runners.has_beam():
        pytest.skip("apache-beam is installed")
    with pytest.raises(ImportError, match=r"hmr_jax\[beam\]"):
        build_people(tmp_path, count=3, beam_runner="DirectRunner")


@pytest.fixture
def direct_runner():
    pytest.importorskip("apache_beam", reason="needs apache-beam: hmr_jax[beam]")
    return "DirectRunner"


class BeamInProcess(types.ModuleType):
    """As much of apache_beam as writes shards, here and at once."""

    Create = Reshuffle = ParDo = DoFn = None

    def __init__(self):
        super().__init__("apache_beam")
        self.__spec__ = importlib.machinery.ModuleSpec("apache_beam", None)
        self.__path__ = []
        self.seen = []

        class Step:
            def __init__(self, what=None, **options):
                self.what = what

            def __rrshift__(self, label):
                return self

        class Pipeline:
            def __init__(made, runner, options):
                self.seen.append((runner, options))

            def __enter__(made):
                return made

            def __exit__(made, *error):
                return None

            def __or__(made, step):
                if isinstance(step.what, list):
                    made.elements = step.what
                elif step.what is not None:
                    step.what.setup()
                    for element in made.elements:
                        step.what.process(element)
                return made

        self.Pipeline, self.DoFn = Pipeline, object
        self.Create = self.Reshuffle = self.ParDo = Step


def test_beam_gets_its_options(tmp_path, monkeypatch):
    beam = BeamInProcess()
    options = types.ModuleType("apache_beam.options.pipeline_options")
    options.PipelineOptions = lambda flags: ("options", flags)
    monkeypatch.setitem(sys.modules, "apache_beam", beam)
    monkeypatch.setitem(sys.modules, options.__name__, options)
    package = types.ModuleType("apache_beam.options")
    monkeypatch.setitem(sys.modules, package.__name__, package)
    words = ["--project=p", "--region=r"]
    path = build_people(tmp_path, 9, 3, beam_runner="Some", beam_options=words)
    assert beam.seen == [("Some", ("options", words))]
    assert records.verify(path) == {"train": 9}


def test_beam_writes_the_same_records(tmp_path, direct_runner):
    alone = build_people(tmp_path / "a", count=9, num_shards=3)
    with pytest.raises(schema.RecordError, match="key 'train_3'.*betas"):
        build_people(
            *(tmp_path / "b", 9, 3), **{"broken": 3, "beam_runner": direct_runner}
        )
    beamed = build_people(tmp_path / "b", 9, 3, beam_runner=direct_runner)
    fingerprints = {records.open_directory(p).fingerprint for p in (alone, beamed)}
    assert len(fingerprints) == 1


def test_beam_leaves_out_bad_records(tmp_path, direct_runner):
    arguments = {"broken": (2, 7), "beam_runner": direct_runner}
    path = build_people(tmp_path, 9, 3, skip_bad=2, **arguments)
    assert records.verify(path) == {"train": 7}
    with pytest.raises(schema.RecordError, match=r"at most 1 bad.*train_2.*train_7"):
        build_people(tmp_path / "b", 9, 3, skip_bad=1, **arguments)


def test_helpers_make_valid_records():
    schema.validate(people.make_record(0), schema.RecordSpec())
