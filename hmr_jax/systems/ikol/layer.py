"""The layer from joints and twists to a pose, by one of several named schemes."""

from typing import Any

from jax import Array
from jaxtyping import Float

from hmr_jax.geometry.rotations import quaternion_to_matrix
from hmr_jax.solvers.hybrik import hybrik_adaptive, hybrik_naive
from hmr_jax.solvers.inverse_kinematics import inverse_kinematics
from hmr_jax.solvers.types import IkResult
from hmr_jax.systems.ikol.published import TRAIN, ikol_published

SCHEMES = ("newton", "published", "hybrik_naive", "hybrik_adaptive")


def ik_layer(
    target_joints_m: Float[Array, "*batch 24 3"],
    rest_joints_m: Float[Array, "*batch 24 3"],
    twist_cos_sin: Float[Array, "*batch 23 2"],
    leaf_quaternions: Float[Array, "*batch 5 4"],
    *,
    scheme: str = "newton",
    options: Any = None,
) -> IkResult:
    """Pose of the 24-joint body from target joints, by a named scheme.

    Args:
        target_joints_m: targets, metres, with joint 0 at the origin.
        rest_joints_m: joints of the shaped body at rest, metres.
        twist_cos_sin: raw cosine and sine of the twist of joints 1 to 23.
        leaf_quaternions: raw quaternions (wxyz) of joints 10, 11, 15, 22, 23.
        scheme: 'newton' (``inverse_kinematics``), 'published' (the IKOL layer as
            published), 'hybrik_naive' or 'hybrik_adaptive' (closed forms).
        options: for 'published' an ``IkolPublishedOptions``, default its training
            mode; for the others a dict of further keyword arguments.

    Returns:
        The pose.

    Raises:
        ValueError: if the scheme is not known.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"scheme must be one of {SCHEMES}, got {scheme!r}")
    inputs = (target_joints_m, rest_joints_m, twist_cos_sin)
    if scheme == "published":
        return ikol_published(*inputs, leaf_quaternions, options or TRAIN)
    keywords = dict(options or {})
    if scheme == "newton":
        leaves = quaternion_to_matrix(leaf_quaternions)
        return inverse_kinematics(*inputs, leaves, **keywords)
    closed_form = hybrik_naive if scheme == "hybrik_naive" else hybrik_adaptive
    return closed_form(*inputs, leaf_quaternions, **keywords)
