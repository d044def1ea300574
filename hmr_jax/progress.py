"""The progress bar of long work: moving on a terminal, a line now and then in a log."""

import sys
from typing import Any

import tqdm


def bar(iterable: Any = None, **options: Any) -> tqdm.tqdm:
    """A ``tqdm`` bar with the rate and the time left.

    Args:
        iterable: what to go through, if anything.
        options: of ``tqdm.tqdm``: ``total``, ``desc``, ``unit``, ``disable``, ...
    """
    interval = 0.5 if sys.stderr.isatty() else 10.0
    return tqdm.tqdm(iterable, dynamic_ncols=True, mininterval=interval, **options)
