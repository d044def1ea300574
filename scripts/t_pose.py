"""Turn MakeHuman's A-pose into SMPL's T-pose, shape by shape.

The arms lie along x with straight elbows, palms down and flat fingers; the elbow's
hinge is vertical. Thighs slant outwards a little and shins hang straight, as in SMPL,
so that SMPL pose parameters mean nearly the same on this body.
"""

import numpy as np
import rigging

CLAVICLE_LIFT_RAD = np.radians(8.0)
THIGH_SLANT_RAD = np.radians(4.5)
FINGERS = ("index", "middle", "pinky", "ring")


def t_pose_rotations(
    heads_m: np.ndarray, bones: tuple[str, ...], parents: np.ndarray
) -> np.ndarray:
    """Rest-to-T-pose rotations [N, B, 3, 3] of the ``game_engine`` rig's bones."""
    index = {name: b for b, name in enumerate(bones)}
    rotmats = np.tile(np.eye(3), (*heads_m.shape[:2], 1, 1))
    for side, sign in (("l", 1.0), ("r", -1.0)):
        _pose_arm(rotmats, heads_m, index, side, sign)
        _pose_leg(rotmats, heads_m, index, side, sign)
    return rotmats


def _pose_leg(rotmats, heads_m, index, side, sign):
    hip, knee, ankle = (
        heads_m[:, index[f"{n}_{side}"]] for n in ("thigh", "calf", "foot")
    )
    for bone, start, end, slant in (
        ("thigh", hip, knee, THIGH_SLANT_RAD),
        ("calf", knee, ankle, 0.0),
    ):
        along = end - start
        target = along.copy()
        target[:, 0] = sign * np.tan(slant) * -along[:, 1]
        rotmats[:, index[f"{bone}_{side}"]] = rigging.minimal_rotation(along, target)


def _pose_arm(rotmats, heads_m, index, side, sign):
    at = {n: heads_m[:, index[f"{n}_{side}"]] for n in _arm_names()}
    out = np.array([sign, 0.0, 0.0])
    lift = rigging.axis_rotation(np.array([0.0, 0.0, sign]), CLAVICLE_LIFT_RAD)
    rotmats[:, index[f"clavicle_{side}"]] = lift
    upper, fore = at["lowerarm"] - at["upperarm"], at["hand"] - at["lowerarm"]
    # The bent elbow of the rest pose shows the hinge: it bends forwards in the T-pose.
    upper_turn = rigging.frame(out, np.array([0.0, 0.0, 1.0])) @ np.swapaxes(
        rigging.frame(upper, fore), -1, -2
    )
    rotmats[:, index[f"upperarm_{side}"]] = upper_turn
    turned_fore = np.einsum("nij,nj->ni", upper_turn, fore)
    fore_turn = rigging.minimal_rotation(turned_fore, out) @ upper_turn
    # Knuckles give the palm: index to pinky runs backwards with the palm facing down.
    palm_along = at["middle_01"] - at["hand"]
    across = at["index_01"] - at["pinky_01"]
    hand_turn = rigging.frame(out, np.array([0.0, 0.0, 1.0])) @ np.swapaxes(
        rigging.frame(palm_along, across), -1, -2
    )
    residual = hand_turn @ np.swapaxes(fore_turn, -1, -2)
    twist = rigging.matrix_log_about(residual, out)
    half = rigging.axis_rotation(out, 0.5 * twist)
    rotmats[:, index[f"lowerarm_{side}"]] = half @ fore_turn
    for bone in index:
        if bone == f"hand_{side}" or (
            bone.endswith(f"_{side}") and bone.split("_")[0] in (*FINGERS, "thumb")
        ):
            rotmats[:, index[bone]] = hand_turn
    for finger in FINGERS:
        _flatten_finger(rotmats, heads_m, index, finger, side, hand_turn)


def _arm_names():
    return ("upperarm", "lowerarm", "hand", "middle_01", "index_01", "pinky_01")


def _flatten_finger(rotmats, heads_m, index, finger, side, hand_turn):
    joints = [heads_m[:, index[f"{finger}_0{k}_{side}"]] for k in (1, 2, 3)]
    bones = [joints[1] - joints[0], joints[2] - joints[1]]
    first = np.einsum("nij,nj->ni", hand_turn, joints[2] - joints[0])
    target = first * [1.0, 0.0, 1.0]
    # The last bone's tip is not a head: it takes the rotation of the bone before it,
    # plus the bend of a relaxed finger's end joint.
    for k, bone in enumerate((*bones, bones[1])):
        along = np.einsum("nij,nj->ni", hand_turn, bone)
        turn = rigging.minimal_rotation(along, target) @ hand_turn
        rotmats[:, index[f"{finger}_0{k + 1}_{side}"]] = turn
