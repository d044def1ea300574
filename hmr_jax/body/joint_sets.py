"""Joint sets of bodies, hands and datasets: names, parents, mirror pairs, mappings.

Equal names mean the same point of the body, and ``map_joints`` moves joints between
sets by name alone. Points that datasets define differently carry different names, as
in the 190-joint convention of IKOL's loaders: ``left_hip`` is SMPL's kinematic joint,
``left_hip_extra`` the marker-based one of Human3.6M, COCO and others, ``op_left_hip``
OpenPose's. ``APPROXIMATE`` lists which of them may stand in for each other on request.

This file needs numpy alone: the data pipelines import it.
"""

import numpy as np

from hmr_jax.body import joint_sets_images, joint_sets_video
from hmr_jax.body.joint_set import (
    JointSet,
    both,
    make_set,
    mirrored_name,
    one_side,
    parents_of,
)

SMPL_PARENTS = (
    *(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8),
    *(9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
)
MANO_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)

LSP_FROM_H36M = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10)
"""The 14 joints of ``h36m_17`` that are evaluated, in LSP's order: right leg from the
ankle up, left leg down, right arm from the wrist up, left arm down, neck, head."""

SMPL_VERTEX_JOINTS = {
    "smpl_29": (411, 2445, 5905, 3216, 6617),
    "i2l_smpl_29": (331, 2802, 6262, 3489, 3990),
}
"""Vertices of SMPL's mesh that are the joints after the 24 kinematic ones."""

MANO_TIP_VERTICES = (745, 317, 444, 556, 673)
"""Tips of thumb, index, middle, ring and little finger (I2L-MeshNet's layer)."""
MANO_TIP_VERTICES_REGRESSOR = (745, 317, 445, 556, 673)
"""The same in I2L-MeshNet's joint regressor: its middle finger tip differs by one."""
MANO_21_FROM_16_AND_TIPS = (
    *(0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18),
    *(10, 11, 12, 19, 7, 8, 9, 20),
)
"""Rows of [16 kinematic joints, 5 tips] in the order of ``mano_21``."""


_SMPL = (
    *("pelvis", *both("hip"), "spine1", *both("knee"), "spine2", *both("ankle")),
    *("spine3", *both("foot"), "neck", *both("collar"), "head"),
    *both("shoulder", "elbow", "wrist", "hand"),
)
_FACE = both("eye", "ear")
_LEG = ("hip_extra", "knee", "ankle")
_ARM = ("shoulder", "elbow", "wrist")
_LIMB_CHAINS = (
    "left_hip_extra left_knee left_ankle",
    "right_hip_extra right_knee right_ankle",
    "left_shoulder left_elbow left_wrist",
    "right_shoulder right_elbow right_wrist",
)
_FACE_CHAINS = ("nose left_eye left_ear", "nose right_eye right_ear")
_LSP = (
    *one_side("right", "ankle", "knee", "hip_extra"),
    *one_side("left", *_LEG),
    *one_side("right", "wrist", "elbow", "shoulder"),
    *one_side("left", *_ARM),
    *("neck_extra", "headtop"),
)
_LSP_CHAINS = (
    *_LIMB_CHAINS,
    *("neck_extra left_hip_extra", "neck_extra right_hip_extra"),
    *("neck_extra left_shoulder", "neck_extra right_shoulder", "neck_extra headtop"),
)


def _hand_parents() -> dict[str, str]:
    fingers = ("thumb", "index", "middle", "ring", "pinky")
    return parents_of(*(f"wrist {f}1 {f}2 {f}3 {f}4" for f in fingers))


