"""The inverse-kinematics layer: round trips, the public vectors, gradients, edges."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_jax.geometry.rotations import quaternion_to_matrix, twist_cos_sin
from hmr_jax.solvers.inverse_kinematics import inverse_kinematics
from hmr_jax.solvers.types import LEAF_JOINTS, leaf_joints
from tests.solvers import tree_cases as cases
from tests.solvers.test_fit_bones import assert_gradient

FK_M = 1e-5  # forward kinematics with the returned rotations, in float32
POSE_F32 = 5e-4  # rotations from joints a few cm apart that are right to 1e-7 m


def with_quaternions(targets, rest, twists, leaves):
    return inverse_kinematics(targets, rest, twists, quaternion_to_matrix(leaves))


def true_twists(local, rest, parents):
    """Twist of each joint but the root about the rest bone to its only child."""
    twists = np.tile([1.0, 0.0], (*local.shape[:-3], len(parents) - 1, 1))
    for joint in range(1, len(parents)):
        children = [c for c, p in enumerate(parents) if p == joint]
        if len(children) == 1:
            bone = jnp.asarray(rest[children[0]] - rest[joint])
            axis = jnp.broadcast_to(bone, (*local.shape[:-3], 3))
            twists[..., joint - 1, :] = twist_cos_sin(
                jnp.asarray(local[..., joint, :, :]), axis
            )
    return twists


@pytest.mark.parametrize("name", ["body", "hand"])
def test_pose_survives_the_round_trip(name, x64):
    parents = cases.TREES[name]
    rest = cases.rest_skeleton(parents)
    local = cases.random_pose(parents, 4)
    targets, frames = cases.forward(local, rest, parents)
    twists = 3.0 * true_twists(local, rest, parents)  # raw: any length will do
    leaves = local[:, list(leaf_joints(parents))]
    solve = jax.jit(functools.partial(inverse_kinematics, parents=parents))
    pose = solve(*(jnp.asarray(a) for a in (targets, rest, twists, leaves)))
    np.testing.assert_allclose(pose.local_rotmats, local, atol=1e-7)
    np.testing.assert_allclose(pose.global_rotmats, frames, atol=1e-7)
    np.testing.assert_allclose(pose.joints_m, targets, atol=1e-9)


def test_public_vectors_leave_less_than_half_a_millimetre(parity_dir):
    stored = np.load(parity_dir / "ikol" / "ikol_layer_public.npz")
    layer = jax.jit(with_quaternions)
    for case, limit_mm in (("clean", 0.5), ("noisy", 13.0), ("hard", 22.0)):
        names = ("in_target", "rest_J", "in_phi", "in_leaf")
        inputs = [jnp.asarray(stored[f"{case}/{n}"], jnp.float32) for n in names]
        pose = layer(*inputs)
        error = np.linalg.norm(np.asarray(pose.joints_m - inputs[0]), axis=-1)
        assert 1e3 * error.mean() < limit_mm, case
        assert np.all(pose.info.converged) and not np.any(pose.info.failed)
        joints, frames = cases.forward(pose.local_rotmats, inputs[1], cases.BODY)
        np.testing.assert_allclose(pose.joints_m, joints, atol=FK_M)
        np.testing.assert_allclose(pose.global_rotmats, frames, atol=FK_M)
        identity = pose.local_rotmats @ jnp.swapaxes(pose.local_rotmats, -1, -2)
        eye = np.broadcast_to(np.eye(3), identity.shape)
        np.testing.assert_allclose(identity, eye, atol=FK_M)
        assert np.all(np.linalg.det(np.asarray(pose.local_rotmats)) > 0)
        if case == "clean":  # targets are reachable: HybrIK's angles solve them too
            hybrik = stored["clean/hybrik_naive_eval/rotmats"].reshape(8, 24, 3, 3)
            inner = [j for j in range(24) if j not in LEAF_JOINTS]
            np.testing.assert_allclose(
                pose.local_rotmats[:, inner], hybrik[:, inner], atol=POSE_F32
            )


@pytest.mark.parametrize("name", ["body", "fork"])
def test_gradient_equals_finite_differences(name, x64, rng):
    parents = cases.TREES[name]
    rest = cases.rest_skeleton(parents)
    targets = cases.noisy_targets(parents, rest, 2, 0.02)
    rest = rest + 0.01 * rng.standard_normal(targets.shape)
    twists = rng.standard_normal((2, len(parents) - 1, 2))
    count = 2 * len(leaf_joints(parents))
    leaves = Rotation.random(count, random_state=0).as_matrix().reshape(2, -1, 3, 3)
    weights = rng.uniform(0.3, 1.0, targets.shape[:-1])
    probes = [
        rng.standard_normal((2, len(parents), *s)) for s in ((3, 3), (3, 3), (3,))
    ]

    def loss(targets, rest, twists, leaves, weights):
        pose = inverse_kinematics(
            targets, rest, twists, leaves, parents=parents, weights=weights
        )
        parts = (pose.local_rotmats, pose.global_rotmats, pose.joints_m)
        return sum(
            jnp.vdot(jnp.asarray(p), x) for p, x in zip(probes, parts, strict=True)
        )

    inputs = (targets, rest, twists, leaves, weights)
    assert_gradient(loss, [jnp.asarray(a) for a in inputs], directions=3)


def test_degenerate_cases_are_finite():
    named = cases.degenerate_cases()
    targets, rest = (
        jnp.asarray(np.stack([case[i] for case in named.values()]), jnp.float32)
        for i in range(2)
    )
    rng = np.random.default_rng(0)
    twists = rng.standard_normal((len(named), 23, 2)).astype(np.float32)
    twists[:, ::2] = 0  # zero twist vectors
    leaves = np.zeros((len(named), 5, 4), np.float32)  # and zero quaternions
    probe = jnp.asarray(rng.standard_normal((len(named), 24, 3, 3)), jnp.float32)

    def loss(*inputs):
        pose = with_quaternions(*inputs)
        value = jnp.vdot(probe, pose.local_rotmats) + jnp.sum(pose.joints_m**2)
        return value, pose

    step = jax.jit(jax.grad(loss, (0, 1, 2, 3), has_aux=True))
    inputs = (targets, rest, jnp.asarray(twists), jnp.asarray(leaves))
    gradients, pose = step(*inputs)
    for lane, name in enumerate(named):
        for gradient in gradients:
            assert np.isfinite(gradient[lane]).all(), name
    inner = [j for j in range(24) if j not in LEAF_JOINTS]
    det = np.linalg.det(np.asarray(pose.global_rotmats)[:, inner])
    np.testing.assert_allclose(det, 1, atol=1e-4)
    joints, _ = cases.forward(pose.local_rotmats, rest, cases.BODY)
    np.testing.assert_allclose(pose.joints_m, joints, atol=FK_M)


def test_unobserved_joints_follow_their_parent():
    rest = jnp.asarray(cases.rest_skeleton(cases.BODY), jnp.float32)
    targets = cases.noisy_targets(cases.BODY, np.asarray(rest), 2, 0.0)
    weights = np.ones(24, np.float32)
    weights[[5, 8, 11, 23]] = 0
    targets[:, weights == 0] = np.nan
    pose = jax.jit(lambda t: inverse_kinematics(t, rest, weights=jnp.asarray(weights)))(
        jnp.asarray(targets, jnp.float32)
    )
    eye = np.broadcast_to(np.eye(3), (2, 4, 3, 3))
    np.testing.assert_allclose(
        pose.local_rotmats[:, np.array([2, 5, 8, 21])], eye, atol=3e-6
    )
    seen = weights > 0
    np.testing.assert_allclose(pose.joints_m[:, seen], targets[:, seen], atol=1e-5)
    assert not np.any(pose.info.failed)


def test_wrong_arguments_are_named():
    zeros = [jnp.zeros(s) for s in ((24, 3), (24, 3), (23, 2), (5, 4))]
    with pytest.raises(ValueError, match=r"twist_cos_sin must end in \(23, 2\)"):
        inverse_kinematics(*zeros[:2], jnp.zeros((24, 2)))
    with pytest.raises(ValueError, match=r"leaf_rotmats must end in \(5, 3, 3\)"):
        inverse_kinematics(*zeros[:3], jnp.zeros((4, 3, 3)))


def test_bad_weights_and_twists_are_reported_as_failed():
    rest = jnp.asarray(cases.rest_skeleton(cases.BODY), jnp.float32)
    targets = cases.noisy_targets(cases.BODY, np.asarray(rest), 5, 0.0)
    weights, twists = np.ones((5, 24), np.float32), np.ones((5, 23, 2), np.float32)
    weights[1, 4], weights[2, 4] = -1.0, np.nan
    twists[3, 0] = np.nan
    twists[4, 9] = np.nan  # of a leaf: not looked at
    pose = jax.jit(lambda t, c, w: inverse_kinematics(t, rest, c, weights=w))(
        jnp.asarray(targets, jnp.float32), jnp.asarray(twists), jnp.asarray(weights)
    )
    expected = [False, True, True, True, False]
    np.testing.assert_array_equal(pose.info.failed, expected)
    np.testing.assert_array_equal(pose.info.converged, np.logical_not(expected))
    assert np.isfinite(pose.local_rotmats).all()
