"""Trees of joints as tuples of parents: what is valid, and how deep each joint lies."""

from collections.abc import Sequence


def check_parents(
    parents: Sequence[int], where: str = "parents", *, one_root: bool = True
) -> None:
    """Raise unless parents come before their children.

    Args:
        parents: parent of each joint, -1 for a root.
        where: names them in the message.
        one_root: the first joint must be a root, and no other.

    Raises:
        ValueError: naming the first joint out of order.
    """
    if one_root and tuple(parents[:1]) != (-1,):
        raise ValueError(f"{where}: expected the root (-1) first, got {parents}")
    for joint, parent in enumerate(parents):
        lowest = 0 if one_root and joint else -1
        if not lowest <= parent < joint:
            raise ValueError(
                f"{where}: expected joint {joint}'s parent in {lowest}..{joint - 1}, "
                f"got {parent}"
            )


def tree_depths(parents: Sequence[int]) -> tuple[int, ...]:
    """How many ancestors each joint has.

    Args:
        parents: parent of each joint, -1 for a root; parents come before children.

    Raises:
        ValueError: a joint comes before its parent.
    """
    check_parents(parents, one_root=False)
    depths: list[int] = []
    for parent in parents:
        depths.append(0 if parent < 0 else depths[parent] + 1)
    return tuple(depths)


def tree_levels(parents: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Joints grouped by their depth, roots first.

    Args:
        parents: as of ``tree_depths``.

    Raises:
        ValueError: a joint comes before its parent.
    """
    depths = tree_depths(parents)
    return tuple(
        tuple(joint for joint, d in enumerate(depths) if d == level)
        for level in range(max(depths, default=-1) + 1)
    )
