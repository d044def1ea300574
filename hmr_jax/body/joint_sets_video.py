"""Joint sets of datasets of videos and of single people; ``joint_sets`` has them."""

from hmr_jax.body.joint_set import JointSet, both, make_set, one_side, parents_of

_LEG = ("hip_extra", "knee", "ankle")
_ARM = ("shoulder", "elbow", "wrist")
_LIMBS = (
    "left_hip_extra left_knee left_ankle",
    "right_hip_extra right_knee right_ankle",
    "left_shoulder left_elbow left_wrist",
    "right_shoulder right_elbow right_wrist",
)
_TORSO = ("left_shoulder left_hip_extra", "right_shoulder right_hip_extra")
_NECK = ("neck_extra left_shoulder", "neck_extra right_shoulder")


def _penn_action() -> JointSet:
    """The order of the label files; the head point is the top of the head."""
    chains = (*_LIMBS, *_TORSO, "headtop left_shoulder", "headtop right_shoulder")
    joints = ("headtop", *both(*_ARM, *_LEG))
    return make_set("penn_action_13", joints, parents_of(*chains))


def _posetrack() -> JointSet:
    """``head_bottom`` of the annotations is the neck, ``head_top`` the head's top."""
    joints = ("nose", "neck_extra", "headtop", *both("ear", *_ARM, *_LEG))
    ears = ("nose left_ear", "nose right_ear")
    chains = (*_LIMBS, *_TORSO, *_NECK, *ears, "neck_extra nose", "neck_extra headtop")
    return make_set("posetrack_17", joints, parents_of(*chains))


def _insta_variety() -> JointSet:
    """OpenPose's joints in HMMR's order; its first "ankles" are OpenPose's heels."""
    limbs = (
        *("op_right_heel", "op_right_knee", "op_right_hip"),
        *("op_left_hip", "op_left_knee", "op_left_heel"),
        *("op_right_wrist", "op_right_elbow", "op_right_shoulder"),
        *("op_left_shoulder", "op_left_elbow", "op_left_wrist"),
    )
    face = ("op_nose", *(f"op_{name}" for name in both("eye", "ear")))
    toes = (f"op_{name}" for name in both("big_toe", "small_toe", "ankle"))

    def side(s: str) -> tuple[str, ...]:
        return (
            f"op_neck op_{s}_shoulder op_{s}_elbow op_{s}_wrist",
            f"op_{s}_shoulder op_{s}_hip op_{s}_knee op_{s}_ankle op_{s}_heel",
            f"op_{s}_ankle op_{s}_big_toe op_{s}_small_toe",
            f"op_nose op_{s}_eye op_{s}_ear",
        )

    joints = (*limbs, "op_neck", "headtop", *face, *toes)
    trunk = ("op_neck op_nose", "op_neck headtop")
    chains = (*trunk, *side("left"), *side("right"))
    return make_set("insta_variety_25", joints, parents_of(*chains))


def _flic() -> JointSet:
    """The parts that FLIC-Full annotates, of the 29 that it numbers."""
    arms = (*one_side("left", *_ARM), *one_side("right", *_ARM))
    hips = ("left_hip_extra", "right_hip_extra")
    chains = (*_LIMBS[2:], *_TORSO, "nose left_eye", "nose right_eye")
    joints = (*arms, *hips, "left_eye", "right_eye", "nose")
    return make_set("flic_11", joints, parents_of(*chains))


def _occlusion_person() -> JointSet:
    joints = (
        *("pelvis_extra", *one_side("right", *_LEG), *one_side("left", *_LEG)),
        *("belly", "neck_extra"),
        *(*one_side("left", *_ARM), *one_side("right", *_ARM)),
    )
    trunk = "pelvis_extra belly neck_extra"
    hips = ("pelvis_extra left_hip_extra", "pelvis_extra right_hip_extra")
    return make_set(
        "occlusion_person_15", joints, parents_of(trunk, *hips, *_LIMBS, *_NECK)
    )


_LSP_LIMBS = (
    *one_side("right", "ankle", "knee", "hip_extra"),
    *one_side("left", *_LEG),
    *one_side("right", "wrist", "elbow", "shoulder"),
    *one_side("left", *_ARM),
)


def _int_conventions() -> list[JointSet]:
    """Further orders that INT's databases and tools convert from."""
    face = ("nose", *both("eye", "ear"))
    trunk = (*_NECK, *_TORSO, "neck_extra headtop")
    ears = ("nose left_eye left_ear", "nose right_eye right_ear", "neck_extra nose")
    spin = (
        *(*_LSP_LIMBS, "neck_extra", "headtop", "pelvis_extra", "thorax"),
        *("spine_extra", "jaw_extra", "head_extra", *face),
    )
    spine = "pelvis_extra spine_extra thorax neck_extra"
    heads = ("neck_extra headtop", "neck_extra head_extra", "neck_extra jaw_extra")
    arms = (*one_side("right", *_ARM), *one_side("left", *_ARM))
    legs = (*one_side("right", *_LEG), *one_side("left", *_LEG))
    lsp = (*_LSP_LIMBS, "neck_extra", "headtop")
    return [
        make_set("spin_24", spin, parents_of(spine, *heads, *_NECK, *_LIMBS, *ears)),
        make_set("lsp_coco_19", (*lsp, *face), parents_of(*trunk, *_LIMBS, *ears)),
        make_set(
            "aich_14",
            (*arms, *legs, "headtop", "neck_extra"),
            parents_of(*trunk, *_LIMBS),
        ),
        _staf(),
    ]


def _staf() -> JointSet:
    """OpenPose's video joints: without its feet, with LSP's neck and head."""

    def side(s: str) -> tuple[str, ...]:
        return (
            f"op_neck op_{s}_shoulder op_{s}_elbow op_{s}_wrist",
            f"op_pelvis op_{s}_hip op_{s}_knee op_{s}_ankle",
            f"op_nose op_{s}_eye op_{s}_ear",
        )

    arms = (*one_side("op_right", *_ARM), *one_side("op_left", *_ARM))
    legs = tuple(
        f"op_{s}_{name}" for s in ("right", "left") for name in ("hip", "knee", "ankle")
    )
    face = tuple(f"op_{s}_{name}" for name in ("eye", "ear") for s in ("right", "left"))
    joints = (
        *("op_nose", "op_neck", *arms, "op_pelvis", *legs, *face),
        *("neck_extra", "headtop"),
    )
    trunk = ("op_pelvis op_neck op_nose", "op_neck neck_extra headtop")
    return make_set(
        "staf_21", joints, parents_of(*trunk, *side("left"), *side("right"))
    )


SETS: tuple[JointSet, ...] = (
    _penn_action(),
    _posetrack(),
    _insta_variety(),
    _flic(),
    _occlusion_person(),
    *_int_conventions(),
)
"""The sets of this file."""
