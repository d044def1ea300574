"""Damped Gauss-Newton and Levenberg-Marquardt for small dense problems.

One call solves one problem; ``jax.vmap`` solves a batch, each lane with its own damping
and its own stop. The gradient of the solution is a named choice.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from hmr_jax.solvers.types import SolveInfo

_HIGHEST = jax.lax.Precision.HIGHEST
METHODS = ("lm", "gn")
GRADIENTS = ("implicit", "implicit_gauss_newton", "one_step", "gn_diff", "unroll")


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The keyword arguments of ``solve``."""

    method: str
    max_steps: int
    tolerance: float | None
    damping: float
    gradient: str

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {METHODS}, got {self.method!r}")
        if self.gradient not in GRADIENTS:
            raise ValueError(
                f"gradient must be one of {GRADIENTS}, got {self.gradient!r}"
            )
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if self.damping < 0:
            raise ValueError(f"damping must not be negative, got {self.damping}")

    @property
    def unrolled(self) -> bool:
        return self.gradient in ("gn_diff", "unroll")


class _State(NamedTuple):
    """What one step hands to the next."""

    x: Float[Array, "n"]
    damping: Float[Array, ""]
    growth: Float[Array, ""]
    steps: Int[Array, ""]
    stationary: Bool[Array, ""]
    failed: Bool[Array, ""]


def solve(
    residual_fn: Callable[[Any, Any], Any],
    x0: Any,
    args: Any = (),
    *,
    method: str = "lm",
    max_steps: int = 50,
    tolerance: float | None = None,
    damping: float = 1e-3,
    gradient: str = "implicit",
) -> tuple[Any, SolveInfo]:
    """Minimise half the sum of squares of ``residual_fn(x, args)`` over ``x``.

    Args:
        residual_fn: takes ``x`` and ``args``, returns an array or a pytree of arrays.
        x0: the start, an array or a pytree of arrays of one floating type.
        args: whatever else the residual needs; derivatives reach it (and anything that
            ``residual_fn`` closes over) by the rule that ``gradient`` names.
        method: 'lm' (Levenberg-Marquardt: steps that raise the cost are refused and the
            damping adapts) or 'gn' (every finite step is taken, constant damping).
        max_steps: steps taken, or at most taken where there is a tolerance.
        tolerance: stop once no entry of the cost's gradient exceeds it, or once steps
            are lost in rounding. None takes ``max_steps`` (unless they are).
        damping: added to the diagonal of J^T J; for 'lm' the first value, relative to
            the largest diagonal entry there.
        gradient: 'implicit' differentiates the stationarity condition with the full
            Hessian, exact where the solution is stationary and the Hessian regular
            (directions of zero curvature do not move), at any order up to two;
            'implicit_gauss_newton' drops the second derivatives of the residual, off in
            proportion to the residual left; 'one_step' differentiates one more
            Gauss-Newton step from the solution, J included; 'gn_diff' differentiates
            every step with J constant; 'unroll' differentiates every step. Only the
            last two let derivatives reach ``x0``.

    Returns:
        The solution, in the structure of ``x0``, and how it went. Where the residual
        or its Jacobian is not finite at ``x0``, ``info.failed`` is set and ``x0``
        comes back; a step to such a point is refused ('lm') or ends the solve with
        the last finite point ('gn'). Failed lanes have zero derivatives in the
        implicit and one-step rules.

    Raises:
        ValueError: for an unknown choice or a setting out of range.

    Source: Nocedal and Wright, Numerical Optimization, section 10.3; damping update of
        Nielsen (1999); 'gn_diff' of IKOL (AAAI 2023).
    """
    settings = _Settings(method, max_steps, tolerance, damping, gradient)
    flat_x0, unravel = ravel_pytree(x0)
    args = jax.tree.map(jnp.asarray, args)
    if not jnp.issubdtype(flat_x0.dtype, jnp.floating):
        raise ValueError(f"x0 must be floating point, got {flat_x0.dtype}")

    def flat_residual(x, given):
        return ravel_pytree(residual_fn(unravel(x), given))[0]

    hoisted_fn, hoisted = jax.closure_convert(flat_residual, flat_x0, args)
    parameters = args, tuple(hoisted)

    def residual(x, given):
        return hoisted_fn(x, given[0], *given[1])

    constant = jax.lax.stop_gradient(parameters)
    if settings.unrolled:
        final = _run_unrolled(residual, flat_x0, parameters, settings)
        x = final.x
    else:
        start = jax.lax.stop_gradient(flat_x0)
        final = _run(residual, start, constant, settings)
        live = _where(final.failed, constant, parameters)
        x = _attach(residual, final.x, live, settings)
        x = jnp.where(final.failed, final.x, x)
    info = _info(residual, jax.lax.stop_gradient(x), constant, final, settings)
    return unravel(x), info


