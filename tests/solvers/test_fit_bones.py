"""The tree solver against dense algebra, scipy and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from hmr_jax.solvers import fit_bones as tree_newton
from hmr_jax.solvers.fit_bones import fit_bones
from hmr_jax.solvers.tree import ops
from hmr_jax.solvers.tree.layout import WIDTH, tree_layout
from hmr_jax.solvers.tree.start import rotation_from_correlation
from hmr_jax.solvers.tree.sweep import step_solve, sweep
from tests.solvers import tree_cases as cases
from tests.tolerances import F32_IDENTITY, X64_IDENTITY

GRADIENT_RELATIVE = 1e-4  # what the implicit gradient must reach in float64


def assert_gradient(loss, arguments, step=1e-6, directions=4):
    """Compare the gradient with central differences along random directions."""
    rng = np.random.default_rng(1)
    value = jax.jit(loss)
    gradients = jax.jit(jax.grad(loss, tuple(range(len(arguments)))))(*arguments)
    for at, argument in enumerate(arguments):
        found, expected = [], []
        for _ in range(directions):
            way = rng.standard_normal(argument.shape)
            ends = []
            for sign in (1, -1):
                moved = list(arguments)
                moved[at] = argument + sign * step * way
                ends.append(float(value(*moved)))
            expected.append((ends[0] - ends[1]) / (2 * step))
            found.append(np.vdot(gradients[at], way))
        scale = np.abs(expected).max()
        error = np.abs(np.array(found) - expected).max() / scale
        assert error < GRADIENT_RELATIVE, (at, error, found, expected)


@pytest.mark.parametrize("name", cases.TREES)
def test_layout_visits_every_joint_once_children_first(name):
    parents = cases.TREES[name]
    layout = tree_layout(parents)
    assert layout is tree_layout(parents)
    assert sorted(layout.node_of_slot[layout.is_node]) == list(range(len(parents)))
    assert layout.slot_of_node[0] == (layout.num_steps - 1) * WIDTH
    for joint in range(1, len(parents)):
        slot = layout.slot_of_node[joint]
        assert layout.parent_slot[slot] == layout.slot_of_node[parents[joint]]
        assert layout.parent_slot[slot] // WIDTH > slot // WIDTH
    for row in layout.parent_slot.reshape(-1, WIDTH):
        real = row[row < layout.num_slots]
        assert len(set(real)) == len(real)


def dense_displacements(layout, bones, curvature, weights, forces):
    """The sweep's answer from the whole normal equations, one lane, in numpy."""
    count = layout.num_slots
    jacobian = np.zeros((count, 3, count, 3))
    for slot in range(count):
        at = slot
        while layout.parent_slot[at] < count:
            parent = layout.parent_slot[at]
            jacobian[slot, :, parent] += -np.cross(np.eye(3), bones[at]).T
            at = parent
    flat = jacobian.reshape(3 * count, 3 * count)
    hessian = flat.T @ (np.repeat(weights, 3)[:, None] * flat)
    for slot in range(count):
        parent = layout.parent_slot[slot]
        if parent < count:
            block = slice(3 * parent, 3 * parent + 3)
            hessian[block, block] += curvature[slot]
    gradient = flat.T @ forces.reshape(-1)
    turns = -np.linalg.lstsq(hessian, gradient, rcond=1e-12)[0]
    return (flat @ turns).reshape(count, 3)


