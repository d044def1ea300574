"""Rendered people as records; the maker of the samples is injected."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from data_pipelines import schema
from data_pipelines.builders.inputs import Inputs
from data_pipelines.builders.record_source import Key, RecordSource
from hmr_jax.errors import UserError


class SampleSource(Protocol):
    """Makes samples by number: records of the schema, the same for the same number."""

    def __len__(self) -> int:
        """Number of samples."""

    def samples(self, indices: Sequence[int]) -> Iterable[schema.Record]:
        """Records of several samples in their order."""


class SyntheticRecords(RecordSource):
    """Rendered people with every label of the schema.

    Args:
        make_source: called as ``make_source(split=..., count=..., seed=...,
            size_px=...)`` for a ``SampleSource``; picklable where worker processes are
            used.
        counts: split -> number of records.
        seed: of the whole dataset.
        size_px: side of the square images.
        name: directory name of the dataset.
        config: whatever else the samples depend on (body, motion, backgrounds), JSON.
        spec: of the records.
        files: name -> file or folder that the samples are made of: its content counts.
        picture_folders: the same, of folders of many pictures: names and sizes count.
    """

    description = "Rendered people of the open body with exact labels."

    def __init__(
        self,
        make_source: Callable[..., SampleSource],
        counts: Mapping[str, int],
        *,
        seed: int,
        size_px: int,
        name: str = "synthetic",
        config: Mapping[str, Any] | None = None,
        spec: schema.RecordSpec | None = None,
        files: Mapping[str, str] | None = None,
        picture_folders: Mapping[str, str] | None = None,
    ):
        for split, count in counts.items():
            if count < 1:
                raise UserError(
                    f"split {split}: expected 1 record or more, found {count}"
                )
        self.name = name
        self.spec = spec or schema.RecordSpec()
        self._make_source = make_source
        self._counts = dict(counts)
        self._seed = seed
        self._size_px = size_px
        self._config = dict(config or {})
        self._files, self._pictures = dict(files or {}), dict(picture_folders or {})
        self._sources: dict[str, SampleSource] = {}

    def splits(self) -> Sequence[str]:
        """Names of the splits."""
        return tuple(self._counts)

    @functools.cached_property
    def inputs(self) -> Inputs:
        """The files and folders that the samples are made of."""
        found = Inputs(self._files | self._pictures)
        for path in self._files.values():
            found.note_tree(path, contents=True)
        for path in self._pictures.values():
            found.note_tree(path, contents=False)
        return found

    def keys(self, split: str) -> Sequence[int]:
        """Sample numbers."""
        return range(self._counts[split])

    def config(self) -> dict[str, Any]:
        """Counts, seed, size and what the caller added."""
        return {
            "counts": self._counts,
            "seed": self._seed,
            "size_px": self._size_px,
            **self._config,
        }

    def examples(self, split: str, keys: Sequence[Key]) -> Iterable[schema.Record]:
        """Samples made in one go, which is quicker than one by one."""
        if split not in self._sources:
            self._sources[split] = self._make_source(
                split=split,
                count=self._counts[split],
                seed=self._seed,
                size_px=self._size_px,
            )
        return self._sources[split].samples([int(key) for key in keys])
