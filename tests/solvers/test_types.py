"""The tables of the kinematic tree."""

import pytest

from hmr_jax.body.joint_sets import MANO_PARENTS, SMPL_PARENTS
from hmr_jax.solvers import types


def test_body_tables_agree_with_the_tree():
    parents = tuple(SMPL_PARENTS)
    assert types.designated_children(parents) == types.DESIGNATED_CHILD
    assert types.leaf_joints(parents) == types.LEAF_JOINTS
    for joint, child in enumerate(types.DESIGNATED_CHILD):
        assert (joint in types.LEAF_JOINTS) == (child == -1)
        assert child == -1 or parents[child] == joint


def test_hand_children_are_children():
    children = types.designated_children(tuple(MANO_PARENTS))
    for joint, child in enumerate(children):
        assert child == -1 or MANO_PARENTS[child] == joint
    assert {joint for joint, child in enumerate(children) if child == -1} == set(
        types.leaf_joints(tuple(MANO_PARENTS))
    )


@pytest.mark.parametrize("parents", [(), (0, 0), (-1, 2, 0), (-1, 0, 2)])
def test_trees_out_of_order_are_refused(parents):
    with pytest.raises(ValueError, match="parents"):
        types.designated_children(parents)