def _where(condition, if_true, if_false):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), if_true, if_false)


def _residual_and_jacobian(residual, x, given):
    """Residual and its Jacobian, by the cheaper of the two modes."""
    if x.size <= jax.eval_shape(residual, x, given).size:
        value, pushforward = jax.linearize(lambda at: residual(at, given), x)
        basis = jnp.eye(x.size, dtype=x.dtype)
        return value, jax.vmap(pushforward, out_axes=1)(basis)
    value, pullback = jax.vjp(lambda at: residual(at, given), x)
    return value, jax.vmap(pullback)(jnp.eye(value.size, dtype=value.dtype))[0]


def _finite(*arrays):
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(a)) for a in arrays]))


def _cost(residual):
    return 0.5 * (residual * residual).sum()


def _dot(a, b):
    return jnp.matmul(a, b, precision=_HIGHEST)


def _damped_step(jacobian, value, damping):
    """``-(J^T J + damping I)^-1 J^T r``, and the decrease it predicts.

    The damping has a floor of rounding size, so that the matrix stays positive
    definite when J^T J is singular.
    """
    normal = _dot(jacobian.T, jacobian)
    force = _dot(jacobian.T, value)
    resolution = jnp.finfo(value.dtype)
    floor = 4 * resolution.eps * jnp.trace(normal) + resolution.tiny**0.5
    damping = jnp.maximum(damping, jax.lax.stop_gradient(floor))
    eye = jnp.eye(force.size, dtype=force.dtype)
    factor = jax.scipy.linalg.cho_factor(normal + damping * eye, lower=True)
    step = -jax.scipy.linalg.cho_solve(factor, force)
    return step, 0.5 * (step * (damping * step - force)).sum()


def _start(residual, x0, given, settings):
    value, jacobian = jax.lax.stop_gradient(_residual_and_jacobian(residual, x0, given))
    damping = jnp.asarray(settings.damping, value.dtype)
    if settings.method == "lm":
        damping = damping * (jacobian * jacobian).sum(0).max()
    failed = ~_finite(value, jacobian, x0)
    no = jnp.zeros((), bool)
    zero = jnp.zeros((), jnp.int32)
    return _State(x0, damping, jnp.full_like(damping, 2), zero, no, failed)


def _step(residual, state, given, settings):
    """Try one step from ``state.x``, which is a finite point."""
    value, jacobian = _residual_and_jacobian(residual, state.x, given)
    if settings.gradient != "unroll":
        jacobian = jax.lax.stop_gradient(jacobian)
    usable = _finite(jacobian)
    jacobian = jnp.where(usable, jacobian, jnp.zeros_like(jacobian))
    step, predicted = _damped_step(jacobian, value, state.damping)
    trial = state.x + step

    still = jax.lax.stop_gradient
    trial_value = residual(still(trial), still(given))
    trial_cost = jnp.where(_finite(trial_value), _cost(trial_value), jnp.inf)
    cost, predicted, size = still((_cost(value), predicted, jnp.abs(step).max()))
    eps = jnp.finfo(cost.dtype).eps
    tiny = size <= 4 * eps * jnp.abs(still(state.x)).max()
    met = tiny & (state.growth <= 2)  # not one made tiny by refusals
    if settings.tolerance is not None:
        slope = jnp.abs(still(_dot(jacobian.T, value))).max()
        met = met | (slope <= settings.tolerance)
    met = met & usable
    take, damping, growth, stuck = _judge(
        state, cost, trial_cost, predicted, tiny, settings
    )
    return _State(
        x=jnp.where(take & ~met & usable, trial, state.x),
        damping=damping,
        growth=growth,
        steps=state.steps + jnp.where(met, 0, 1).astype(jnp.int32),
        stationary=met,
        failed=~usable | (stuck & ~met),
    )


