"""The proxy representation: an edge map and joint heatmaps in place of a picture.

Nothing here has parameters. Pictures are [batch, height, width, channels], RGB in
[0, 1]; joints are (x, y) in pixels whose centres are at integers.
Source: specs/hierprob.md section 3.
"""

import functools
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Rounding = Literal["none", "nearest", "truncate"]

NUM_CHANNELS = 1 + 17
"""Edges, and a heatmap for each joint of ``coco_17``."""
PUBLISHED_SIZE_PX = 256
"""Side of the published representation, whose lengths in pixels are given here."""
HEATMAP_STD_PX = 4.0
EDGE_STD_PX = 1.0
EDGE_TAPS = 5
VISIBLE_ABOVE = 1e-6

# Neighbour across the edge for each direction, (rows, columns).
_ACROSS = ((0, 1), (1, 1), (1, 0), (1, -1))


class Edges(NamedTuple):
    """Stages of the edge detector; maps are [batch, height, width].

    Attributes:
        blurred: [batch, height, width, channels].
        magnitude: of the mean gradient over the channels.
        orientation_deg: multiples of 45 in [0, 360]; 0 and 360 are the same.
        thresholded_magnitude: magnitude, 0 below the threshold.
        thin: magnitude, 0 off its ridges; None without thinning.
        thresholded_thin: the same, 0 below the threshold; None without thinning.
    """

    blurred: Array
    magnitude: Array
    orientation_deg: Array
    thresholded_magnitude: Array
    thin: Array | None
    thresholded_thin: Array | None


