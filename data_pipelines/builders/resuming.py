"""Going on with a conversion that was cut short: its plan and its finished shards."""

import contextlib
import dataclasses
import json
from typing import Any

from absl import logging

from data_pipelines import records, schema, storage
from data_pipelines.builders import shards
from data_pipelines.builders.inputs import Inputs, merged
from data_pipelines.builders.shards import Part, Shard
from data_pipelines.builders.source import RecordSource, checked_keys

PLAN = "plan.json"


def make_plan(
    source: RecordSource, source_facts: dict[str, Any], num_shards: int | None
) -> tuple[list[Shard], dict[str, Any]]:
    """Shards of every split that has records, and what they depend on.

    Args:
        source: the dataset.
        source_facts: what of it the records depend on, JSON.
        num_shards: per split; as in ``shards.plan``.

    Returns:
        The shards, and JSON that differs where their content would.

    Raises:
        RecordError: no records at all, or a key that comes twice.
    """
    planned: list[Shard] = []
    for split in source.splits():
        keys = checked_keys(source, split)
        if len(keys):
            planned += shards.plan(source.name, split, keys, num_shards)
        else:
            logging.warning("%s: split %s has no records", source.name, split)
    if not planned:
        raise schema.RecordError(
            f"{source.name}: expected at least one record in the splits "
            f"{', '.join(source.splits()) or '(there is none)'}, found none"
        )
    notes = source.inputs.notes()
    content = {
        "schema_version": schema.SCHEMA_VERSION,
        "spec": dataclasses.asdict(source.spec),
        "source": source_facts,
        "shards": shards.identity(planned),
        # Pictures are compared shard by shard.
        "labels": {name: noted[-1] for name, noted in notes["labels"].items()},
        "others": [notes[kind] for kind in ("listings", "trees", "presence")],
    }
    return planned, json.loads(json.dumps(content))


def prepare(working: str, content: dict[str, Any]) -> None:
    """Keep the remains of the same conversion; clear away all others.

    Args:
        working: folder in which the conversion goes on; made where it is missing.
        content: JSON from ``make_plan``.
    """
    path = storage.join(working, shards.PARTS, PLAN)
    known = None
    if storage.exists(path):
        with contextlib.suppress(ValueError, RecursionError):
            known = json.loads(storage.read_bytes(path))
    if storage.is_local(working):
        parent = storage.parent(working)
        for name in storage.names(parent):
            other = storage.join(parent, name)
            if name.startswith(records.INCOMPLETE) and other != working:
                logging.warning("removing the remains of another run: %s", other)
                storage.remove_tree(other)
    if known != content:
        if storage.is_dir(working):
            logging.warning("removing the remains of another conversion: %s", working)
            storage.remove_tree(working)
        storage.make_dir(storage.join(working, shards.PARTS))
        storage.write_bytes(path, json.dumps(content).encode())
    for name in storage.names(storage.join(working, shards.PARTS)):
        if storage.is_temporary(name):
            storage.remove(storage.join(working, shards.PARTS, name))


class Ledger:
    """Finished shards, and how many bad records they may have together.

    Args:
        name: of the dataset.
        working: folder of the unfinished conversion.
        planned: all shards.
        skip_bad: bad records that may be left out.
        inputs: of the dataset; a shard whose files have changed is done again.

    Attributes:
        parts: file -> finished shard.
    """

    def __init__(
        self,
        name: str,
        working: str,
        planned: list[Shard],
        skip_bad: int,
        inputs: Inputs,
    ):
        self._name, self._working, self._skip_bad = name, working, skip_bad
        self.parts: dict[str, Part] = {}
        known = inputs.notes()
        for shard in planned:
            part = shards.finished(working, shard)
            if part is None:
                continue
            change = next(inputs.differences(part.inputs, known), None)
            if change is None:
                self.parts[shard.file] = part
                known = merged([known, part.inputs | {"pictures": {}}])
            else:
                logging.warning("%s: is done again: %s", shard.file, change)
        if len(self._bad()) > skip_bad:
            # The files may have been mended since: these shards are done again.
            self.parts = {f: p for f, p in self.parts.items() if not p.bad}

    def _bad(self) -> list[shards.Bad]:
        return [bad for part in self.parts.values() for bad in part.bad]

    def add(self, shard: Shard) -> None:
        """Take note of a shard that was written.

        Raises:
            RecordError: it is not there, or the bad records have become too many.
        """
        part = shards.finished(self._working, shard)
        if part is None:
            raise schema.RecordError(
                f"{storage.join(self._working, shard.file)}: expected a finished "
                "shard, found none; does every worker see this folder?"
            )
        self.parts[shard.file] = part
        bad = self._bad()
        if len(bad) > self._skip_bad:
            raise shards.TooManyBadError(self._name, self._skip_bad, bad)
