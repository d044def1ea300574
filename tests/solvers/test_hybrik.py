"""The analytic solvers against the original's stored outputs, and their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_jax.body import forward
from hmr_jax.solvers import hybrik
from hmr_jax.solvers.types import LEAF_JOINTS
from tests.solvers import tree_cases as cases
from tests.systems.ikol import vectors as iv
from tests.systems.ikol.test_published import degenerate_inputs

PUBLISHED = {
    "hybrik_naive_train": functools.partial(
        hybrik.hybrik_naive, eps=hybrik.PUBLISHED_EPS
    ),
    "hybrik_naive_eval": functools.partial(
        hybrik.hybrik_naive, mode="eval", eps=hybrik.PUBLISHED_EPS
    ),
    "hybrik_adaptive_eval": functools.partial(
        hybrik.hybrik_adaptive,
        leaf_joints=hybrik.PUBLISHED_ADAPTIVE_LEAF_JOINTS,
        eps=hybrik.PUBLISHED_EPS,
    ),
}
EXACT = {
    "naive_train": hybrik.hybrik_naive,
    "naive_eval": functools.partial(hybrik.hybrik_naive, mode="eval"),
    "adaptive": hybrik.hybrik_adaptive,
}
NAIVE_EVAL = pytest.param("naive_eval", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def vectors(parity_dir):
    return iv.load(parity_dir)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_float64(vectors, recipe, name, x64):
    body, where = iv.reduced_body(recipe, np.float64)

    @jax.jit
    def run(args, betas, body):
        result = PUBLISHED[name](*args)
        mesh = forward.body_forward(body, betas, result.local_rotmats).vertices_m
        centre = forward.regress_joints(body, mesh, "h36m_17")[:, :1]
        return result, mesh[:, where] - centre

    for case in iv.CASES:
        betas = np.asarray(vectors[f"{case}/in_betas"], np.float64)
        result, mesh = run(iv.inputs(vectors, case, np.float64), betas, body)
        iv.assert_float64(result.joints_m, vectors, f"{case}/{name}/joints")
        iv.assert_float64(result.local_rotmats, vectors, f"{case}/{name}/rotmats")
        iv.assert_float64(mesh, vectors, f"{case}/{name}/verts50")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_float32(vectors, name):
    run = jax.jit(lambda args: PUBLISHED[name](*args))
    for case in iv.CASES:
        result = run(iv.inputs(vectors, case, np.float32))
        iv.assert_float32(result.joints_m, vectors, f"{case}/{name}/joints", 0.3)
        iv.assert_float32(result.local_rotmats, vectors, f"{case}/{name}/rotmats", 0.3)


def degenerate_cases():
    """Joints, twists and leaves of 12 samples, and which solvers call them failed."""
    rest = cases.rest_skeleton(cases.BODY)
    posed = cases.noisy_targets(cases.BODY, rest, 1, 0.0)[0]
    targets, rests = np.stack([posed] * 12), np.stack([rest] * 12)
    twists, leaves = np.ones((12, 23, 2)), np.ones((12, 5, 4))
    all_solvers, two_vector = set(EXACT), {"naive_train", "adaptive"}
    fitted_spine3 = {"naive_eval", "adaptive"}
    failing = {0: set()}
    targets[1, 10] = targets[1, 7]  # a target bone of no length
    failing[1] = all_solvers
    rests[2, 10] = rests[2, 7]
    failing[2] = all_solvers
    spine = posed[3]
    middle = (posed[1] + posed[2]) / 2
    targets[3, 1:3] += -0.7 * spine - middle  # three bones still span a plane
    failing[3] = two_vector
    targets[4, 1], targets[4, 2] = 0.5 * spine, -0.4 * spine
    failing[4] = all_solvers
    for share, joint in enumerate((12, 13, 14), start=1):
        targets[5, joint] = posed[9] + share * 0.1 * spine
    failing[5] = fitted_spine3
    targets[6], rests[6] = 0.0, rest
    failing[6] = all_solvers
    twists[7, 3] = np.nan
    failing[7] = all_solvers
    twists[8, 9] = np.nan  # of a leaf: not looked at
    failing[8] = set()
    leaves[9, 2] = np.nan
    failing[9] = all_solvers
    twists[10], leaves[10] = 0.0, 0.0  # no twist, the identity
    failing[10] = set()
    twists[11, 8] = np.nan  # of spine3
    failing[11] = {"naive_train"}
    return (targets, rests, twists, leaves), failing


@pytest.mark.parametrize("name", ["naive_train", "adaptive", NAIVE_EVAL])
def test_what_is_undetermined_is_flagged_and_finite(name):
    arrays, failing = degenerate_cases()
    arrays = tuple(jnp.asarray(a, jnp.float32) for a in arrays)
    expected = [name in failing[case] for case in range(len(failing))]

    def loss(args):
        result = EXACT[name](*args, detach_root_target=False)
        return (result.joints_m**2).sum() + (result.local_rotmats**3).sum(), result

    gradients, result = jax.jit(jax.grad(loss, has_aux=True))(arrays)
    np.testing.assert_array_equal(result.info.failed, expected)
    given = np.array([np.isfinite(a).all((1, 2)) for a in arrays]).all(0)
    assert given.sum() == 8
    for array in jax.tree.leaves((gradients, result.local_rotmats, result.joints_m)):
        assert np.isfinite(np.asarray(array)[given]).all()
    for rotmats in (result.local_rotmats[given], result.global_rotmats[given]):
        assert off_orthonormal(rotmats) < 3e-6


def test_degenerate_inputs_are_finite_as_published(vectors):
    solver = PUBLISHED["hybrik_naive_train"]

    def loss(args):
        result = solver(*args)
        return (result.joints_m**2).sum() + (result.local_rotmats**3).sum(), result

    gradients, result = jax.jit(jax.grad(loss, has_aux=True))(
        degenerate_inputs(vectors)
    )
    for array in jax.tree.leaves((gradients, result.local_rotmats, result.joints_m)):
        assert np.isfinite(np.asarray(array)).all()
    # Opposite bones, under the guards' root; a heap; bones of no length.
    expected = [False, True, True, True, True, False, False, False]
    np.testing.assert_array_equal(result.info.failed, expected)


def off_orthonormal(rotmats):
    """Largest entry of ``R R^T - I``; infinite for a reflection."""
    rotmats = np.asarray(rotmats, np.float64)
    if not (np.linalg.det(rotmats) > 0).all():
        return np.inf
    return np.abs(rotmats @ np.swapaxes(rotmats, -1, -2) - np.eye(3)).max()


OFF_RAD = (0.0, 1e-9, 1e-7, 1e-4, 1e-3)
"""Angles that are missing to a half turn."""


def half_turns():
    """Targets that are (near) half turns of all, then of the right shin.

    Returns:
        Targets [2, 3, 5, 24, 3] by what turns, axis and ``OFF_RAD``, rest joints.
    """
    rest = cases.rest_skeleton(cases.BODY)
    local = np.broadcast_to(np.eye(3), (2, 3, len(OFF_RAD), 24, 3, 3)).copy()
    knee, ankle = 5, 8
    shin = rest[ankle] - rest[knee]
    shin /= np.linalg.norm(shin)
    for i, axis in enumerate(np.eye(3)):
        across = axis - (axis @ shin) * shin
        across /= np.linalg.norm(across)
        for j, off in enumerate(OFF_RAD):
            for which, joint, about in ((0, 0, axis), (1, knee, across)):
                turn = Rotation.from_rotvec((np.pi - off) * about).as_matrix()
                local[which, i, j, joint] = turn
    return cases.forward(local, rest, cases.BODY)[0], rest


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["naive_train", "adaptive", NAIVE_EVAL])
def test_half_turns_are_rotations_that_reach_the_targets(name, dtype, x64, rng):
    targets, rest = half_turns()
    shape = targets.shape[:-2]
    twists = rng.standard_normal((*shape, 23, 2))
    # Spine3 is reached by no other twist, nor is the shin turned by just a half turn.
    twists[..., [1, 2, 5, 8], :] = (2.0, 0.0)
    inputs = (
        targets.reshape(-1, 24, 3),
        np.broadcast_to(rest, (targets.size // 72, 24, 3)),
        twists.reshape(-1, 23, 2),
        rng.standard_normal((targets.size // 72, 5, 4)),
    )
    pose = jax.jit(EXACT[name])(*(jnp.asarray(a, dtype) for a in inputs))
    eps = np.finfo(dtype).eps
    assert pose.joints_m.dtype == dtype
    for rotmats in (pose.local_rotmats, pose.global_rotmats):
        assert off_orthonormal(rotmats) < 32 * eps
    np.testing.assert_allclose(pose.joints_m, inputs[0], atol=32 * eps, rtol=0)
    # The turn of the whole body is determined by spine and hips.
    open_swing = np.array(OFF_RAD) < (1e-6 if dtype == np.float32 else 1e-12)
    expected = np.zeros(shape, bool)
    expected[1] = open_swing
    np.testing.assert_array_equal(pose.info.failed.reshape(shape), expected)


@pytest.mark.parametrize("name", ["naive_train"])
def test_gradient_through_the_root_is_optional(name, x64, rng):
    solver = EXACT.get(name, PUBLISHED["hybrik_naive_train"])
    rest = cases.rest_skeleton(cases.BODY)
    targets = cases.noisy_targets(cases.BODY, rest, 4, 0.002)
    if name != "published":
        targets[0] = rest * [1.0, -1.0, -1.0]  # half turns of the root
        targets[1] = rest * [-1.0, 1.0, -1.0]
    twists = rng.standard_normal((4, 23, 2))
    leaves = rng.standard_normal((4, 5, 4))
    rests = np.broadcast_to(rest, targets.shape)
    probe, way = rng.standard_normal((24, 3, 3)), rng.standard_normal((24, 3))

    def per_sample(targets, detach, count):
        inputs = (targets, *map(jnp.asarray, (rests, twists, leaves)))
        local = solver(*inputs, detach_root_target=detach).local_rotmats
        return (probe[None, :count] * local[:, :count]).sum((1, 2, 3))

    value = jax.jit(functools.partial(per_sample, detach=False, count=24))
    step = 1e-6
    ends = [value(jnp.asarray(targets + sign * step * way[None])) for sign in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * step)

    def gradient(detach, count):
        total = jax.grad(lambda t: per_sample(t, detach, count).sum())
        return jax.jit(total)(jnp.asarray(targets))

    found = (gradient(False, 24) * way[None]).sum((1, 2))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(gradient(True, 1), 0.0)
    assert np.abs(gradient(False, 1)).max() > 0.1


def test_an_aim_is_kept_where_the_target_bone_has_no_direction():
    """The knee is reached 1 cm short of its target, which is the ankle's too."""
    rest = cases.rest_skeleton(cases.BODY)
    targets = rest.copy()
    hip, knee, ankle, foot = 1, 4, 7, 10
    thigh = rest[knee] - rest[hip]
    targets[knee] += 0.01 * thigh / np.linalg.norm(thigh)
    targets[ankle] = targets[knee]
    targets[foot] = targets[ankle] + (rest[foot] - rest[ankle])
    inputs = (targets, rest, np.ones((23, 2)), np.ones((5, 4)))
    pose = jax.jit(hybrik.hybrik_adaptive)(*(jnp.float32(a) for a in inputs))
    shin = np.asarray(pose.joints_m[ankle] - pose.joints_m[knee])
    shin_m = np.linalg.norm(rest[ankle] - rest[knee])
    expected = shin_m * thigh / np.linalg.norm(thigh)
    np.testing.assert_allclose(shin, expected, atol=2e-5)
    assert not pose.info.failed