def _smpl_sets() -> list[JointSet]:
    leaves = ("head_top", *both("middle_tip", "big_toe"))
    i2l = ("nose", *_FACE)
    kinematic_hand = ("index", "middle", "pinky", "ring", "thumb")
    fingers = ("thumb", "index", "middle", "ring", "pinky")
    hand_21 = ("wrist", *(f"{f}{k}" for f in fingers for k in range(1, 5)))
    hand_16 = ("wrist", *(f"{f}{k}" for f in kinematic_hand for k in range(1, 4)))
    return [
        JointSet("smpl_24", _SMPL, SMPL_PARENTS),
        JointSet("smpl_29", (*_SMPL, *leaves), (*SMPL_PARENTS, 15, 22, 23, 10, 11)),
        JointSet("i2l_smpl_29", (*_SMPL, *i2l), (*SMPL_PARENTS, 15, 24, 24, 25, 26)),
        JointSet("mano_16", hand_16, MANO_PARENTS),
        make_set("mano_21", hand_21, _hand_parents()),
    ]


def _h36m_sets() -> list[JointSet]:
    trunk = ("spine_extra", "neck_extra", "head_extra", "headtop")
    left_leg, right_leg = one_side("left", *_LEG), one_side("right", *_LEG)
    left_arm, right_arm = one_side("left", *_ARM), one_side("right", *_ARM)
    chains = parents_of(
        *_LIMB_CHAINS,
        "pelvis_extra spine_extra neck_extra head_extra headtop",
        *("pelvis_extra left_hip_extra", "pelvis_extra right_hip_extra"),
        *("neck_extra left_shoulder", "neck_extra right_shoulder"),
    )
    arms = (*left_arm, *right_arm)
    return [
        make_set(
            "h36m_17", ("pelvis_extra", *left_leg, *right_leg, *trunk, *arms), chains
        ),
        make_set(
            "h36m_right_first_17",
            ("pelvis_extra", *right_leg, *left_leg, *trunk, *arms),
            chains,
        ),
    ]


def _mpi_inf_3dhp_sets() -> list[JointSet]:
    def names(pelvis: str, neck: str) -> tuple[str, ...]:
        arm = ("clavicle_3dhp", *_ARM, "hand_3dhp")
        leg = (*_LEG, "foot_3dhp", "toe_3dhp")
        spine = ("spine3_3dhp", "spine4_3dhp", "spine2_3dhp", "spine_extra")
        return (
            *(*spine, pelvis, neck, "head_extra", "headtop"),
            *(*one_side("left", *arm), *one_side("right", *arm)),
            *(*one_side("left", *leg), *one_side("right", *leg)),
        )

    def chains(pelvis: str, neck: str) -> dict[str, str]:
        def side(s: str) -> tuple[str, ...]:
            return (
                f"spine4_3dhp {s}_clavicle_3dhp {s}_shoulder {s}_elbow {s}_wrist "
                f"{s}_hand_3dhp",
                f"{pelvis} {s}_hip_extra {s}_knee {s}_ankle {s}_foot_3dhp {s}_toe_3dhp",
            )

        trunk = (
            f"{pelvis} spine_extra spine2_3dhp spine3_3dhp spine4_3dhp {neck} "
            "head_extra headtop"
        )
        return parents_of(trunk, *side("left"), *side("right"))

    test = (
        *("headtop", "neck_extra", *one_side("right", *_ARM), *one_side("left", *_ARM)),
        *(*one_side("right", *_LEG), *one_side("left", *_LEG)),
        *("pelvis_extra", "spine_extra", "head_extra"),
    )
    test_chains = parents_of(
        *_LIMB_CHAINS,
        "pelvis_extra spine_extra neck_extra head_extra headtop",
        *("pelvis_extra left_hip_extra", "pelvis_extra right_hip_extra"),
        *("neck_extra left_shoulder", "neck_extra right_shoulder"),
    )
    extra, smpl = ("pelvis_extra", "neck_extra"), ("pelvis", "neck")
    return [
        make_set("mpi_inf_3dhp_28", names(*extra), chains(*extra)),
        make_set("hybrik_3dhp_28", names(*smpl), chains(*smpl)),
        make_set("mpi_inf_3dhp_test_17", test, test_chains),
    ]