def gaussian_taps(std_px: float, size: int) -> tuple[float, ...]:
    """Taps of a blur, summing to 1.

    Args:
        std_px: standard deviation, pixels.
        size: number of taps, odd.

    Raises:
        ValueError: ``size`` is even.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: expected an odd number of taps, got {size}")
    half = size // 2
    taps = [math.exp(-(n * n) / (2 * std_px**2)) for n in range(-half, half + 1)]
    total = math.fsum(taps)
    return tuple(tap / total for tap in taps)


def _shifted(x: Array, axis: int, offset: int) -> Array:
    """``x[i + offset]`` along an axis, zero outside."""
    size = x.shape[axis]
    pad = [(0, 0)] * x.ndim
    pad[axis] = (max(-offset, 0), max(offset, 0))
    start = max(offset, 0)
    return jax.lax.slice_in_dim(jnp.pad(x, pad), start, start + size, axis=axis)


def _correlate(x: Array, axis: int, taps: tuple[float, ...]) -> Array:
    """Correlation with a short odd kernel along one axis, zeros outside."""
    half = len(taps) // 2
    terms = [
        tap * _shifted(x, axis, n - half) for n, tap in enumerate(taps) if tap != 0
    ]
    return functools.reduce(jnp.add, terms)


def _blur(x: Array, taps: tuple[float, ...]) -> Array:
    return _correlate(_correlate(x, 2, taps), 1, taps)


def _thinned(magnitude: Array, octant: Array) -> Array:
    """Keep what is larger than both neighbours across the edge."""
    keep = jnp.zeros(magnitude.shape, bool)
    for direction, (down, right) in enumerate(_ACROSS):
        peak = jnp.ones(magnitude.shape, bool)
        for sign in (1, -1):
            rows = _shifted(magnitude, 1, sign * down)
            peak &= magnitude - _shifted(rows, 2, sign * right) > 0
        keep |= peak & (octant % 4 == direction)
    return jnp.where(keep, magnitude, 0)


def detect_edges(
    images: Float[Array, "batch height width channels"],
    *,
    gaussian_std_px: float = EDGE_STD_PX,
    gaussian_size: int = EDGE_TAPS,
    threshold: float = 0.0,
    thin: bool = True,
) -> Edges:
    """Blur, differentiate, and keep the ridges of the gradient.

    There is no hysteresis and no upper threshold. Pixels outside the picture are 0, so
    that borders of a bright picture are edges.

    Args:
        images: pixels in [0, 1]; a value that is not finite counts as 0.
        gaussian_std_px: of the blur.
        gaussian_size: taps of the blur.
        threshold: smaller magnitudes become 0.
        thin: suppress what is no local maximum across the edge.

    Returns:
        All stages. A black picture gives zeros everywhere.

    Source: specs/hierprob.md section 3.1, after Canny (1986).
    """
    images = jnp.where(jnp.isfinite(images), images, 0)
    taps = gaussian_taps(gaussian_std_px, gaussian_size)
    # Everything up to the gradient is linear: the mean over channels may come first.
    mean = _blur(images.mean(-1), taps)
    smooth, slope = (1.0, 2.0, 1.0), (1.0, 0.0, -1.0)
    along_x = _correlate(_correlate(mean, 1, smooth), 2, slope)
    along_y = _correlate(_correlate(mean, 2, smooth), 1, slope)
    square = along_x * along_x + along_y * along_y
    # The root's derivative at 0 is infinite; flat places shall pass none on.
    flat = square == 0
    magnitude = jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, square)))
    degrees = jnp.arctan2(along_y, along_x) * (180 / math.pi) + 180
    octant = jnp.round(jax.lax.stop_gradient(degrees) / 45)
    ridges = _thinned(magnitude, octant) if thin else None

    def above(x):
        return jnp.where(x < threshold, 0, x)

    return Edges(
        blurred=_blur(images, taps),
        magnitude=magnitude,
        orientation_deg=45 * octant,
        thresholded_magnitude=above(magnitude),
        thin=ridges,
        thresholded_thin=None if ridges is None else above(ridges),
    )


def joint_heatmaps(
    joints_px: Float[Array, "batch joints 2"],
    visible: Float[Array, "batch joints"] | Bool[Array, "batch joints"],
    height: int,
    width: int,
    *,
    std_px: float = HEATMAP_STD_PX,
    rounding: Rounding = "none",
) -> Float[Array, "batch height width joints"]:
    """One Gaussian per joint, of height 1 and never cut off.

    Args:
        joints_px: (x, y); may lie outside the picture.
        visible: a joint's map is multiplied by this, 0 or 1. A joint that is not finite
            is not visible.
        height: of the maps.
        width: of the maps.
        std_px: standard deviation.
        rounding: ``none``; ``nearest``, to whole pixels with halves to even (evaluation
            on 3DPW); ``truncate``, towards zero (evaluation on SSP-3D). The last two
            stand for the original's 16-bit integers.

    Returns:
        Maps; zeros for a joint that is not visible.

    Raises:
        ValueError: unknown rounding.

    Source: specs/hierprob.md section 3.2.
    """
    known = jnp.isfinite(joints_px).all(-1) & (visible != 0)
    joints = jnp.where(known[..., None], joints_px, 0)
    if rounding == "nearest":
        joints = jnp.round(joints)
    elif rounding == "truncate":
        joints = jnp.trunc(joints)
    elif rounding != "none":
        raise ValueError(
            f"rounding: expected none, nearest or truncate, got {rounding!r}"
        )
    weight = jnp.where(known, visible, 0).astype(joints.dtype)

    def bump(size, centre):
        offset = jnp.arange(size, dtype=joints.dtype)[None, :, None] - centre[:, None]
        return jnp.exp(-(offset * offset) / (2 * std_px**2))

    rows = bump(height, joints[..., 1]) * weight[:, None]
    return rows[:, :, None] * bump(width, joints[..., 0])[:, None]


def resized_representation(
    images: Float[Array, "batch side side 3"],
    joints_px: Float[Array, "batch joints 2"],
    visible: Float[Array, "batch joints"] | Bool[Array, "batch joints"],
    size_px: int,
) -> tuple[Array, Array, Array]:
    """The representation of square crops for a network of any size.

    Args:
        images: RGB crops in [0, 1].
        joints_px: (x, y) in them.
        visible: 0 or 1 per joint.
        size_px: side of the representation. Crops of another size are scaled,
            antialiased; the heatmaps are as wide for their size as the published ones.

    Returns:
        Images [B, size, size, 3] and joints in them, and ``proxy_representation``.
    """
    side = images.shape[1]
    if side != size_px:
        shape = (images.shape[0], size_px, size_px, 3)
        images = jax.image.resize(images, shape, "linear", antialias=True)
        joints_px = joints_px * (size_px / side)
    std_px = HEATMAP_STD_PX * size_px / PUBLISHED_SIZE_PX
    proxy = proxy_representation(images, joints_px, visible, heatmap_std_px=std_px)
    return images, joints_px, proxy


def heatmap_joints(
    heatmaps: Float[Array, "batch height width joints"],
    visible_above: float = VISIBLE_ABOVE,
) -> tuple[Float[Array, "batch joints 2"], Bool[Array, "batch joints"]]:
    """Joints at the maxima of heatmaps.

    Args:
        heatmaps: one map per joint.
        visible_above: a joint is visible where its maximum is larger.

    Returns:
        (x, y) in pixels, (-1, -1) where not visible, and visibility.

    Source: specs/hierprob.md section 3.2.
    """
    batch, height, width, joints = heatmaps.shape
    flat = heatmaps.reshape(batch, height * width, joints)
    best = jnp.argmax(flat, 1)
    visible = flat.max(1) > visible_above
    joints_px = jnp.stack([best % width, best // width], -1).astype(heatmaps.dtype)
    return jnp.where(visible[..., None], joints_px, -1), visible


def proxy_representation(
    images: Float[Array, "batch height width 3"],
    joints_px: Float[Array, "batch joints 2"],
    visible: Float[Array, "batch joints"] | Bool[Array, "batch joints"],
    *,
    rounding: Rounding = "none",
    heatmap_std_px: float = HEATMAP_STD_PX,
    edge_std_px: float = EDGE_STD_PX,
    edge_taps: int = EDGE_TAPS,
    edge_threshold: float = 0.0,
    thin_edges: bool = True,
) -> Float[Array, "batch height width channels"]:
    """What the network sees: edges first, then a heatmap for each joint.

    Args:
        images: RGB crops in [0, 1].
        joints_px: (x, y) in the crop.
        visible: 0 or 1 per joint. With no joint visible all heatmaps are zero.
        rounding: see ``joint_heatmaps``.
        heatmap_std_px: see ``joint_heatmaps``.
        edge_std_px: see ``detect_edges``.
        edge_taps: see ``detect_edges``.
        edge_threshold: see ``detect_edges``.
        thin_edges: see ``detect_edges``.

    Returns:
        Maps with 1 + joints channels; always finite.

    Source: specs/hierprob.md section 3.
    """
    edges = detect_edges(
        images,
        gaussian_std_px=edge_std_px,
        gaussian_size=edge_taps,
        threshold=edge_threshold,
        thin=thin_edges,
    )
    chosen = edges.thresholded_thin
    if chosen is None:
        chosen = edges.thresholded_magnitude
    heatmaps = joint_heatmaps(
        joints_px,
        visible,
        *images.shape[1:3],
        std_px=heatmap_std_px,
        rounding=rounding,
    )
    return jnp.concatenate([chosen[..., None], heatmaps.astype(chosen.dtype)], -1)
