"""Augmentation of synthetic pictures, their part labels and their joints.

Everything is drawn independently for each image, and has fixed shapes. Part labels are
those of ``body.parts``: 1 to 24, 0 for the background, negative outside the picture.
Pictures and label maps are square; the options' numbers of pixels are those of a
picture of 256 pixels and are scaled with its size.

Source: specs/hierprob.md sections 11.4, 11.5, 11.7, 11.8 and 17.
"""

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from hmr_jax import sample_keys
from hmr_jax.geometry.crops import Box, box_of_image, box_of_mask, fit_box
from hmr_jax.synthetic.proxy_options import (
    NUM_JOINTS,
    NUM_PARTS,
    PUBLISHED_SIZE_PX,
    ProxyAugmentation,
)

__all__ = [
    "ProxyAugmentation",
    "augment_colours",
    "augment_proxy",
    "occlude_picture",
    "sample_boxes",
]

LEGS = tuple(range(5, 15))
"""Parts that the milder extreme crop leaves out of the box."""
LEGS_AND_LOWER_ARMS = (*range(3, 15), *range(19, 23))
"""Parts that the stronger extreme crop leaves out of the box."""
JOINT_OF_PART = {
    **{3: 10, 4: 9, 5: 15, 6: 16, 11: 14, 12: 13, 13: 14, 14: 13},
    **{19: 7, 20: 8, 21: 7, 22: 8},
}
"""Part to the joint of ``coco_17`` that may vanish with it."""
HIPS = (11, 12)


def sample_boxes(
    key: Array,
    labels: Shaped[Array, "batch height width"],
    options: ProxyAugmentation,
) -> Box:
    """Square boxes around persons, with margin and displacement.

    Args:
        key: of the random numbers, or one for each picture.
        labels: parts of each pixel of the whole pictures.
        options: probabilities and ranges.

    Returns:
        Boxes in pixels. A picture without a person gives the whole picture as it is;
        one of which an extreme crop would leave nothing is cropped as usual.

    Raises:
        ValueError: the pictures are not square.

    Source: specs/hierprob.md section 11.4.
    """
    size = _size_of(labels)
    batch = labels.shape[0]
    draws = sample_keys.draw(jax.random.uniform, key, (batch, 4))
    chance = draws[:, :1, None]
    person = labels > 0
    mild, strong = (
        person & ~_is_in(labels, jnp.uint32(_bits(parts)))
        for parts in (LEGS, LEGS_AND_LOWER_ARMS)
    )
    rest = jnp.where(chance < 0.5 * options.extreme_crop_prob, mild, strong)
    rest = jnp.where(chance < options.extreme_crop_prob, rest, person)
    rest = jnp.where(rest.any((1, 2), keepdims=True), rest, person)
    box = fit_box(box_of_mask(rest), 1, 1)
    low, high = options.box_scale_range
    scale = options.box_scale + low + draws[:, 1:2] * (high - low)
    low, high = (_scaled(end, size) for end in options.box_centre_range_px)
    shift = low + draws[:, 2:] * (high - low)
    whole = box_of_image(size, size, (batch,))
    found = person.any((1, 2))[:, None]
    return Box(
        jnp.where(found, box.centre_px + shift, whole.centre_px),
        jnp.where(found, box.size_px * scale, whole.size_px),
    )


def augment_proxy(
    key: Array,
    labels: Shaped[Array, "batch size size"],
    joints_px: Float[Array, "batch 17 2"],
    visible: Bool[Array, "batch 17"],
    options: ProxyAugmentation,
) -> tuple[
    Shaped[Array, "batch size size"],
    Float[Array, "batch 17 2"],
    Bool[Array, "batch 17"],
]:
    """Spoil the part labels and the detected joints of crops.

    In this order: parts removed, a square removed, joints swapped, joints moved, joints
    removed, the bottom, the top and a side hidden.

    Args:
        key: of the random numbers, or one for each picture.
        labels: parts of each pixel, whole numbers of any type.
        joints_px: (x, y) in the crop, in the order of ``coco_17``.
        visible: joints that are seen so far.
        options: probabilities and ranges.

    Returns:
        Labels, in which what is removed is background; the joints as a detector would
        give them (not a target for the loss); and which of them are still visible.
        Joints that are not numbers stay so, in their place, and are invisible.

    Raises:
        ValueError: the label maps are not square.

    Source: specs/hierprob.md section 11.7.
    """
    size = _size_of(labels)

    def augment(draws, labels, joints_px, visible):
        visible &= _is_number(joints_px)
        labels, visible = _remove_parts(draws["parts"], labels, visible, options)
        labels = _occlude_square(draws["square"], labels, options)
        joints_px = _swap_joints(draws["swaps"], joints_px, options)
        joints_px = _move_joints(draws["jitter"], joints_px, size, options)
        visible = _remove_joints(draws["joints"], visible, options)
        halves = _hidden_halves(draws["halves"], joints_px, size, options)
        labels = jnp.where(halves.pixels, 0, labels).astype(labels.dtype)
        return labels, joints_px, visible & ~halves.joints

    shapes = {
        "parts": (2, NUM_PARTS),
        "square": (3,),
        "swaps": (len(options.swap_pairs),),
        "jitter": (NUM_JOINTS, 2),
        "joints": (NUM_JOINTS,),
        "halves": (_HALVES_DRAWS,),
    }
    draws = _draws(key, labels.shape[0], shapes)
    return jax.vmap(augment)(draws, labels, joints_px, visible)