@pytest.mark.parametrize("free", [[False] * 2, [True] * 2, [False, True]], ids=str)
@pytest.mark.parametrize("name", cases.TREES)
def test_sweep_equals_dense_solve(name, free, x64, rng):
    layout = tree_layout(cases.TREES[name])
    count, batch = layout.num_slots, 2
    edge = (layout.parent_slot < count)[:, None, None]
    bones = np.where(edge, rng.standard_normal((count, 3, batch)), 0)
    root = rng.standard_normal((count, 3, 3, batch))
    curvature = np.einsum("nijb,nkjb->nikb", root, root) * edge[..., None]
    weights = np.where(edge[:, 0], rng.uniform(0.5, 1, (count, batch)), 0)
    forces = np.where(edge, rng.standard_normal((count, 3, batch)), 0)
    arrays = [jnp.asarray(a) for a in (bones, curvature, weights, forces)]
    scale = jnp.ones((count, 1, batch))

    @jax.jit
    def solve(free, *arrays):
        blocks = functools.partial(step_solve, damping=jnp.zeros(batch), free=free)
        return sweep(layout, *arrays, scale, blocks)

    _, moves, _ = solve(jnp.asarray(free), *arrays)
    for lane in range(batch):
        expected = dense_displacements(
            layout, *(a[..., lane] for a in (bones, curvature, weights, forces))
        )
        np.testing.assert_allclose(moves[..., lane], expected, atol=X64_IDENTITY)


def test_fork_rotation_is_the_best_one(x64, rng):
    source = rng.standard_normal((7, 5, 3))
    turn = Rotation.random(7, random_state=0).as_matrix()
    turn[0] = np.diag([1.0, -1.0, -1.0])
    target = np.einsum("nij,nkj->nki", turn, source) + 0.1 * rng.standard_normal(
        (7, 5, 3)
    )
    correlation = np.einsum("nki,nkj->ijn", source, target)[None]
    found = jax.jit(rotation_from_correlation)(jnp.asarray(correlation))
    for lane in range(7):
        best, _ = Rotation.align_vectors(target[lane], source[lane])
        np.testing.assert_allclose(found[0, ..., lane], best.as_matrix(), atol=1e-6)


@pytest.mark.parametrize("noise_m", [0.005, 0.02])
def test_optimum_equals_scipy(noise_m, x64):
    rest = cases.rest_skeleton(cases.FORK)
    local = cases.random_pose(cases.FORK, 3, seed=2)
    targets = cases.noisy_targets(cases.FORK, rest, 3, noise_m, seed=2)
    joints, info = jax.jit(lambda t: fit_bones(t, jnp.asarray(rest), cases.FORK))(
        jnp.asarray(targets)
    )
    assert bool(jnp.all(info.converged)) and not bool(jnp.any(info.failed))
    for lane in range(3):

        def residual(turns, lane=lane):
            pose = Rotation.from_rotvec(turns.reshape(-1, 3)).as_matrix()
            posed, _ = cases.forward(pose, rest, cases.FORK)
            return (posed - targets[lane]).reshape(-1)

        start = Rotation.from_matrix(local[lane]).as_rotvec().reshape(-1)
        found = least_squares(residual, start, xtol=1e-12, ftol=1e-12, gtol=1e-12)
        np.testing.assert_allclose(info.cost[lane], found.cost, rtol=1e-6)
        posed = residual(found.x).reshape(-1, 3) + targets[lane]
        np.testing.assert_allclose(joints[lane], posed, atol=1e-5)
    assert float(info.gradient_norm.max()) < X64_IDENTITY


def test_reachable_targets_are_met_in_float32():
    rest = cases.rest_skeleton(cases.BODY)
    targets = cases.noisy_targets(cases.BODY, rest, 16, 0.0).astype(np.float32)
    fit = jax.jit(lambda t, r: fit_bones(t, r, cases.BODY))
    joints, info = fit(jnp.asarray(targets), jnp.asarray(rest, jnp.float32))
    np.testing.assert_allclose(joints, targets, atol=2e-6)  # metres
    assert bool(jnp.all(info.converged)) and int(info.iterations.max()) <= 3


@pytest.mark.parametrize("name", ["body", "fork"])
def test_gradient_equals_finite_differences(name, x64, rng):
    parents = cases.TREES[name]
    rest = cases.rest_skeleton(parents)
    targets = cases.noisy_targets(parents, rest, 3, 0.02)
    rest = rest + 0.01 * rng.standard_normal(targets.shape)
    weights = rng.uniform(0.3, 1.0, targets.shape[:-1])
    probe = jnp.asarray(rng.standard_normal(targets.shape))

    def loss(targets, rest, weights):
        return jnp.vdot(probe, fit_bones(targets, rest, parents, weights)[0])

    assert_gradient(loss, [jnp.asarray(a) for a in (targets, rest, weights)])


