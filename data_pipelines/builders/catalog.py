"""Datasets opened by name, whole or in part, with options as a user types them."""

import ast
import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_pipelines import schema
from data_pipelines.builders import layouts
from data_pipelines.builders.inputs import Inputs
from data_pipelines.builders.published_dataset import PublishedDataset
from data_pipelines.builders.record_source import Key, RecordSource
from hmr_jax.errors import UserError

_PLACE = "data_pipelines.builders"


def load(choice: layouts.Choice) -> type[PublishedDataset]:
    """The class that reads a dataset in one of its layouts.

    Made with the raw folder, what the layout settles, and the dataset's options.
    """
    place = layouts.DATASETS[choice.dataset][choice.layout].place
    module, found = place.split(":")
    return getattr(importlib.import_module(f"{_PLACE}.{module}"), found)


class Selected(RecordSource):
    """Some splits of a dataset, or the first records of each.

    Args:
        source: the whole dataset.
        splits: names of those to keep; all by default.
        limit: at most so many records of each split; 0 for all.

    Raises:
        UserError: a split that the dataset does not have.
    """

    def __init__(
        self, source: RecordSource, splits: Sequence[str] = (), limit: int = 0
    ):
        unknown = sorted(set(splits) - set(source.splits()))
        if unknown:
            raise UserError(
                f"{source.name}: split: expected one of {', '.join(source.splits())}, "
                f"found {', '.join(unknown)}"
            )
        self._source, self._splits, self._limit = source, tuple(splits), limit
        self.name, self.spec, self.traits = source.name, source.spec, source.traits
        self.description, self.citation = source.description, source.citation
        # A part of the dataset is not compared with the whole release.
        self.counts = {} if limit else dict(getattr(source, "counts", {}))

    @property
    def dropped(self) -> Mapping[tuple[str, str], int]:
        """What the dataset left out of the splits read so far."""
        return getattr(self._source, "dropped", {})

    def splits(self) -> Sequence[str]:
        """Those that were chosen."""
        return [
            s for s in self._source.splits() if not self._splits or s in self._splits
        ]

    def keys(self, split: str) -> Sequence[Key]:
        """The first keys of the split."""
        keys = self._source.keys(split)
        return keys[: self._limit] if self._limit else keys

    def config(self) -> dict[str, Any]:
        """The dataset's own, and what was chosen."""
        config = dict(self._source.config())
        if self._splits:
            config["splits"] = sorted(self._splits)
        if self._limit:
            config["limit"] = self._limit
        return config

    @property
    def inputs(self) -> Inputs:  # type: ignore[override]
        """Those of the dataset."""
        return self._source.inputs

    def examples(self, split: str, keys: Sequence[Key]) -> Iterable[schema.Record]:
        """As the dataset gives them."""
        return self._source.examples(split, keys)

    def labels_of(self, split: str, keys: Sequence[Key]) -> Any:
        """As the dataset gives them."""
        return self._source.labels_of(split, keys)

    def take_labels(self, split: str, labels: Any) -> None:
        """Hand them on to the dataset."""
        self._source.take_labels(split, labels)


def open_named(
    name: str,
    raw: str,
    options: Mapping[str, Any] | None = None,
    splits: Sequence[str] = (),
    limit: int = 0,
) -> RecordSource:
    """Open a dataset; called in each worker process.

    Args:
        name: of the dataset, today's or an old one.
        raw: folder with the owners' files.
        options: the ``layout``, and further arguments of its class.
        splits: to keep; all by default.
        limit: at most so many records of each split; 0 for all.
    """
    choice = layouts.choose(name, options)
    given = layouts.DATASETS[choice.dataset][choice.layout].given
    source = load(choice)(raw, **given, **choice.options)
    return Selected(source, splits, limit) if splits or limit else source


def options_of(choice: layouts.Choice) -> dict[str, inspect.Parameter]:
    """The options of a dataset beside its layout.

    Returns:
        Name -> parameter of the constructor, without the raw folder and what the layout
        settles.
    """
    parameters = inspect.signature(load(choice)).parameters
    plain = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    given = layouts.DATASETS[choice.dataset][choice.layout].given
    return {
        key: parameter
        for key, parameter in parameters.items()
        if key not in ("raw", *given) and parameter.kind not in plain
    }


def option_text(parameter: inspect.Parameter) -> str:
    """An option and its default, as in ``data list``."""
    if parameter.default is inspect.Parameter.empty:
        return f"{parameter.name} (must be given)"
    return f"{parameter.name}={parameter.default!r}"


def parse_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Options typed as ``key=value``.

    Args:
        name: of the dataset, today's or an old one.
        words: of the command line; values are Python literals or plain text.

    Returns:
        Options of ``open_named``.

    Raises:
        UserError: no such option, a value of another kind, or a missing option.
    """
    typed = dict(word.split("=", 1) for word in words if "=" in word)
    choice = layouts.choose(name, typed)
    known = options_of(choice)
    listed = ", ".join(map(option_text, known.values())) or "no options"
    found: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if key in typed and key not in choice.options:
            found[key] = text  # it chose the layout
            continue
        if key not in known or not equals:
            raise UserError(f"{name}: --option={word}: expected key=value of {listed}")
        found[key] = _value(name, known[key], text)
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in found:
            raise UserError(f"{name}: expected --option={key}=VALUE; it has {listed}")
    return found


def _value(name: str, parameter: inspect.Parameter, text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    default = parameter.default
    if isinstance(default, str) or parameter.annotation is str:
        return text
    try:
        value = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    kind = type(default)
    if isinstance(default, tuple) and isinstance(value, str):
        return tuple(text.split(","))
    if isinstance(default, tuple) and not isinstance(value, tuple | list):
        return (value,)
    if kind is float and type(value) is int:
        return float(value)
    if kind in (bool, int, float) and type(value) is not kind:
        raise UserError(
            f"{name}: option {parameter.name}: expected {kind.__name__}, found {text!r}"
        )
    return tuple(value) if isinstance(value, list) else value
