"""The shipped body and hand: layout, anatomy, symmetry, closedness."""

import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body import open_assets
from hmr_jax.body.forward import body_forward, rest_joints
from hmr_jax.body.joint_sets import JOINT_SETS, MANO_PARENTS, SMPL_PARENTS

SYMMETRY_M = 1e-3
ASSET_BYTES = 4_000_000


@pytest.fixture(scope="module")
def body():
    return open_assets.load_open_body()


@pytest.fixture(scope="module")
def hand():
    return open_assets.load_open_hand()


def _edge_counts(faces):
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    return np.unique(edges, axis=0, return_counts=True)


def _volume_m3(vertices, faces):
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize(
    ("load", "parents"),
    [
        (open_assets.load_open_body, SMPL_PARENTS),
        (open_assets.load_open_hand, MANO_PARENTS),
    ],
)
def test_layout_is_that_of_the_model_files(load, parents):
    model = load()
    assert model.parents == tuple(parents)
    assert model.num_betas == 10
    # Not SMPL's or MANO's vertex counts: their regressors must not seem to fit.
    assert model.num_vertices not in (6890, 778)
    for rows in (model.joint_regressor, *model.extra_joint_regressors.values()):
        rows = np.asarray(rows)
        assert rows.min() >= 0
        np.testing.assert_allclose(rows.sum(1), 1.0, atol=1e-5)
        assert (rows > 0).sum(1).max() <= 64
    weights = np.asarray(model.skin_weights)
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-5)
    assert weights.min() >= 0
    assert (weights > 0).sum(1).max() <= 4
    assert np.asarray(model.faces).max() == model.num_vertices - 1
    uv = np.asarray(model.uv)
    assert uv.min() >= 0
    assert uv.max() <= 1
    assert np.asarray(model.face_uv).max() == len(uv) - 1


def test_assets_are_small():
    for name in (open_assets.BODY_FILE, open_assets.HAND_FILE):
        asset = open_assets.importlib.resources.files("hmr_jax.body") / "assets" / name
        assert len(asset.read_bytes()) < ASSET_BYTES


def test_body_stands_in_the_t_pose(body):
    output = body_forward(body, jnp.zeros(10), jnp.zeros((24, 3)))
    joint = dict(
        zip(JOINT_SETS["smpl_24"].joints, np.asarray(output.joints_m), strict=True)
    )
    vertices = np.asarray(output.vertices_m)
    np.testing.assert_allclose(joint["pelvis"], 0.0, atol=1e-5)
    assert joint["head"][1] > joint["neck"][1] > joint["pelvis"][1]
    assert joint["left_ankle"][1] < joint["left_knee"][1] < joint["left_hip"][1]
    for name in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist"):
        assert joint[f"left_{name}"][0] > 0 > joint[f"right_{name}"][0]
    arm = joint["left_wrist"] - joint["left_shoulder"]
    assert abs(arm[0]) > 50 * max(abs(arm[1]), abs(arm[2]))
    assert joint["left_foot"][2] > joint["left_ankle"][2] + 0.05
    assert 1.5 < np.ptp(vertices[:, 1]) < 1.9


def test_body_is_closed_and_faces_outwards(body):
    faces = np.asarray(body.faces)
    _, counts = _edge_counts(faces)
    assert set(counts) == {2}
    volume = _volume_m3(np.asarray(body.template_m, np.float64), faces)
    assert 0.04 < volume < 0.12


def test_body_is_symmetric(body):
    vertices = np.asarray(body.template_m, np.float64)
    mirrored = vertices * [-1.0, 1.0, 1.0]
    order = np.lexsort(np.round(np.abs(vertices) * [1, 1, 1], 4).T)
    assert len(order) == body.num_vertices
    # Every mirrored vertex has a vertex near it.
    for start in range(0, len(vertices), 500):
        block = mirrored[start : start + 500, None] - vertices[None]
        nearest = np.sqrt((block**2).sum(-1)).min(1)
        assert nearest.max() < SYMMETRY_M
    joints = np.asarray(rest_joints(body, jnp.zeros(10)))
    flip = list(JOINT_SETS["smpl_24"].flip_permutation)
    np.testing.assert_allclose(joints[flip] * [-1.0, 1.0, 1.0], joints, atol=SYMMETRY_M)


