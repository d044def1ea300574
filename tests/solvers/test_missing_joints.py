"""Missing joints: exact gradients of what is determined, and who follows whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hmr_jax.solvers.fit_bones import fit_bones
from hmr_jax.solvers.inverse_kinematics import inverse_kinematics
from tests.solvers import tree_cases as cases

COCO = (0, 1, 2, 4, 5, 7, 8, 15, 16, 17, 18, 19, 20, 21)
SEEN = {
    "all": range(24),
    "without a knee": set(range(24)) - {4},
    "without an elbow": set(range(24)) - {18},
    "without knees": set(range(24)) - {4, 5},
    "without the upper body": range(12),
    "COCO": COCO,
    "one leg": (0, 1, 4, 7, 10),
    "hands alone": (0, 22, 23),
}
POSES = 4


def problem(noise_m):
    """Every set of seen joints with ``POSES`` poses each, as one batch."""
    rest = cases.rest_skeleton(cases.BODY, seed=1)
    count = POSES * len(SEEN)
    targets = cases.noisy_targets(cases.BODY, rest, count, noise_m)
    weights = np.zeros((count, 24))
    for at, seen in enumerate(SEEN.values()):
        weights[at * POSES : (at + 1) * POSES, list(seen)] = 1
    rng = np.random.default_rng(7)
    weights *= rng.uniform(0.5, 1, weights.shape)
    probe = rng.standard_normal((count, 24, 3)) * (weights > 0)[..., None]
    return targets, np.tile(rest, (count, 1, 1)), weights, probe


def fit(targets, rest, weights, probe):
    joints, info = fit_bones(targets, rest, cases.BODY, weights, num_steps=60)
    values = jnp.sum(probe * joints, axis=(-1, -2))
    return jnp.sum(values), (values, info.converged)


@pytest.fixture(scope="module")
def step():
    return jax.jit(jax.value_and_grad(fit, (0, 1, 2), has_aux=True))


@pytest.mark.slow
@pytest.mark.parametrize("noise_m", [0.0, 0.01])
@pytest.mark.parametrize(
    ("dtype", "relative", "firm"), [(np.float64, 1e-6, 0.9), (np.float32, 5e-3, 0.75)]
)
def test_gradient_is_exact_where_it_says_so(step, noise_m, dtype, relative, firm, x64):
    """Against central differences in float64, in what the targets determine."""
    double = [jnp.asarray(a) for a in problem(noise_m)]
    inputs = [a.astype(dtype) for a in double]
    (_, (_, converged)), gradients = step(*inputs)
    converged = np.asarray(converged)
    assert converged.mean() > firm
    rng = np.random.default_rng(3)
    for at, gradient in enumerate(gradients):
        found, expected = [], []
        for _ in range(3):
            way = rng.standard_normal(double[at].shape)
            way = way * (np.asarray(double[2]) > 0) if at == 2 else way
            ends = []
            for sign in (1, -1):
                moved = list(double)
                moved[at] = double[at] + sign * 1e-6 * way
                ends.append(np.asarray(step(*moved)[0][1][0]))
            expected.append((ends[0] - ends[1]) / 2e-6)
            lanes = np.asarray(gradient, np.float64) * way
            found.append(lanes.reshape(len(way), -1).sum(-1))
        scale = np.maximum(np.abs(expected).max(0), 1)
        error = (np.abs(np.array(found) - expected).max(0) / scale)[converged]
        assert error.max() < relative, (at, error)


def test_chain_without_its_middle_joint(x64, rng):
    """The chain of five joints whose gradient was a sixth of the right one."""
    rest = jnp.asarray(cases.rest_skeleton(cases.CHAIN))
    targets = jnp.asarray(cases.noisy_targets(cases.CHAIN, rest, 8, 0.02))
    weights = jnp.array([1.0, 1, 0, 1, 1])
    probe = jnp.asarray(rng.standard_normal((8, 5, 3))) * weights[None, :, None]

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def step(targets):
        joints, info = fit_bones(targets, rest, cases.CHAIN, weights, num_steps=60)
        values = jnp.sum(probe * joints, axis=(-1, -2))
        return values.sum(), (values, info.converged)

    (_, (_, converged)), gradient = step(targets)
    assert np.asarray(converged).sum() > 4
    way = rng.standard_normal(targets.shape)
    ends = [step(targets + sign * 1e-6 * way)[0][1][0] for sign in (1, -1)]
    expected = np.asarray(ends[0] - ends[1]) / 2e-6
    found = np.asarray(gradient * way).sum((1, 2))
    scale = np.maximum(np.abs(expected), 1)
    error = (np.abs(found - expected) / scale)[np.asarray(converged)]
    assert error.max() < 1e-6


@pytest.fixture(scope="module")
def solve():
    rest = jnp.asarray(cases.rest_skeleton(cases.BODY), jnp.float32)
    run = jax.jit(lambda t, w: inverse_kinematics(t, rest, weights=w))
    return lambda t, w: run(jnp.asarray(t, jnp.float32), jnp.asarray(w, jnp.float32))


def angle_deg(rotmats):
    return np.rad2deg(Rotation.from_matrix(np.asarray(rotmats)).magnitude())


def test_forks_follow_their_parent_as_far_as_nothing_is_seen(solve):
    """The chest turns with the spine alone, and with one shoulder no more than due."""
    rest = cases.rest_skeleton(cases.BODY)
    targets = cases.noisy_targets(cases.BODY, rest, 4, 0.0)
    weights = np.zeros((4, 24))
    weights[:, :10] = 1  # up to the chest
    weights[2:, 13] = 1  # and one collar
    pose = solve(targets, weights)
    assert not np.any(pose.info.failed)
    np.testing.assert_allclose(angle_deg(pose.local_rotmats[:2, 9]), 0, atol=0.1)
    bone = rest[13] - rest[9]
    before = np.asarray(pose.global_rotmats[2:, 6]) @ bone
    after = targets[2:, 13] - targets[2:, 9]
    due = np.einsum("ni,ni->n", before, after) / (bone @ bone)
    np.testing.assert_allclose(
        angle_deg(pose.local_rotmats[2:, 9]), np.rad2deg(np.arccos(due)), atol=0.1
    )
    joints, _ = cases.forward(pose.local_rotmats, rest, cases.BODY)
    np.testing.assert_allclose(pose.joints_m, joints, atol=1e-5)
    seen = weights > 0
    np.testing.assert_allclose(pose.joints_m[seen], targets[seen], atol=1e-5)


def test_no_gradient_is_claimed_where_there_is_none(solve):
    """A limb that just reaches its target, targets in a heap, and a half turn."""
    rest = cases.rest_skeleton(cases.BODY)
    rest = rest - rest[0]
    targets = cases.noisy_targets(cases.BODY, rest, 4, 0.0)
    weights = np.ones((4, 24))
    weights[0, 18] = 0  # an elbow between joints as far apart as the arm is long
    way = targets[0, 16] - targets[0, 13]
    reach = np.linalg.norm(rest[18] - rest[16]) + np.linalg.norm(rest[20] - rest[18])
    targets[0, 20] = targets[0, 16] + way / np.linalg.norm(way) * reach
    targets[0, 22] = targets[0, 20] + (rest[22] - rest[20])
    targets[1] = targets[1, 3] + 1e-3 * targets[1]  # 2 mm wide
    turn = Rotation.align_vectors(
        np.stack([targets[2, j] for j in (1, 2, 3)]),
        np.stack([rest[j] for j in (1, 2, 3)]),
    )[0]
    thigh = turn.apply(rest[4] - rest[1])
    targets[2, [4, 7, 10]] += targets[2, 1] - thigh - targets[2, 4]
    pose = solve(targets, weights)
    assert np.isfinite(pose.joints_m).all()
    np.testing.assert_array_equal(pose.info.converged, [False, False, False, True])


def test_second_derivatives_in_rest_joints(x64, rng):
    """Forks turn with their bones, which the gradient depends on."""
    rest = jnp.asarray(cases.rest_skeleton(cases.FORK))
    targets = jnp.asarray(cases.noisy_targets(cases.FORK, np.asarray(rest), 1, 0.02)[0])
    probe, way, other = (jnp.asarray(rng.standard_normal((6, 3))) for _ in range(3))

    def slope(rest, targets):
        loss = lambda r: jnp.sum(probe * fit_bones(targets, r, cases.FORK)[0])  # noqa: E731
        return jnp.vdot(way, jax.grad(loss)(rest))

    slopes = jax.jit(slope)
    found = jax.jit(jax.grad(slope, (0, 1)))(rest, targets)
    for at in range(2):
        ends = []
        for sign in (1, -1):
            moved = [rest, targets]
            moved[at] = moved[at] + sign * 1e-5 * other
            ends.append(float(slopes(*moved)))
        expected = (ends[0] - ends[1]) / 2e-5
        assert abs(float(jnp.vdot(other, found[at])) - expected) < 1e-5 * abs(expected)
