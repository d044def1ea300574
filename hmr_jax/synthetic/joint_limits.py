"""Random poses within plausible ranges of each joint of the 24-joint body.

Each joint turns by three angles about the axes of the T-pose (x to the body's left, y
up, z forward), the twist about the bone first, then the swing:
legs, spine, neck and head (bones along y)  R = Rx Rz Ry,
collars, shoulders, arms, hands (bones along x)  R = Ry Rz Rx.
Right joints mirror the left ones: the angles about y and z change sign. Ranges follow
ordinary clinical ranges of motion; they are independent per joint, so bodies may
intersect themselves.
"""

import numpy as np

from hmr_jax.body.joint_sets import JOINT_SETS

# Degrees: (least, resting, greatest) about x, y, z, for middle and left joints.
_STILL = (0, 0, 0)
LIMITS_DEG = {
    "hip": ((-110, -8, 25), (-35, 0, 40), (-15, 4, 45)),
    "knee": ((0, 8, 135), (-10, 0, 10), _STILL),
    "ankle": ((-25, 0, 40), (-15, 0, 15), (-12, 0, 12)),
    "foot": ((-25, 0, 10), _STILL, _STILL),
    "spine1": ((-12, 2, 30), (-15, 0, 15), (-15, 0, 15)),
    "spine2": ((-10, 2, 22), (-15, 0, 15), (-12, 0, 12)),
    "spine3": ((-8, 2, 18), (-15, 0, 15), (-12, 0, 12)),
    "neck": ((-25, 0, 28), (-35, 0, 35), (-20, 0, 20)),
    "head": ((-20, 0, 22), (-30, 0, 30), (-15, 0, 15)),
    "collar": ((-8, 0, 8), (-15, 0, 15), (-8, 0, 20)),
    "shoulder": ((-60, 0, 60), (-100, -5, 25), (-82, -55, 80)),
    "elbow": ((-70, 0, 70), (-140, -15, 0), (-4, 0, 4)),
    "wrist": ((-10, 0, 10), (-20, 0, 20), (-55, 0, 55)),
    "hand": (_STILL, (-8, 0, 8), (-60, -15, 8)),
}
UPRIGHT_TILT_DEG = 20.0
ANY_ORIENTATION_SHARE = 0.15
_JOINTS = JOINT_SETS["smpl_24"].joints


def _limits_of(joint: str) -> np.ndarray:
    """[3 axes, 3] degrees of a joint by its name, mirrored for the right side."""
    side, _, part = joint.rpartition("_")
    limits = np.array(LIMITS_DEG[part], np.float64)
    if side == "right":
        limits[1:] = -limits[1:, ::-1]
    return limits


def joint_limits_rad() -> np.ndarray:
    """Ranges of joints 1 to 23 of the 24-joint body.

    Returns:
        [23, 3, 3]: per joint and axis (x, y, z) the least, resting and greatest angle
        in radians, in the order of rotations of this module's docstring.
    """
    return np.deg2rad(np.stack([_limits_of(joint) for joint in _JOINTS[1:]]))


def bone_along_x() -> np.ndarray:
    """Which of joints 1 to 23 belong to the arms, whose order of rotations differs."""
    arms = ("collar", "shoulder", "elbow", "wrist", "hand")
    return np.array([joint.rpartition("_")[2] in arms for joint in _JOINTS[1:]])


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    """Quaternions (w, x, y, z) of turns about a coordinate axis."""
    q = np.zeros((*angle.shape, 4))
    q[..., 0], q[..., 1 + axis] = np.cos(angle / 2), np.sin(angle / 2)
    return q


def _multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    w, v = a[..., :1], a[..., 1:]
    u, r = b[..., :1], b[..., 1:]
    real = w * u - np.sum(v * r, -1, keepdims=True)
    return np.concatenate([real, w * r + u * v + np.cross(v, r)], -1)


def _to_axis_angle(q: np.ndarray) -> np.ndarray:
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    return q[..., 1:] * np.where(sine > 1e-9, angle / np.maximum(sine, 1e-9), 2.0)


def compose_angles(angles_rad: np.ndarray) -> np.ndarray:
    """Axis-angle rotations from the three angles of joints 1 to 23.

    Args:
        angles_rad: [..., 23, 3] about x, y and z.

    Returns:
        [..., 23, 3] axis-angle, radians.
    """
    x, y, z = (_about(axis, angles_rad[..., axis]) for axis in range(3))
    trunk = _multiply(x, _multiply(z, y))
    arm = _multiply(y, _multiply(z, x))
    return _to_axis_angle(np.where(bone_along_x()[:, None], arm, trunk))


def sample_joint_angles(rng: np.random.Generator) -> np.ndarray:
    """Angles of joints 1 to 23 within their ranges, denser near the resting pose.

    Args:
        rng: source of randomness.

    Returns:
        [23, 3] about x, y and z, radians.
    """
    low, rest, high = np.moveaxis(joint_limits_rad(), -1, 0)
    vigour = rng.uniform(0.4, 1.0)
    t = rng.uniform(-1.0, 1.0, low.shape)
    t = vigour * np.sign(t) * np.abs(t) ** 1.3
    return rest + np.where(t > 0, t * (high - rest), -t * (low - rest))


def sample_pose(rng: np.random.Generator) -> np.ndarray:
    """A random pose of the 24-joint body in a world with y up.

    Args:
        rng: source of randomness.

    Returns:
        [24, 3] axis-angle, radians. The root is upright within 20 degrees about x and
        z, except in ``ANY_ORIENTATION_SHARE`` of the poses, which have any orientation.
    """
    pose = np.zeros((24, 3))
    pose[1:] = compose_angles(sample_joint_angles(rng))
    if rng.uniform() < ANY_ORIENTATION_SHARE:
        q = rng.standard_normal(4)
        pose[0] = _to_axis_angle(q / np.linalg.norm(q))
    else:
        tilt = np.deg2rad(UPRIGHT_TILT_DEG)
        pose[0, [0, 2]] = rng.uniform(-tilt, tilt, 2) * rng.uniform(0.0, 1.0)
    return pose
