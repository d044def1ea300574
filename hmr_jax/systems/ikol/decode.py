"""From the network's output to a posed body, and the flip test.

``decode`` lifts heat-map joints to metres, runs inverse kinematics and poses the body;
``merge_flipped`` averages over an image and its mirror image.
Source: IKOL (AAAI 2023); specs/ikol.md sections 3 to 6.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from hmr_jax.body.forward import body_forward, regress_joints, rest_joints
from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry import safe
from hmr_jax.geometry.cameras import apply_affine, back_project
from hmr_jax.geometry.rotations import matrix_to_quaternion
from hmr_jax.solvers.gradient_bound import bound_gradient
from hmr_jax.solvers.types import IkResult
from hmr_jax.systems.ikol.layer import ik_layer
from hmr_jax.systems.ikol.published import published_quaternions

Raw = dict[str, Array]
Predictions = dict[str, Array]

REGRESSED_SET = "h36m_17"
_MIRROR = JOINT_SETS["smpl_24"].flip_permutation
_MIRROR_TWIST = tuple(joint - 1 for joint in _MIRROR[1:])
_MIRROR_LEAF = (1, 0, 2, 4, 3)  # of joints 10, 11, 15, 22, 23


def lift_joints(
    uvd: Float[Array, "*batch joints 3"],
    crop_to_image: Float[Array, "*batch 2 3"],
    intrinsics_inv: Float[Array, "*batch 3 3"],
    root_cam_m: Float[Array, "*batch 3"],
    *,
    image_size_px: int,
    depth_range_m: float = 2.0,
) -> Float[Array, "*batch joints 3"]:
    """Camera-frame joints of heat-map coordinates, relative to joint 0.

    Args:
        uvd: column, row and depth, each in [-.5, .5].
        crop_to_image: affine from crop to image pixels.
        intrinsics_inv: inverse camera matrix of the image.
        root_cam_m: the root; only its depth matters, metres.
        image_size_px: side of the crop.
        depth_range_m: depth covered by the heat map.

    Returns:
        Root-relative joints, metres.
    """
    crop_px = (uvd[..., :2] + 0.5) * image_size_px
    depth_m = uvd[..., 2] * depth_range_m + root_cam_m[..., 2:]
    image_px = apply_affine(crop_to_image, crop_px)
    joints_m = back_project(image_px, depth_m, intrinsics_inv)
    return joints_m - joints_m[..., :1, :]


def decode(
    raw: Mapping[str, Array],
    batch: Mapping[str, Array],
    body: BodyModel,
    *,
    image_size_px: int,
    depth_range_m: float = 2.0,
    scheme: str = "newton",
    options: Any = None,
    vertices: bool = True,
    layer_mask: Bool[Array, "batch"] | None = None,
    gradient_bound: float = 0.0,
) -> Predictions:
    """Turn the network's output into a posed body.

    Args:
        raw: output of ``IkolNet`` or of ``merge_flipped``.
        batch: ``crop_to_image`` [B, 2, 3], ``intrinsics_inv`` [B, 3, 3] and
            ``root_cam_m`` [B, 3] (its depth enters the lift).
        body: a 24-joint body; with ``vertices`` it needs the regressor ``h36m_17``.
        image_size_px: side of the crop.
        depth_range_m: depth covered by a heat map.
        scheme: of ``ik_layer``: 'newton', 'published', 'hybrik_naive' or
            'hybrik_adaptive'.
        options: of the scheme, see ``ik_layer``.
        vertices: also pose the mesh; the losses do not need it.
        layer_mask: False where the layer shall see the rest pose instead of the lifted
            joints (samples whose body is not supervised). Joints that are not finite
            are replaced in the same way, so that one sample cannot spoil the others.
        gradient_bound: of the layer, see ``bound_gradient``; 0 leaves it as it is.

    Returns:
        Metres, root-relative unless named otherwise: ``pred_uvd`` [B, 24, 3],
        ``pred_joints_m`` (lifted), ``pred_joints_struct_m`` (of the posed body),
        ``pred_rotmats`` [B, 24, 3, 3], ``pred_quaternions`` [B, 24, 4],
        ``pred_shape``, ``pred_delta_shape``, ``pred_twist``, ``pred_leaf_quaternions``,
        ``pred_ik_cost_m2`` and ``pred_ik_failed`` [B]. With ``vertices`` also
        ``pred_vertices_m`` and ``pred_joints_17_m``, relative to the pelvis of the 17,
        and ``pred_vertices_cam_m``, in the camera frame at ``root_cam_m``.

    Note:
        Under 'published' the subtracted pelvis of vertices and of the 17 joints is
        detached, as in the original.
    """
    published = scheme == "published"
    shape = raw["shape"]
    camera = _finite_camera(batch, shape.dtype)
    joints_m = lift_joints(
        raw["uvd"], **camera, image_size_px=image_size_px, depth_range_m=depth_range_m
    )
    rest_m = rest_joints(body, shape)
    layer: Callable[..., IkResult]
    layer = functools.partial(ik_layer, scheme=scheme, options=options)
    if not isinstance(shape.shape[0], int):
        # Exported for any batch size: the solver chooses its chunks by the number.
        layer = jax.vmap(layer)
    if gradient_bound:
        layer = bound_gradient(layer, gradient_bound)
    pose = layer(
        _layer_target(joints_m, rest_m, layer_mask),
        rest_m,
        raw["twist"],
        raw["leaf_quaternions"],
    )
    to_quaternion = published_quaternions if published else matrix_to_quaternion
    out = {
        "pred_uvd": raw["uvd"],
        "pred_joints_m": joints_m,
        "pred_joints_struct_m": pose.joints_m,
        "pred_rotmats": pose.local_rotmats,
        "pred_quaternions": to_quaternion(pose.local_rotmats),
        "pred_shape": shape,
        "pred_delta_shape": raw["delta_shape"],
        "pred_twist": raw["twist"],
        "pred_leaf_quaternions": raw["leaf_quaternions"],
        "pred_ik_cost_m2": pose.info.cost,
        "pred_ik_failed": pose.info.failed,
    }
    if vertices:
        out |= _mesh(body, shape, pose.local_rotmats, camera["root_cam_m"], published)
    return out


def _finite_camera(batch: Mapping[str, Array], dtype) -> dict[str, Array]:
    """The camera of each sample, or a harmless one where it holds NaN or infinity.

    A masked loss does not protect a sample without a camera: zero times infinity in
    the backward pass is NaN.
    """
    defaults = {
        "crop_to_image": jnp.eye(2, 3),
        "intrinsics_inv": jnp.eye(3),
        "root_cam_m": jnp.array([0.0, 0.0, 1.0]),
    }
    camera = {}
    for name, default in defaults.items():
        value = batch[name].astype(dtype)
        axes = tuple(range(1, value.ndim))
        finite = jnp.isfinite(value).all(axes, keepdims=True)
        camera[name] = jnp.where(finite, value, default[None].astype(dtype))
    return camera


def _layer_target(joints_m: Array, rest_m: Array, mask: Array | None) -> Array:
    """Joints for the layer: the lifted ones, or the rest pose."""
    usable = jnp.isfinite(joints_m).all((1, 2))
    if mask is not None:
        usable = usable & mask
    rest_m = jax.lax.stop_gradient(rest_m - rest_m[:, :1])
    return jnp.where(usable[:, None, None], joints_m, rest_m)


def _mesh(body, shape, rotmats, root_cam_m, detach_pelvis) -> Predictions:
    posed = body_forward(body, shape, rotmats)
    joints = regress_joints(body, posed.vertices_m, REGRESSED_SET)
    pelvis = joints[:, :1]
    if detach_pelvis:
        pelvis = jax.lax.stop_gradient(pelvis)
    to_camera = root_cam_m[:, None] - posed.joints_m[:, :1]
    return {
        "pred_vertices_m": posed.vertices_m - pelvis,
        "pred_joints_17_m": joints - pelvis,
        "pred_vertices_cam_m": posed.vertices_m + to_camera,
    }


def flip_test(
    apply_fn: Callable[[Array], Mapping[str, Array]],
    images: Float[Array, "batch height width 3"],
    *,
    published: bool = False,
) -> Raw:
    """Average the network over an image and its mirror image.

    Args:
        apply_fn: images to raw output, in evaluation mode.
        images: normalised crops.
        published: see ``merge_flipped``.

    Returns:
        Raw output for ``decode``, with the cameras of the images as they are.
    """
    return merge_flipped(
        apply_fn(images),
        apply_fn(images[:, :, ::-1]),
        image_size_px=images.shape[2],
        published=published,
    )


def merge_flipped(
    raw: Mapping[str, Array],
    mirrored: Mapping[str, Array],
    *,
    image_size_px: int,
    published: bool = False,
) -> Raw:
    """Mean of an image's output and of its mirror image's, mirrored back.

    Args:
        raw: output for the image.
        mirrored: output for the horizontally mirrored image.
        image_size_px: side of the crop.
        published: do as the original: u becomes -u, which is one pixel off; twists and
            leaf quaternions are averaged raw; ``delta_shape`` is the mirrored pass's.
            Off, u becomes -u - 1 / side (pixel x goes to side - 1 - x), both are
            normalised first, and quaternions take the nearer sign.

    Returns:
        The merged entries alone: ``uvd``, ``twist``, ``leaf_quaternions``, ``shape``
        and ``delta_shape``.

    Source: specs/ikol.md section 4.
    """
    shift = 0.0 if published else 1.0 / image_size_px
    uvd = mirrored["uvd"][:, jnp.array(_MIRROR)]
    uvd = jnp.concatenate([-uvd[..., :1] - shift, uvd[..., 1:]], -1)
    twist = mirrored["twist"][:, jnp.array(_MIRROR_TWIST)]
    twist = jnp.stack([twist[..., 0], -twist[..., 1]], -1)
    leaf = mirrored["leaf_quaternions"][:, jnp.array(_MIRROR_LEAF)]
    leaf = jnp.concatenate([leaf[..., :2], -leaf[..., 2:]], -1)
    own_twist, own_leaf = raw["twist"], raw["leaf_quaternions"]
    delta = mirrored["delta_shape"]
    if not published:
        own_twist, twist = safe.normalize(own_twist), safe.normalize(twist)
        own_leaf, leaf = safe.normalize(own_leaf), safe.normalize(leaf)
        nearer = jnp.sum(own_leaf * leaf, -1, keepdims=True) >= 0
        leaf = jnp.where(nearer, leaf, -leaf)
        delta = 0.5 * (raw["delta_shape"] + delta)
    return {
        "uvd": 0.5 * (raw["uvd"] + uvd),
        "twist": 0.5 * (own_twist + twist),
        "leaf_quaternions": 0.5 * (own_leaf + leaf),
        "shape": 0.5 * (raw["shape"] + mirrored["shape"]),
        "delta_shape": delta,
    }
