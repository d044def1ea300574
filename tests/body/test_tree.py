import pytest

from hmr_jax.body.tree import check_parents, tree_depths, tree_levels


def test_levels_of_a_tree():
    assert tree_levels((-1, 0, 0, 1, 2)) == ((0,), (1, 2), (3, 4))
    assert tree_depths((-1, 0, -1, 1, 2)) == (0, 1, 0, 2, 1)
    with pytest.raises(ValueError, match="parent"):
        tree_levels((1, -1))


@pytest.mark.parametrize("parents", [(), (0, 0), (-1, 0, -1), (-1, 1), (-1, -2)])
def test_trees_that_are_none(parents):
    with pytest.raises(ValueError, match="file: expected"):
        check_parents(parents, "file")
    check_parents((-1, 0, 0, 2))
