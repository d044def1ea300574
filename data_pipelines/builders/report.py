"""What a conversion took and left out: ``report.json`` beside the records."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines import storage
from data_pipelines.builders.record_source import RecordSource
from data_pipelines.builders.shards import Part
from hmr_jax.outside import json_object, reading

REPORT = "report.json"
NOTHING: dict[str, Any] = {"written": {}, "expected": {}, "dropped": [], "bad": []}
"""Stands for the report of records that have none."""


def make(source: RecordSource, parts: Mapping[str, Sequence[Part]]) -> dict[str, Any]:
    """The report of a finished conversion.

    Args:
        source: that was converted; its ``dropped`` and ``counts`` are read, where it
            has them.
        parts: split -> finished shards.

    Returns:
        JSON: ``written`` and ``expected`` records by split, ``dropped`` persons or
        frames of the raw data with their reason, ``bad`` records left out.
    """
    dropped = getattr(source, "dropped", {})
    return {
        "name": source.name,
        "written": {
            split: sum(len(part.index.offset) for part in found)
            for split, found in parts.items()
        },
        "expected": dict(getattr(source, "counts", {})),
        "dropped": [
            {"split": split, "reason": reason, "number": number}
            for (split, reason), number in sorted(dropped.items())
        ],
        "bad": [
            dataclasses.asdict(bad)
            for found in parts.values()
            for part in found
            for bad in part.bad
        ],
    }


def write(folder: str, report: Mapping[str, Any]) -> None:
    """Write the report beside the records."""
    text = json.dumps(report, indent=1) + "\n"
    storage.write_bytes(storage.join(folder, REPORT), text.encode())


def read(folder: str) -> dict[str, Any] | None:
    """The report beside the records; None where there is none.

    Raises:
        UserError: it is damaged; the file is named.
    """
    path = storage.join(folder, REPORT)
    if not storage.exists(path):
        return None
    expected = "the report of a conversion"
    with reading(path, expected):
        report = NOTHING | json_object(storage.read_bytes(path), path, expected)
        lines(report), surprises(report)
    return report


def surprises(report: Mapping[str, Any]) -> list[str]:
    """One line for each split whose size is not that of the public release.

    Args:
        report: from ``make``.
    """
    return [
        f"{report['name']}: split {split}: the public release gives "
        f"{report['expected'][split]} records, found {written}"
        for split, written in report["written"].items()
        if split in report["expected"] and report["expected"][split] != written
    ]


def lines(report: Mapping[str, Any]) -> list[str]:
    """The report as text, without what does not go as expected.

    Args:
        report: from ``make``.
    """
    found = []
    for split, written in report["written"].items():
        expected = report["expected"].get(split)
        release = "" if expected is None else f" (public release: {expected})"
        found.append(f"{split}: {written} records{release}")
    for item in report["dropped"]:
        found.append(f"{item['split']}: dropped {item['number']}: {item['reason']}")
    for item in report["bad"]:
        found.append(f"{item['split']}: left out bad record: {item['error']}")
    return found
