"""The losses of IKOL, each as (sum, count).

Source: specs/ikol.md section 12.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hmr_jax.geometry.rotations import quaternion_to_matrix
from hmr_jax.losses.reduce import SumCount, weighted_sum

LOSS_WEIGHTS = {
    "beta": 1.0,
    "twist": 0.01,
    "uvd": 1.0,
    "theta": 0.01,
    "leaf": 0.0,
    "rotmat": 0.0,
    "joints": 0.0,
    "heatmap": 0.0,
}
"""The published weights; the last three losses are extensions, off by default."""

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
    valid = batch.get("valid", jnp.ones_like(batch["has_smpl"][:, 0]))
    losses = {
        "beta": _masked_square(
            predictions["pred_shape"],
            batch["target_shape"],
            batch["target_shape_weight"],
            valid,
        ),
        "twist": _masked_square(
            predictions["pred_twist"],
            batch["target_twist"],
            batch["target_twist_weight"],
            valid,
        ),
        "uvd": _coordinates(
            UVD_CELLS * predictions["pred_uvd"],
            UVD_CELLS * batch["target_uvd"],
            batch["target_uvd_weight"],
            valid,
        ),
    }
    pose_weight = batch["has_smpl"][:, :, None] * batch["target_quat_weight"]
    target = batch["target_quat"]
    if align_quaternion_signs:
        target = nearer_sign(predictions["pred_quaternions"], target)
    losses["theta"] = _masked_square(
        predictions["pred_quaternions"], target, pose_weight, valid
    )
    losses["leaf"] = (0.0 * losses["theta"][0], losses["theta"][1])
    if extensions:
        losses["rotmat"] = _masked_square(
            predictions["pred_rotmats"],
            quaternion_to_matrix(batch["target_quat"]),
            pose_weight[..., None],
            valid,
        )
        losses["joints"] = _joints(predictions["pred_joints_m"], batch, valid)
    return losses


def nearer_sign(
    quaternions: Float[Array, "*batch 4"], targets: Float[Array, "*batch 4"]
) -> Float[Array, "*batch 4"]:
    """Each target or its negative, whichever is nearer to the quaternion beside it."""
    same = jnp.sum(quaternions * targets, -1, keepdims=True) >= 0
    return jnp.where(same, targets, -targets)


def _per_entry(weight: Array, like: Array) -> Array:
    """A weight with axes of length one, repeated to the shape of ``like``."""
    if weight.ndim != like.ndim or any(
        w not in (1, n) for w, n in zip(weight.shape, like.shape, strict=True)
    ):
        raise ValueError(f"weight {weight.shape} does not fit values {like.shape}")
    return jnp.broadcast_to(weight, like.shape)


def _leading(valid: Array, like: Array) -> Array:
    return _per_entry(valid.reshape(valid.shape + (1,) * (like.ndim - 1)), like)


def _masked_square(pred, target, weight, valid) -> SumCount:
    """Sum of (w (p - t))^2 and the number of entries of valid samples."""
    if pred.shape != target.shape:
        raise ValueError(f"prediction {pred.shape} and target {target.shape} differ")
    counted = _leading(valid, pred)
    weight = _per_entry(weight, pred)
    difference = jnp.where(weight != 0, pred - target, jnp.zeros_like(pred))
    return weighted_sum(jnp.square(weight * difference), counted)


def _coordinates(pred, target, weight, valid) -> SumCount:
    """Sum of |p - t| w and sum of w."""
    if pred.shape != target.shape:
        raise ValueError(f"prediction {pred.shape} and target {target.shape} differ")
    weight = _per_entry(weight, pred) * _leading(valid, pred)
    difference = jnp.where(weight != 0, pred - target, jnp.zeros_like(pred))
    return weighted_sum(jnp.abs(difference), weight)


def _joints(pred_m, batch, valid) -> SumCount:
    """L1 of root-relative joints, metres, where joint and root are labelled."""
    labelled = batch["joints_cam_m"]
    target_m = labelled[..., :3] - labelled[:, :1, :3]
    weight = labelled[..., 3:] * labelled[:, :1, 3:]
    return _coordinates(pred_m, target_m, weight, valid)


def heatmap_loss(
    logits: Float[Array, "batch height width channels"],
    batch: Mapping[str, Array],
    *,
    spread_cells: float = 1.0,
) -> SumCount:
    """Cross-entropy of the heat maps' marginals and Gaussians around the labels.

    A soft-argmax is content with any heat map of the right mean, which leaves its
    shape, and much of what an untrained network could learn from, open; this loss asks
    for a peak. In the plane and along the depth separately, where each is labelled.

    Args:
        logits: of ``models.ikol.IkolNet``, channel ``joint * depth + slice``.
        batch: ``target_uvd`` and ``target_uvd_weight`` [B, J, 3], ``valid`` [B].
        spread_cells: standard deviation of the Gaussians, heat-map cells.

    Returns:
        (sum, count); the count is the labelled joints'.

    Source: after Nibali et al., Numerical coordinate regression (2018), section 3.3.
    """
    weight = batch["target_uvd_weight"]
    target = jnp.where(weight > 0, batch["target_uvd"], jnp.zeros_like(weight))
    valid = batch.get("valid", jnp.ones_like(target[:, 0, 0]))
    count, height, width, channels = logits.shape
    joints = target.shape[1]
    depth = channels // joints
    values = jnp.asarray(logits, jnp.promote_types(jnp.float32, logits.dtype))
    values = values.reshape(count, height * width, joints, depth)
    in_plane = jax.nn.logsumexp(values, axis=3)
    total = jax.nn.logsumexp(in_plane, axis=1)
    in_plane = in_plane - total[:, None]
    along = jax.nn.logsumexp(values, axis=1) - total[..., None]
    u, v, d = (
        _gaussian(target[..., axis], cells, spread_cells)
        for axis, cells in enumerate((width, height, depth))
    )
    plane = (v[..., :, None] * u[..., None, :]).reshape(count, joints, -1)
    entropy_uv = -jnp.sum(plane * jnp.swapaxes(in_plane, 1, 2), -1)
    entropy_d = -jnp.sum(d * along, -1)
    weight_uv = weight[..., 0] * weight[..., 1] * valid[:, None]
    weight_d = weight[..., 2] * valid[:, None]
    sum_uv, labelled = weighted_sum(entropy_uv, weight_uv)
    return sum_uv + weighted_sum(entropy_d, weight_d)[0], labelled


def _gaussian(centres: Array, cells: int, spread_cells: float) -> Array:
    """Weights of the cells that add up to one, for centres in [-.5, .5]."""
    places = jnp.arange(cells, dtype=centres.dtype) - 0.5 * cells
    offset = jnp.expand_dims(cells * centres, -1) - jnp.expand_dims(
        places, tuple(range(centres.ndim))
    )
    return jax.nn.softmax(-0.5 * jnp.square(offset / spread_cells), axis=-1)


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
