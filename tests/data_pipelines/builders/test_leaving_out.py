"""Bad records left out, what was dropped, and the sizes of public releases."""

import collections
import functools
import json
import os

import pytest

from data_pipelines import records, schema
from data_pipelines.builders import conversion, report
from data_pipelines.builders.record_source import checked_examples, examples_or_errors
from tests.data_pipelines.people import People, build_people


def built_report(path):
    return report.read(os.fspath(path))


def test_bad_records_are_left_out_and_listed(tmp_path):
    path = build_people(tmp_path, count=9, broken=(0, 5), skip_bad=2)
    ids = [r["sample_id"] for r in records.read_records(path, "train")]
    assert ids == [f"person_{i:04d}" for i in (1, 2, 3, 4, 6, 7, 8)]
    found = built_report(path)
    assert found["written"] == {"train": 7}
    assert [item["key"] for item in found["bad"]] == ["train_0", "train_5"]
    assert "field betas: expected finite" in found["bad"][0]["error"]
    lines = report.lines(found)
    assert lines[0] == "train: 7 records"
    assert "left out bad record: people_smpl_24: split train: key 'train_0'" in lines[1]


def test_one_bad_record_more_stops(tmp_path):
    message = r"at most 1 bad records \(skip_bad\), found 2.*train_1'.*train_4'"
    with pytest.raises(schema.RecordError, match=message):
        build_people(tmp_path, count=6, broken=(1, 4), skip_bad=1, num_workers=1)
    # The shards that were done again with fewer bad records allowed name theirs.
    with pytest.raises(schema.RecordError, match="key 'train_1'.*betas"):
        build_people(tmp_path, count=6, broken=(1, 4), skip_bad=0)
    path = build_people(tmp_path, count=6, broken=(1, 4), skip_bad=2)
    assert records.verify(path) == {"train": 4}


def test_a_mended_record_is_converted_again(tmp_path):
    with pytest.raises(schema.RecordError):
        build_people(tmp_path, count=6, broken=(1, 4), skip_bad=1)
    path = build_people(tmp_path, count=6)
    assert records.verify(path) == {"train": 6}
    assert built_report(path)["bad"] == []


class WorksAhead(People):
    """Reads three examples before it gives the first."""

    def examples(self, split, keys):
        ahead = collections.deque()
        for key in keys:
            if key == "train_4":
                raise schema.RecordError("images/4.jpg: expected an image, found none")
            ahead.append(self.example(split, key))
            if len(ahead) > 3:
                yield ahead.popleft()
        yield from ahead


def test_a_source_that_works_ahead_blames_the_right_record():
    source = WorksAhead()
    keys = source.keys("train")
    found = list(examples_or_errors(source, "train", keys))
    bad = [k for k, f in zip(keys, found, strict=True) if not isinstance(f, dict)]
    assert bad == ["train_4"]
    with pytest.raises(schema.RecordError, match="key 'train_4': images/4.jpg"):
        list(checked_examples(source, "train", keys))


class Malformed(People):
    """Entries that stumble where a source reads them, or give no record."""

    errors = {
        "train_1": KeyError("focal"),
        "train_2": TypeError("no list"),
        "train_4": IndexError("list index out of range"),
    }

    def example(self, split, key):
        if key in self.errors:
            raise self.errors[key]
        return super().example(split, key)

    def examples(self, split, keys):
        return (self.example(split, key) for key in keys)


def test_malformed_entries_are_named_like_bad_records(tmp_path):
    source = Malformed()
    keys = source.keys("train")
    found = list(examples_or_errors(source, "train", keys))
    bad = {
        k: str(f) for k, f in zip(keys, found, strict=True) if not isinstance(f, dict)
    }
    place = "people_smpl_24: split train: key"
    assert bad == {
        "train_1": f"{place} 'train_1': KeyError: 'focal'",
        "train_2": f"{place} 'train_2': TypeError: no list",
        "train_4": f"{place} 'train_4': IndexError: list index out of range",
    }
    with pytest.raises(schema.RecordError, match="key 'train_1': KeyError: 'focal'"):
        list(checked_examples(source, "train", keys))
    factory = functools.partial(Malformed, (("train", 6),))
    path = conversion.build(factory, tmp_path, skip_bad=3, progress=False)
    assert records.verify(path) == {"train": 3}


class Published(People):
    """Knows how many records the public release has, and drops some persons."""

    counts = {"train": 10, "test": 4}

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.dropped = collections.Counter()

    def keys(self, split):
        self.dropped[split, "fewer than six joints"] += 3
        return super().keys(split)


def test_dropped_persons_and_expected_counts_are_reported(tmp_path, caplog):
    factory = functools.partial(Published, (("train", 8), ("test", 4)))
    with caplog.at_level("WARNING"):
        path = conversion.build(factory, tmp_path, progress=False)
    surprise = "split train: the public release gives 10 records, found 8"
    assert any(surprise in line for line in caplog.messages)
    found = json.loads((path / "report.json").read_text())
    assert len(report.surprises(found)) == 1
    assert report.lines(found) == [
        "train: 8 records (public release: 10)",
        "test: 4 records (public release: 4)",
        "test: dropped 3: fewer than six joints",
        "train: dropped 3: fewer than six joints",
    ]


def test_a_split_without_records_is_left_out(tmp_path):
    factory = functools.partial(People, (("train", 2), ("val", 0)))
    path = conversion.build(factory, tmp_path, progress=False)
    assert records.verify(path) == {"train": 2}
    assert conversion.build(factory, tmp_path, progress=False) == path
    with pytest.raises(schema.RecordError, match="at least one record in the splits"):
        conversion.build(functools.partial(People, (("val", 0),)), tmp_path / "b")