def occlude_picture(
    key: Array,
    images: Float[Array, "batch size size channels"],
    joints_px: Float[Array, "batch 17 2"],
    visible: Bool[Array, "batch 17"],
    options: ProxyAugmentation,
) -> tuple[Float[Array, "batch size size channels"], Bool[Array, "batch 17"]]:
    """Hide the bottom, the top or a side of finished pictures, background included.

    Args:
        key: of the random numbers, or one for each picture; not that of
            ``augment_proxy``.
        images: pictures; what is hidden becomes 0.
        joints_px: (x, y), as ``augment_proxy`` returned them.
        visible: joints that are seen so far.
        options: probabilities and ranges.

    Returns:
        The pictures, and which joints are still visible.

    Raises:
        ValueError: the pictures are not square.

    Source: specs/hierprob.md section 11.8.
    """
    size = _size_of(images)

    def occlude(draws, image, joints_px, visible):
        halves = _hidden_halves(draws, joints_px, size, options)
        shown = jnp.where(halves.pixels[..., None], 0, image).astype(image.dtype)
        return shown, visible & ~halves.joints & _is_number(joints_px)

    draws = sample_keys.draw(jax.random.uniform, key, (images.shape[0], _HALVES_DRAWS))
    return jax.vmap(occlude)(draws, images, joints_px, visible)


def augment_colours(
    key: Array,
    images: Float[Array, "batch height width channels"],
    options: ProxyAugmentation,
) -> Float[Array, "batch height width channels"]:
    """Scale every channel of every picture by a gain of its own.

    Args:
        key: of the random numbers, or one for each picture.
        images: pictures in [0, 1].
        options: the range of the gains.

    Returns:
        Pictures of at most 1.

    Source: specs/hierprob.md section 11.8.
    """
    within = functools.partial(
        jax.random.uniform,
        dtype=images.dtype,
        minval=1.0 - options.channel_gain,
        maxval=1.0 + options.channel_gain,
    )
    gain = sample_keys.draw(within, key, (images.shape[0], 1, 1, images.shape[3]))
    return jnp.minimum(images * gain, 1)


