"""Skeletons, poses and degenerate targets shared by the tree solver's tests."""

import numpy as np
from scipy.spatial.transform import Rotation

from hmr_jax.body.joint_sets import MANO_PARENTS, SMPL_PARENTS

BODY = tuple(int(p) for p in SMPL_PARENTS)
HAND = tuple(int(p) for p in MANO_PARENTS)
CHAIN = (-1, 0, 1, 2, 3)
FORK = (-1, 0, 0, 1, 1, 3)
TREES = {"body": BODY, "hand": HAND, "chain": CHAIN, "fork": FORK}


def rest_skeleton(parents: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random bones of 5 to 35 cm in float64."""
    rng = np.random.default_rng(seed)
    rest = np.zeros((len(parents), 3))
    for joint, parent in enumerate(parents[1:], start=1):
        way = rng.standard_normal(3)
        way *= rng.uniform(0.05, 0.35) / np.linalg.norm(way)
        rest[joint] = rest[parent] + way
    return rest


def forward(local: np.ndarray, rest: np.ndarray, parents) -> tuple:
    """Joints with the root at 0, and global rotations, in float64."""
    local, rest = np.asarray(local, np.float64), np.asarray(rest, np.float64)
    joints, frames = [np.zeros(local.shape[:-3] + (3,))], [local[..., 0, :, :]]
    for joint, parent in enumerate(parents[1:], start=1):
        bone = rest[..., joint, :] - rest[..., parent, :]
        joints.append(joints[parent] + (frames[parent] @ bone[..., None])[..., 0])
        frames.append(frames[parent] @ local[..., joint, :, :])
    return np.stack(joints, -2), np.stack(frames, -3)


def random_pose(parents, batch: int, seed: int = 0, spread_rad: float = 0.4):
    """Local rotations with a uniformly random root."""
    rng = np.random.default_rng(seed)
    turns = spread_rad * rng.standard_normal((batch * len(parents), 3))
    local = Rotation.from_rotvec(turns).as_matrix().reshape(batch, -1, 3, 3)
    local[:, 0] = Rotation.random(batch, random_state=seed).as_matrix()
    return local


def noisy_targets(parents, rest, batch: int, noise_m: float, seed: int = 0):
    """Joints of random poses with Gaussian noise, the root at 0."""
    joints, _ = forward(random_pose(parents, batch, seed), rest, parents)
    rng = np.random.default_rng(seed + 1)
    joints = joints + noise_m * rng.standard_normal(joints.shape)
    joints[:, 0] = 0
    return joints


def degenerate_cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Target and rest joints of the body where some rotation is undetermined."""
    rest = rest_skeleton(BODY, seed=3)
    rest -= rest[0]
    posed = noisy_targets(BODY, rest, 1, 0.005, seed=4)[0]
    cases = {"rest pose": (rest, rest)}
    straight = rest.copy()
    for joint in (4, 7, 10, 18, 20, 22):
        bone = np.linalg.norm(rest[joint] - rest[BODY[joint]])
        straight[joint] = straight[BODY[joint]] + np.array([0.0, -bone, 0.0])
    cases["straight limbs"] = (straight, straight)
    cases["limbs in line at the target"] = (straight, rest)
    opposite = rest.copy()
    for joint in (5, 8, 11, 19, 21, 23):
        opposite[joint] = opposite[BODY[joint]] - (rest[joint] - rest[BODY[joint]])
    cases["bones bent by 180 degrees"] = (opposite, rest)
    cases["turned by 180 degrees"] = (rest * np.array([-1.0, 1.0, -1.0]), rest)
    cases["mirrored"] = (-rest, rest)
    short = rest.copy()
    for joint in (3, 8, 20):
        short[joint] = short[BODY[joint]]
    cases["rest bones of no length"] = (posed, short)
    cases["no rest bones at all"] = (posed, np.zeros_like(rest))
    coincident = posed.copy()
    for joint in (4, 9, 21, 23):
        coincident[joint] = coincident[BODY[joint]]
    cases["coincident targets"] = (coincident, rest)
    cases["all targets zero"] = (np.zeros_like(rest), rest)
    line = rest.copy()
    for joint in (1, 2, 3, 12, 13, 14):
        bone = np.linalg.norm(rest[joint] - rest[BODY[joint]])
        line[joint] = line[BODY[joint]] + np.array([bone, 0.0, 0.0])
    cases["children on one line"] = (line, line)
    cases["far targets"] = (100 * posed, rest)
    return cases
