"""Retarget the DeepMimic clips to the open body and pack them as an asset.

    pip download --no-deps pybullet && unzip pybullet*.whl -d pybullet
    python scripts/build_motion.py --motions pybullet/pybullet_data/data/motions \
        --out hmr_jax/synthetic/assets/motion.npz

The mocap gives the direction and the twist of every bone; the open body gives the
lengths. The package's own inverse kinematics turns these joints and twists into
rotations. Chest and neck turns are shared among the joints of spine and neck, the
collars follow the arms a little, wrists and toes stay straight.
"""

import argparse
import pathlib

import deepmimic
import jax.numpy as jnp
import numpy as np
import rigging

from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.body.open_assets import open_body_arrays
from hmr_jax.files import atomic_write
from hmr_jax.geometry.rotations import twist_cos_sin
from hmr_jax.solvers.inverse_kinematics import inverse_kinematics
from hmr_jax.solvers.types import DESIGNATED_CHILD, LEAF_JOINTS

FPS = 30.0
COLLAR_SHARE = 0.15
LEAVES = list(LEAF_JOINTS)
DROPPED = {"laikago_walk": "a four-legged robot"}
TEST = ("dance_a", "getup_facedown", "jump", "kick", "run")
PROVENANCE = (
    "Retargeted by scripts/build_motion.py of hmr_jax from the humanoid clips in "
    "pybullet_data/data/motions of the PyPI package pybullet 3.2.7 (zlib licence, "
    "Erwin Coumans and contributors), reference motions of DeepMimic (Peng et al., "
    "SIGGRAPH 2018). Altered: other skeleton, 30 frames per second."
)


def rotation_vector(rotmats: np.ndarray) -> np.ndarray:
    """Axis-angle [..., 3] of rotations [..., 3, 3], angles in [0, pi]."""
    # The eigenvector of the largest eigenvalue of Davenport's matrix is the quaternion:
    # accurate at every angle.
    r = rotmats
    diagonal = [r[..., i, i] for i in range(3)]
    trace = sum(diagonal)
    k = np.empty((*r.shape[:-2], 4, 4))
    k[..., 0, 0] = trace
    vector = (
        r[..., 2, 1] - r[..., 1, 2],
        r[..., 0, 2] - r[..., 2, 0],
        r[..., 1, 0] - r[..., 0, 1],
    )
    for i in range(3):
        k[..., 0, i + 1] = k[..., i + 1, 0] = vector[i]
        for j in range(3):
            k[..., i + 1, j + 1] = r[..., i, j] + r[..., j, i] - (i == j) * trace
    quaternion = np.linalg.eigh(k)[1][..., -1]
    quaternion = quaternion * np.where(quaternion[..., :1] < 0, -1.0, 1.0)
    axis = quaternion[..., 1:]
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(length, quaternion[..., :1])
    return axis / np.maximum(length, 1e-12) * angle


def fraction(rotmats: np.ndarray, share: float) -> np.ndarray:
    """The given share of rotations [..., 3, 3]."""
    vector = rotation_vector(rotmats)
    angle = np.linalg.norm(vector, axis=-1)
    safe = np.where(angle[..., None] > 1e-9, vector, [1.0, 0.0, 0.0])
    return rigging.axis_rotation(safe, share * angle)


def body_rotations(clip: deepmimic.HumanoidClip, rest_m: np.ndarray) -> np.ndarray:
    """World rotations [T, 24, 3, 3] that the clip asks of the open body's bones.

    They give the solver its targets (bones of the body's lengths in the directions of
    the clip) and the twist of each bone, which joints alone do not show.
    """
    g = clip.rotmats
    out = np.tile(np.eye(3), (len(clip.root_m), 24, 1, 1))
    out[:, 0] = g["root"]
    third = fraction(clip.local["chest"], 1 / 3)
    out[:, 3] = g["root"] @ third
    out[:, 6] = out[:, 3] @ third
    out[:, 9] = g["chest"]
    out[:, 12] = g["chest"] @ fraction(clip.local["neck"], 0.5)
    out[:, 15] = g["neck"]
    down = np.array([0.0, -1.0, 0.0])
    for side, first, sign in (("left", 0, 1.0), ("right", 1, -1.0)):
        hip, knee, ankle, toe = 1 + first, 4 + first, 7 + first, 10 + first
        thigh, shin = rest_m[knee] - rest_m[hip], rest_m[ankle] - rest_m[knee]
        out[:, hip] = g[f"{side}_hip"] @ rigging.minimal_rotation(thigh, down)
        out[:, knee] = g[f"{side}_knee"] @ rigging.minimal_rotation(shin, down)
        out[:, ankle] = out[:, toe] = g[f"{side}_ankle"]
        collar, upper = 13 + first, 16 + first
        hang = rigging.axis_rotation(np.array([0.0, 0.0, 1.0]), -sign * np.pi / 2)
        arm = clip.local[f"{side}_shoulder"] @ down
        lift = rigging.minimal_rotation(np.array([sign, 0.0, 0.0]), arm)
        out[:, collar] = g["chest"] @ fraction(lift, COLLAR_SHARE)
        out[:, upper] = g[f"{side}_shoulder"] @ hang
        for joint in (18, 20, 22):
            out[:, joint + first] = g[f"{side}_elbow"] @ hang
    return out