def test_shape_coefficients_are_ordered_and_the_first_is_stature(body):
    directions = np.asarray(body.shape_dirs_m)
    energy = (directions**2).sum((0, 1))
    assert (np.diff(energy) < 0).all()
    heights = [
        np.ptp(np.asarray(body.template_m + beta * body.shape_dirs_m[..., 0])[:, 1])
        for beta in (-2.0, 0.0, 2.0)
    ]
    assert heights[0] + 0.05 < heights[1] < heights[2] - 0.05


def test_h36m_points_follow_the_joints_in_a_bent_pose(body):
    pose = np.zeros((24, 3), np.float32)
    pose[1, 0], pose[4, 0] = -0.8, 1.2
    pose[16, 2], pose[18, 1] = -0.7, -1.0
    output = body_forward(body, jnp.zeros(10), jnp.asarray(pose))
    points = np.einsum(
        "kv,vc->kc", body.extra_joint_regressors["h36m_17"], output.vertices_m
    )
    names = JOINT_SETS["h36m_17"].joints
    smpl = JOINT_SETS["smpl_24"].joints
    for name in ("left_knee", "left_ankle", "right_ankle", "left_elbow", "left_wrist"):
        gap = points[names.index(name)] - np.asarray(output.joints_m)[smpl.index(name)]
        # Limbs are 40 to 90 mm thick: 15 mm is well inside them.
        assert np.linalg.norm(gap) < 0.015, name
    assert points[names.index("headtop")][1] > points[names.index("head_extra")][1]


def test_hand_is_flat_with_the_palm_down(hand):
    joints = np.asarray(rest_joints(hand, jnp.zeros(10)))
    np.testing.assert_allclose(joints[0], 0.0, atol=1e-5)
    fingers = joints[1:13]
    assert (fingers[:, 0] < -0.05).all()
    assert np.abs(fingers[:, 1]).max() < 0.02
    thumb, index, pinky = joints[15], joints[3], joints[9]
    assert thumb[2] > index[2] > pinky[2]
    # Bending about +z turns fingers down, towards the palm.
    pose = np.zeros((16, 3), np.float32)
    pose[[1, 4, 7, 10], 2] = 1.0
    bent = np.asarray(body_forward(hand, jnp.zeros(10), jnp.asarray(pose)).joints_m)
    assert (bent[[3, 6, 9, 12], 1] < joints[[3, 6, 9, 12], 1] - 0.02).all()


def test_hand_components_are_orthonormal_and_tips_are_tips(hand):
    components = np.asarray(hand.hand_components)
    assert components.shape == (45, 45)
    np.testing.assert_allclose(components @ components.T, np.eye(45), atol=1e-5)
    tips = np.asarray(hand.template_m)[list(open_assets.open_hand_tip_vertices())]
    joints = np.asarray(rest_joints(hand, jnp.zeros(10)))
    last = joints[[3, 6, 9, 12, 15]]
    reach = np.linalg.norm(tips - last, axis=-1)
    assert ((reach > 0.01) & (reach < 0.05)).all()


def test_smpl_npz_holds_the_names_of_smpl(tmp_path):
    path = tmp_path / "body.npz"
    open_assets.write_smpl_npz(path)
    with np.load(path) as data:
        assert data["v_template"].shape == (data["weights"].shape[0], 3)
        assert data["posedirs"].shape[2] == 207
        assert data["kintree_table"][0, 0] == 2**32 - 1
        assert data["J_regressor"].shape[0] == 24
    with pytest.raises(ValueError, match="expected 'body' or 'hand'"):
        open_assets.write_smpl_npz(path, "foot")


def test_a_missing_asset_is_named(monkeypatch):
    with pytest.raises(FileNotFoundError, match="nothing.npz"):
        open_assets._read("nothing.npz")
