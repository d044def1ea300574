"""The losses of IKOL, each as (sum, count).

Source: specs/ikol.md section 12.
"""

import functools
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from hmr_jax.geometry.rotations import quaternion_to_matrix
from hmr_jax.losses.elementwise import (
    absolute_error,
    heatmap_cross_entropy,
    nearer_sign,
    squared_error,
)
from hmr_jax.losses.reduce import SumCount, masked, masked_error

UVD_CELLS = 64.0
"""The coordinate loss counts in 64ths of the crop, whatever the heat map's size."""


def ikol_losses(
    predictions: Mapping[str, Array],
    batch: Mapping[str, Array],
    *,
    align_quaternion_signs: bool = True,
    extensions: bool = False,
) -> dict[str, SumCount]:
    """All losses of a batch.

    Args:
        predictions: of ``models.ikol.decode``; vertices are not needed.
        batch: ``target_*`` and their weights, ``has_smpl`` [B, 1]; ``valid`` [B] zero
            for padding (all ones where absent).
        align_quaternion_signs: compare with the nearer of the target quaternion and
            its negative, which are one rotation. Off as published.
        extensions: also ``rotmat`` and ``joints`` (needs ``joints_cam_m``).

    Returns:
        Name to (sum, count). ``beta``, ``twist`` and ``theta`` are means over all
        entries, masked ones included as zeros; ``uvd`` and ``joints`` are means over
        the weighted entries. Counts depend on the batch's masks alone.

    Source: specs/ikol.md section 12; ``leaf`` is zero times ``theta``, as there.
    """
    valid = batch.get("valid")
    labelled = functools.partial(masked_error, absolute_error, valid=valid)

    def over_all(predicted: Array, target: Array, weight: Array) -> SumCount:
        # The original weighs the difference, and then squares it.
        return masked_error(
            squared_error,
            predicted,
            target,
            jnp.square(weight),
            valid,
            normalize_by="all",
        )

    quaternions, target = predictions["pred_quaternions"], batch["target_quat"]
    if align_quaternion_signs:
        target = nearer_sign(quaternions, target)
    pose_weight = batch["has_smpl"][:, :, None] * batch["target_quat_weight"]
    theta = over_all(quaternions, target, pose_weight)
    losses = {
        "beta": over_all(
            predictions["pred_shape"],
            batch["target_shape"],
            batch["target_shape_weight"],
        ),
        "twist": over_all(
            predictions["pred_twist"],
            batch["target_twist"],
            batch["target_twist_weight"],
        ),
        "uvd": labelled(
            UVD_CELLS * predictions["pred_uvd"],
            UVD_CELLS * batch["target_uvd"],
            batch["target_uvd_weight"],
        ),
        "theta": theta,
        "leaf": (0.0 * theta[0], theta[1]),
    }
    if extensions:
        losses["rotmat"] = over_all(
            predictions["pred_rotmats"],
            quaternion_to_matrix(batch["target_quat"]),
            pose_weight[..., None],
        )
        # Root-relative joints, metres, where joint and root are labelled.
        joints, root = batch["joints_cam_m"], batch["joints_cam_m"][:, :1]
        losses["joints"] = labelled(
            predictions["pred_joints_m"],
            joints[..., :3] - root[..., :3],
            joints[..., 3:] * root[..., 3:],
        )
    return losses


def heatmap_loss(
    logits: Float[Array, "batch height width channels"],
    batch: Mapping[str, Array],
    *,
    spread_cells: float = 1.0,
) -> SumCount:
    """``heatmap_cross_entropy`` in the plane and along the depth, where labelled.

    Args:
        logits: of ``models.ikol.IkolNet``, channel ``joint * depth + slice``.
        batch: ``target_uvd`` and ``target_uvd_weight`` [B, J, 3], ``valid`` [B].
        spread_cells: standard deviation of the Gaussians, heat-map cells.

    Returns:
        (sum, count); the count is that of the joints labelled in the plane.
    """
    weight, valid = batch["target_uvd_weight"], batch.get("valid")
    target = jnp.where(weight > 0, batch["target_uvd"], jnp.zeros_like(weight))
    plane, depth = heatmap_cross_entropy(logits, target, spread_cells)
    total, labelled = masked(plane, weight[..., 0] * weight[..., 1], valid)
    return total + masked(depth, weight[..., 2], valid)[0], labelled


def coordinate_accuracy(
    pred_uvd: Float[Array, "batch joints 3"],
    target_uvd: Float[Array, "batch joints 3"],
    weight: Float[Array, "batch joints 3"],
) -> tuple[Float[Array, "joints"], Float[Array, "joints"]]:
    """How many joints lie within half a tenth of the crop: the training log's accuracy.

    Args:
        pred_uvd: predicted coordinates, in [-.5, .5].
        target_uvd: labels.
        weight: zero where a coordinate is not labelled.

    Returns:
        Per joint the hits and the joints counted: those labelled beyond the first
        64th of the crop in u and v. The accuracy is the mean over joints with a count
        of hits / count.

    Source: specs/ikol.md section 12, last paragraph.
    """
    labelled = (target_uvd + 0.5) * UVD_CELLS * (weight > 0).astype(target_uvd.dtype)
    found = (pred_uvd + 0.5) * UVD_CELLS
    counted = (labelled[..., 0] > 1) & (labelled[..., 1] > 1)
    distance = jnp.linalg.norm((found - labelled) / (UVD_CELLS / 10), axis=-1)
    hits = counted & (distance < 0.5)
    dtype = pred_uvd.dtype
    return hits.sum(0).astype(dtype), counted.sum(0).astype(dtype)