def test_degenerate_cases_are_finite_and_never_worse_than_the_start():
    named = cases.degenerate_cases()
    targets, rest = (
        jnp.asarray(np.stack([case[i] for case in named.values()]), jnp.float32)
        for i in range(2)
    )
    probe = jnp.asarray(np.random.default_rng(0).standard_normal(targets.shape))

    def loss(targets, rest, weights):
        joints, info = fit_bones(targets, rest, cases.BODY, weights)
        return jnp.vdot(probe.astype(joints.dtype), joints), (joints, info)

    weights = jnp.ones(targets.shape[:-1])
    step = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    gradients, (joints, info) = step(targets, rest, weights)
    for gradient in gradients:
        for lane, name in enumerate(named):
            assert np.isfinite(gradient[lane]).all(), name
    lengths = np.linalg.norm(np.diff(np.asarray(joints)[:, [0, 3, 6]], axis=1), axis=-1)
    wanted = np.linalg.norm(np.diff(np.asarray(rest)[:, [0, 3, 6]], axis=1), axis=-1)
    np.testing.assert_allclose(lengths, wanted, atol=2e-6)
    assert np.isfinite(np.asarray(info.cost)).all() and not np.any(info.failed)
    reachable = [list(named).index(n) for n in ("rest pose", "straight limbs")]
    np.testing.assert_allclose(
        joints[np.array(reachable)], targets[np.array(reachable)], atol=2e-6
    )


def test_missing_joints_change_nothing_else():
    rest = jnp.asarray(cases.rest_skeleton(cases.BODY), jnp.float32)
    targets = cases.noisy_targets(cases.BODY, np.asarray(rest), 3, 0.01)
    targets = targets.astype(np.float32)
    weights = np.ones((3, 24), np.float32)
    weights[:, [4, 9, 15, 18, 22]] = 0
    poisoned = targets.copy()
    poisoned[0, [4, 9, 15, 18, 22]] = np.nan
    poisoned[1, [4, 9, 15, 18, 22]] = np.inf
    poisoned[2, 23] = np.nan  # weighted and not finite: missing, and marked

    def loss(targets, rest, weights):
        joints, info = fit_bones(targets, rest, cases.BODY, weights)
        return jnp.sum(joints**2), (joints, info)

    step = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))
    gradients, (joints, info) = step(jnp.asarray(poisoned), rest, jnp.asarray(weights))
    _, (clean, _) = step(jnp.asarray(targets), rest, jnp.asarray(weights))
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_array_equal(joints[:2], clean[:2])
    np.testing.assert_array_equal(np.asarray(info.failed), [False, False, True])
    np.testing.assert_array_equal(gradients[0][:, [4, 9, 15, 18, 22]], 0)
    error = np.linalg.norm(np.asarray(joints) - targets, axis=-1)
    assert error[:, weights[0] > 0].mean() < 0.014  # the noise itself is 16 mm
    assert np.all(info.converged[:2])


def test_a_lane_does_not_depend_on_its_neighbours(rng):
    """To the last bit, in targets that no pose comes near, and in the gradient."""
    rest = jnp.asarray(cases.rest_skeleton(cases.BODY), jnp.float32)
    targets = jnp.asarray(rng.standard_normal((6, 24, 3)), jnp.float32)

    def loss(targets, weights):
        joints, info = fit_bones(targets, rest, cases.BODY, weights)
        return jnp.sum(joints[..., 0]), (joints, info)

    step = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    clean = step(targets, jnp.ones((6, 24)))
    spoilt = targets.at[1, 5].set(jnp.nan).at[2].set(0.0)
    weights = jnp.ones((6, 24)).at[0, 4].set(0.0).at[3].set(0.0).at[3, 20].set(1.0)
    found = step(spoilt, weights)
    assert np.abs(found[1][0] - clean[1][0])[:4].max() > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[4:], b[4:]), found, clean)


