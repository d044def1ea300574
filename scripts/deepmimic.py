"""Reading the DeepMimic humanoid clips of the PyPI package ``pybullet``.

A frame holds 44 numbers: duration; root position (3) and quaternion wxyz (4); then
quaternions of chest, neck, right hip, (1 angle) right knee, right ankle, right
shoulder, (1 angle) right elbow, and the same for the left side. The humanoid of
``pybullet_data/humanoid/humanoid.urdf`` faces +x with y up and its right at +z; at rest
it stands with hanging arms. Knees and elbows turn about z.
"""

import dataclasses
import json
import pathlib

import numpy as np
import rigging

# Humanoid axes (x forward, y up, z right) to ours (x left, y up, z forward).
TO_OURS = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
QUATERNIONS = {
    "root": 4,
    "chest": 8,
    "neck": 12,
    "right_hip": 16,
    "right_ankle": 21,
    "right_shoulder": 25,
    "left_hip": 30,
    "left_ankle": 35,
    "left_shoulder": 39,
}
HINGES = {"right_knee": 20, "right_elbow": 29, "left_knee": 34, "left_elbow": 43}
PARENT = {
    "root": None,
    "chest": "root",
    "neck": "chest",
    **{f"{s}_hip": "root" for s in ("left", "right")},
    **{f"{s}_knee": f"{s}_hip" for s in ("left", "right")},
    **{f"{s}_ankle": f"{s}_knee" for s in ("left", "right")},
    **{f"{s}_shoulder": "chest" for s in ("left", "right")},
    **{f"{s}_elbow": f"{s}_shoulder" for s in ("left", "right")},
}
SCALE = 0.25  # pybullet loads the humanoid with globalScaling 0.25
LEG_M = SCALE * (1.686184 + 1.63948)


@dataclasses.dataclass(frozen=True)
class HumanoidClip:
    """One clip at an even frame rate, in our axes.

    Attributes:
        root_m: [T, 3] pelvis position.
        local: joint name to [T, 3, 3] rotation relative to the parent.
        rotmats: joint name to [T, 3, 3] rotation of the bone from its rest pose.
    """

    root_m: np.ndarray
    local: dict[str, np.ndarray]
    rotmats: dict[str, np.ndarray]


def slerp(quaternions: np.ndarray, times: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Quaternions [T, 4] at ``times``, evaluated at other times."""
    quaternions = rigging.unit(quaternions)
    upper = np.clip(np.searchsorted(times, at, side="right"), 1, len(times) - 1)
    first, second = quaternions[upper - 1], quaternions[upper]
    share = ((at - times[upper - 1]) / (times[upper] - times[upper - 1]))[:, None]
    second = np.where((first * second).sum(-1, keepdims=True) < 0, -second, second)
    angle = np.arccos(np.clip((first * second).sum(-1, keepdims=True), -1, 1))
    small = angle < 1e-6
    sine = np.where(small, 1.0, np.sin(angle))
    a = np.where(small, 1 - share, np.sin((1 - share) * angle) / sine)
    b = np.where(small, share, np.sin(share * angle) / sine)
    return rigging.unit(a * first + b * second)


def quaternion_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of unit quaternions wxyz [..., 4]."""
    axis, w = quaternion[..., 1:], quaternion[..., 0]
    length = np.linalg.norm(axis, axis=-1)
    safe = np.where(length[..., None] > 1e-12, axis, [1.0, 0.0, 0.0])
    return rigging.axis_rotation(safe, 2 * np.arctan2(length, w))


def read_clip(path: pathlib.Path, fps: float) -> HumanoidClip:
    """A clip resampled to ``fps``.

    Raises:
        ValueError: the frames are not those of the humanoid.
    """
    frames = np.array(json.loads(path.read_text())["Frames"], float)
    if frames.ndim != 2 or frames.shape[1] != 44:
        raise ValueError(f"{path}: expected 44 numbers per frame, got {frames.shape}")
    times = np.concatenate([[0.0], np.cumsum(frames[:-1, 0])])
    at = np.arange(0.0, times[-1] + 1e-9, 1.0 / fps)

    def linear(columns):
        return np.stack([np.interp(at, times, frames[:, c]) for c in columns], -1)

    local = {}
    for name, start in QUATERNIONS.items():
        local[name] = quaternion_matrix(slerp(frames[:, start : start + 4], times, at))
    for name, column in HINGES.items():
        local[name] = rigging.axis_rotation(
            np.array([0.0, 0.0, 1.0]), linear([column])[:, 0]
        )
    local = {name: TO_OURS @ local[name] @ TO_OURS.T for name in PARENT}
    rotmats = {}
    for name, parent in PARENT.items():
        rotmats[name] = local[name] if parent is None else rotmats[parent] @ local[name]
    return HumanoidClip(linear([1, 2, 3]) @ TO_OURS.T, local, rotmats)
