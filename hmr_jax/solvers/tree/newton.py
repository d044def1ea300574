"""The Newton iteration on a tree, in the solver's layout."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from hmr_jax.solvers.tree import model, ops
from hmr_jax.solvers.tree.implicit_gradient import pull_back
from hmr_jax.solvers.tree.layout import TreeLayout
from hmr_jax.solvers.tree.start import closed_form
from hmr_jax.solvers.tree.sweep import step_solve, sweep
from hmr_jax.solvers.tree.trust import Trust, firm, trust

_FIRST_DAMPING = 1e-2


class Stats(NamedTuple):
    """How the solve of each lane went, in units of the scaled problem.

    ``regular`` marks solutions that have a derivative, ``converged`` those whose
    derivative is to be trusted.
    """

    iterations: Array
    cost: Array
    gradient_norm: Array
    converged: Array
    regular: Array


class _State(NamedTuple):
    """The Newton iteration; bones, rotmats and residuals are the best so far."""

    bones: Array
    rotmats: Array
    residuals: Array
    cost: Array
    damping: Array
    done: Array
    iterations: Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def solve(
    layout: TreeLayout,
    num_steps: int,
    tolerance: float | None,
    targets: Array,
    rest: Array,
    weights: Array,
) -> tuple[Array, Array, Stats]:
    """Bones, fork rotations and statistics of the nearest pose, in slots.

    The statistics carry no gradient.
    """
    if tolerance is None:
        tolerance = float(jnp.finfo(rest.dtype).eps) ** 0.5

    def lanes(targets: Array, rest: Array, weights: Array) -> tuple:
        bones, rotmats = closed_form(layout, rest, targets, weights)
        state = _iterate(layout, num_steps, tolerance, targets, weights, bones, rotmats)
        bones, rotmats = _clean(layout, rest, state.bones, state.rotmats)
        residuals = model.residuals_of(layout, bones, targets)
        forces = model.forces_of(layout, residuals, weights)
        in_doubt = state.done & ~firm(layout, bones, weights, forces)
        certain = jax.lax.cond(
            in_doubt.any(),
            lambda: trust(layout, bones, weights, forces),
            lambda: Trust(~in_doubt, ~in_doubt),
        )
        stats = Stats(
            iterations=state.iterations,
            cost=model.cost_of(residuals, weights),
            gradient_norm=model.gradient_norm(layout, bones, forces.beyond),
            converged=state.done & (certain.firm | ~in_doubt),
            regular=state.done & (certain.regular | ~in_doubt),
        )
        return bones, rotmats, stats

    return ops.in_chunks(lanes, targets, rest, weights)


def _iterate(
    layout: TreeLayout,
    num_steps: int,
    tolerance: float,
    targets: Array,
    weights: Array,
    bones: Array,
    rotmats: Array,
) -> _State:
    """Safeguarded Newton steps until every lane has converged."""
    share = model.weight_beyond(layout, weights)
    scale = model.stiffness_scale(layout, bones, jnp.zeros_like(bones), share)
    eps = float(jnp.finfo(bones.dtype).eps)
    span = ops.total(weights[:, None] * targets * targets)
    one = ops.opaque_one(weights)
    # Missing targets leave directions free, which cofactors do not tell.
    missing = (weights == 0) & jnp.asarray(layout.is_bone)[:, None]
    free = jnp.any(missing, axis=0) & jnp.any(weights > 0, axis=0)

    def step(carry: tuple[Array, _State]) -> tuple[Array, _State]:
        count, state = carry
        _, pull, beyond = model.forces_of(layout, state.residuals, weights)
        # A damped exact step was tried and settles in far worse minima where joints are
        # missing: 16 mm mean error against 0 on reachable targets.
        exact = (count > 0) & (state.damping == 0)[None, None]
        turns, moves, negative = sweep(
            layout,
            state.bones,
            model.curvature(layout, state.bones, beyond, share, exact),
            weights,
            pull,
            scale,
            functools.partial(
                step_solve, damping=state.damping, free=free & ~state.done
            ),
        )
        above = ops.materialise(model.of_parents(layout, turns), one)
        trial = model.turn(above, state.bones)
        trial_rotmats = model.turn_frames(
            ops.take(turns, layout.multi_slots), state.rotmats
        )
        residuals = model.residuals_of(layout, trial, targets)
        cost = model.cost_of(residuals, weights)
        rounding = 4 * eps * (state.cost + jnp.sqrt(state.cost * span) + eps * span)
        convex = ops.total(negative) == 0
        better = (cost <= state.cost + rounding) & ~state.done
        size = ops.largest(jnp.where((weights > 0)[:, None], moves, 0))
        small = (size <= tolerance) & (state.damping == 0) & convex
        worse = ~better & ~state.done
        raised = jnp.maximum(10 * state.damping, _FIRST_DAMPING)
        lowered = jnp.where(state.damping > _FIRST_DAMPING, state.damping / 10, 0)
        return count + 1, _State(
            bones=jnp.where(better[None, None], trial, state.bones),
            rotmats=jnp.where(better[None, None, None], trial_rotmats, state.rotmats),
            residuals=jnp.where(better[None, None], residuals, state.residuals),
            cost=jnp.where(better, cost, state.cost),
            damping=jnp.where(worse, raised, lowered),
            done=state.done | small,
            iterations=state.iterations + (~state.done).astype(jnp.int32),
        )

    def running(carry: tuple[Array, _State]) -> Array:
        count, state = carry
        return (count < num_steps) & ~jnp.all(state.done)

    residuals = model.residuals_of(layout, bones, targets)
    cost = model.cost_of(residuals, weights)
    off = jnp.zeros(cost.shape, bool)
    zero = jnp.zeros_like(cost)
    start = _State(bones, rotmats, residuals, cost, zero, off, off.astype(jnp.int32))
    return jax.lax.while_loop(running, step, (jnp.int32(0), start))[1]


def _clean(
    layout: TreeLayout, rest: Array, bones: Array, rotmats: Array
) -> tuple[Array, Array]:
    """Remove rounding drift: exact lengths, orthonormal frames, rigid forks."""
    stretch = ops.matmul_at(rotmats, rotmats)
    rotmats = ops.matmul(rotmats, (3 * ops.eye(rest.dtype) - stretch) / 2)
    square, wanted = ops.dot(bones, bones), ops.dot(rest, rest)
    usable = square > 0
    factor = jnp.sqrt(jnp.where(usable, wanted / jnp.where(usable, square, 1), 0))
    bones = bones * factor
    if layout.num_multi:
        rigid = ops.matvec(model.frames_of_edges(layout, rotmats), rest)
        bones = jnp.where(jnp.asarray(ops.mask(layout.multi_edge, 3)), rigid, bones)
    return bones, rotmats


def _solve_fwd(
    layout: TreeLayout,
    num_steps: int,
    tolerance: float | None,
    targets: Array,
    rest: Array,
    weights: Array,
) -> tuple:
    out = solve(layout, num_steps, tolerance, targets, rest, weights)
    bones, rotmats, stats = out
    regular = stats.regular.astype(bones.dtype)[None, None]
    return out, (targets, rest, weights, bones, rotmats, regular)


def _solve_bwd(
    layout: TreeLayout,
    num_steps: int,
    tolerance: float | None,
    saved: tuple,
    cotangents: tuple,
) -> tuple[Array, Array, Array]:
    del num_steps, tolerance
    pull = functools.partial(pull_back, layout)
    return ops.in_chunks(pull, *saved, *cotangents[:2])


solve.defvjp(_solve_fwd, _solve_bwd)