@pytest.mark.parametrize("shape", [(), (1,), (2, 1, 3)])
def test_batch_axes_and_broadcast_rest(shape):
    rest = jnp.asarray(cases.rest_skeleton(cases.CHAIN), jnp.float32)
    count = int(np.prod(shape, dtype=int))
    targets = cases.noisy_targets(cases.CHAIN, np.asarray(rest), count, 0.01)
    targets = jnp.asarray(targets.reshape(*shape, 5, 3), jnp.float32)
    joints, info = fit_bones(targets, rest, cases.CHAIN, num_steps=4)
    assert joints.shape == (*shape, 5, 3) and info.cost.shape == shape
    single = jax.vmap(lambda t: fit_bones(t, rest, cases.CHAIN, num_steps=4)[0])
    flat = single(targets.reshape(count, 5, 3))
    np.testing.assert_allclose(joints.reshape(count, 5, 3), flat, atol=F32_IDENTITY)


@pytest.mark.slow
def test_chunks_equal_the_whole(monkeypatch):
    rest = jnp.asarray(cases.rest_skeleton(cases.CHAIN), jnp.float32)
    targets = cases.noisy_targets(cases.CHAIN, np.asarray(rest), 7, 0.01)
    targets = jnp.asarray(targets, jnp.float32)

    def fit(targets):
        joints, info = fit_bones(targets, rest, cases.CHAIN)
        return jnp.sum(joints**2), (joints, info.iterations)

    whole = jax.value_and_grad(fit, has_aux=True)(targets)
    monkeypatch.setattr(ops, "CHUNK", 3)
    chunks = jax.value_and_grad(fit, has_aux=True)(targets)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), whole, chunks
    )


def test_large_batch_in_float32_equals_float64(x64):
    """Guards against jaxlib releases whose long CPU reductions are wrong."""
    rest = cases.rest_skeleton(cases.CHAIN)
    targets = cases.noisy_targets(cases.CHAIN, rest, 10_050, 0.005)

    def loss(targets, rest):
        return jnp.sum(fit_bones(targets, rest, cases.CHAIN, num_steps=6)[0] ** 2)

    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    double = step(jnp.asarray(targets), jnp.asarray(rest))
    single = step(*(jnp.asarray(a, jnp.float32) for a in (targets, rest)))
    np.testing.assert_allclose(single[0], double[0], rtol=1e-5)
    for a, b in zip(single[1], double[1], strict=True):
        error = np.abs(np.asarray(a) - np.asarray(b))
        assert np.quantile(error, 0.999) < 1e-3 * np.abs(b).max()


def test_info_counts_steps_and_needs_the_tolerance():
    rest = jnp.asarray(cases.rest_skeleton(cases.CHAIN), jnp.float32)
    targets = cases.noisy_targets(cases.CHAIN, np.asarray(rest), 4, 0.01)
    targets = jnp.asarray(targets, jnp.float32)
    _, one = fit_bones(targets, rest, cases.CHAIN, num_steps=1)
    assert not np.any(one.converged) and np.all(np.asarray(one.iterations) == 1)
    _, fixed = fit_bones(targets, rest, cases.CHAIN, num_steps=6, tolerance=0.0)
    assert np.all(np.asarray(fixed.iterations) == 6)
    _, default = fit_bones(targets, rest, cases.CHAIN)
    assert np.all(default.converged)
    assert np.all(np.asarray(default.cost) <= np.asarray(one.cost) * 1.001)
    assert tree_newton.NUM_STEPS >= int(default.iterations.max())


def test_wrong_shapes_are_named():
    rest = jnp.zeros((5, 3))
    with pytest.raises(ValueError, match=r"target_joints_m must end in \(5, 3\)"):
        fit_bones(jnp.zeros((2, 4, 3)), rest[:4], cases.CHAIN)
    with pytest.raises(ValueError, match="parents"):
        fit_bones(jnp.zeros((5, 3)), rest, (-1, 0, 3, 1, 2))
