"""What a dataset must provide to become records; needs neither TensorFlow nor TFDS."""

import abc
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from data_pipelines import schema
from data_pipelines.builders.inputs import Inputs
from data_pipelines.schema import RecordError
from hmr_jax.errors import UserError

Key = str | int
MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What a source raises on an entry that is not as published, beside RecordError."""


class RecordSource(abc.ABC):
    """One published or made dataset, read example by example.

    A subclass gives the class attributes and ``keys`` with either ``example`` or, where
    many at once are quicker, ``examples``. The source is opened anew in every worker
    process through a factory, so it may hold open files and models.

    What its records depend on is noted here for every dataset: the arguments that it
    was made with (``config``) and the files that it asked for (``inputs``).

    Attributes:
        name: directory name of the dataset, snake case.
        spec: joint set and sizes of its records.
        description: one sentence.
        citation: paper and licence of the data.
        traits: per-dataset facts for the transforms (``data_pipelines.reading``).
        file_options: arguments that name a file or folder: what lies there counts, and
            not its name.
        arguments: those that it was made with, defaults included.
    """

    name: str
    spec: schema.RecordSpec = schema.RecordSpec()
    description: str = ""
    citation: str = ""
    traits: dict[str, Any] = {}
    file_options: Sequence[str] = ()
    arguments: dict[str, Any] = {}

    def __new__(cls, *args: Any, **kwargs: Any) -> "RecordSource":
        """Note the arguments, so that no dataset can forget one in its ``config``."""
        self = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        bound = signature.bind_partial(self, *args, **kwargs)
        bound.apply_defaults()
        self.arguments = {}
        for name in list(signature.parameters)[1:]:  # without self
            kind = signature.parameters[name].kind
            if kind == inspect.Parameter.VAR_KEYWORD:
                self.arguments |= bound.arguments.get(name, {})
            elif kind != inspect.Parameter.VAR_POSITIONAL and name in bound.arguments:
                self.arguments[name] = bound.arguments[name]
        return self

    @abc.abstractmethod
    def splits(self) -> Sequence[str]:
        """Names of the splits, in the order in which they are written."""

    @abc.abstractmethod
    def keys(self, split: str) -> Sequence[Key]:
        """Names of a split's examples, unique, in the order of the records on disk."""

    def config(self) -> dict[str, Any]:
        """The options, as JSON; others make another dataset.

        Of a file option there is whether it is given.
        """
        return {
            name: bool(value) if name in self.file_options else value
            for name, value in self.arguments.items()
            if name != "raw"
        }

    @functools.cached_property
    def inputs(self) -> Inputs:
        """Notes of what was asked of the files; see ``data_pipelines.builders.inputs``.

        Names of files begin in ``raw`` where the dataset has such an argument.
        """
        roots = {"": self.arguments.get("raw") or ""}
        roots |= {name: self.arguments.get(name) or "" for name in self.file_options}
        return Inputs(roots)

    def example(self, split: str, key: Key) -> schema.Record:
        """One record; fields of ``data_pipelines.schema``."""
        raise NotImplementedError(f"{type(self).__name__} defines no example")

    def examples(self, split: str, keys: Sequence[Key]) -> Iterable[schema.Record]:
        """Records of several keys in their order."""
        return (self.example(split, key) for key in keys)

    def labels_of(self, split: str, keys: Sequence[Key]) -> Any:
        """What was read of some examples already, for ``take_labels``; picklable.

        None where another process has to read it for itself.
        """
        return None

    def take_labels(self, split: str, labels: Any) -> None:
        """Use what ``labels_of`` gave in another process instead of reading it."""
        raise NotImplementedError(f"{type(self).__name__} takes no labels")


Factory = Callable[[], RecordSource]


