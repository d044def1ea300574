"""Labelled bodies as protocols compare them."""

from jaxtyping import Array, Float

from hmr_jax.body.forward import body_forward, regress_joints
from hmr_jax.body.model import BodyModel


def target_vertices(
    pose_aa: Float[Array, "batch 24 3"],
    betas: Float[Array, "batch betas"],
    joints_h36m_cam_m: Float[Array, "batch 17 4"],
    body: BodyModel,
) -> Float[Array, "batch verts 3"]:
    """The labelled mesh, its regressed pelvis laid on the labelled one.

    Args:
        pose_aa: axis-angle, the root's in the camera frame, radians.
        betas: shape coefficients.
        joints_h36m_cam_m: labelled joints and validity.
        body: the body.

    Returns:
        Metres, in the frame of the labelled joints.
    """
    truth_m = body_forward(body, betas, pose_aa).vertices_m
    pelvis_m = regress_joints(body, truth_m, "h36m_17")[:, :1]
    return truth_m - pelvis_m + joints_h36m_cam_m[:, :1, :3]