@pytest.mark.slow
def test_leading_axes_and_the_order_of_leaves(vectors):
    args = tuple(map(jnp.asarray, iv.inputs(vectors, "clean", np.float32)))
    two_axes = tuple(a.reshape(2, 4, *a.shape[1:]) for a in args)
    pairs = jax.jit(hybrik.hybrik_adaptive)(*two_axes).local_rotmats
    published = jax.jit(PUBLISHED["hybrik_adaptive_eval"])(*(a[5] for a in args))
    own = pairs[1, 1]
    assert pairs.shape == (2, 4, 24, 3, 3)
    inner = jnp.array([j for j in range(24) if j not in LEAF_JOINTS])
    np.testing.assert_allclose(own[inner], published.local_rotmats[inner], atol=1e-5)
    mixed = jnp.array(hybrik.PUBLISHED_ADAPTIVE_LEAF_JOINTS)
    np.testing.assert_allclose(
        own[jnp.array(LEAF_JOINTS)], published.local_rotmats[mixed], atol=1e-6
    )


def test_unknown_mode_is_refused(vectors):
    args = tuple(map(jnp.asarray, iv.inputs(vectors, "clean", np.float32)))
    with pytest.raises(ValueError, match="mode"):
        hybrik.hybrik_naive(*args, mode="test")
