"""How poses of a bank become the poses of training pictures, on the accelerator."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hmr_jax import sample_keys
from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.errors import UserError
from hmr_jax.geometry.matrices import matmul3
from hmr_jax.geometry.rotations import axis_angle_to_matrix

ROOTS = ("camera_right", "camera_left", "upright")
UPPER_BODY = (3, 6, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
_MIRROR = JOINT_SETS["smpl_24"].flip_permutation


@dataclasses.dataclass(frozen=True)
class PoseLaw:
    """What is done to a pose of the bank.

    Attributes:
        root: what the bank's root rotation is. ``camera_right``: as cameras saw it, y
            down, turned up by half a turn about x on its right, as the published
            training does (which mirrors the distribution of headings);
            ``camera_left``: the same on its left, as the published evaluation does and
            as is right; ``upright``: in a world with y up, given a new heading.
        azimuth_range_deg: of upright roots: how far from the front the camera is.
        pitch_deg: of upright roots: mean and deviation of how far the camera looks
            down, cut at three deviations.
        roll_deg: of upright roots: deviation of the camera's roll.
        mirrored_share: poses replaced by their mirror image.
        mixed_share: poses with the upper body of another one.
        jitter_rad: deviation of noise on each joint's axis-angle vector.
    """

    root: str = "camera_right"
    azimuth_range_deg: float = 180.0
    pitch_deg: tuple[float, float] = (10.0, 12.0)
    roll_deg: float = 4.0
    mirrored_share: float = 0.0
    mixed_share: float = 0.0
    jitter_rad: float = 0.0

    def __post_init__(self):
        if self.root not in ROOTS:
            raise UserError(f"root: expected one of {ROOTS}, got {self.root!r}")
        for name in ("mirrored_share", "mixed_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        for name in ("azimuth_range_deg", "roll_deg", "jitter_rad"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UserError(f"{name}: expected a number from 0 on, got {value}")
        if len(self.pitch_deg) != 2 or not all(map(math.isfinite, self.pitch_deg)):
            raise UserError(f"pitch_deg: expected two numbers, got {self.pitch_deg}")


def sample_poses(
    key: Array,
    bank_aa: Float[Array, "poses 24 3"],
    index: Int[Array, "batch"],
    law: PoseLaw,
) -> Float[Array, "batch 24 3 3"]:
    """Poses of training pictures.

    Args:
        key: random key, or one for each picture.
        bank_aa: axis-angle, radians.
        index: poses wanted; one outside the bank is the nearest in it.
        law: what is done to them.

    Returns:
        Rotations; the root's in a frame with y up and the camera on the z axis.

    Source: specs/hierprob.md section 11.2.
    """
    keys = sample_keys.split(key, 6)
    batch, joints = index.shape[0], bank_aa.shape[1]
    pose = bank_aa[jnp.clip(index, 0, bank_aa.shape[0] - 1)]
    if law.mixed_share:
        any_of = functools.partial(jax.random.randint, minval=0, maxval=len(bank_aa))
        other = bank_aa[sample_keys.draw(any_of, keys[0], (batch,))]
        mixed = _chance(keys[1], law.mixed_share, batch)
        upper = jnp.isin(jnp.arange(joints), jnp.array(UPPER_BODY))
        pose = jnp.where((mixed[:, None] & upper[None])[..., None], other, pose)
    if law.jitter_rad:
        noise = law.jitter_rad * sample_keys.draw(
            jax.random.normal, keys[2], pose.shape
        )
        pose = pose + noise.at[:, 0].set(0.0)
    if law.mirrored_share:
        mirrored = _chance(keys[3], law.mirrored_share, batch)
        image = pose[:, jnp.array(_MIRROR)] * jnp.array([1.0, -1.0, -1.0])[None, None]
        pose = jnp.where(mirrored[:, None, None], image, pose)
    rotmats = axis_angle_to_matrix(pose)
    return rotmats.at[:, 0].set(_root(keys[4], rotmats[:, 0], law))


def _chance(key: Array, share: float, batch: int) -> Array:
    return sample_keys.draw(
        lambda k, shape: jax.random.bernoulli(k, share, shape), key, (batch,)
    )


def _root(key: Array, root: Array, law: PoseLaw) -> Array:
    half_turn = jnp.broadcast_to(jnp.diag(jnp.array([1.0, -1.0, -1.0])), root.shape)
    if law.root == "camera_right":
        return matmul3(root, half_turn)
    if law.root == "camera_left":
        return matmul3(half_turn, root)
    yaw_key, pitch_key, roll_key = sample_keys.split(key, 3)
    shape = root.shape[:1]
    facing = jnp.arctan2(root[:, 0, 2], root[:, 2, 2])
    reach = jnp.deg2rad(law.azimuth_range_deg)
    within = functools.partial(jax.random.uniform, minval=-reach, maxval=reach)
    yaw = sample_keys.draw(within, yaw_key, shape) - facing
    mean, deviation = (jnp.deg2rad(x) for x in law.pitch_deg)
    near = lambda k, shape: jax.random.truncated_normal(k, -3, 3, shape)  # noqa: E731
    pitch = mean + deviation * sample_keys.draw(near, pitch_key, shape)
    roll = sample_keys.draw(jax.random.normal, roll_key, shape)
    roll = jnp.deg2rad(law.roll_deg) * roll
    turns = [_about(2, roll), _about(0, pitch), _about(1, yaw), root]
    first, *rest = turns
    for turn in rest:
        first = matmul3(first, turn)
    return first


def _about(axis: int, angle_rad: Float[Array, "batch"]) -> Float[Array, "batch 3 3"]:
    """Rotations about a coordinate axis."""
    vector = jnp.zeros((angle_rad.shape[0], 3)).at[:, axis].set(angle_rad)
    return axis_angle_to_matrix(vector)
