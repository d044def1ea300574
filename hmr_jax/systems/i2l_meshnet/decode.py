"""From the network's cells to bodies before a camera.

Source: specs/i2l_meshnet.md sections 5, 10.6 and 14.
"""

from collections.abc import Mapping

from jaxtyping import Array, Float

from hmr_jax.body.forward import add_hand_mean, body_forward, regress_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.cameras import apply_affine, back_project


def to_camera(
    cells: Float[Array, "batch n 3"],
    root_depth_m: Float[Array, "batch"],
    batch: Mapping[str, Array],
    *,
    heatmap_size: int,
    image_size_px: int,
    depth_range_m: float,
) -> Float[Array, "batch n 3"]:
    """Points of the heat maps before the camera.

    Args:
        cells: x, y and depth.
        root_depth_m: of the point in the middle of the depth axis.
        batch: ``crop_to_image`` [B, 2, 3] and ``intrinsics_inv`` [B, 3, 3].
        heatmap_size: cells of each axis.
        image_size_px: side of the crop.
        depth_range_m: metres over which z goes through the heat map.

    Returns:
        Camera frame, metres.

    Source: specs/i2l_meshnet.md section 10.6.
    """
    crop_px = cells[..., :2] * (image_size_px / heatmap_size)
    pixels = apply_affine(batch["crop_to_image"], crop_px)
    relative = (cells[..., 2] / heatmap_size * 2 - 1) * (depth_range_m / 2)
    depth = relative + root_depth_m[:, None]
    return back_project(pixels, depth, batch["intrinsics_inv"])


def posed(
    raw: Mapping[str, Array], body: BodyModel, joint_set: str, *, hand: bool
) -> dict[str, Array]:
    """The body of predicted parameters, from its root.

    Args:
        raw: of ``I2lMeshNet`` with ``parameters``.
        body: with the regressor ``joint_set``.
        joint_set: the network's.
        hand: the pose is measured from the mean hand.

    Returns:
        ``vertices_cam_m`` [B, V, 3] and ``joints_cam_m`` [B, J, 3], regressed from
        them; metres, the regressed root at the origin, turned as the camera sees it.

    Source: specs/i2l_meshnet.md sections 4.8 and 5.
    """
    pose = add_hand_mean(body, raw["pose_aa"]) if hand else raw["pose_aa"]
    vertices = body_forward(body, raw["betas"], pose).vertices_m
    joints = regress_joints(body, vertices, joint_set)
    root = joints[:, :1]
    return {"vertices_cam_m": vertices - root, "joints_cam_m": joints - root}