def _draws(key, batch: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Uniform numbers in [0, 1) of several shapes, in one call: quicker to compile."""
    sizes = [math.prod(shape) for shape in shapes.values()]
    drawn = sample_keys.draw(jax.random.uniform, key, (batch, sum(sizes)))
    pieces = jnp.split(drawn, np.cumsum(sizes)[:-1], 1)
    return {
        name: piece.reshape(batch, *shape)
        for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
    }


def _remove_parts(draws, labels, visible, options: ProxyAugmentation):
    """Removed parts become background and may take their joints with them."""
    removed = draws[0] < jnp.array(options.remove_part_probs, draws.dtype)
    places = jnp.arange(1, NUM_PARTS + 1, dtype=jnp.uint32)
    bits = jnp.sum(removed.astype(jnp.uint32) << places, dtype=jnp.uint32)
    labels = jnp.where(_is_in(labels, bits), 0, labels).astype(labels.dtype)
    taken = removed & (draws[1] < options.remove_appendage_joint_prob)
    owner = np.zeros((NUM_PARTS, NUM_JOINTS), bool)
    for part, joint in JOINT_OF_PART.items():
        owner[part - 1, joint] = True
    return labels, visible & ~jnp.any(taken[:, None] & owner, 0)


def _occlude_square(draws, labels, options: ProxyAugmentation):
    """A square of the labels becomes background."""
    size = labels.shape[0]
    happens = draws[0] < options.occlude_box_prob
    low, high = (_scaled(end, size) for end in options.occlude_box_centre_range_px)
    centre = 0.5 * size + low + draws[1:] * (high - low)
    half = 0.5 * _scaled(options.occlude_box_px, size)
    first, end = (
        jnp.trunc(x).astype(jnp.int32) for x in (centre - half, centre + half)
    )
    place = jnp.arange(size)
    rows, columns = ((place >= first[axis]) & (place < end[axis]) for axis in (0, 1))
    hidden = happens & rows[:, None] & columns[None, :]
    return jnp.where(hidden, 0, labels).astype(labels.dtype)


def _swap_joints(draws, joints_px, options: ProxyAugmentation):
    """Pairs of joints exchange places, where both are numbers."""
    for i, (a, b) in enumerate(options.swap_pairs):
        known = jnp.all(_is_number(joints_px[jnp.array([a, b])]))
        swapped = joints_px.at[jnp.array([a, b])].set(joints_px[jnp.array([b, a])])
        joints_px = jnp.where(
            known & (draws[i] < options.swap_prob), swapped, joints_px
        )
    return joints_px


def _move_joints(draws, joints_px, size: int, options: ProxyAugmentation):
    """Every coordinate moves by itself."""
    ends = np.tile(np.array(options.joint_jitter_px, np.float32), (NUM_JOINTS, 1))
    ends[list(HIPS)] = options.hip_jitter_px
    low, high = jnp.split(jnp.asarray(_scaled(ends, size), joints_px.dtype), 2, 1)
    return joints_px + low + draws.astype(low.dtype) * (high - low)


def _remove_joints(draws, visible, options: ProxyAugmentation):
    """Single joints become invisible."""
    removable = np.isin(np.arange(NUM_JOINTS), options.removable_joints)
    return visible & ~(removable & (draws < options.joint_removal_prob))


_HALVES_DRAWS = 7
"""Numbers that ``_hidden_halves`` needs: four decisions and three places."""


class _Halves(NamedTuple):
    """What is hidden: pixels [size, size] and joints [17]."""

    pixels: Array
    joints: Array


def _hidden_halves(draws, joints_px, size: int, options: ProxyAugmentation) -> _Halves:
    """Draw whether the bottom, the top and one side are hidden, and from where."""
    row_px, column_px = (
        int(_scaled(px, size))
        for px in (options.occlude_row_px, options.occlude_column_px)
    )
    # Whole numbers in [-n, n), for each of two rows and a column.
    reach = jnp.array([row_px, row_px, column_px], draws.dtype)
    low, high, column = jnp.floor((2 * draws[4:] - 1) * reach) + size // 2
    bottom = draws[0] < options.occlude_bottom_prob
    top = draws[1] < options.occlude_top_prob
    side = draws[2] < options.occlude_side_prob
    left = side & (draws[3] < 0.5)
    right = side & (draws[3] >= 0.5)
    place = jnp.arange(size, dtype=draws.dtype)
    rows = (bottom & (place >= low)) | (top & (place < high))
    columns = (left & (place < column)) | (right & (place >= column))
    x, y = joints_px[:, 0], joints_px[:, 1]
    low, high, column = (end.astype(x.dtype) for end in (low, high, column))
    joints = (bottom & (y > low)) | (top & (y < high))
    joints |= (left & (x < column)) | (right & (x > column))
    return _Halves(rows[:, None] | columns[None, :], joints)


def _bits(parts: Iterable[int]) -> int:
    """A set of parts as the bits of a number."""
    return sum(1 << part for part in parts)


def _is_in(labels: Array, bits: Array) -> Array:
    """Whether labels are in a set of parts: one shift instead of a table's look-up."""
    # Bits 0 and 31 are no parts: what lies outside 1..30 is in no set.
    place = jnp.clip(labels, 0, 31).astype(jnp.uint32)
    return ((bits >> place) & 1) == 1


def _is_number(joints_px: Array) -> Array:
    return jnp.all(jnp.isfinite(joints_px), -1)


def _scaled(pixels, size: int):
    return pixels * (size / PUBLISHED_SIZE_PX)


def _size_of(pictures: Array) -> int:
    rows, columns = pictures.shape[1:3]
    if rows != columns:
        raise ValueError(f"expected square pictures, got {rows} rows x {columns}")
    return rows
