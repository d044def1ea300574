"""The tables against the index lists that the specifications state."""

import os
import subprocess
import sys

import numpy as np
import pytest

from hmr_jax.body.joint_sets import (
    APPROXIMATE,
    JOINT_SETS,
    MANO_21_FROM_16_AND_TIPS,
    MANO_PARENTS,
    SMPL_PARENTS,
    SMPL_VERTEX_JOINTS,
    JointSet,
    get_joint_set,
    map_joints,
    mirrored_name,
)

SPIN_FLIP = (
    *(0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24),
    *(19, 20, 21, 30, 29, 28, 27, 26, 25, 36, 35, 34, 33, 32, 31, 37, 38, 39, 40),
    *(41, 42, 43, 44, 46, 45, 48, 47),
)
TO_SPIN_25_TO_48 = {
    "mpi_inf_3dhp_28": "25 24 23 18 19 20 16 15 14 9 10 11 5 7 4 - 3 - 6 - - - - -",
    "mpi_inf_3dhp_test_17": "10 9 8 11 12 13 4 3 2 5 6 7 1 0 14 - 15 - 16 - - - - -",
    "h36m_17": "6 5 4 1 2 3 16 15 14 11 12 13 8 10 0 - 7 - 9 - - - - -",
    "lsp_14": "0 1 2 3 4 5 6 7 8 9 10 11 12 13 - - - - - - - - - -",
    "coco_17": "16 14 12 11 13 15 10 8 6 5 7 9 - - - - - - - 0 1 2 3 4",
    "mpii_16": "0 1 2 3 4 5 10 11 12 13 14 15 8 9 6 7 - - - - - - - -",
    "pw3d_14": "10 9 8 11 12 13 4 3 2 5 6 7 - - - 1 - - - 0 - - - -",
}
SMPL_PAIRS = "1-2 4-5 7-8 10-11 13-14 16-17 18-19 20-21 22-23"
PAIRS = {
    "smpl_24": SMPL_PAIRS,
    "smpl_29": SMPL_PAIRS + " 25-26 27-28",
    "i2l_smpl_29": SMPL_PAIRS + " 25-26 27-28",
    "h36m_17": "1-4 2-5 3-6 11-14 12-15 13-16",
    "h36m_right_first_17": "1-4 2-5 3-6 11-14 12-15 13-16",
    "muco_21": "2-5 3-6 4-7 8-11 9-12 10-13 17-18 19-20",
    "coco_18": "1-2 3-4 5-6 7-8 9-10 11-12 13-14 15-16",
    "mpii_16": "0-5 1-4 2-3 10-15 11-14 12-13",
}


def mapped(source, target, **options):
    index, present = map_joints(source, target, **options)
    return np.where(present, index, -1).tolist()


def sparse(size, **entries):
    result = [-1] * size
    for target, source in entries.items():
        result[int(target[1:])] = source
    return result


def test_sizes_and_parents():
    expected = {
        **{"smpl_24": 24, "smpl_29": 29, "h36m_17": 17, "coco_17": 17, "mpii_16": 16},
        **{"mpi_inf_3dhp_28": 28, "mpi_inf_3dhp_test_17": 17, "lsp_14": 14},
        **{"pw3d_18": 18, "pw3d_14": 14, "spin_49": 49, "mano_16": 16, "mano_21": 21},
    }
    for name, size in expected.items():
        assert len(JOINT_SETS[name]) == size
    assert JOINT_SETS["smpl_24"].parents == SMPL_PARENTS
    assert JOINT_SETS["mano_16"].parents == MANO_PARENTS
    for joint_set in JOINT_SETS.values():
        assert joint_set.name in JOINT_SETS
        for joint, parent in enumerate(joint_set.parents):
            assert -1 <= parent < len(joint_set) and parent != joint
            seen = set()  # no cycles
            while parent >= 0:
                assert parent not in seen
                seen.add(parent)
                parent = joint_set.parents[parent]


def test_mirrors():
    for joint_set in JOINT_SETS.values():
        flip = np.array(joint_set.flip_permutation)
        np.testing.assert_array_equal(flip[flip], np.arange(len(flip)))
        for joint in joint_set.joints:
            assert mirrored_name(mirrored_name(joint)) == joint
            if "left" in joint or "right" in joint:
                assert mirrored_name(joint) in joint_set.joints
    for name, pairs in PAIRS.items():
        expected = tuple(tuple(map(int, p.split("-"))) for p in pairs.split())
        assert JOINT_SETS[name].flip_pairs == expected
    assert JOINT_SETS["spin_49"].flip_permutation == SPIN_FLIP


