"""The IKOL layer exactly as published: 18 swing angles, five damped Gauss-Newton steps.

Kept for parity with published checkpoints; ``inverse_kinematics`` is the one to use
otherwise.
Source: IKOL (AAAI 2023), section "GN-Diff"; specs/ikol.md sections 6 to 9.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hmr_jax.geometry import alignment, safe
from hmr_jax.geometry.quaternions import quaternion_branch
from hmr_jax.solvers import swing_chain, swing_frames
from hmr_jax.solvers.types import IkResult, SolveInfo

_HIGHEST = jax.lax.Precision.HIGHEST
_CHOICES = {
    "root": ("two_vector", "svd"),
    "spine3": ("swing_twist", "procrustes"),
    "jacobian": ("autodiff", "exact", "published_efficient"),
    "backward": ("gn_diff", "unroll", "implicit", "one_step"),
    "init": ("zero", "closed_form"),
}


@dataclasses.dataclass(frozen=True)
class IkolPublishedOptions:
    """Variants of the published layer; the defaults are its training mode.

    Attributes:
        root: 'two_vector' (training) or 'svd' over the root's three bones (evaluation).
        spine3: 'swing_twist' (training) or 'procrustes' over its three bones.
        jacobian: 'autodiff' differentiates the guarded formulas themselves, as the
            original does, and is the form for parity; 'exact' is the analytic
            recursion, faster and equal up to the guards; 'published_efficient' is the
            original's hand-written form, wrong at spine3 (spec 7.3).
        backward: 'gn_diff' holds each Jacobian constant (the published gradient);
            'unroll' differentiates it too; 'one_step' is 'gn_diff' through the last
            step alone; 'implicit' differentiates the stationarity condition at the last
            angles and is right only where the steps have converged.
        init: start from zero angles, or from the closed form (held constant).
        num_iters: Gauss-Newton steps.
        damping: added to the diagonal of J^T J, square metres.
        eps: the original's guard of every division.
        twist_axis_eps: guard of the twist axis alone (0 in the original's evaluation).
        detached_root_quirk: let the rest pelvis carry the gradient that the original
            leaks by detaching the subtracted root (spec 8.3).
    """

    root: str = "two_vector"
    spine3: str = "swing_twist"
    jacobian: str = "autodiff"
    backward: str = "gn_diff"
    init: str = "zero"
    num_iters: int = 5
    damping: float = 0.1
    eps: float = 1e-8
    twist_axis_eps: float = 1e-8
    detached_root_quirk: bool = True

    def __post_init__(self):
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"{field} must be one of {choices}, got {getattr(self, field)!r}"
                )
        if self.num_iters < 0 or (self.backward == "one_step" and self.num_iters < 1):
            raise ValueError(
                f"num_iters too small for backward={self.backward!r}: {self.num_iters}"
            )


TRAIN = IkolPublishedOptions()
"""The layer in training mode."""

EVAL_AUTOGRAD = IkolPublishedOptions(
    root="svd", spine3="procrustes", twist_axis_eps=0.0
)
"""Evaluation with the Jacobian by automatic differentiation (``efficient=False``)."""

EVAL_EFFICIENT = dataclasses.replace(EVAL_AUTOGRAD, jacobian="published_efficient")
"""Evaluation with the original's hand-written Jacobian (``efficient=True``)."""


class IkolTrace(NamedTuple):
    """The layer's inner quantities.

    Attributes:
        root_rotmat: rotation of joint 0.
        angles_rad: swing angles, the start and after each step.
        mean_square_m2: mean over the 72 coordinates of the squared residual before
            each step.
    """

    root_rotmat: Float[Array, "*batch 3 3"]
    angles_rad: Float[Array, "*batch iterates 18"]
    mean_square_m2: Float[Array, "*batch steps"]


def ikol_published(
    target_joints_m: Float[Array, "*batch 24 3"],
    rest_joints_m: Float[Array, "*batch 24 3"],
    twist_cos_sin: Float[Array, "*batch 23 2"],
    leaf_quaternions: Float[Array, "*batch 5 4"],
    options: IkolPublishedOptions = TRAIN,
) -> IkResult:
    """Rotations of the 24-joint body that bring its joints near the targets.

    Args:
        target_joints_m: targets, metres, with joint 0 at the origin.
        rest_joints_m: joints of the shaped body at rest, metres.
        twist_cos_sin: raw cosine and sine of the twist of joints 1 to 23.
        leaf_quaternions: raw quaternions (wxyz) of joints 10, 11, 15, 22, 23.
        options: the variant; ``TRAIN``, ``EVAL_AUTOGRAD`` and ``EVAL_EFFICIENT`` are
            the original's three.

    Returns:
        The pose. ``info.converged`` is False: the steps have no stopping rule.

    Note:
        Finite for straight limbs, zero twists and zero bones, with finite gradients;
        near a straight limb gradients are large, since the swing axis is undefined
        there. As in the original no gradient reaches the targets through the root; the
        evaluation modes, which the original cannot differentiate, otherwise have it.

    Source: specs/ikol.md sections 6 to 8; the original leaves 15.6 mm mean joint error
        on clean targets, by its five damped steps.
    """
    layer = functools.partial(_layer, options=options)
    return swing_chain.over_batch(
        layer, target_joints_m, rest_joints_m, twist_cos_sin, leaf_quaternions
    )


def ikol_published_trace(
    target_joints_m: Float[Array, "*batch 24 3"],
    rest_joints_m: Float[Array, "*batch 24 3"],
    twist_cos_sin: Float[Array, "*batch 23 2"],
    leaf_quaternions: Float[Array, "*batch 5 4"],
    options: IkolPublishedOptions = TRAIN,
) -> tuple[IkResult, IkolTrace]:
    """The layer and its iterates, for parity checks and study.

    Args:
        target_joints_m: as in ``ikol_published``.
        rest_joints_m: as in ``ikol_published``.
        twist_cos_sin: as in ``ikol_published``.
        leaf_quaternions: as in ``ikol_published``.
        options: the variant.

    Returns:
        The pose; root rotation, angles and residuals of every step.
    """
    layer = functools.partial(_layer_and_trace, options=options)
    return swing_chain.over_batch(
        layer, target_joints_m, rest_joints_m, twist_cos_sin, leaf_quaternions
    )


def make_problem(
    target_m: Float[Array, "24 3"],
    rest_m: Float[Array, "24 3"],
    twist_cos_sin: Float[Array, "23 2"],
    options: IkolPublishedOptions,
) -> tuple[swing_chain.Problem, Float[Array, "3"]]:
    """Everything of one sample that the steps do not change.

    Args:
        target_m: targets, metres, joint 0 at the origin.
        rest_m: rest joints, metres.
        twist_cos_sin: raw twists of joints 1 to 23.
        options: the variant.

    Returns:
        The problem, and the offset of the detached-root quirk: zero, with the
        derivative of the rest pelvis.
    """
    eps = options.eps
    bones = swing_chain.ordered_bones(rest_m)
    aims = swing_chain.ordered_bones(target_m)
    offset = jnp.zeros_like(rest_m[0])
    if options.detached_root_quirk:
        offset = rest_m[0] - jax.lax.stop_gradient(rest_m[0])
    root_aims = jax.lax.stop_gradient(aims)
    if options.root == "two_vector":
        root = swing_frames.two_vector_root(bones, root_aims, eps)
    else:
        root = alignment.fit_rotation(
            swing_frames.correlation(bones[:3], root_aims[:3])
        )
    spine3 = None
    if options.spine3 == "procrustes":
        sources, targets = map(swing_chain.spine3_bones, (bones, aims))
        correlation = swing_frames.correlation(sources, targets)
        spine3 = correlation, alignment.fit_rotation(correlation)
    twists = swing_frames.twist_rotmats(
        bones[3:21],
        swing_chain.inner_twists(twist_cos_sin),
        eps,
        options.twist_axis_eps,
    )
    problem = swing_chain.Problem(
        target_m - offset[None], bones, root, spine3, aims[3:21], twists
    )
    return problem, offset


def solve_angles(
    problem: swing_chain.Problem, options: IkolPublishedOptions
) -> Float[Array, "iterates 18"]:
    """The start and the angles after each step, with the chosen derivative.

    Args:
        problem: the sample.
        options: the variant.

    Returns:
        Angles, radians. Under 'implicit' and 'one_step' only the last row carries a
        gradient.
    """
    if options.init == "closed_form":
        start = swing_chain.closed_form_angles(problem, options.eps)
        start = jax.lax.stop_gradient(start)
    else:
        start = jnp.zeros(swing_chain.NUM_ANGLES, problem.target_m.dtype)
    constant = jax.lax.stop_gradient(problem)
    if options.backward in ("gn_diff", "unroll"):
        return _iterate(start, problem, options, options.num_iters)
    if options.backward == "one_step":
        first = _iterate(start, constant, options, options.num_iters - 1)
        last = _step(first[-1], problem, options)
        return jnp.concatenate([first, last[None]])
    angles = _iterate(start, constant, options, options.num_iters)
    last = _attach_implicit(angles[-1], problem, options)
    return jnp.concatenate([angles[:-1], last[None]])


def _iterate(start, problem, options, num_steps):
    if num_steps == 0:
        return start[None]

    def body(angles, _):
        new = _step(angles, problem, options)
        return new, new

    _, steps = jax.lax.scan(body, start, None, length=num_steps)
    return jnp.concatenate([start[None], steps])


def _step(angles, problem, options):
    """One damped Gauss-Newton step (spec 6.4)."""
    at, given = angles, problem
    if options.backward != "unroll":
        at, given = jax.lax.stop_gradient((angles, problem))
    jac = jacobian(at, given, options)
    residual = swing_chain.residual(angles, problem, options.eps)
    normal = jnp.matmul(jac.T, jac, precision=_HIGHEST)
    normal = normal + options.damping * jnp.eye(normal.shape[0], dtype=normal.dtype)
    force = jnp.matmul(jac.T, residual, precision=_HIGHEST)
    factor = jax.scipy.linalg.cho_factor(normal, lower=True)
    return angles - jax.scipy.linalg.cho_solve(factor, force)


def jacobian(
    angles_rad: Float[Array, "18"],
    problem: swing_chain.Problem,
    options: IkolPublishedOptions,
) -> Float[Array, "72 18"]:
    """Derivative of the 72 joint coordinates by the 18 angles, metres per radian.

    Args:
        angles_rad: where to evaluate.
        problem: the sample.
        options: chooses the form.

    Returns:
        The matrix, coordinates joint by joint.
    """
    if options.jacobian == "exact":
        return swing_chain.jacobian_recursion(angles_rad, problem, options.eps)
    published = options.jacobian == "published_efficient"
    return swing_chain.jacobian_autodiff(
        angles_rad, problem, options.eps, published=published
    )


def _attach_implicit(angles, problem, options):
    """The same angles, with the derivative of the stationary point.

    A Newton step whose value is cancelled: its derivative is the implicit one. Angles
    that move nothing (spine3 when given) have an empty row; theirs is set to one.
    """

    def gradient(at, given):
        residual, pullback = jax.vjp(
            lambda a: swing_chain.residual(a, given, options.eps), at
        )
        return pullback(residual)[0]

    angles = jax.lax.stop_gradient(angles)
    constant = jax.lax.stop_gradient(problem)
    hessian = jax.jacfwd(gradient)(angles, constant)
    scale = jnp.abs(hessian).max(axis=1)
    empty = scale <= jnp.finfo(hessian.dtype).eps * scale.max()
    hessian = hessian + jnp.diag(empty.astype(hessian.dtype))
    inverse = jax.lax.stop_gradient(jnp.linalg.inv(hessian))
    change = jnp.matmul(inverse, gradient(angles, problem), precision=_HIGHEST)
    return angles - (change - jax.lax.stop_gradient(change))


def _layer(target_m, rest_m, twist_cos_sin, leaf_quaternions, *, options):
    """``ikol_published`` for one sample."""
    problem, offset = make_problem(target_m, rest_m, twist_cos_sin, options)
    angles = solve_angles(problem, options)[-1]
    return _finish(problem, offset, angles, leaf_quaternions, options)


def _layer_and_trace(target_m, rest_m, twist_cos_sin, leaf_quaternions, *, options):
    """``ikol_published_trace`` for one sample."""
    problem, offset = make_problem(target_m, rest_m, twist_cos_sin, options)
    angles = solve_angles(problem, options)
    squares = jax.lax.map(
        lambda a: (swing_chain.residual(a, problem, options.eps) ** 2).mean(),
        angles[:-1],
    )
    result = _finish(problem, offset, angles[-1], leaf_quaternions, options)
    return result, IkolTrace(problem.root_rotmat, angles, squares)


def _finish(problem, offset, angles, leaf_quaternions, options):
    """The pose at given angles."""
    inner = swing_chain.swing_rotmats(angles, problem, options.eps)
    joints = swing_chain.joints_from_rotmats(inner[1], problem)
    leaves = swing_frames.quaternions_to_rotmats(leaf_quaternions, options.eps)
    local, world = swing_chain.assemble_rotmats(problem.root_rotmat, *inner, leaves)
    info = _info(*jax.lax.stop_gradient((joints, angles, problem)), options)
    return IkResult(local, world, joints + offset[None], info)


def _info(joints, angles, problem, options):
    residual = (joints - problem.target_m).reshape(-1)
    jac = swing_chain.jacobian_recursion(angles, problem, options.eps)
    cost = 0.5 * (residual**2).sum()
    return SolveInfo(
        iterations=jnp.asarray(options.num_iters, jnp.int32),
        cost=cost,
        gradient_norm=jnp.abs(jnp.matmul(jac.T, residual, precision=_HIGHEST)).max(),
        converged=jnp.asarray(False),
        failed=~jnp.isfinite(cost),
    )


def published_quaternions(
    rotmats: Float[Array, "*batch 3 3"],
) -> Float[Array, "*batch 4"]:
    """Quaternions (wxyz) with the signs and lengths the original gives them.

    ``geometry.rotations.matrix_to_quaternion`` is the clean form. The two differ where
    the training root is not quite orthonormal (up to 3e-5).

    Args:
        rotmats: rotations.

    Returns:
        Quaternions; w may be negative, and the length is 1 only for true rotations.

    Source: specs/ikol.md section 5, the last paragraph.
    """
    quaternion, square = quaternion_branch(rotmats)
    return 0.5 * safe.divide(quaternion, safe.sqrt(square)[..., None])
