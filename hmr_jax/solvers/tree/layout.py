"""Where each joint of a kinematic tree sits in the arrays of the tree solvers.

A sweep visits the joints in ``num_steps`` steps of ``WIDTH`` slots each, children
before parents, and no two slots of one step share a parent. One program for one step
thus serves the whole tree under ``lax.scan``, which keeps compile time low: the
24-joint body takes 10 steps of 3. Slots left over are dummies, with zero bones and
weights.
Arrays of the solvers are ``[slots, components..., batch]``, the batch as minor axis.
"""

import dataclasses
import functools

import numpy as np

from hmr_jax.body.tree import check_parents, tree_depths

WIDTH = 3
"""Slots per step: the body packs 23 bones into 9 steps; wider gives hardly fewer."""


@dataclasses.dataclass(frozen=True, eq=False)
class TreeLayout:
    """Index tables of one tree; all are numpy constants.

    Attributes:
        parents: parent of each joint, -1 at the root.
        num_steps: steps of a sweep; the root is alone in the last one.
        node_of_slot: joint in each slot, 0 in dummies.
        is_node: whether a slot holds a joint.
        slot_of_node: slot of each joint.
        parent_slot: slot of each slot's parent; ``num_slots`` for root and dummies.
        child_slot: the only child of a slot with one child, else 0.
        single_node, multi_node, leaf_node: slots by number of children.
        single_edge, multi_edge: slots by number of their parent's children.
        multi_slots: slots with several children.
        anchor: per slot, position in ``multi_slots`` of the nearest ancestor with
            several children, or ``len(multi_slots)`` where there is none.
        multi_edges: slots whose parent has several children.
        multi_sum: ``[multi, multi_edges]`` 0/1 matrix, sums edges over their parent.
        ancestors: ``[slots, slots]`` 0/1 matrix, positions from bones.
        children: ``[slots, slots]`` 0/1 matrix, sums edges over their parent.
        nearest_descendant: ``[slots, slots]`` weights falling steeply with distance.
    """

    parents: tuple[int, ...]
    num_steps: int
    node_of_slot: np.ndarray
    is_node: np.ndarray
    slot_of_node: np.ndarray
    parent_slot: np.ndarray
    child_slot: np.ndarray
    single_node: np.ndarray
    multi_node: np.ndarray
    leaf_node: np.ndarray
    single_edge: np.ndarray
    multi_edge: np.ndarray
    multi_slots: np.ndarray
    anchor: np.ndarray
    multi_edges: np.ndarray
    multi_sum: np.ndarray
    ancestors: np.ndarray
    children: np.ndarray
    nearest_descendant: np.ndarray

    @property
    def num_slots(self) -> int:
        """Slots in all, dummies included."""
        return self.num_steps * WIDTH

    @property
    def is_bone(self) -> np.ndarray:
        """Slots of joints with a parent."""
        return self.parent_slot < self.num_slots

    @property
    def num_multi(self) -> int:
        """Joints with several children."""
        return len(self.multi_slots)


def _schedule(parents: tuple[int, ...]) -> list[list[int]]:
    """Rows of at most WIDTH joints, children first, parents distinct within a row."""
    children = [
        [c for c, p in enumerate(parents) if p == j] for j in range(len(parents))
    ]
    depth = tree_depths(parents)
    rows: list[list[int]] = []
    done: set[int] = set()
    todo = set(range(1, len(parents)))
    while todo:
        row: list[int] = []
        for joint in sorted(todo, key=lambda j: (-depth[j], j)):
            free = all(parents[joint] != parents[other] for other in row)
            if len(row) < WIDTH and free and done.issuperset(children[joint]):
                row.append(joint)
        rows.append(row)
        done.update(row)
        todo.difference_update(row)
    return [*rows, [0]]


def _relations(parent_slot: np.ndarray, root: int) -> tuple[np.ndarray, np.ndarray]:
    """Ancestor matrix without the root's column, and distances up the tree."""
    count = len(parent_slot)
    ancestors = np.zeros((count, count))
    distance = np.full((count, count), np.inf)
    for slot in range(count):
        at, steps = slot, 0
        while at < count:
            distance[at, slot] = steps
            if at != root:
                ancestors[slot, at] = 1.0
            at, steps = int(parent_slot[at]), steps + 1
    return ancestors, distance


@functools.lru_cache(maxsize=64)
def tree_layout(parents: tuple[int, ...]) -> TreeLayout:
    """The tables of one tree.

    Args:
        parents: parent of each joint, -1 at the root; parents come before children.

    Returns:
        The layout; the same object for the same tree.

    Raises:
        ValueError: if a parent does not come before its child.
    """
    check_parents(parents)
    rows = _schedule(parents)
    count = len(rows) * WIDTH
    node = np.full(count, -1)
    for step, row in enumerate(rows):
        node[step * WIDTH : step * WIDTH + len(row)] = row
    is_node = node >= 0
    slot_of_node = np.zeros(len(parents), int)
    slot_of_node[node[is_node]] = np.flatnonzero(is_node)
    root = int(slot_of_node[0])
    parent_slot = np.full(count, count)
    for joint in range(1, len(parents)):
        parent_slot[slot_of_node[joint]] = slot_of_node[parents[joint]]
    num_children = np.bincount(parent_slot, minlength=count + 1)
    num_children[count] = 0
    edge = parent_slot < count
    child_slot = np.zeros(count, int)
    child_slot[parent_slot[edge]] = np.flatnonzero(edge)
    single_node = is_node & (num_children[:count] == 1)
    multi_node = is_node & (num_children[:count] > 1)
    multi_slots = np.flatnonzero(multi_node)
    anchor = np.full(count + 1, len(multi_slots))
    for slot in reversed(range(count)):  # parents have the higher slots
        parent = parent_slot[slot]
        here = parent < count and multi_node[parent]
        at = np.searchsorted(multi_slots, parent)
        anchor[slot] = at if here else anchor[parent]
    multi_edges = np.flatnonzero(edge & (num_children[parent_slot] > 1))
    ancestors, distance = _relations(parent_slot, root)
    return TreeLayout(
        parents=parents,
        num_steps=len(rows),
        node_of_slot=np.maximum(node, 0),
        is_node=is_node,
        slot_of_node=slot_of_node,
        parent_slot=parent_slot,
        child_slot=np.where(single_node, child_slot, 0),
        single_node=single_node,
        multi_node=multi_node,
        leaf_node=is_node & (num_children[:count] == 0),
        single_edge=edge & (num_children[parent_slot] == 1),
        multi_edge=edge & (num_children[parent_slot] > 1),
        multi_slots=multi_slots,
        anchor=anchor[:count],
        multi_edges=multi_edges,
        multi_sum=(parent_slot[multi_edges] == multi_slots[:, None]).astype(float),
        ancestors=ancestors,
        children=(parent_slot[None] == np.arange(count)[:, None]).astype(float),
        nearest_descendant=np.where(np.isfinite(distance), 1e-3**distance, 0.0),
    )