def test_maps_to_spin():
    for source, row in TO_SPIN_25_TO_48.items():
        expected = [-1] * 25 + [-1 if x == "-" else int(x) for x in row.split()]
        assert mapped(source, "spin_49") == expected, source


def test_maps_of_ikol():
    assert mapped("mpi_inf_3dhp_test_17", "h36m_17") == [
        *(14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4),
    ]
    coco = dict(j4=13, j5=14, j7=15, j8=16, j16=5, j17=6, j18=7, j19=8, j20=9, j21=10)
    assert mapped("coco_17", "smpl_24") == sparse(24, **coco)
    dhp = dict(j0=4, j4=19, j5=24, j7=20, j8=25, j12=5, j16=9, j17=14)
    dhp |= dict(j18=10, j19=15, j20=11, j21=16)
    assert mapped("hybrik_3dhp_28", "smpl_24") == sparse(24, **dhp)
    assert mapped("smpl_29", "smpl_24") == list(range(24))


def test_approximate_maps():
    exact = mapped("coco_18", "smpl_24")
    loose = mapped("coco_18", "smpl_24", approximate=True)
    assert exact[:3] == [-1, -1, -1] and loose[:3] == [17, 11, 12]
    assert all(e in (-1, x) for e, x in zip(exact, loose, strict=True))
    i2l_from_coco = [17, 11, 12, -1, 13, 14, -1, 15, 16, *[-1] * 7]
    i2l_from_coco += [5, 6, 7, 8, 9, 10, -1, -1, 0, 1, 2, 3, 4]
    assert mapped("coco_18", "i2l_smpl_29", approximate=True) == i2l_from_coco
    names = [name for group in APPROXIMATE for name in group]
    assert len(names) == len(set(names))
    known = {joint for s in JOINT_SETS.values() for joint in s.joints}
    assert set(names) <= known


def test_hand_order():
    hand = JOINT_SETS["mano_21"]
    tips = ("thumb4", "index4", "middle4", "ring4", "pinky4")
    names = (*JOINT_SETS["mano_16"].joints, *tips)
    assert tuple(names[i] for i in MANO_21_FROM_16_AND_TIPS) == hand.joints
    assert hand.bones[:6] == ((0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6))


def test_vertex_joints_complete_the_sets():
    for name, vertices in SMPL_VERTEX_JOINTS.items():
        assert len(JOINT_SETS[name]) == 24 + len(vertices)


def test_errors():
    with pytest.raises(ValueError, match="unknown joint set 'smpl'; expected one of"):
        get_joint_set("smpl")
    with pytest.raises(ValueError, match="unknown joint set"):
        map_joints("coco_17", "x")
    with pytest.raises(ValueError, match="has no joint 'tail'"):
        JOINT_SETS["smpl_24"].index("tail")
    assert JOINT_SETS["smpl_24"].index("neck") == 12
    with pytest.raises(ValueError, match="not unique"):
        JointSet("x", ("a", "a"), (-1, 0))
    with pytest.raises(ValueError, match="expected 2 parents, got 1"):
        JointSet("x", ("a", "b"), (-1,))


def test_own_sets_map_too():
    own = JointSet("own", ("right_knee", "tail"), (-1, 0))
    index, present = map_joints("coco_17", own)
    assert index.tolist() == [14, 0] and present.tolist() == [True, False]


def test_the_tables_need_no_jax():
    """The data pipelines import them on machines without an accelerator stack."""
    code = (
        "import sys, types; sys.modules['jax'] = None\n"
        "for name, path in zip(('hmr_jax', 'hmr_jax.body'), sys.argv[1:]):\n"
        "    sys.modules[name] = types.ModuleType(name)\n"
        "    sys.modules[name].__path__ = [path]\n"
        "from hmr_jax.body import joint_sets; print(len(joint_sets.JOINT_SETS))"
    )
    import hmr_jax.body.joint_sets as module

    body = os.path.dirname(module.__file__)
    command = [sys.executable, "-c", code, os.path.dirname(body), body]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(result.stdout) == len(JOINT_SETS)
