"""Labels of samples, by which protocols report groups, from the names of records."""

import re
from collections.abc import Mapping
from typing import Any

# Human3.6M's actions in the order of its numbers, which start at 2.
H36M_ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing"),
    *("Purchases", "Sitting", "SittingDown", "Smoking", "Photo", "Waiting"),
    *("Walking", "WalkDog", "WalkTogether"),
)
_FIRST_ACTION = 2
_ACTION = re.compile(r"(?:^|[/_])act_(\d{2})_")
_TEST_SEQUENCE = re.compile(r"(?:^|/)(TS\d+)(?:[/_]|$)")


def sample_labels(
    sample_id: str, sequence_id: str, activity_id: int = 0
) -> dict[str, str]:
    """What the names of a record say about it.

    Args:
        sample_id: name of the record.
        sequence_id: video or capture that it belongs to; empty where unknown.
        activity_id: of MPI-INF-3DHP's test set, 1 to 7; 0 where unknown.

    Returns:
        Those that are known of ``action`` (Human3.6M's, from ``act_02`` on),
        ``sequence`` (``TS1`` and so on of MPI-INF-3DHP's test set, elsewhere the
        sequence as it is) and ``activity`` (its number).

    Source: specs/ikol.md, sections 17.3 and 17.4.
    """
    labels: dict[str, str] = {}
    for name in (sequence_id, sample_id):
        action = _ACTION.search(f"{name}_")
        if action and 0 <= int(action[1]) - _FIRST_ACTION < len(H36M_ACTIONS):
            labels.setdefault("action", H36M_ACTIONS[int(action[1]) - _FIRST_ACTION])
        sequence = _TEST_SEQUENCE.search(name)
        if sequence:
            labels.setdefault("sequence", sequence[1])
    if sequence_id:
        labels.setdefault("sequence", sequence_id)
    if activity_id > 0:
        labels["activity"] = str(activity_id)
    return labels


def labels_of_record(record: Mapping[str, Any]) -> dict[str, str]:
    """``sample_labels`` of a decoded record."""
    activity = int(record.get("activity_id", 0))
    return sample_labels(record["sample_id"], record["sequence_id"], activity)
