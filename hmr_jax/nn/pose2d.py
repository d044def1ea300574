"""2D joints of persons in boxes, and the picture that the proxy representation shows.

A picture is cut to the person at HRNet's size; the network finds the joints there; the
same crop, made square, goes on to the next network. ``detect_joints`` does all of it
in one program; its steps are functions of their own.
Source: specs/hierprob.md section 15.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hmr_jax.geometry.crops import (
    Box,
    crop_images,
    crop_points,
    fit_box,
    uncrop_points,
)
from hmr_jax.nn.hrnet import (
    CROP_SIZE_PX,
    decode_heatmaps,
    normalize_images,
    visible_joints,
)
from hmr_jax.nn.proxy import PUBLISHED_SIZE_PX

BOX_SCALE = 1.2


def person_crops(
    images: Float[Array, "batch height width 3"],
    box: Box,
    *,
    scale: float = BOX_SCALE,
    size_px: tuple[int, int] = CROP_SIZE_PX,
) -> tuple[Float[Array, "batch rows columns 3"], Box]:
    """Cut persons out, with a margin and black outside the picture.

    Args:
        images: RGB in [0, 1].
        box: around one person of each picture [batch, 2]; ``box_of_image`` for
            pictures of one person. A box that is not finite is the whole picture.
        scale: margin; also applied to pictures that were already cut, as published.
        size_px: height and width of the crops.

    Returns:
        Crops, and the boxes that they show.
    """
    height, width = images.shape[1:3]
    whole = jnp.array([width, height], jnp.float32)[None]
    usable = (jnp.isfinite(box.centre_px) & jnp.isfinite(box.size_px)).all(-1)[:, None]
    box = Box(
        jnp.where(usable, box.centre_px, 0.5 * whole),
        jnp.where(usable, box.size_px, whole),
    )
    fitted = fit_box(box, *size_px, scale)
    return crop_images(images, fitted, *size_px), fitted


def proxy_crops(
    crops: Float[Array, "batch rows columns 3"],
    joints_px: Float[Array, "batch joints 2"],
    size_px: int = PUBLISHED_SIZE_PX,
) -> tuple[Float[Array, "batch size size 3"], Float[Array, "batch joints 2"]]:
    """Make crops square with black bands at their sides, and scale them.

    Args:
        crops: of ``person_crops``.
        joints_px: joints in them.
        size_px: side of the result.

    Returns:
        Square crops, and the joints in them.
    """
    height, width = crops.shape[1:3]
    side = float(max(height, width))
    batch = crops.shape[0]
    centre = jnp.array([0.5 * width, 0.5 * height], jnp.float32)
    square = Box(
        jnp.broadcast_to(centre, (batch, 2)), jnp.full((batch, 2), side, jnp.float32)
    )
    images = crop_images(crops, square, size_px, size_px)
    return images, crop_points(joints_px, square, size_px, size_px)


def detect_joints(
    apply_fn: Callable[[Array], Mapping[str, Array]],
    images: Float[Array, "batch height width 3"],
    box: Box,
    *,
    scale: float = BOX_SCALE,
    threshold: float = 0.75,
    refine: bool = False,
) -> dict[str, Array]:
    """Find the joints of one person in each picture.

    Args:
        apply_fn: normalised crops to the output of ``HRNet``, in evaluation mode.
        images: RGB in [0, 1].
        box: around the persons, see ``person_crops``.
        scale: margin around the boxes.
        threshold: see ``nn.hrnet.visible_joints``.
        refine: see ``nn.hrnet.decode_heatmaps``.

    Returns:
        ``crops`` [B, 384, 288, 3], ``crop_joints_px`` and ``crop_box_px`` [B, 4]
        (centre and size of what they show), ``joints_px`` in the pictures,
        ``confidence`` [B, 17], ``visible`` [B, 17], and for the proxy representation
        ``proxy_images`` [B, 256, 256, 3] and ``proxy_joints_px``.
    """
    crops, shown = person_crops(images, box, scale=scale)
    heatmaps = apply_fn(normalize_images(crops))["heatmaps"]
    joints, confidence = decode_heatmaps(heatmaps, refine=refine)
    proxy_images, proxy_joints = proxy_crops(crops, joints)
    return {
        "crops": crops,
        "crop_joints_px": joints,
        "crop_box_px": jnp.concatenate([shown.centre_px, shown.size_px], -1),
        "joints_px": uncrop_points(joints, shown, *CROP_SIZE_PX),
        "confidence": confidence,
        "visible": visible_joints(confidence, threshold),
        "proxy_images": proxy_images,
        "proxy_joints_px": proxy_joints,
    }


def usable_joints(
    joints_px: Float[Array, "batch joints 2"],
    confidence: Float[Array, "batch joints"],
    threshold: float = 0.75,
) -> Bool[Array, "batch joints"]:
    """Joints that may enter the proxy representation.

    Args:
        joints_px: in any picture, of ``coco_17``.
        confidence: elbows, wrists, knees and ankles must exceed the threshold, the
            others zero. The published pipeline keeps those at zero, too, in the
            corner of the crop.
        threshold: see ``nn.hrnet.visible_joints``.

    Returns:
        Visibility; false where a number is not finite.

    Source: specs/hierprob.md section 15.
    """
    certain = visible_joints(confidence, threshold) & (confidence > 0)
    return certain & jnp.isfinite(joints_px).all(-1)