def checked_keys(source: RecordSource, split: str) -> Sequence[Key]:
    """Names of a split's examples.

    Args:
        source: the dataset.
        split: name of the split.

    Raises:
        RecordError: naming dataset, split and file where these are not as published.
    """
    try:
        return source.keys(split)
    except UserError:
        raise
    except MALFORMED as error:
        where = f"{source.name}: split {split}: {source.inputs.last_label}"
        raise RecordError(
            f"{where}: expected labels as published, found others "
            f"({type(error).__name__}: {error})"
        ) from error


def checked_examples(
    source: RecordSource, split: str, keys: Sequence[Key]
) -> Iterator[schema.Record]:
    """Validated records of a source.

    Args:
        source: the dataset.
        split: name of the split.
        keys: of the examples.

    Yields:
        Complete records in the order of the keys.

    Raises:
        RecordError: naming dataset, split, key and field, or the number of records.
    """
    for found in examples_or_errors(source, split, keys):
        if isinstance(found, RecordError):
            raise found
        yield found


def examples_or_errors(
    source: RecordSource, split: str, keys: Sequence[Key]
) -> Iterator[schema.Record | RecordError]:
    """Validated records of a source, or the error of each that is bad.

    Args:
        source: the dataset.
        split: name of the split.
        keys: of the examples.

    Yields:
        In the order of the keys a complete record, or a ``RecordError`` that names
        dataset, split, key and what is wrong; errors of ``MALFORMED`` become one.

    Raises:
        RecordError: the source gives fewer or more records than there are keys.
    """
    done = 0
    while done < len(keys):
        examples = iter(source.examples(split, keys[done:]))
        try:
            for record in examples:
                if done == len(keys):
                    raise _WrongNumberError(_number(source, split, keys, "more"))
                yield _validated(source, split, keys[done], record)
                done += 1
        except _WrongNumberError:
            raise
        except MALFORMED as error:
            # A source that works ahead may have stumbled over a later key.
            yield _alone(source, split, keys[done], error)
            done += 1
            continue
        if done < len(keys):
            raise RecordError(_number(source, split, keys, "fewer"))


class _WrongNumberError(RecordError):
    """A source that breaks the rule of one record per key; no record is to blame."""


def _number(source: RecordSource, split: str, keys: Sequence[Key], found: str) -> str:
    return (
        f"{source.name}: split {split}: expected {len(keys)} records for as "
        f"many keys, found {found}"
    )


def _where(source: RecordSource, split: str, key: Key) -> str:
    return f"{source.name}: split {split}: key {key!r}"


def _validated(
    source: RecordSource, split: str, key: Key, record: schema.Record
) -> schema.Record | RecordError:
    where = _where(source, split, key)
    try:
        return schema.validate(record, source.spec, where)
    except RecordError as error:
        error.args = (f"{error}{_labels(source, str(error))}",)
        return error
    except MALFORMED as error:
        return _named(source, split, key, error)


def _alone(
    source: RecordSource, split: str, key: Key, error: Exception
) -> schema.Record | RecordError:
    try:
        found = list(source.examples(split, [key]))
    except MALFORMED as again:
        error = again
    else:
        if len(found) == 1:
            return _validated(source, split, key, found[0])
        # Not one record for the key: the first error says more.
    return _named(source, split, key, error)


def _named(source: RecordSource, split: str, key: Key, error: Exception) -> RecordError:
    """The error with its record; of the same type if it is a ``RecordError``."""
    where = _where(source, split, key)
    if isinstance(error, RecordError):
        error.args = (f"{where}: {error}{_labels(source, str(error))}",)
        return error
    said = " ".join(str(error).split())
    named = RecordError(
        f"{where}: {type(error).__name__}: {said}{_labels(source, said)}"
    )
    named.__cause__ = error
    return named


def _labels(source: RecordSource, message: str) -> str:
    """The file of labels that was read last, where an error names no file."""
    last = source.inputs.last_label
    named = not last or str(source.arguments.get("raw")) in message
    return "" if named else f" (labels read last: {last})"
