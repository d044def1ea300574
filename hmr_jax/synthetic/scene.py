"""One scene: a clothed body, a camera and lights, drawn with all labels, under jit."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

from hmr_jax.body.forward import body_forward
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.cameras import intrinsics_matrix
from hmr_jax.geometry.rotations import (
    axis_angle_to_matrix,
    matmul3,
    matrix_to_axis_angle,
)
from hmr_jax.render.shade import Light, render_mesh
from hmr_jax.synthetic.clothing import Clothes, Figure, dress
from hmr_jax.synthetic.labels import BodyLabels, body_labels, world_to_camera

PLACING_STEPS = 8
NEAREST_M = 0.4
"""Least depth of the mesh in front of the camera."""


class Scene(NamedTuple):
    """Everything that one picture depends on; arrays may have a leading axis.

    Attributes:
        pose_aa: radians, the root's in a world with y up.
        betas: shape coefficients.
        camera_rotmat: world axes to camera axes (x right, y down, z forward).
        focal_px: focal length.
        fill: longer side of the person's box over the side of the image.
        centre_px: where the centre of the person's box goes, x and y.
        light: in the camera frame.
        falloff: power of the distance by which the light fades; 2 for a lamp at the
            camera (a flash), 0 for light from afar. Exposed for the root joint.
        clothes: the outfit.
        background: the picture behind the person.
    """

    pose_aa: Float[Array, "*n joints 3"]
    betas: Float[Array, "*n betas"]
    camera_rotmat: Float[Array, "*n 3 3"]
    focal_px: Float[Array, "*n"]
    fill: Float[Array, "*n"]
    centre_px: Float[Array, "*n 2"]
    light: Light
    falloff: Float[Array, "*n"]
    clothes: Clothes
    background: UInt8[Array, "*n size size 3"]


class Shot(NamedTuple):
    """The picture of a scene and its labels; arrays may have a leading axis.

    Attributes:
        image: colours.
        mask: 255 where the person covers at least half of the pixel, else 0.
        labels: joints, keypoints, box, twists.
        intrinsics: camera to image, pixels.
        extrinsics: world to camera, metres; the world's origin is on the floor under
            the root joint.
        pose_aa: radians, the root's in the camera frame.
        translation_m: to add to the body's vertices, camera frame.
    """

    image: UInt8[Array, "*n size size 3"]
    mask: UInt8[Array, "*n size size"]
    labels: BodyLabels
    intrinsics: Float[Array, "*n 3 3"]
    extrinsics: Float[Array, "*n 4 4"]
    pose_aa: Float[Array, "*n joints 3"]
    translation_m: Float[Array, "*n 3"]


def place_root(
    relative_m: Float[Array, "verts 3"],
    focal_px: Float[Array, ""],
    fill_px: Float[Array, ""],
    offset_px: Float[Array, "2"],
) -> Float[Array, "3"]:
    """Where to put a mesh so that its picture has a given size and centre.

    Args:
        relative_m: vertices relative to the root joint, camera axes.
        focal_px: focal length.
        fill_px: longer side of the picture's box.
        offset_px: centre of the box from the principal point.

    Returns:
        The root joint in the camera frame, at least so far that every vertex is
        ``NEAREST_M`` before the camera. The size is met to about 1 %, the centre up to
        the change of perspective that the shift to it brings.
    """
    nearest = NEAREST_M - jnp.min(relative_m[:, 2])

    def outline(depth):
        pixels = relative_m[:, :2] / (relative_m[:, 2:] + depth) * focal_px
        low, high = jnp.min(pixels, axis=0), jnp.max(pixels, axis=0)
        return (low + high) / 2, jnp.max(high - low)

    def step(_, depth):
        return jnp.maximum(depth * outline(depth)[1] / fill_px, nearest)

    extent = jnp.max(jnp.ptp(relative_m[:, :2], axis=0))
    start = jnp.maximum(focal_px * extent / fill_px, nearest)
    depth = jax.lax.fori_loop(0, PLACING_STEPS, step, start)
    across = (offset_px - outline(depth)[0]) * depth / focal_px
    return jnp.concatenate([across, depth[None]])


def faded_light(
    points_cam_m: Float[Array, "points 3"],
    exposed_cam_m: Float[Array, "3"],
    falloff: Float[Array, ""],
) -> Float[Array, "points"]:
    """How much of a lamp at the camera reaches points, relative to one of them.

    Args:
        points_cam_m: camera frame, metres.
        exposed_cam_m: where the light is 1.
        falloff: power of the distance; 2 is the inverse square law, 0 no fading.
    """
    distance_m = jnp.linalg.norm(points_cam_m, axis=-1)
    exposed_m = jnp.linalg.norm(exposed_cam_m)
    return (exposed_m / jnp.maximum(distance_m, NEAREST_M)) ** falloff


def shoot(
    body: BodyModel,
    vertex_rgb: Float[Array, "verts 3"],
    scene: Scene,
    size_px: int,
    supersample: int,
) -> Shot:
    """Draw one scene.

    Args:
        body: the body.
        vertex_rgb: the clothed body's colours.
        scene: without a leading axis.
        size_px: side of the square image.
        supersample: samples per pixel and axis.

    Returns:
        ``Shot`` without a leading axis.
    """
    middle = jnp.full(2, (size_px - 1) / 2, scene.betas.dtype)
    intrinsics = intrinsics_matrix(jnp.full(2, scene.focal_px), middle)
    root_world = axis_angle_to_matrix(scene.pose_aa[0])
    root_cam = matrix_to_axis_angle(matmul3(scene.camera_rotmat, root_world))
    pose_aa = scene.pose_aa.at[0].set(root_cam)
    local = axis_angle_to_matrix(pose_aa)
    posed = body_forward(body, scene.betas, local)
    rest_root_m = posed.rest_joints_m[0]
    relative_m = posed.vertices_m - rest_root_m[None]
    root_cam_m = place_root(
        *(relative_m, scene.focal_px, scene.fill * size_px, scene.centre_px - middle)
    )
    translation_m = root_cam_m - rest_root_m
    posed = posed._replace(
        vertices_m=posed.vertices_m + translation_m[None],
        joints_m=posed.joints_m + translation_m[None],
    )
    lit = faded_light(posed.vertices_m, root_cam_m, scene.falloff)
    heights_m = jnp.sum(relative_m * scene.camera_rotmat[None, :, 1], axis=1)
    picture = render_mesh(
        *(posed.vertices_m, body.faces, intrinsics, size_px, size_px),
        vertex_rgb=vertex_rgb * lit[:, None],
        light=scene.light,
        background=scene.background.astype(scene.betas.dtype) / 255.0,
        supersample=supersample,
        near_m=NEAREST_M / 4,
    )
    return Shot(
        image=jnp.round(jnp.clip(picture.image, 0.0, 1.0) * 255.0).astype(jnp.uint8),
        mask=jnp.where(picture.mask >= 0.5, 255, 0).astype(jnp.uint8),
        labels=body_labels(body, posed, local, intrinsics, size_px, size_px),
        intrinsics=intrinsics,
        extrinsics=world_to_camera(
            scene.camera_rotmat, root_cam_m, -jnp.min(heights_m)
        ),
        pose_aa=pose_aa,
        translation_m=translation_m,
    )


@functools.partial(jax.jit, static_argnames=("size_px", "supersample", "vectorized"))
def shoot_all(
    body: BodyModel,
    figure: Figure,
    scenes: Scene,
    count: Int[Array, ""] | int,
    *,
    size_px: int,
    supersample: int = 2,
    vectorized: bool = False,
) -> Shot:
    """Draw the first scenes of a chunk.

    One by one, each result is the same bit for bit whatever else is in the chunk.

    Args:
        body: the body.
        figure: of the body, for the clothes.
        scenes: with a leading axis.
        count: scenes to draw; the rest of the result is zero.
        size_px: side of the square images.
        supersample: samples per pixel and axis.
        vectorized: draw the whole chunk at once, for accelerators.

    Returns:
        ``Shot`` with the leading axis of ``scenes``.
    """

    def one(inputs):
        scene, vertex_rgb = inputs
        return shoot(body, vertex_rgb, scene, size_px, supersample)

    if vectorized:
        colours = jax.vmap(functools.partial(dress, figure))(scenes.clothes)
        return jax.vmap(one)((scenes, colours))
    # Colours come from a loop of their own: in one loop with the picture, XLA's CPU
    # backend recomputes them at every pixel (14 against 31 ms per sample).
    colours = jax.lax.map(functools.partial(dress, figure), scenes.clothes)
    inputs = (scenes, colours)
    first = jax.eval_shape(one, jax.tree.map(lambda x: x[0], inputs))
    chunk = scenes.betas.shape[0]
    results = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), first)

    def step(index, results):
        shot = one(jax.tree.map(lambda x: x[index], inputs))
        return jax.tree.map(lambda all_, x: all_.at[index].set(x), results, shot)

    return jax.lax.fori_loop(0, count, step, results)
