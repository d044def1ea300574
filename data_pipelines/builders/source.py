"""What a dataset must provide to become records; needs neither TensorFlow nor TFDS."""

import abc
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from data_pipelines import schema
from data_pipelines.schema import RecordError

Key = str | int


class RecordSource(abc.ABC):
    """One published or made dataset, read example by example.

    A subclass gives the class attributes and ``keys`` with either ``example`` or, where
    many at once are quicker, ``examples``. The source is opened anew in every worker
    process through a factory, so it may hold open files and models.

    Attributes:
        name: directory name of the dataset, snake case.
        spec: joint set and sizes of its records.
        description: one sentence.
        citation: paper and licence of the data.
        traits: per-dataset facts for the transforms (``data_pipelines.reading``).
    """

    name: str
    spec: schema.RecordSpec = schema.RecordSpec()
    description: str = ""
    citation: str = ""
    traits: dict[str, Any] = {}

    @abc.abstractmethod
    def splits(self) -> Sequence[str]:
        """Names of the splits, in the order in which they are written."""

    @abc.abstractmethod
    def keys(self, split: str) -> Sequence[Key]:
        """Names of a split's examples, unique, in the order of the records on disk."""

    def config(self) -> dict[str, Any]:
        """What the records depend on, as JSON; another content is another dataset."""
        return {}

    def example(self, split: str, key: Key) -> schema.Record:
        """One record; fields of ``data_pipelines.schema``."""
        raise NotImplementedError(f"{type(self).__name__} defines no example")

    def examples(self, split: str, keys: Sequence[Key]) -> Iterable[schema.Record]:
        """Records of several keys in their order."""
        return (self.example(split, key) for key in keys)


Factory = Callable[[], RecordSource]


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
    for key, record in itertools.zip_longest(keys, source.examples(split, keys)):
        where = f"{source.name}: split {split}: key {key!r}"
        if key is None or record is None:
            raise RecordError(
                f"{source.name}: split {split}: expected {len(keys)} records for as "
                f"many keys, found {'more' if key is None else 'fewer'}"
            )
        yield schema.validate(record, source.spec, where)
