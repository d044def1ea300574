"""Sparse non-negative joint regressors fitted to shapes and poses."""

import numpy as np
from scipy.optimize import nnls

SUM_WEIGHT = 10.0


def fit_joint(
    vertices_m: np.ndarray,
    joints_m: np.ndarray,
    candidates: np.ndarray,
    mirror: np.ndarray | None = None,
) -> np.ndarray:
    """Weights [V] by which vertices average to a joint, summing to one.

    Args:
        vertices_m: [N, V, 3] meshes.
        joints_m: [N, 3] the joint in each.
        candidates: vertices that may take part.
        mirror: [V] mirror map for a joint on the midline, whose weights are then
            symmetric; None for others.

    Returns:
        The weights; non-negative, mostly zero.
    """
    centre = joints_m[:, None]
    if mirror is None:
        groups = candidates[:, None]
    else:
        groups = np.unique(
            np.sort(np.stack([candidates, mirror[candidates]], 1)), axis=0
        )
    local = (vertices_m[:, groups] - centre[:, None]).mean(2)
    # Rows: every coordinate of every mesh in millimetres, then the sum of weights.
    matrix = 1e3 * local.transpose(0, 2, 1).reshape(-1, len(groups))
    matrix = np.concatenate([matrix, SUM_WEIGHT * 1e3 * np.ones((1, len(groups)))])
    target = np.zeros(len(matrix))
    target[-1] = SUM_WEIGHT * 1e3
    solution, _ = nnls(matrix, target, maxiter=20 * len(groups))
    weights = np.zeros(vertices_m.shape[1])
    for column in range(groups.shape[1]):
        np.add.at(weights, groups[:, column], solution / groups.shape[1])
    weights[weights < 1e-4 * weights.sum()] = 0.0
    return weights / weights.sum()


def nearest(
    vertices_m: np.ndarray, joint_m: np.ndarray, count: int, allowed: np.ndarray
):
    """The ``count`` allowed vertices of [V, 3] that lie nearest to a point [3]."""
    distance = np.linalg.norm(vertices_m - joint_m, axis=-1)
    distance = np.where(allowed, distance, np.inf)
    return np.argsort(distance)[: min(count, int(allowed.sum()))]


def sparse_rows(matrix: np.ndarray, prefix: str) -> dict[str, np.ndarray]:
    """Coordinates and values of a sparse matrix under three keys."""
    row, column = np.nonzero(matrix)
    return {
        f"{prefix}_row": row.astype(np.uint8),
        f"{prefix}_column": column.astype(np.uint16),
        f"{prefix}_value": matrix[row, column].astype(np.float32),
    }


def errors_mm(regressor, vertices_m, joints_m) -> np.ndarray:
    """Distances [N, J] in millimetres of regressed joints from the given ones."""
    regressed = np.einsum("jv,nvc->njc", regressor, vertices_m, optimize=True)
    return 1e3 * np.linalg.norm(regressed - joints_m, axis=-1)
