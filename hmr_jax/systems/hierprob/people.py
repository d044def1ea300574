"""From crops of persons and their 2D joints to bodies and how sure they are.

Crops are those of ``models.pose2d.person_crops``; one compiled program turns a batch of
them into the proxy representation, the distributions, the most likely bodies, samples
and the uncertainty of every vertex.
Source: specs/hierprob.md sections 9 and 15.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.crops import Box, uncrop_points
from hmr_jax.nn.pose2d import proxy_crops, usable_joints
from hmr_jax.nn.proxy import (
    PUBLISHED_SIZE_PX,
    heatmap_joints,
    resized_representation,
)
from hmr_jax.systems.hierprob.decode import (
    decode,
    decode_samples,
    samples_by_fit,
    vertex_spread,
)
from hmr_jax.systems.hierprob.task import make_model
from hmr_jax.systems.system import Seen

SHOWN_SAMPLES = 8


def people(
    config: Any, options: Mapping[str, Any]
) -> Callable[[Any, BodyModel, Seen], dict[str, Array]]:
    """What finds the bodies of a batch of persons, see ``System``.

    Args:
        config: an experiment.
        options: ``num_samples`` and ``sample_shape`` of ``predict_people``, and
            ``visibility_threshold`` of ``usable_joints``.
    """
    apply = functools.partial(make_model(config).apply, train=False)
    return people_by(apply, config.image_size_px, options)


def people_by(
    apply: Callable[..., Any], size_px: int, options: Mapping[str, Any]
) -> Callable[[Any, BodyModel, Seen], dict[str, Array]]:
    """``people`` for a network.

    Args:
        apply: variables and proxy representations to the output of ``HierProbNet``.
        size_px: side of the proxy representation.
        options: see ``people``.
    """

    def predict(variables: Any, body: BodyModel, seen: Seen) -> dict[str, Array]:
        visible = usable_joints(
            seen.joints_px, seen.confidence, options["visibility_threshold"]
        )
        out = predict_people(
            lambda proxy: apply(variables, proxy),
            body,
            seen.crops,
            seen.joints_px,
            visible,
            seen.keys,
            size_px=size_px,
            num_samples=options["num_samples"],
            sample_shape=options["sample_shape"],
        )
        # Only its picture is of use later, and it is large.
        out["proxy"] = out["proxy"].sum(-1)
        return out | {"joints2d_visible": visible}

    return predict


def uncrop_proxy_points(
    points_px: Float[Array, "batch n 2"], crop_size_px: tuple[int, int], size_px: int
) -> Float[Array, "batch n 2"]:
    """Places in the crops of points in the proxy representation.

    Args:
        points_px: (x, y) in the proxy representation.
        crop_size_px: height and width of the crops.
        size_px: side of the proxy representation.

    Returns:
        (x, y) in the crops; inverse of the joints of ``models.pose2d.proxy_crops``.
    """
    height, width = crop_size_px
    batch, side = points_px.shape[0], float(max(height, width))
    centre = jnp.array([[0.5 * width, 0.5 * height]], points_px.dtype)
    square = Box(
        jnp.broadcast_to(centre, (batch, 2)),
        jnp.full((batch, 2), side, points_px.dtype),
    )
    return uncrop_points(points_px, square, size_px, size_px)


def predict_people(
    apply_fn: Callable[[Array], Mapping[str, Array]],
    body: BodyModel,
    crops: Float[Array, "batch rows columns 3"],
    joints_px: Float[Array, "batch 17 2"],
    visible: Bool[Array, "batch 17"],
    keys: Key[Array, " batch"],
    *,
    size_px: int = PUBLISHED_SIZE_PX,
    num_samples: int = 50,
    sample_shape: bool = False,
) -> dict[str, Array]:
    """Find the bodies of persons; to be compiled as a whole.

    Args:
        apply_fn: proxy representations to the output of ``HierProbNet``.
        body: 24 joints, see ``body.landmarks.coco_joints``.
        crops: RGB in [0, 1], see ``models.pose2d.person_crops``.
        joints_px: of ``coco_17`` in the crops; any value where not visible.
        visible: joints that count; with none the heatmaps are zero.
        keys: random key of each person [batch]; a person's samples depend on it alone,
            not on the batch.
        size_px: side of the proxy representation that the network was trained with.
            The width of the heatmaps follows it.
        num_samples: bodies drawn per person; 0 leaves all that needs them out.
        sample_shape: draw the shape too; the published uncertainty varies pose alone.

    Returns:
        All of ``decode`` with ``reposed``; ``proxy`` [B, size, size, 18],
        ``proxy_images`` [B, size, size, 3], ``proxy_joints_px``, and of the body in
        the crops ``joints2d_crop_px`` [B, 17, 2]. With samples also
        ``vertex_uncertainty_m`` [B, V], ``sample_rotmats`` [B, S, 23, 3, 3],
        ``sample_betas``, ``sample_complete`` [B], ``sample_order`` [B, S], best fit to
        the 2D joints first, and ``shown_vertices_m`` [B, at most 8, V, 3] of the
        first of them.
    """
    rows, columns = crops.shape[1:3]
    images, joints = proxy_crops(crops, joints_px, PUBLISHED_SIZE_PX)
    images, joints, proxy = resized_representation(images, joints, visible, size_px)
    raw = dict(apply_fn(proxy))
    out = decode(raw, body, reposed=True)
    projected = 0.5 * size_px * (out.pop("joints2d_norm")[:, 0] + 1)
    out |= {
        "proxy": proxy,
        "proxy_images": images,
        "proxy_joints_px": joints,
        "joints2d_crop_px": uncrop_proxy_points(projected, (rows, columns), size_px),
    }
    if num_samples:
        out |= _sampled(raw, body, proxy, keys, num_samples, sample_shape)
    return out


def _sampled(
    raw: Mapping[str, Array],
    body: BodyModel,
    proxy: Array,
    keys: Array,
    num_samples: int,
    sample_shape: bool,
) -> dict[str, Array]:
    """Samples of each person with the person's own key."""

    def of_one(key, one):
        rows = {name: value[None] for name, value in one.items()}
        drawn = decode_samples(key, rows, body, num_samples, sample_shape=sample_shape)
        return {name: value[0] for name, value in drawn.items()}

    drawn = jax.vmap(of_one)(keys, dict(raw))
    size_px = proxy.shape[1]
    target_px, seen = heatmap_joints(proxy[..., 1:])
    joints_px = 0.5 * size_px * (drawn["sample_joints2d_norm"] + 1)
    order = samples_by_fit(joints_px, target_px, seen)
    shown = order[:, :SHOWN_SAMPLES, None, None]
    vertices = drawn["sample_vertices_m"]
    return {
        "vertex_uncertainty_m": vertex_spread(vertices),
        "sample_rotmats": drawn["sample_rotmats"],
        "sample_betas": drawn["sample_betas"],
        "sample_complete": drawn["sample_complete"],
        "sample_order": order,
        "shown_vertices_m": jnp.take_along_axis(vertices, shown, axis=1),
    }
