"""What an evaluation found: numbers, result files and tables."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hmr_jax.errors import UserError
from hmr_jax.metrics.accumulate import Mean

Groups = dict[str, dict[str, dict[str, Mean]]]


@dataclasses.dataclass
class Report:
    """What an evaluation found.

    Attributes:
        means: protocol name to metric name to mean (millimetres or percent); one under
            which no sample was labelled is NaN.
        groups: protocol name to label name (``action``, say) to label value to metric
            name to mean.
        per_sample: protocol name to the headline metric of each sample, in order; NaN
            where the sample was not counted.
        num_samples: samples that were looked at, labelled for a protocol or not.
    """

    means: dict[str, dict[str, Mean]]
    groups: dict[str, Groups]
    per_sample: dict[str, np.ndarray]
    num_samples: int

    def values(self) -> dict[str, dict[str, float]]:
        """Protocol name to metric name to number."""
        return {name: _computed(metrics) for name, metrics in self.means.items()}

    def flat(self) -> dict[str, float]:
        """The overall numbers as ``protocol/metric``."""
        return {
            f"{protocol}/{metric}": metrics[metric].compute()
            for protocol, metrics in self.means.items()
            for metric in _listed(metrics)
        }

    def num_counted(self) -> dict[str, int]:
        """Protocol name to the number of samples its headline metric counted."""
        return {k: int(np.isfinite(v).sum()) for k, v in self.per_sample.items()}

    def to_json(self) -> dict[str, Any]:
        """Everything as plain containers, for a result file; None for NaN."""
        groups, group_means = {}, {}
        for protocol, by_label in self.groups.items():
            groups[protocol] = {
                label: {value: _computed(means) for value, means in found.items()}
                for label, found in by_label.items()
            }
            group_means[protocol] = {
                label: group_mean(found) for label, found in by_label.items()
            }
        found = {
            "num_samples": self.num_samples,
            "num_counted": self.num_counted(),
            "protocols": self.values(),
            "groups": groups,
            "group_means": group_means,
            "per_sample": {k: v.tolist() for k, v in self.per_sample.items()},
        }
        return _without_nan(found)


def _computed(metrics: Mapping[str, Mean]) -> dict[str, float]:
    return {name: mean.compute() for name, mean in metrics.items()}


def _without_nan(value: Any) -> Any:
    """JSON values: its standard has no NaN."""
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def group_mean(groups: Mapping[str, Mapping[str, Mean]]) -> dict[str, float]:
    """Metric name to the mean of its group means, each group counting once.

    Args:
        groups: label value to metric name to mean.

    Returns:
        The means; a group in which nothing was counted is left out, NaN if all are.
    """
    found: dict[str, list[float]] = {}
    for metrics in groups.values():
        for name, mean in metrics.items():
            counted = found.setdefault(name, [])
            if mean.weight > 0:
                counted.append(mean.compute())
    return {k: float(np.mean(v)) if v else float("nan") for k, v in found.items()}


def mean_over_groups(report: Report, protocol: str, label: str, metric: str) -> float:
    """Mean of a metric's group means, each group counting once.

    Args:
        report: of ``evaluate``.
        protocol: its name.
        label: what the groups are of, such as ``action``.
        metric: its name.

    Returns:
        Millimetres or percent.

    Raises:
        UserError: no sample had that label.
    """
    groups = report.groups[protocol].get(label)
    if not groups:
        raise UserError(f"protocol {protocol}: no groups of {label!r} were labelled")
    return group_mean(groups)[metric]


def format_table(rows: Mapping[str, Report]) -> str:
    """A table of named reports: one line each, a column per protocol and metric.

    Args:
        rows: row name to report; the first row's protocols make the columns.

    Returns:
        Text with aligned columns; millimetres, percent for PCK and AUC, "-" where no
        sample was labelled. The tables of the groups follow, where there are any.
    """
    first = next(iter(rows.values()))
    columns = [(p, m) for p, means in first.means.items() for m in _listed(means)]
    head = ["", *(f"{protocol} {metric}" for protocol, metric in columns), "samples"]
    body = []
    for name, report in rows.items():
        values = report.values()
        cells = [_number(values[p].get(m, float("nan"))) for p, m in columns]
        body.append([name, *cells, str(report.num_samples)])
    return "\n\n".join([_aligned(head, body), *_group_tables(rows)])


def _group_tables(rows: Mapping[str, Report]) -> Iterator[str]:
    """Tables of the groups' means: one per report, protocol and kind of label."""
    for name, report in rows.items():
        for protocol, by_label in report.groups.items():
            for label, groups in by_label.items():
                if groups:
                    yield _group_table(f"{name}: {protocol} by {label}", groups)


def _group_table(title: str, groups: Mapping[str, Mapping[str, Mean]]) -> str:
    columns = _listed(next(iter(groups.values())))
    body = [
        [value, *(_number(groups[value][m].compute()) for m in columns)]
        for value in sorted(groups)
    ]
    means = group_mean(groups)
    body.append(["mean of groups", *(_number(means[m]) for m in columns)])
    return _aligned([title, *columns], body)


def _listed(metrics: Mapping[str, object]) -> list[str]:
    """The metrics that tables show: no axes, no parts of the body."""
    return [name for name in metrics if name not in "xyz" and "/" not in name]


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1f}"


def _aligned(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Lines with aligned columns, the first to the left, a rule under the head."""
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *body]
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
