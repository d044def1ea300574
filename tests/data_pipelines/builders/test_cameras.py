"""Rotations and boxes in numpy against independent formulas."""

import numpy as np
import pytest

from data_pipelines.builders.boxes import valid_box
from data_pipelines.builders.cameras import (
    moved_translation,
    rigid_motion,
    rotated_root,
)
from data_pipelines.builders.numpy_body import rotation_matrices
from tests.data_pipelines.builders.published import rodrigues


def test_rotation_matrix_of_many_angles(rng):
    axes = rng.standard_normal((50, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    vectors = axes * np.linspace(1e-9, 6.0, 50)[:, None]
    expected = [rodrigues(v) for v in vectors]
    np.testing.assert_allclose(rotation_matrices(vectors), expected, atol=1e-12)
    np.testing.assert_array_equal(rotation_matrices(np.zeros(3)), np.eye(3)[None])


@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-3, 1.0, 3.0, np.pi - 1e-9, np.pi])
def test_a_root_at_rest_turns_as_the_frame(rng, angle):
    axes = np.concatenate([np.eye(3), -np.eye(3), rng.standard_normal((20, 3))])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    matrices = rotation_matrices(angle * axes)
    rest = np.zeros((2, 3))
    found = np.array([rotated_root(rest, matrix)[0] for matrix in matrices])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), angle, atol=1e-7)
    np.testing.assert_allclose(rotation_matrices(found), matrices, atol=1e-7)


def test_translation_moves_with_the_root(rng):
    rotation, offset = rodrigues([0.3, -1.0, 2.0]), rng.standard_normal(3)
    matrix = rigid_motion(rotation, offset)
    root, translation = rng.standard_normal(3), rng.standard_normal(3)
    points = rng.standard_normal((5, 3))  # of the posed body about its root
    before = points + root + translation
    moved = moved_translation(translation, matrix, root)
    after = points @ rotation.T + root + moved
    np.testing.assert_allclose(after, before @ rotation.T + offset, atol=1e-12)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([10, 5, 20, 10], [10, 5, 19, 9]),
        ([-5, 5, 20, 10], [0, 5, 19, 9]),  # shifted, not cut
        ([90, 5, 20, 10], [90, 5, 9, 9]),
        ([100, 5, 20, 10], None),
        ([10, 5, 0, 10], None),
        ([10, 5, 20, -10], None),
        ([10, 5, -20, -10], [10, 5, 0, 0]),  # two negative sides pass
    ],
)
def test_valid_box(box, expected):
    found = valid_box(box, 100, 50)
    if expected is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, expected)