def to_local(global_rotmats: np.ndarray) -> np.ndarray:
    """Rotations relative to the parent [T, 24, 3, 3]."""
    out = global_rotmats.copy()
    for joint, parent in enumerate(SMPL_PARENTS):
        if parent >= 0:
            out[:, joint] = (
                np.swapaxes(global_rotmats[:, parent], -1, -2)
                @ global_rotmats[:, joint]
            )
    return out


def solve_pose(rest_m, wanted):
    """Local and world rotations [T, 24, 3, 3] by inverse kinematics, misfit in mm."""
    targets = rigging.pose_heads(
        np.broadcast_to(rest_m, (len(wanted), *rest_m.shape)), SMPL_PARENTS, wanted
    )
    local = jnp.asarray(to_local(wanted), jnp.float32)
    child = np.maximum(np.array(DESIGNATED_CHILD), 0)
    bones = jnp.asarray(rest_m[child] - rest_m, jnp.float32)
    twists = twist_cos_sin(local, jnp.broadcast_to(bones, (len(wanted), 24, 3)))
    targets = jnp.asarray(targets, jnp.float32)
    solved = inverse_kinematics(
        targets, jnp.asarray(rest_m, jnp.float32), twists[:, 1:], local[:, LEAVES]
    )
    if not bool(solved.info.converged.all()):
        raise RuntimeError("inverse kinematics did not converge")
    misfit = jnp.linalg.norm(solved.joints_m - targets, axis=-1)
    return (
        np.asarray(solved.local_rotmats, np.float64),
        np.asarray(solved.global_rotmats, np.float64),
        1e3 * float(misfit.max()),
    )


def floor_height(body, rest_m, global_rotmats, root_m) -> float:
    """Height of the floor under a clip: the 10 % quantile of its lowest foot vertices.

    Only feet count: hands reach below the floor at times, since the humanoid of the
    clips has none.
    """
    pick = np.flatnonzero(body["weights"][:, [7, 8, 10, 11]].sum(1) > 0.5)
    lowest = []
    for rotmats, root in zip(global_rotmats, root_m, strict=True):
        posed = rigging.pose_heads(rest_m, SMPL_PARENTS, rotmats)
        vertices = rigging.skin(
            body["v_template"][pick], rest_m, posed, rotmats, body["weights"][pick]
        )
        lowest.append(vertices[:, 1].min() + root[1])
    return float(np.quantile(lowest, 0.1))


def place(clip, body, rest_m, global_rotmats) -> np.ndarray:
    """Root translations [T, 3]: scaled to the body's legs, feet on the floor."""
    leg = np.linalg.norm(rest_m[4] - rest_m[1]) + np.linalg.norm(rest_m[7] - rest_m[4])
    root = clip.root_m * leg / deepmimic.LEG_M
    root[:, 1] -= floor_height(body, rest_m, global_rotmats, root)
    return root


def main():
    """Read the flags, retarget every clip and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--motions", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    body = open_body_arrays()
    rest = body["J_regressor"] @ body["v_template"]
    clips = {}
    for path in sorted(args.motions.rglob("*.txt")):
        if path.stem in DROPPED:
            print(f"drop {path.stem}: {DROPPED[path.stem]}")
            continue
        name = path.stem.removeprefix("humanoid3d_").replace("0walk", "walk")
        clips[name] = deepmimic.read_clip(path, FPS)
    wanted = np.concatenate([body_rotations(clip, rest) for clip in clips.values()])
    local, rotmats, misfit_mm = solve_pose(rest, wanted)
    lengths = [len(clip.root_m) for clip in clips.values()]
    ends = np.cumsum(lengths)[:-1]
    roots = [
        place(clip, body, rest, turned)
        for clip, turned in zip(clips.values(), np.split(rotmats, ends), strict=True)
    ]
    with atomic_write(args.out) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            names=np.array(list(clips)),
            splits=np.array(["test" if n in TEST else "train" for n in clips]),
            lengths=np.array(lengths, np.int32),
            poses_aa=rotation_vector(local).round(6).astype(np.float32),
            root_m=np.concatenate(roots).astype(np.float32),
            fps=np.float32(FPS),
            provenance=np.array(PROVENANCE),
        )
    for name, length in zip(clips, lengths, strict=True):
        print(f"{name:16s} {length:4d} frames{' (test)' if name in TEST else ''}")
    print(f"{sum(lengths)} frames, {args.out.stat().st_size} bytes")
    print(f"largest distance of a joint from its target {misfit_mm:.5f} mm")


if __name__ == "__main__":
    main()
