"""What is known of every metric by its name: its unit, and which way it is better."""

import re
from typing import NamedTuple

from hmr_jax.errors import UserError


class Kind(NamedTuple):
    """A kind of metric.

    Attributes:
        pattern: of its names.
        unit: of printed numbers.
        higher_is_better: else lower is.
    """

    pattern: str
    unit: str
    higher_is_better: bool


KINDS = (
    Kind(r"(PA-)?MPJPE.*|PVE.*|[xyz]", "mm", False),
    Kind(r"joints2D.*", "px", False),
    Kind(r"PCK|AUC|.*IOU", "%", True),
)


def kind_of(metric: str) -> Kind:
    """The kind of a metric, for example of ``PA-MPJPE`` or ``PCK/Head``.

    Raises:
        UserError: no metric has such a name.
    """
    name = metric.split("/")[0]
    for kind in KINDS:
        if re.fullmatch(kind.pattern, name):
            return kind
    raise UserError(f"metric {metric!r}: expected one like MPJPE, PVE, PCK, AUC or IOU")


def higher_is_better(metric: str) -> bool:
    """Which way a metric is better.

    Raises:
        UserError: no metric has such a name.
    """
    return kind_of(metric).higher_is_better
