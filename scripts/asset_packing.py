"""What the body's and the hand's asset files have in common."""

import pathlib

import joint_regression as regression
import numpy as np

NUM_BETAS = 10


def shape_space(meshes_m: np.ndarray, num_test: int):
    """Principal shape directions of meshes [N, V, 3], the last ``num_test`` held out.

    Returns:
        (mean [V, 3], directions [V, 3, 10] per standard deviation, distances
        [num_test, V] in mm that ten directions leave on the held-out meshes, their
        coefficients [num_test, 10]).
    """
    train = meshes_m[:-num_test].reshape(len(meshes_m) - num_test, -1)
    mean = train.mean(0)
    value, vector = np.linalg.eigh((train - mean) @ (train - mean).T)
    order = np.argsort(value)[::-1][:NUM_BETAS]
    deviation = np.sqrt(value[order] / (len(train) - 1))
    directions = (train - mean).T @ vector[:, order] / np.sqrt(value[order])
    test = meshes_m[-num_test:].reshape(num_test, -1) - mean
    left = (test - test @ directions @ directions.T).reshape(num_test, -1, 3)
    scaled = (directions * deviation).reshape(-1, 3, NUM_BETAS)
    return (
        mean.reshape(-1, 3),
        scaled,
        1e3 * np.linalg.norm(left, axis=-1),
        test @ directions / deviation,
    )


def write_asset(
    path: pathlib.Path,
    *,
    template_m: np.ndarray,
    directions_m: np.ndarray,
    faces: np.ndarray,
    uv: np.ndarray,
    face_uv: np.ndarray,
    weights: np.ndarray,
    parents: np.ndarray,
    regressors: dict[str, np.ndarray],
    **others: np.ndarray,
) -> int:
    """Write a packed model file, sparse where it can be; returns its size in bytes.

    Skinning weights keep the four largest of each vertex. Shape directions are stored
    in half precision (an error under 0.1 mm per standard deviation).
    """
    used, face_uv = np.unique(face_uv, return_inverse=True)
    influences = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    values = np.take_along_axis(weights, influences, 1)
    root = np.where(parents < 0, 2**32 - 1, parents)
    arrays = {
        "v_template": template_m.astype(np.float32),
        "shapedirs": directions_m.astype(np.float16),
        "f": faces.astype(np.int32),
        "vt": uv[used].astype(np.float32),
        "ft": face_uv.reshape(-1, 3).astype(np.int32),
        "weights_index": influences.astype(np.uint8),
        "weights_value": (values / values.sum(1, keepdims=True)).astype(np.float32),
        "kintree_table": np.stack([root, np.arange(len(parents))]).astype(np.uint32),
        **others,
    }
    for key, matrix in regressors.items():
        arrays |= regression.sparse_rows(matrix, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    temporary.replace(path)
    return path.stat().st_size


def report(size: int, arrays: dict, figures: dict[str, np.ndarray]) -> None:
    """Print the figures of an asset that was written with ``size`` bytes."""
    directions = arrays["directions_m"]
    print(f"vertices {len(directions)} faces {len(arrays['faces'])} bytes {size}")
    spread = 1e3 * np.sqrt((directions**2).sum((0, 1)) / len(directions))
    print(f"mm per vertex and unit of beta {spread.round(2)}")
    for name, values in figures.items():
        values = np.asarray(values)
        print(f"{name}: mean {values.mean():.3f} largest {np.abs(values).max():.3f}")
        if values.ndim == 2 and values.shape[1] < 64:
            print(f"  by column: mean {values.mean(0).round(2)}")
            print(f"  by column: deviation {values.std(0).round(2)}")
