"""What an evaluation has found, kept as soon as it is found."""

from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from hmr_jax.errors import UserError
from hmr_jax.remote import Location
from hmr_jax.training import records


class Results:
    """Rows of a table: in ``eval.json`` at once, and printed at the end.

    As a context manager it prints the table however the block ends, so that baselines
    and pictures that fail lose nothing.

    Args:
        config: the experiment; None where there is none.
        origin: of the scored model.
        out: folder of ``eval.json``.
        table: rows by name to text.
        facts: more values for the file.
    """

    def __init__(
        self,
        config: Any,
        origin: str,
        out: Location,
        table: Callable[[Mapping[str, Any]], str],
        **facts: Any,
    ):
        self._path, self._table = out / "eval.json", table
        self._rows: dict[str, Any] = {}
        self._facts = {
            "checkpoint": origin,
            "config": None if config is None else config.to_dict(),
            "versions": records.package_versions(),
            **facts,
        }

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *unused) -> None:
        if self._rows:
            print(self._table(self._rows))

    def add(self, name: str, scores: Any) -> None:
        """Keep the scores of one predictor.

        Args:
            name: its row.
            scores: what ``table`` takes, with ``to_json``.
        """
        self._rows[name] = scores
        rows = {name: found.to_json() for name, found in self._rows.items()}
        records.write_json(self._path, {**self._facts, "rows": rows})

    def add_baseline(self, name: str, score: Callable[[], Any]) -> None:
        """Keep the scores of a baseline; leave it out where its data are not at hand.

        Args:
            name: its row.
            score: gives the scores.
        """
        try:
            scores = score()
        except (UserError, OSError) as error:
            logging.warning("%s is left out: %s", name, error)
        else:
            self.add(name, scores)
