"""The pieces of HybrIK's closed forms: exact or guarded as published, and their flags.

The flags compare lengths with ``rounding_m``, the rounding error of a joint: nothing is
decided by the result of a guarded quotient.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from hmr_jax.geometry import alignment, rotations, safe
from hmr_jax.solvers import swing_frames

ROUNDING_EPS = 16
"""Rounding error of a joint, in units of the type's eps times the largest coordinate:
that of the joint itself and of the rotations above it."""


class Frames(NamedTuple):
    """How rotations follow from vectors.

    Attributes:
        root: of joint 0, from rest bones and target bones in bone order.
        swings: the smallest ones, from vectors to vectors.
        twists: about vectors, by raw (cos, sin).
        leaves: of raw quaternions.
    """

    root: Callable[[Array, Array], Array]
    swings: Callable[[Array, Array], Array]
    twists: Callable[[Array, Array], Array]
    leaves: Callable[[Array], Array]


def _spine_frame(bones_m: Float[Array, "23 3"]) -> Float[Array, "3 3"]:
    """Columns: along the spine, then towards the middle of the hips."""
    spine_and_hips = jnp.stack([bones_m[2], (bones_m[0] + bones_m[1]) / 2], -1)
    frame = rotations.rot6d_columns_to_matrix(spine_and_hips.reshape(6), floor=0.0)
    # Once more: what is left of hips near the spine's line is no longer at right
    # angles to it.
    again = rotations.matrix_to_rot6d_columns(frame)
    return rotations.rot6d_columns_to_matrix(again, floor=0.0)


def exact_root(
    bones_m: Float[Array, "23 3"], aims_m: Float[Array, "23 3"]
) -> Float[Array, "3 3"]:
    """Root rotation that takes spine to spine and the hips to the hips' side of it.

    The published one without guards: exact and smooth at half turns too.

    Args:
        bones_m: rest bones in bone order (left hip, right hip, spine first).
        aims_m: target bones in the same order.

    Returns:
        Rotation of joint 0; the smallest one from spine to spine where the middle of
        the hips lies on the spine's line.
    """
    frames = _spine_frame(aims_m), _spine_frame(bones_m)
    root = rotations.matmul3(frames[0], rotations.transpose(frames[1]))
    spine = rotations.rotation_between(bones_m[2], aims_m[2])
    rounding = jnp.maximum(rounding_m(bones_m), rounding_m(aims_m))
    return jnp.where(root_undetermined(bones_m, aims_m, rounding), spine, root)


EXACT = Frames(
    root=exact_root,
    swings=rotations.rotation_between,
    twists=rotations.twist_matrix,
    leaves=rotations.quaternion_to_matrix,
)
"""Rotations to rounding, whatever the vectors."""


def guarded(eps: float, axis_eps: float) -> Frames:
    """The published formulas, with ``eps`` added to every divisor.

    Args:
        eps: the guard.
        axis_eps: that of the twists' axes.

    Returns:
        The formulas; not exactly rotations for short vectors and near half turns.
    """
    return Frames(
        root=lambda bones, aims: swing_frames.two_vector_root(bones, aims, eps),
        swings=lambda start, end: swing_frames.directions_to_directions(
            start, end, eps
        ),
        twists=lambda bones, cos_sin: swing_frames.twist_rotmats(
            bones, cos_sin, eps, axis_eps
        ),
        leaves=lambda quaternions: swing_frames.quaternions_to_rotmats(
            quaternions, eps
        ),
    )


def rounding_m(*vectors_m: Float[Array, "n 3"]) -> Float[Array, ""]:
    """Size of the rounding error of joints with these coordinates."""
    extent = jnp.max(jnp.abs(jnp.concatenate(vectors_m)))
    return ROUNDING_EPS * float(jnp.finfo(extent.dtype).eps) * extent


def swing_undetermined(
    start: Float[Array, "*n 3"], end: Float[Array, "*n 3"], rounding: Array
) -> Bool[Array, "*n"]:
    """Whether vectors are opposite, or of no length, to rounding."""
    lengths = safe.norm(start, keepdims=True), safe.norm(end, keepdims=True)
    # |a| |b| times the angle that is missing to the half turn.
    between = safe.norm(lengths[1] * start + lengths[0] * end)
    return between <= rounding * (lengths[0] + lengths[1])[..., 0]


def root_undetermined(
    bones_m: Float[Array, "23 3"], aims_m: Float[Array, "23 3"], rounding: Array
) -> Bool[Array, ""]:
    """Whether the middle of the hips lies on the spine's line, to rounding."""

    def on_the_line(bones):
        spine, hips = bones[2], (bones[0] + bones[1]) / 2
        across = safe.norm(jnp.cross(spine, hips))
        return across <= rounding * (safe.norm(spine) + safe.norm(hips))

    return on_the_line(bones_m) | on_the_line(aims_m)


def fit(
    sources_m: Float[Array, "n 3"], targets_m: Float[Array, "n 3"], rounding: Array
) -> tuple[Float[Array, "3 3"], Bool[Array, ""]]:
    """The rotation that best takes vectors to vectors, and whether others do as well.

    Args:
        sources_m: vectors from one joint.
        targets_m: their counterparts.
        rounding: of their ends, metres.

    Returns:
        The rotation; True where, to rounding, turning it about some axis costs nothing
        (vectors on one line, or mirrored ones).
    """
    correlation = swing_frames.correlation(sources_m, targets_m)
    rotmat = alignment.fit_rotation(correlation)
    cofactors, determinant = swing_frames.stiffness(rotmat, correlation)
    # Their quotient is the least eigenvalue, or up to three times smaller.
    error = rounding * (safe.norm(sources_m) + safe.norm(targets_m)).sum()
    return rotmat, determinant <= error * jnp.trace(cofactors)
