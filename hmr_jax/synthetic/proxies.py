"""Training batches rendered on the accelerator: bodies, clothes, light, camera, crop.

One jittable function goes from pose indices to the network's input and every target,
so that a training step and the making of its data are one program.

Frames: bodies are y up; the camera sees them turned by half a turn about x. Lengths in
pixels are those of a picture of ``PUBLISHED_SIZE_PX``, and scale with the picture.

Source: specs/hierprob.md sections 11.2 to 11.9.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from hmr_jax import sample_keys
from hmr_jax.body.forward import body_forward
from hmr_jax.body.landmarks import coco_joints, lsp_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.body.parts import joints_in_frame, joints_on_visible_parts
from hmr_jax.body.surface import Surface
from hmr_jax.errors import UserError
from hmr_jax.geometry.cameras import (
    intrinsics_matrix,
    perspective_project,
    to_camera_axes,
)
from hmr_jax.geometry.crops import crop_images, crop_points
from hmr_jax.nn.proxy import PUBLISHED_SIZE_PX, resized_representation
from hmr_jax.render.phong import PointLight, phong, sample_point_light
from hmr_jax.render.rasterize import interpolate, rasterize
from hmr_jax.render.shade import project_to_screen, sample_textures, vertex_normals
from hmr_jax.synthetic.pose_law import PoseLaw, sample_poses
from hmr_jax.synthetic.proxy_augment import (
    ProxyAugmentation,
    augment_colours,
    augment_proxy,
    occlude_picture,
    sample_boxes,
)
from hmr_jax.synthetic.textures import TextureBank, sample_texture_indices

Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class ProxyOptions:
    """How batches are made; the defaults are the published values.

    Attributes:
        image_size_px: side of the square pictures, before and after the crop.
        focal_px: focal length in a picture of 256 pixels.
        mean_camera_m: mean translation of bodies, camera axes. As published it fits
            SMPL, whose pelvis lies 0.22 m below its origin.
        camera_std_m: deviation of the translation across.
        depth_range_m: least and largest addition to the distance.
        shape_std: deviation of each shape coefficient.
        light_per_image: a lamp for each picture; as published one lights a batch (on
            several devices, each device's part of it).
        normal_seams: normals end at the borders of the texture's parts, as published,
            so that shading has seams there; else the skin is smooth.
        flip_backgrounds: mirror half of the backgrounds, to make a few do for more.
        augmentation: of the proxy representation.
        poses: what is made of the bank's poses.
    """

    image_size_px: int = PUBLISHED_SIZE_PX
    focal_px: float = 300.0
    mean_camera_m: tuple[float, float, float] = (0.0, -0.2, 2.5)
    camera_std_m: float = 0.05
    depth_range_m: tuple[float, float] = (-0.5, 0.5)
    shape_std: float = 1.25
    light_per_image: bool = True
    normal_seams: bool = False
    flip_backgrounds: bool = False
    augmentation: ProxyAugmentation = dataclasses.field(
        default_factory=ProxyAugmentation
    )
    poses: PoseLaw = dataclasses.field(default_factory=PoseLaw)

    def __post_init__(self):
        if self.image_size_px < 32 or self.image_size_px % 32:
            raise UserError(
                "image_size_px: expected a positive multiple of 32, "
                f"got {self.image_size_px}"
            )
        for name, length in (("mean_camera_m", 3), ("depth_range_m", 2)):
            value = getattr(self, name)
            if len(value) != length or not all(map(math.isfinite, value)):
                raise UserError(f"{name}: expected {length} numbers, got {value}")
        for name in ("camera_std_m", "shape_std", "focal_px"):
            value = getattr(self, name)
            if not 0 <= value < math.inf or (name == "focal_px" and value == 0):
                raise UserError(f"{name}: expected a positive number, got {value}")
        low, high = self.depth_range_m
        if low > high or self.mean_camera_m[2] + low <= 1.0:
            raise UserError(
                "mean_camera_m, depth_range_m: expected a range of distances above "
                f"1 m, got {self.mean_camera_m[2]:g} m and {self.depth_range_m}"
            )


class ProxyAssets(NamedTuple):
    """What pictures are made of; an argument of the program, on every device.

    Attributes:
        body: the body.
        surface: its faces' parts and texture coordinates.
        textures: clothes and skins.
        backgrounds: pictures behind the bodies; may be empty where batches bring
            theirs.
        poses_aa: bank of poses, axis-angle, radians.
    """

    body: BodyModel
    surface: Surface
    textures: TextureBank
    backgrounds: UInt8[Array, "n size size 3"]
    poses_aa: Float[Array, "poses 24 3"]


class Figures(NamedTuple):
    """Bodies before the camera.

    Attributes:
        rotmats: [B, 24, 3, 3], the root's in the y-up frame of the targets.
        betas: [B, betas].
        vertices_m: [B, V, 3] y up.
        vertices_cam_m: [B, V, 3] camera axes, before the translation.
        translation_m: [B, 3] to the camera frame.
        joints_coco_px: [B, 17, 2] in the picture.
        joints_m: [B, 24, 3] y up.
    """

    rotmats: Array
    betas: Array
    vertices_m: Array
    vertices_cam_m: Array
    translation_m: Array
    joints_coco_px: Array
    joints_m: Array


def intrinsics_of(options: ProxyOptions) -> Float[Array, "3 3"]:
    """The camera matrix of the uncropped pictures, pixel centres at integers.

    Args:
        options: size and focal length.
    """
    size = options.image_size_px
    focal = options.focal_px * size / PUBLISHED_SIZE_PX
    return intrinsics_matrix(jnp.full(2, focal), jnp.full(2, (size - 1) / 2))


def sample_figures(
    key: Array,
    pose_index: Int[Array, "batch"],
    assets: ProxyAssets,
    options: ProxyOptions,
) -> Figures:
    """Sample shapes and cameras, and pose bodies.

    Args:
        key: random key, or one for each figure.
        pose_index: places in the bank.
        assets: body and poses.
        options: see ``ProxyOptions``.

    Source: specs/hierprob.md section 11.2.
    """
    pose_key, shape_key, across_key, depth_key = sample_keys.split(key, 4)
    body, batch = assets.body, pose_index.shape[0]
    rotmats = sample_poses(pose_key, assets.poses_aa, pose_index, options.poses)
    normal = functools.partial(sample_keys.draw, jax.random.normal)
    betas = options.shape_std * normal(shape_key, (batch, body.num_betas))
    across = options.camera_std_m * normal(across_key, (batch, 2))
    low, high = options.depth_range_m
    within = functools.partial(jax.random.uniform, minval=low, maxval=high)
    away = sample_keys.draw(within, depth_key, (batch, 1))
    mean = jnp.array(options.mean_camera_m)
    translation = mean[None] + jnp.concatenate([across, away], -1)
    posed = body_forward(body, betas, rotmats)
    coco = to_camera_axes(coco_joints(body, posed.vertices_m, posed.joints_m))
    # The published pixels count from the corner of the picture, half a pixel before
    # the centre of the first one.
    matrix = intrinsics_of(options).at[:2, 2].add(0.5)
    pixels = perspective_project(
        coco + translation[:, None], jnp.broadcast_to(matrix, (batch, 3, 3))
    )
    return Figures(
        rotmats=rotmats,
        betas=betas,
        vertices_m=posed.vertices_m,
        vertices_cam_m=to_camera_axes(posed.vertices_m),
        translation_m=translation,
        joints_coco_px=pixels,
        joints_m=posed.joints_m,
    )


def _each(one: Callable[..., Any], *inputs: Any) -> Any:
    """Apply a function to every image: at once, or on a CPU one by one."""

    def in_turn(*inputs):
        return jax.lax.map(lambda values: one(*values), inputs)

    return jax.lax.platform_dependent(*inputs, cpu=in_turn, default=jax.vmap(one))


def render_figures(
    figures: Figures,
    texture_index: Int[Array, "batch"],
    light: PointLight,
    assets: ProxyAssets,
    options: ProxyOptions,
) -> tuple[Float[Array, "batch size size 3"], Int[Array, "batch size size"]]:
    """Draw bodies on black.

    Args:
        figures: of ``sample_figures``.
        texture_index: of the bank.
        light: [batch] lamps, in the axes of the camera about the body's origin.
        assets: surface and textures.
        options: picture size and camera.

    Returns:
        Colours in [0, 1], and the part of each pixel, 0 for the background.

    Source: specs/hierprob.md section 11.3; unlike there, barycentrics are correct in
    perspective.
    """
    body, surface, size = assets.body, assets.surface, options.image_size_px
    corners = surface.vertex[surface.faces]
    face_uv = surface.uv[surface.faces]
    intrinsics = intrinsics_of(options)

    def draw(vertices, translation, lamp, texture):
        screen = project_to_screen(vertices + translation[None], intrinsics)
        seen = rasterize(screen, corners, size, size)
        face = jnp.maximum(seen.face, 0)
        covered = seen.face >= 0
        if options.normal_seams:
            cut = vertex_normals(vertices[surface.vertex], surface.faces)
            normals = cut[surface.faces]
        else:
            normals = vertex_normals(vertices, body.faces)[corners]
        attributes = jnp.concatenate([vertices[corners], normals, face_uv], -1)
        values = interpolate(seen, attributes)
        uv = values[..., 6:]
        texel = sample_textures(assets.textures.images, texture, uv, ends=True)
        colour = phong(values[..., :3], values[..., 3:6], -translation, lamp, texel)
        image = jnp.where(covered[..., None], colour, 0.0)
        return image, jnp.where(covered, surface.part[face], 0)

    return _each(
        draw, figures.vertices_cam_m, figures.translation_m, light, texture_index
    )


def _lights(key: Array, batch: int, per_image: bool) -> PointLight:
    if per_image:
        keys = jax.random.split(key, batch) if sample_keys.is_one(key) else key
        return jax.vmap(sample_point_light)(keys)
    one = sample_point_light(key)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape)), one)


def _backgrounds(
    key: Array,
    batch: Mapping[str, Array],
    assets: ProxyAssets,
    options: ProxyOptions,
) -> Float[Array, "batch size size 3"]:
    count = batch["pose_index"].shape[0]
    index_key, flip_key = sample_keys.split(key, 2)
    if "background" in batch:
        pictures = batch["background"]
    else:
        total = assets.backgrounds.shape[0]
        any_of = functools.partial(jax.random.randint, minval=0, maxval=total)
        index = sample_keys.draw(any_of, index_key, (count,))
        pictures = assets.backgrounds[index]
    if options.flip_backgrounds:
        half = lambda k, shape: jax.random.bernoulli(k, 0.5, shape)  # noqa: E731
        flip = sample_keys.draw(half, flip_key, (count,))
        pictures = jnp.where(flip[:, None, None, None], pictures[:, :, ::-1], pictures)
    return pictures.astype(jnp.float32) / 255.0


def make_batch(
    key: PRNGKeyArray,
    batch: Mapping[str, Array],
    assets: ProxyAssets,
    options: ProxyOptions,
    *,
    targets: Literal["training", "all"] = "training",
) -> Batch:
    """Everything from the pose's index to the network's input and targets.

    Args:
        key: random key.
        batch: ``pose_index`` [B]; optionally ``background`` uint8 [B, size, size, 3],
            and ``batch_row`` [B], each sample's place in the batch that all devices
            share: its picture then depends on the key and that place alone.
        assets: see ``ProxyAssets``.
        options: see ``ProxyOptions``.
        targets: ``all`` adds what only evaluations need.

    Returns:
        ``proxy`` [B, size, size, 18], ``image`` [B, size, size, 3] (as the edges were
        taken from), ``joints2d_px`` and ``joints2d_visible`` (as the heatmaps show
        them), and the targets of ``losses.hierprob``: ``target_pose_rotmats``,
        ``target_shape``, ``target_global_rotmat``, ``target_joints2d_px`` (without
        noise), ``target_joints2d_visible``, ``target_vertices_m`` and, where the body
        has ``h36m_17``, ``target_joints3d_m``; with ``all`` also
        ``target_zero_pose_vertices_m``.
    """
    size, augmentation = options.image_size_px, options.augmentation
    keys = sample_keys.split(key, 8)
    light_key = keys[1]  # one lamp for the whole batch where it is not per image
    if "batch_row" in batch:
        keys = [sample_keys.keys_of_rows(k, batch["batch_row"]) for k in keys]
        light_key = keys[1] if options.light_per_image else light_key
    figures = sample_figures(keys[0], batch["pose_index"], assets, options)
    count = figures.betas.shape[0]
    light = _lights(light_key, count, options.light_per_image)
    texture = sample_texture_indices(keys[2], assets.textures, count)
    image, labels = render_figures(figures, texture, light, assets, options)
    visible = joints_in_frame(figures.joints_coco_px, size, size)

    box = sample_boxes(keys[3], labels, augmentation)
    image = crop_images(image, box, size, size)
    labels = crop_images(
        labels[..., None].astype(jnp.float32), box, size, size, sampling="nearest",
        fill=-1.0,
    )[..., 0]  # fmt: skip
    clean_px = crop_points(figures.joints_coco_px, box, size, size)
    visible &= joints_in_frame(clean_px, size, size)
    enough = round(50 * (size / PUBLISHED_SIZE_PX) ** 2)
    visible &= joints_on_visible_parts(labels, enough)

    labels, noisy_px, visible = augment_proxy(
        keys[4], labels, clean_px, visible, augmentation
    )
    behind = _backgrounds(keys[5], batch, assets, options)
    image = jnp.where((labels == 0)[..., None], behind, image)
    image, visible = occlude_picture(keys[6], image, noisy_px, visible, augmentation)
    image = augment_colours(keys[7], image, augmentation)
    seen = visible.astype(jnp.float32)
    _, _, proxy = resized_representation(image, noisy_px, seen, size)
    out = {
        "proxy": proxy,
        "image": image,
        "joints2d_px": noisy_px,
        "joints2d_visible": seen,
        "target_pose_rotmats": figures.rotmats[:, 1:],
        "target_global_rotmat": figures.rotmats[:, 0],
        "target_shape": figures.betas,
        "target_joints2d_px": clean_px,
        "target_joints2d_visible": seen,
        "target_vertices_m": figures.vertices_m,
    }
    if "h36m_17" in assets.body.extra_joint_regressors:
        out["target_joints3d_m"] = lsp_joints(assets.body, figures.vertices_m)
    if targets == "all":
        rest = jnp.zeros((count, assets.body.num_joints, 3))
        posed = body_forward(assets.body, figures.betas, rest)
        out["target_zero_pose_vertices_m"] = posed.vertices_m
    return jax.tree.map(jax.lax.stop_gradient, out)
