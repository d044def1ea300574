"""Any dataset to records on disk: shard by shard, three ways to run it.

The conversion runs in this process, with worker processes, or as an Apache Beam
pipeline on any runner, with the same result. Finished shards are kept: a conversion
that was cut short goes on where it stood when it is started again. The result is a TFDS
directory (``tfds.builder_from_directory`` reads it) with our manifest, index and report
beside the shards.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Generator, Sequence
from typing import Any

import tqdm
from absl import logging

from data_pipelines import record_index, records, schema, storage
from data_pipelines.builders import inputs, report, runners, shards, tfds_metadata
from data_pipelines.builders.record_source import Factory, RecordSource, checked_keys
from data_pipelines.builders.shards import Part, Shard
from hmr_jax.errors import MissingPackageError
from hmr_jax.files import locked
from hmr_jax.outside import reading
from hmr_jax.progress import bar as progress_bar

_MOST_LINES = 8
_PLAN = "plan.json"


def describe(source: RecordSource) -> dict[str, Any]:
    """What of a source goes into the metadata, as JSON values."""
    content = {
        "name": source.name,
        "joint_set": source.spec.joint_set,
        "traits": source.traits,
        "config": source.config(),
    }
    return json.loads(json.dumps(content))


def _differences(expected: dict, found: dict, prefix: str = "") -> list[str]:
    lines = []
    for key in sorted(set(expected) | set(found)):
        a, b = expected.get(key), found.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: expected {a!r}, found {b!r}")
    return lines


def _is_there(path: str) -> bool:
    marker = (
        path if storage.is_local(path) else storage.join(path, record_index.MANIFEST)
    )
    return storage.exists(marker)


def _check_up_to_date(path: str, source: RecordSource) -> None:
    """Refuse records that the source would not make as they are."""
    directory = records.open_directory(path)
    expected = describe(source)
    found = {key: directory.manifest.get(key) for key in expected}
    notes = inputs.read(path)
    if notes is None:
        logging.warning(
            "%s: was built by an earlier version, which did not note its files; "
            "whether they have changed since is not known",
            path,
        )
        # That version wrote its options down in another way.
        known = found["config"] or {}
        expected["config"] = {
            key: value for key, value in expected["config"].items() if key in known
        }
        found["config"] = {key: known[key] for key in expected["config"]}
    differences = _differences(expected, found)
    if directory.spec != source.spec:
        differences.append(f"spec: expected {source.spec}, found {directory.spec}")
    with reading(storage.join(path, inputs.FILE), "notes of files", schema.RecordError):
        differences = differences or list(source.inputs.differences(notes or {}))
    if differences:
        raise schema.RecordError(
            f"{path}: holds records of other options or files "
            f"({_shortened(differences)}); build it anew with --rebuild "
            "(rebuild=True), or choose another folder"
        )
    for name in directory.manifest["splits"]:
        directory.split(name)


def _shortened(lines: Sequence[str]) -> str:
    more = len(lines) - _MOST_LINES
    return "; ".join(lines[:_MOST_LINES]) + (f"; and {more} more" if more > 0 else "")


def _put_into_place(working: str, path: str) -> None:
    """Rename a finished local directory; the one it replaces goes afterwards."""
    old = f"{working}.replaced"
    if storage.exists(path):
        storage.move(path, old)
    storage.move(working, path)
    storage.remove_tree(old)


def _make_plan(
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


def _prepare(working: str, content: dict[str, Any]) -> None:
    """Keep the remains of the same conversion; clear away all others.

    Args:
        working: folder in which the conversion goes on; made where it is missing.
        content: JSON from ``_make_plan``.
    """
    path = storage.join(working, shards.PARTS, _PLAN)
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


def _convert(run: "_Run", todo: Sequence[Shard], bar: tqdm.tqdm) -> Generator[Shard]:
    """Write shards in the way asked for; yields each when it is finished."""

    def count(records: int = 1) -> None:
        bar.update(records)

    if run.on_beam and todo:
        runners.write_on_beam(
            run.factory,
            todo,
            run.working,
            runner=run.beam_runner,
            options=run.beam_options,
            skip_bad=run.skip_bad,
        )
        yield from todo
    elif run.num_workers and todo:
        yield from runners.write_in_processes(
            run.factory,
            run.source,
            todo,
            run.working,
            num_workers=run.num_workers,
            skip_bad=run.skip_bad,
            on_records=count,
        )
    else:
        for shard in todo:
            shards.write(
                run.source, shard, run.working, skip_bad=run.skip_bad, on_record=count
            )
            yield shard


@dataclasses.dataclass(frozen=True)
class _Run:
    """How one conversion is to be run."""

    factory: Factory
    source: RecordSource
    working: str
    num_workers: int
    skip_bad: int
    beam_runner: Any
    beam_options: Any

    @property
    def on_beam(self) -> bool:
        return self.beam_runner is not None or self.beam_options is not None

    def convert(self, num_shards: int | None, progress: bool) -> None:
        """Write what is missing, then index, metadata, report and manifest."""
        source, facts = self.source, describe(self.source)
        planned, content = _make_plan(source, facts, num_shards)
        _prepare(self.working, content)
        ledger = shards.Ledger(
            source.name, self.working, planned, self.skip_bad, source.inputs
        )
        todo = [shard for shard in planned if shard.file not in ledger.parts]
        total, left = (sum(len(s.keys) for s in part) for part in (planned, todo))
        if left < total:
            logging.info(
                "%s: %d of %d records are there", source.name, total - left, total
            )
        with (
            progress_bar(
                total=total,
                initial=total - left,
                desc=source.name,
                unit="record",
                disable=not progress,
            ) as bar,
            contextlib.closing(_convert(self, todo, bar)) as written,
        ):
            for shard in written:
                ledger.add(shard)
        parts: dict[str, list[Part]] = {}
        for shard in planned:
            parts.setdefault(shard.split, []).append(ledger.parts[shard.file])
        self._finish(parts, facts)

    def _finish(self, parts: dict[str, list[Part]], facts: dict[str, Any]) -> None:
        index = {
            split: [part.index for part in found] for split, found in parts.items()
        }
        metadata = {"schema_version": schema.SCHEMA_VERSION, **facts}
        tfds_metadata.write(self.working, self.source, index, metadata)
        content = report.make(self.source, parts)
        report.write(self.working, content)
        for line in report.surprises(content):
            logging.warning("%s", line)
        of_parts = [part.inputs for found in parts.values() for part in found]
        notes = inputs.merged([self.source.inputs.notes(), *of_parts])
        inputs.write(self.working, notes)
        record_index.write_index(self.working, index, self.source.spec, facts)


def build(
    factory: Factory,
    data_dir: str | os.PathLike,
    *,
    num_workers: int = 0,
    num_shards: int | None = None,
    skip_bad: int = 0,
    beam_runner: Any = None,
    beam_options: Any = None,
    progress: bool = True,
    rebuild: bool = False,
) -> storage.Location:
    """Convert a dataset to records.

    An interrupted conversion leaves no readable directory; started again, it keeps the
    shards that were finished, but for those whose files have changed. One that was done
    with the same options and of the same files (``data_pipelines.builders.inputs`` says
    what is compared) returns at once; of other ones it is refused.

    Args:
        factory: opens the ``RecordSource``; picklable where there are workers or Beam.
        data_dir: local or remote; the records go to ``data_dir/name/version``.
        num_workers: worker processes; 0 converts in this one.
        num_shards: files per split; by default one for every thousand records.
        skip_bad: records that break the schema or cannot be read and may be left out;
            ``report.json`` names them.
        beam_runner: name of a Beam runner (``DirectRunner``, ...) to convert on Beam.
        beam_options: Beam's pipeline options, or words such as ``--project=NAME``.
        progress: show a bar with the rate and the time left.
        rebuild: convert again what was done before. A local directory is replaced when
            the new one is whole; a remote one is gone from the start.

    Returns:
        The directory of records.

    Raises:
        RecordError: more bad records than allowed, or the directory exists with
            other options or of other files; naming them.
    """
    run_on_beam = beam_runner is not None or beam_options is not None
    if run_on_beam and not runners.has_beam():
        raise MissingPackageError(
            "conversion on Beam needs apache-beam: pip install 'hmr_jax[beam]'"
        )
    source = factory()
    folder = storage.clean(data_dir)
    # Workers of Beam need not stand where this process stands.
    folder = os.path.abspath(folder) if storage.is_local(folder) else folder
    parent = storage.join(folder, source.name)
    path = storage.join(parent, schema.SCHEMA_VERSION)
    # A remote folder cannot be renamed at once: there the manifest, written last, is
    # what makes the records readable.
    name = f"{records.INCOMPLETE}{schema.SCHEMA_VERSION}"
    working = storage.join(parent, name) if storage.is_local(path) else path
    run = _Run(
        factory, source, working, num_workers, skip_bad, beam_runner, beam_options
    )
    storage.make_dir(parent)
    with locked(parent, "converting this dataset"):
        if _is_there(path) and not rebuild:
            _check_up_to_date(path, source)
            logging.info("%s: already built, nothing to do", path)
        else:
            if working == path and _is_there(path):
                storage.remove_tree(path)
            run.convert(num_shards, progress)
            if working != path:
                _put_into_place(working, path)
        storage.remove_tree(storage.join(path, shards.PARTS))
    return storage.location(path)
