"""Evaluation of predictors on one pass over held-out records."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from hmr_jax import progress
from hmr_jax.evaluation.evaluator import batch_targets, evaluate
from hmr_jax.evaluation.labels import labels_of_record
from hmr_jax.evaluation.protocols import get_protocol
from hmr_jax.evaluation.report import Report
from hmr_jax.systems.system import Batch, Variables
from hmr_jax.training import parallel


class HeldOut:
    """Scores variables, or any predictor, on a stream of held-out batches.

    Args:
        predict: ``predict(variables, batch, assets)``, see ``Task``.
        assets: what it takes, usually the body.
        stream: one pass over the records, resumable, with ``num_records``,
            ``sample_ids`` and batches that have ``sample_index`` and ``valid``.
        protocols: names.
        labels: what a batch's samples are labelled with, see ``RecordLabels``.
        targets: the truth of a batch, see ``evaluator.batch_targets``.
        batch_size: of the stream.
        limit: number of samples; 0 takes all.
        progress: show a bar.

    Raises:
        UserError: an unknown protocol.
    """

    def __init__(
        self,
        predict: Callable[..., Any],
        assets: Any,
        stream: Any,
        protocols: tuple[str, ...],
        *,
        labels: Callable[[Batch], Mapping[str, list[str]]] | None = None,
        targets: Callable[[Batch], Mapping[str, Any]] = batch_targets,
        batch_size: int,
        limit: int = 0,
        progress: bool = False,
    ):
        for name in protocols:
            get_protocol(name)
        self._protocols, self._labels, self._progress = protocols, labels, progress
        self._targets = targets
        self._predict = parallel.map_predict(predict)
        self._assets = parallel.place(assets)
        self._batches, self._start = stream, stream.state()
        self._size, self._limit = batch_size, limit

    def batches(self) -> Iterator[Batch]:
        """One pass over the evaluation samples, from the start."""
        self._batches.restore(self._start)
        total, limit = self._batches.num_records, self._limit
        yield from progress.bar(
            limited(self._batches, limit),
            total=-(-(min(limit, total) if limit else total) // self._size),
            desc="eval",
            unit="batch",
            disable=not self._progress,
            leave=False,
        )

    def names(self, places: Any) -> list[str]:
        """Names of the records at some places of the split."""
        return list(self._batches.sample_ids(places))

    def __call__(self, variables: Variables) -> Report:
        """Score a model's variables."""
        placed = parallel.place(variables)
        return self.score(lambda batch: self._predict(placed, batch, self._assets))

    def predict(self, variables: Variables, batch: Batch) -> dict[str, np.ndarray]:
        """Predictions of a model for one batch."""
        return self._predict(variables, batch, self._assets)

    def predictions(
        self, variables: Variables
    ) -> Iterator[tuple[list[str], dict[str, np.ndarray]]]:
        """Names of records and a model's predictions of them, batch by batch."""
        placed = parallel.place(variables)
        for batch in self.batches():
            kept = np.flatnonzero(np.asarray(batch["valid"]) > 0)
            found = self._predict(placed, batch, self._assets)
            names = self._batches.sample_ids(np.asarray(batch["sample_index"])[kept])
            yield (
                list(names),
                {
                    name: np.asarray(array)[kept]
                    for name, array in found.items()
                    if not name.startswith("target_")
                },
            )

    def score(self, predict: Callable[[Batch], Mapping[str, Any]]) -> Report:
        """Score any predictor of batches."""
        return evaluate(
            predict,
            self.batches(),
            self._protocols,
            target_fn=self._targets,
            labels_fn=self._labels,
            names_fn=lambda batch: self.names(batch["sample_index"]),
        )


class RecordLabels:
    """What the names of a batch's records say, by which protocols report groups.

    Records are read a second time for it, once each for any number of evaluations.

    Args:
        read: ``read(places)``, the records at these places of the split.
    """

    def __init__(self, read: Callable[[list[int]], Iterator[Mapping[str, Any]]]):
        self._records_at = read
        self._found: dict[int, dict[str, str]] = {}

    def __call__(self, batch: Batch) -> dict[str, list[str]]:
        """Label name to the label of each sample, empty where it is not known."""
        places = np.asarray(batch["sample_index"]).tolist()
        new = sorted(set(places) - set(self._found))
        for place, record in zip(new, self._records_at(new), strict=True):
            self._found[place] = labels_of_record(record)
        found = [self._found[place] for place in places]
        names = sorted(set().union(*found))
        return {name: [labels.get(name, "") for labels in found] for name in names}


def limited(batches: Any, limit: int) -> Iterator[Batch]:
    """The first samples of an iterator of batches.

    Args:
        batches: with ``valid`` [B].
        limit: number of samples; 0 takes all.

    Yields:
        Batches; samples past the limit are marked as not valid.
    """
    left = limit if limit > 0 else math.inf
    for batch in batches:
        if left <= 0:
            return
        valid = np.asarray(batch["valid"])
        kept = valid * (np.cumsum(valid) <= left)
        left -= valid.sum()
        yield {**batch, "valid": kept.astype(valid.dtype)}