def _muco_set() -> JointSet:
    joints = (
        *("headtop", "thorax", *one_side("right", *_ARM), *one_side("left", *_ARM)),
        *(*one_side("right", *_LEG), *one_side("left", *_LEG)),
        *("pelvis_extra", "spine_extra", "head_extra"),
        *("right_hand_3dhp", "left_hand_3dhp", "right_toe_3dhp", "left_toe_3dhp"),
    )
    chains = parents_of(
        *_LIMB_CHAINS,
        "pelvis_extra spine_extra thorax head_extra headtop",
        *("pelvis_extra left_hip_extra", "pelvis_extra right_hip_extra"),
        *("thorax left_shoulder", "thorax right_shoulder"),
        *("left_wrist left_hand_3dhp", "right_wrist right_hand_3dhp"),
        *("left_ankle left_toe_3dhp", "right_ankle right_toe_3dhp"),
    )
    return make_set("muco_21", joints, chains)


def _image_sets() -> list[JointSet]:
    coco = ("nose", *_FACE, *both("shoulder", "elbow", "wrist", *_LEG))
    coco_chains = parents_of(
        *(*_LIMB_CHAINS, *_FACE_CHAINS),
        *("nose left_shoulder", "nose right_shoulder"),
        *("left_shoulder left_hip_extra", "right_shoulder right_hip_extra"),
    )
    mpii = (
        *(*_LSP[:6], "pelvis_extra", "thorax", "neck_extra", "headtop", *_LSP[6:12]),
    )
    mpii_chains = parents_of(
        *_LIMB_CHAINS,
        "pelvis_extra thorax neck_extra headtop",
        *("pelvis_extra left_hip_extra", "pelvis_extra right_hip_extra"),
        *("thorax left_shoulder", "thorax right_shoulder"),
    )
    pw3d_14 = (
        *("nose", "thorax", *one_side("right", *_ARM), *one_side("left", *_ARM)),
        *(*one_side("right", *_LEG), *one_side("left", *_LEG)),
    )
    pw3d_chains = parents_of(
        *_LIMB_CHAINS,
        *("thorax nose", "thorax left_shoulder", "thorax right_shoulder"),
        *("thorax left_hip_extra", "thorax right_hip_extra"),
    )
    faces = ("right_eye", "left_eye", "right_ear", "left_ear")
    return [
        make_set("coco_17", coco, coco_chains),
        make_set("coco_18", (*coco, "pelvis_extra"), coco_chains),
        make_set("mpii_16", mpii, mpii_chains),
        make_set("lsp_14", _LSP, parents_of(*_LSP_CHAINS)),
        make_set("pw3d_14", pw3d_14, pw3d_chains),
        make_set(
            "pw3d_18", (*pw3d_14, *faces), pw3d_chains | parents_of(*_FACE_CHAINS)
        ),
    ]


_OPENPOSE_25 = (
    *("op_nose", "op_neck"),
    *(f"op_{j}" for j in (*one_side("right", *_ARM), *one_side("left", *_ARM))),
    *("op_pelvis", "op_right_hip", "op_right_knee", "op_right_ankle"),
    *("op_left_hip", "op_left_knee", "op_left_ankle"),
    *("op_right_eye", "op_left_eye", "op_right_ear", "op_left_ear"),
    *("op_left_big_toe", "op_left_small_toe", "op_left_heel"),
    *("op_right_big_toe", "op_right_small_toe", "op_right_heel"),
)


def _openpose_chains() -> dict[str, str]:
    def side(s: str) -> tuple[str, ...]:
        return (
            f"op_neck op_{s}_shoulder op_{s}_elbow op_{s}_wrist",
            f"op_pelvis op_{s}_hip op_{s}_knee op_{s}_ankle op_{s}_heel",
            f"op_{s}_ankle op_{s}_big_toe op_{s}_small_toe",
            f"op_nose op_{s}_eye op_{s}_ear",
        )

    return parents_of("op_pelvis op_neck op_nose", *side("left"), *side("right"))


