"""Posing sampled rigs in numpy: rotations between directions, kinematics, skinning."""

import numpy as np


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors scaled to length one along the last axis."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def axis_rotation(axis: np.ndarray, angle_rad: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] about ``axis`` [..., 3] by ``angle_rad`` [...]."""
    axis = np.broadcast_to(unit(axis), (*np.shape(angle_rad), 3))
    x, y, z = np.moveaxis(axis, -1, 0)
    zero = np.zeros_like(x)
    k = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1)
    k = k.reshape(*x.shape, 3, 3)
    sin, cos = (f(angle_rad)[..., None, None] for f in (np.sin, np.cos))
    return np.eye(3) + sin * k + (1 - cos) * (k @ k)


def minimal_rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Smallest rotation [..., 3, 3] taking directions ``source`` to ``target``."""
    source, target = np.broadcast_arrays(unit(source), unit(target))
    cross = np.cross(source, target)
    sin = np.linalg.norm(cross, axis=-1)
    cos = (source * target).sum(-1)
    safe = np.where(sin[..., None] > 1e-12, cross, [1.0, 0.0, 0.0])
    return axis_rotation(safe, np.arctan2(sin, cos))


def frame(main: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Right-handed frame [..., 3, 3]: ``main``, ``second`` made normal to it, third."""
    main, second = np.broadcast_arrays(unit(main), second)
    second = unit(second - (second * main).sum(-1, keepdims=True) * main)
    return np.stack([main, second, np.cross(main, second)], axis=-1)


def matrix_log_about(rotation: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Angle of the twist of ``rotation`` [..., 3, 3] about the unit ``axis`` [3]."""
    trace = np.trace(rotation, axis1=-2, axis2=-1)
    skew = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        -1,
    )
    return 2 * np.arctan2((skew * axis).sum(-1), 1 + trace)


def pose_heads(
    heads_m: np.ndarray, parents: np.ndarray, global_rotmats: np.ndarray
) -> np.ndarray:
    """Joints [..., B, 3] after turning every bone by its rest-to-posed rotation."""
    posed = heads_m.copy()
    for bone, parent in enumerate(parents):
        if parent >= 0:
            offset = heads_m[..., bone, :] - heads_m[..., parent, :]
            turned = np.einsum(
                "...ij,...j->...i", global_rotmats[..., parent, :, :], offset
            )
            posed[..., bone, :] = posed[..., parent, :] + turned
    return posed


def skin(
    vertices_m: np.ndarray,
    heads_m: np.ndarray,
    posed_m: np.ndarray,
    global_rotmats: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Linear blend skinning of one shape: [V, 3] vertices to [V, 3]."""
    shift = posed_m - np.einsum("bij,bj->bi", global_rotmats, heads_m)
    blended = np.einsum("vb,bij->vij", weights, global_rotmats, optimize=True)
    return np.einsum("vij,vj->vi", blended, vertices_m) + weights @ shift


def local_to_global(local_rotmats: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Rotations relative to the parent [B, 3, 3] to rotations of the world."""
    out = local_rotmats.copy()
    for bone, parent in enumerate(parents):
        if parent >= 0:
            out[bone] = out[parent] @ local_rotmats[bone]
    return out
