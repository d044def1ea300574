"""Problems times solvers against scipy; gradient rules against finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from hmr_jax.geometry import rotations
from hmr_jax.solvers.least_squares import GRADIENTS, METHODS, solve
from tests.tolerances import FINITE_DIFFERENCE_X64

TIMES = np.linspace(0.0, 1.0, 10)
DECAY = 2 * np.exp(-1.5 * TIMES) + 0.5 + 0.05 * np.cos(17 * TIMES)
CLOUD = np.random.default_rng(3).standard_normal((6, 3))
TURN = np.array([0.7, -1.1, 0.4])
NOISE = 0.05 * np.random.default_rng(4).standard_normal((6, 3))


def rosenbrock(x, a):
    return jnp.stack([10 * (x[1] - x[0] ** 2), a - x[0]])


def powell(x, a):
    first = jnp.stack([x[0] + 10 * x[1], 5**0.5 * (x[2] - x[3])])
    last = jnp.stack([(x[1] - 2 * x[2]) ** 2, 10**0.5 * (x[0] - x[3]) ** 2])
    return jnp.concatenate([first, last + a])


def exponential(x, samples):
    times = jnp.asarray(TIMES, x.dtype)
    return x[0] * jnp.exp(-x[1] * times) + x[2] - samples


def rotation(x, targets):
    cloud = jnp.asarray(CLOUD, x.dtype)
    turned = rotations.matmul3(rotations.axis_angle_to_matrix(x), cloud.T).T
    return {"points": turned - targets}


def underdetermined(x, a):
    return jnp.stack([x[0] * x[1] - a, x[2] + x[3] - 2 * a + x[0] ** 2])


def turned_cloud():
    angle = np.linalg.norm(TURN)
    axis = TURN / angle
    cross = np.cross(np.eye(3), axis).T
    matrix = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return CLOUD @ matrix.T + NOISE


PROBLEMS = {  # residual, start, argument
    "rosenbrock": (rosenbrock, [-1.2, 1.0], 1.0),
    "powell_singular": (powell, [3.0, -1.0, 0.0, 1.0], 0.0),
    "exponential": (exponential, [1.0, 1.0, 0.0], DECAY),
    "rotation": (rotation, [0.0, 0.0, 0.0], turned_cloud()),
    "underdetermined": (underdetermined, [1.0, 2.0, 0.0, 0.0], 3.0),
}


def solver(name, **options):
    residual, start, argument = PROBLEMS[name]
    run = functools.partial(solve, residual, **options)
    return run, jnp.asarray(start), jnp.asarray(argument)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_reaches_scipys_minimum(name, method, x64):
    damping = 1e-3 if method == "lm" else 1e-6
    run, start, argument = solver(
        name, method=method, tolerance=1e-9, max_steps=60, damping=damping
    )
    x, info = jax.jit(run)(start, argument)

    def residual(at):
        value = PROBLEMS[name][0](jnp.asarray(at), argument)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(value)])

    best = scipy.optimize.least_squares(
        residual, start, method="trf", ftol=1e-14, xtol=1e-14, gtol=1e-12
    )
    assert info.converged and not info.failed
    assert info.gradient_norm <= 1e-9
    assert 0 < info.iterations <= 60
    assert abs(info.cost - best.cost) < 1e-10
    if name in ("rosenbrock", "exponential", "rotation"):
        np.testing.assert_allclose(x, best.x, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["exponential", pytest.param("rotation", marks=pytest.mark.slow)]
)
def test_reaches_the_minimum_in_float32(name):
    run, start, argument = solver(name, max_steps=15)
    x, info = jax.jit(run)(start, argument)
    tight, _, _ = solver(name, max_steps=15, tolerance=1e-5)
    y, tight_info = jax.jit(tight)(start, argument)
    assert x.dtype == jnp.float32
    assert tight_info.converged and not (info.converged or info.failed)
    assert tight_info.iterations < 15
    np.testing.assert_allclose(x, y, atol=1e-4)


def derivative(name, rule, tolerance=1e-11):
    run, start, argument = solver(
        name, gradient=rule, tolerance=tolerance, max_steps=60
    )
    fixed = jax.jit(lambda a: run(start, a)[0])
    jacobian = jax.jit(jax.jacrev(lambda a: run(start, a)[0]))(argument)
    step = 1e-5
    flat = np.eye(argument.size).reshape(-1, *argument.shape)
    columns = [
        (fixed(argument + step * e) - fixed(argument - step * e)) / (2 * step)
        for e in flat
    ]
    expected = np.stack(columns, -1).reshape(jacobian.shape)
    return np.abs(jacobian - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    "name, rule",
    [
        ("exponential", "implicit"),
        ("rotation", "implicit"),
        ("exponential", "unroll"),
        pytest.param("rosenbrock", "implicit", marks=pytest.mark.slow),
        pytest.param("rosenbrock", "unroll", marks=pytest.mark.slow),
        pytest.param("rotation", "unroll", marks=pytest.mark.slow),
    ],
)
def test_exact_gradients(name, rule, x64):
    assert derivative(name, rule) < FINITE_DIFFERENCE_X64


@pytest.mark.parametrize("rule", ["implicit_gauss_newton", "one_step", "gn_diff"])
def test_approximate_gradients_are_exact_without_residual(rule, x64):
    assert derivative("rosenbrock", rule) < FINITE_DIFFERENCE_X64


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["implicit_gauss_newton", "one_step", "gn_diff"])
def test_approximate_gradients_are_off_in_proportion_to_the_residual(rule, x64):
    error = derivative("exponential", rule)
    assert 1e-3 < error < 0.1


def test_implicit_gradient_of_gradient(x64):
    run, start, argument = solver("rosenbrock", tolerance=1e-12)

    def first(a):
        return run(start, a)[0][1]  # = a^2 at the minimum

    assert abs(jax.jit(jax.grad(jax.grad(first)))(argument) - 2.0) < 1e-6


def test_gradient_reaches_what_the_residual_closes_over(x64):
    def solution(a):
        return solve(lambda x, _: x**2 - a, jnp.ones(()), tolerance=1e-12)[0]

    np.testing.assert_allclose(jax.jit(jax.grad(solution))(4.0), 0.25, rtol=1e-8)


def test_pytrees_in_and_out():
    def residual(x, args):
        return [x["a"] - args["goal"], (x["b"] * x["b"] - 2 * args["goal"][0],)]

    start = {"a": jnp.zeros(2), "b": jnp.ones(())}
    goal = jnp.array([2.0, 3.0])
    x, info = jax.jit(lambda g: solve(residual, start, {"goal": g}, max_steps=20))(goal)
    np.testing.assert_allclose(x["a"], goal, atol=1e-5)
    np.testing.assert_allclose(x["b"], 2.0, atol=1e-5)
    assert info.cost < 1e-9


def logarithm(x, a):
    """Not a number left of zero: a long step from x = 30 lands there."""
    return jnp.stack([jnp.log(x[0]) - a, x[1] - a])


LANES = np.array([[1, 0], [5, 0], [-1, 0], [30, 0], [1, 1]], np.float32)
GOALS = np.array([0.5, 1, 1, -2, np.nan], np.float32)
SOLVED = np.array([True, True, False, True, False])


@pytest.mark.parametrize(
    "rule",
    [
        "implicit",
        "gn_diff",
        *(
            pytest.param(rule, marks=pytest.mark.slow)
            for rule in GRADIENTS
            if rule not in ("implicit", "gn_diff")
        ),
    ],
)
def test_lanes_stop_and_fail_alone(rule):
    run = functools.partial(
        solve, logarithm, gradient=rule, tolerance=1e-5, max_steps=30
    )

    def loss(start, goal):
        x, info = jax.vmap(run)(start, goal)
        return x.sum(), (x, info)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    (by_start, by_goal), (x, info) = gradient(jnp.asarray(LANES), jnp.asarray(GOALS))
    np.testing.assert_array_equal(info.failed, ~SOLVED)
    np.testing.assert_array_equal(info.converged, SOLVED)
    expected = np.stack([np.exp(GOALS), GOALS], -1)
    np.testing.assert_allclose(x[SOLVED], expected[SOLVED], rtol=1e-3)
    np.testing.assert_array_equal(x[~SOLVED], LANES[~SOLVED])
    assert len(set(np.asarray(info.iterations)[SOLVED].tolist())) > 1
    assert np.isfinite(by_start).all() and np.isfinite(by_goal).all()
    wanted = np.exp(GOALS[SOLVED]) + 1
    # gn_diff from a damped, short run: 0.5 % of the derivative is still to come
    np.testing.assert_allclose(by_goal[SOLVED], wanted, rtol=5e-3)
    np.testing.assert_array_equal(by_goal[~SOLVED], 0.0)


def test_gauss_newton_returns_the_last_finite_point():
    x, info = jax.jit(functools.partial(solve, logarithm, method="gn", damping=0.0))(
        jnp.asarray(LANES[3]), jnp.asarray(GOALS[3])
    )
    np.testing.assert_array_equal(x, LANES[3])
    assert info.failed and info.iterations == 1


def test_singular_normal_matrix_is_survived():
    """The second unknown moves nothing."""

    def residual(x, a):
        return x[:1] - a + 0 * x[1:]

    for method in METHODS:

        def loss(a, method=method):
            x, info = solve(residual, jnp.ones(2), a, method=method, damping=0.0)
            return x.sum(), info

        gradient, info = jax.jit(jax.grad(loss, has_aux=True))(jnp.asarray([3.0]))
        assert not info.failed and info.cost < 1e-10
        np.testing.assert_allclose(gradient, [1.0], atol=1e-4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "dogleg"}, "method"),
        ({"gradient": "adjoint"}, "gradient"),
        ({"max_steps": 0}, "max_steps"),
        ({"damping": -1.0}, "damping"),
    ],
)
def test_settings_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        solve(rosenbrock, jnp.zeros(2), jnp.ones(()), **options)


def test_integer_start_is_refused():
    with pytest.raises(ValueError, match="floating"):
        solve(rosenbrock, jnp.zeros(2, int), jnp.ones(()))