def _spin_sets() -> list[JointSet]:
    spin = (
        *(*_OPENPOSE_25, *_LSP, "pelvis_extra", "thorax", "spine_extra"),
        *("jaw_extra", "head_extra", "nose", *_FACE),
    )
    chains = parents_of(
        *(*_LIMB_CHAINS, *_FACE_CHAINS, "pelvis_extra spine_extra thorax neck_extra"),
        *("neck_extra headtop", "neck_extra head_extra", "neck_extra jaw_extra"),
        *("pelvis_extra left_hip_extra", "pelvis_extra right_hip_extra"),
        *("thorax left_shoulder", "thorax right_shoulder", "neck_extra nose"),
    )
    return [
        make_set("openpose_25", _OPENPOSE_25, _openpose_chains()),
        make_set("spin_49", spin, _openpose_chains() | chains),
    ]


JOINT_SETS: dict[str, JointSet] = {
    joint_set.name: joint_set
    for joint_set in (
        *_smpl_sets(),
        *_h36m_sets(),
        *_mpi_inf_3dhp_sets(),
        _muco_set(),
        *_image_sets(),
        *_spin_sets(),
        *joint_sets_images.SETS,
        *joint_sets_video.SETS,
    )
}
"""Every joint set by name."""


def _groups() -> tuple[tuple[str, ...], ...]:
    plain = ("knee", "ankle", "shoulder", "elbow", "wrist", "eye", "ear")
    sided: list[tuple[str, ...]] = [
        (f"{s}_{j}", f"op_{s}_{j}") for s in ("left", "right") for j in plain
    ]
    for s in ("left", "right"):
        sided += [
            (f"{s}_hip", f"{s}_hip_extra", f"op_{s}_hip"),
            (f"{s}_hand", f"{s}_hand_3dhp"),
            (f"{s}_foot", f"{s}_toe_3dhp", f"{s}_foot_3dhp"),
            (f"{s}_big_toe", f"op_{s}_big_toe"),
            (f"{s}_collar", f"{s}_clavicle_3dhp"),
        ]
    return (
        ("pelvis", "pelvis_extra", "op_pelvis"),
        ("neck", "neck_extra", "op_neck"),
        ("head", "head_extra"),
        ("head_top", "headtop"),
        ("nose", "op_nose"),
        ("spine1", "spine_extra"),
        *sided,
    )


APPROXIMATE: tuple[tuple[str, ...], ...] = _groups()
"""Names that may stand in for each other, best first, where a user asks for it."""


def get_joint_set(name: str) -> JointSet:
    """A joint set by name.

    Args:
        name: key of ``JOINT_SETS``.

    Returns:
        The set.

    Raises:
        ValueError: there is no such set.
    """
    if name not in JOINT_SETS:
        raise ValueError(
            f"unknown joint set {name!r}; expected one of {', '.join(JOINT_SETS)}"
        )
    return JOINT_SETS[name]


def map_joints(
    source: str | JointSet, target: str | JointSet, *, approximate: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Where each joint of the target set is found in the source set.

    Args:
        source: set the data is in, by name or as such.
        target: set that is wanted.
        approximate: also accept the stand-ins of ``APPROXIMATE`` where the exact name
            is missing.

    Returns:
        ``source_index`` [T] int64 (0 where absent, so that it can index at once) and
        ``present`` [T] bool. Set values of absent joints to 0 by ``present``.
    """
    source = get_joint_set(source) if isinstance(source, str) else source
    target = get_joint_set(target) if isinstance(target, str) else target
    index = {joint: i for i, joint in enumerate(source.joints)}
    stand_ins = {name: group for group in APPROXIMATE for name in group}
    found = []
    for joint in target.joints:
        names = (joint, *stand_ins.get(joint, ())) if approximate else (joint,)
        found.append(next((index[n] for n in names if n in index), -1))
    position = np.asarray(found, np.int64)
    return np.maximum(position, 0), position >= 0


__all__ = [
    "APPROXIMATE",
    "JOINT_SETS",
    "MANO_21_FROM_16_AND_TIPS",
    "MANO_PARENTS",
    "MANO_TIP_VERTICES",
    "MANO_TIP_VERTICES_REGRESSOR",
    "LSP_FROM_H36M",
    "SMPL_PARENTS",
    "SMPL_VERTEX_JOINTS",
    "JointSet",
    "get_joint_set",
    "map_joints",
    "mirrored_name",
]
