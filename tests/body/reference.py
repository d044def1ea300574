"""A plain float64 numpy body, written from the equations, for comparison."""

import numpy as np


def rodrigues(aa: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(aa)
    if angle == 0:
        return np.eye(3)
    x, y, z = aa / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def kinematics(rotmats, rest, parents):
    """Recursion from each joint to the root."""

    def chain(k):
        if parents[k] < 0:
            return rotmats[k], rest[k]
        rotation, position = chain(parents[k])
        return rotation @ rotmats[k], position + rotation @ (rest[k] - rest[parents[k]])

    results = [chain(k) for k in range(len(parents))]
    return np.stack([r for r, _ in results]), np.stack([p for _, p in results])


def body(arrays, betas, rotmats, parents):
    """Vertices, joints, rotations and rest joints of one pose."""
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    rest = arrays["J_regressor"] @ shaped
    feature = (rotmats[1:] - np.eye(3)).reshape(-1)
    posed = shaped + arrays["posedirs"] @ feature
    rotations, joints = kinematics(rotmats, rest, parents)
    offsets = joints - np.einsum("jab,jb->ja", rotations, rest)
    blended = np.einsum("vj,jab->vab", arrays["weights"], rotations)
    vertices = np.einsum("vab,vb->va", blended, posed) + arrays["weights"] @ offsets
    return vertices, joints, rotations, rest
