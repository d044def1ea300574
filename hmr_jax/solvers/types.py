"""Results shared by every solver, and the tables of the inverse-kinematics tree."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, Int

from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.body.tree import check_parents

LEAF_JOINTS = (10, 11, 15, 22, 23)
"""Joints of the 24-joint body without children, in the order of leaf rotations."""

DESIGNATED_CHILD = (
    *(3, 4, 5, 6, 7, 8, 9, 10, 11, 12, -1, -1),
    *(15, 16, 17, -1, 18, 19, 20, 21, 22, 23, -1, -1),
)
"""Per joint of the 24-joint body, the child its bone aims at; -1 at the leaves."""


class SolveInfo(NamedTuple):
    """How a solve went; every field has the batch axes of the solution.

    Attributes:
        iterations: steps taken.
        cost: half the weighted sum of squared residuals at the returned solution.
        gradient_norm: largest absolute entry of the cost's gradient there.
        converged: whether the tolerance was met (False where none was asked for), and
            for the tree solvers also whether the gradient can be trusted.
        failed: whether the problem was not finite at the start, or no step from a
            point away from the optimum could lower the cost.
    """

    iterations: Int[Array, "*batch"]
    cost: Float[Array, "*batch"]
    gradient_norm: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    failed: Bool[Array, "*batch"]


class IkResult(NamedTuple):
    """A pose found by inverse kinematics.

    Attributes:
        local_rotmats: rotation of each joint relative to its parent.
        global_rotmats: rotation of each joint relative to the target's frame.
        joints_m: joints of the posed skeleton, metres, with joint 0 at the origin.
        info: how the solve went.
    """

    local_rotmats: Float[Array, "*batch joints 3 3"]
    global_rotmats: Float[Array, "*batch joints 3 3"]
    joints_m: Float[Array, "*batch joints 3"]
    info: SolveInfo


def designated_children(parents: tuple[int, ...]) -> tuple[int, ...]:
    """The one child each joint's bone aims at, for any tree.

    Args:
        parents: parent of each joint, -1 at the root; parents come before children.

    Returns:
        Per joint its designated child, -1 for a leaf. A joint with several children
        takes the last-numbered child whose own subtree is deepest, except that the
        24-joint body has its published table (``DESIGNATED_CHILD``).

    Raises:
        ValueError: if a parent does not come before its child.
    """
    check_parents(parents)
    if parents == SMPL_PARENTS:
        return DESIGNATED_CHILD
    depth_below = [0] * len(parents)
    for joint in range(len(parents) - 1, 0, -1):
        parent = parents[joint]
        depth_below[parent] = max(depth_below[parent], depth_below[joint] + 1)
    child = [-1] * len(parents)
    for joint in range(1, len(parents)):
        best = child[parents[joint]]
        if best < 0 or depth_below[joint] >= depth_below[best]:
            child[parents[joint]] = joint
    return tuple(child)


def leaf_joints(parents: tuple[int, ...]) -> tuple[int, ...]:
    """Joints without children, in increasing order.

    Args:
        parents: parent of each joint, -1 at the root; parents come before children.

    Returns:
        Indices of the leaves.

    Raises:
        ValueError: if a parent does not come before its child.
    """
    check_parents(parents)
    return tuple(j for j in range(len(parents)) if j not in parents)