def _judge(state, cost, trial_cost, predicted, tiny, settings):
    """Whether to take a step, the next damping and growth, and whether all is lost."""
    finite = jnp.isfinite(trial_cost)
    if settings.method == "gn":
        return finite, state.damping, state.growth, ~finite
    gain = (cost - trial_cost) / jnp.where(predicted > 0, predicted, 1)
    # A decrease too small for the cost's digits is taken on the model's word.
    blur = 32 * jnp.finfo(cost.dtype).eps * cost
    unseen = (predicted <= blur) & (trial_cost <= cost + blur)
    better = (gain > 0) & (predicted > 0)
    shrunk = state.damping * jnp.maximum(1 / 3, 1 - (2 * gain - 1) ** 3)
    refused = ~better & ~unseen
    damping = jnp.where(better, shrunk, state.damping)
    damping = jnp.where(refused, state.damping * state.growth, damping)
    growth = jnp.where(refused, 2 * state.growth, jnp.full_like(state.growth, 2))
    endless = damping > jnp.sqrt(jnp.finfo(damping.dtype).max)
    return ~refused, damping, growth, refused & (tiny | endless)


def _run(residual, x0, given, settings):
    """Iterate without derivatives."""
    start = _start(residual, x0, given, settings)

    def unfinished(state):
        over = state.stationary | state.failed
        return ~over & (state.steps < settings.max_steps)

    if settings.tolerance is not None:
        return jax.lax.while_loop(
            unfinished, lambda state: _step(residual, state, given, settings), start
        )
    return _scan(residual, start, given, settings)


def _run_unrolled(residual, x0, parameters, settings):
    """Iterate so that reverse-mode differentiation can follow."""
    constant = jax.lax.stop_gradient(parameters)
    start = _start(residual, jax.lax.stop_gradient(x0), constant, settings)
    live = _where(start.failed, constant, parameters)
    return _scan(residual, start._replace(x=x0), live, settings)


def _scan(residual, start, given, settings):
    still = jax.lax.stop_gradient

    def body(state, _):
        over = state.stationary | state.failed
        # Frozen lanes are evaluated too; their derivatives must not be.
        held = state._replace(x=jnp.where(over, still(state.x), state.x))
        new = _step(residual, held, _where(over, still(given), given), settings)
        return _where(over, state, new), None

    return jax.lax.scan(body, start, None, length=settings.max_steps)[0]


def _attach(residual, x, parameters, settings):
    """The same ``x`` with derivatives by one of the rules that need no iterates."""
    if settings.gradient == "implicit":
        return _attach_implicit(residual, x, parameters)
    x = jax.lax.stop_gradient(x)
    value, jacobian = _residual_and_jacobian(residual, x, parameters)
    if settings.gradient == "implicit_gauss_newton":
        jacobian = jax.lax.stop_gradient(jacobian)
    move, _ = _damped_step(jacobian, value, jnp.zeros((), x.dtype))
    return x + (move - jax.lax.stop_gradient(move))


def _attach_implicit(residual, x, parameters):
    """Differentiate ``J^T r = 0``, whose solution is ``x``."""

    def slope(at):
        value, pullback = jax.vjp(lambda y: residual(y, parameters), at)
        return pullback(value)[0]

    def tangent_solve(hessian_of, right_side):
        hessian = jax.jacfwd(hessian_of)(jnp.zeros_like(right_side))
        inverse = _symmetric_inverse(jax.lax.stop_gradient(hessian))
        solution = _dot(inverse, right_side)
        # Second derivatives need the derivative of the inverse, which this adds.
        return solution + _dot(inverse, right_side - _dot(hessian, solution))

    return jax.lax.custom_root(slope, x, lambda _, at: at, tangent_solve)


def _symmetric_inverse(matrix):
    """Inverse on the directions of non-zero curvature; zero if not finite."""
    matrix = jnp.where(_finite(matrix), matrix, jnp.zeros_like(matrix))
    values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T))
    size = jnp.abs(values)
    regular = size > 10 * jnp.finfo(values.dtype).eps * values.size * size.max()
    inverse = jnp.where(regular, 1 / jnp.where(regular, values, 1), 0)
    return _dot(vectors * inverse[None], vectors.T)


def _info(residual, x, given, final, settings):
    value, pullback = jax.vjp(lambda at: residual(at, given), x)
    slope = jnp.abs(pullback(value)[0]).max()
    converged = final.stationary
    if settings.tolerance is not None:
        converged = converged | (slope <= settings.tolerance)
    asked = settings.tolerance is not None
    return SolveInfo(
        iterations=final.steps,
        cost=_cost(value),
        gradient_norm=slope,
        converged=converged & ~final.failed & asked,
        failed=final.failed,
    )
