"""The losses of I2L-MeshNet, each as (sum, count).

Every mean is over all entries, masked ones as zeros, as published. Cells of the heat
maps in the first stage, camera units in the second.

Source: specs/i2l_meshnet.md section 9.
"""

import functools
from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hmr_jax.geometry import safe
from hmr_jax.losses.elementwise import absolute_error
from hmr_jax.losses.reduce import SumCount, check_same_shape, masked, masked_error

LIXEL = (
    *("joint_fit", "joint_orig", "mesh_fit", "mesh_joint_orig", "mesh_joint_fit"),
    *("mesh_normal", "mesh_edge"),
)
PARAM = ("pose_param", "shape_param", "joint_orig_cam", "joint_fit_cam")
NAMES = {"lixel": LIXEL, "param": PARAM}
"""The losses of each stage."""
_FLOOR = 1e-12
"""Shorter vectors are divided by this, as published."""


def coordinate_mask(
    mask: Float[Array, "batch points 1"], is_3d: Float[Array, "batch 1"]
) -> Float[Array, "batch points 3"]:
    """Weights of x, y and z: depth counts where the sample has three dimensions.

    Args:
        mask: of the points.
        is_3d: of the samples.
    """
    depth = mask * is_3d[:, None]
    return jnp.concatenate([mask, mask, depth], -1)


def _corners(points: Array, faces: Array) -> list[Array]:
    """The three corners [B, F, C] of each face."""
    return [points[:, faces[:, i]] for i in range(3)]


def normal_errors(
    vertices: Float[Array, "batch verts 3"],
    target: Float[Array, "_batch _verts 3"],
    faces: Int[Array, "faces 3"],
) -> Float[Array, "batch sides"]:
    """How far each predicted side leaves the plane of the target's face.

    Args:
        vertices: predicted.
        target: same unit.
        faces: triangles (a, b, c).

    Returns:
        |cosine| between the target's normal and the sides ab, ac and bc, one after the
        other for all faces; [B, 3 F]. Finite gradients where vertices coincide.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(vertices, target)
    a, b, c = _corners(vertices, faces)
    unit = functools.partial(safe.normalize, floor=_FLOOR)
    ta, tb, tc = _corners(target, faces)
    normal = unit(jnp.cross(unit(tb - ta), unit(tc - ta)))
    sides = [unit(b - a), unit(c - a), unit(c - b)]
    found = [jnp.abs(jnp.sum(side * normal, -1)) for side in sides]
    return jnp.concatenate(found, 1)


def normal_mask(
    mask: Float[Array, "batch verts 1"], faces: Int[Array, "faces 3"]
) -> Float[Array, "batch sides"]:
    """Weights of ``normal_errors``: all three corners of the face count."""
    a, b, c = _corners(mask, faces)
    return jnp.tile((a * b * c)[..., 0], (1, 3))


def edge_errors(
    vertices: Float[Array, "batch verts 3"],
    target: Float[Array, "_batch _verts 3"],
    faces: Int[Array, "faces 3"],
) -> Float[Array, "batch sides"]:
    """Differences in length of each side of each face.

    Args:
        vertices: predicted.
        target: same unit.
        faces: triangles (a, b, c).

    Returns:
        Of ab, ac and bc, one after the other for all faces; [B, 3 F]. Finite gradients
        where vertices coincide.

    Raises:
        ValueError: the shapes differ.
    """
    check_same_shape(vertices, target)

    def lengths(points):
        a, b, c = _corners(points, faces)
        sides = (a - b, a - c, b - c)
        return jnp.concatenate([safe.norm(side) for side in sides], 1)

    return jnp.abs(lengths(vertices) - lengths(target))


def edge_mask(
    mask: Float[Array, "batch verts 1"], faces: Int[Array, "faces 3"]
) -> Float[Array, "batch sides"]:
    """Weights of ``edge_errors``: both ends of the side count."""
    a, b, c = _corners(mask, faces)
    return jnp.concatenate([a * b, a * c, b * c], 1)[..., 0]


def lixel_losses(
    raw: Mapping[str, Array],
    batch: Mapping[str, Array],
    faces: Int[Array, "faces 3"],
) -> dict[str, SumCount]:
    """The losses of the first stage.

    Args:
        raw: of ``I2lMeshNet``.
        batch: the targets of ``i2l_targets`` and ``orig_joint_img``,
            ``orig_joint_trunc``, ``is_3d``; ``valid`` [B] zero for padding.
        faces: of the body.

    Returns:
        Name to (sum, count); cells, but for ``mesh_normal``. Counts depend on ``valid``
        alone.
    """
    valid, good = batch.get("valid"), batch["is_valid_fit"][:, None]
    coordinates = functools.partial(
        masked_error, absolute_error, valid=valid, normalize_by="all"
    )
    own = coordinate_mask(batch["orig_joint_trunc"], batch["is_3d"])
    joint_mask = batch["fit_joint_trunc"] * good
    mesh_mask = batch["fit_mesh_trunc"] * good
    joints, mesh = raw["joints_cells"], raw["vertices_cells"]
    of_mesh, mesh_target = raw["mesh_joints_cells"], batch["fit_mesh_img"]
    fit, original = batch["fit_joint_img"], batch["orig_joint_img"]
    over_all = functools.partial(masked, valid=valid, normalize_by="all")
    return {
        "joint_fit": coordinates(joints, fit, joint_mask),
        "joint_orig": coordinates(joints, original, own),
        "mesh_fit": coordinates(mesh, mesh_target, mesh_mask),
        "mesh_joint_orig": coordinates(of_mesh, original, own),
        "mesh_joint_fit": coordinates(of_mesh, fit, joint_mask),
        "mesh_normal": over_all(
            normal_errors(mesh, mesh_target, faces), normal_mask(mesh_mask, faces)
        ),
        "mesh_edge": over_all(
            edge_errors(mesh, mesh_target, faces), edge_mask(mesh_mask, faces)
        ),
    }


def param_losses(
    found: Mapping[str, Array], batch: Mapping[str, Array]
) -> dict[str, SumCount]:
    """The losses of the second stage.

    Args:
        found: ``pose_aa`` [B, K, 3] and ``betas`` [B, S] of ``I2lMeshNet``, and
            ``joints_cam_m`` [B, J, 3], regressed from the posed body, from its root.
        batch: the targets of ``i2l_targets`` and ``orig_joint_cam_m``,
            ``orig_joint_valid``, ``is_3d``; ``valid`` [B] zero for padding.

    Returns:
        Name to (sum, count); radians, shape units and metres. Counts depend on
        ``valid`` alone.
    """
    over_all = functools.partial(
        masked_error, absolute_error, valid=batch.get("valid"), normalize_by="all"
    )
    good, joints = batch["is_valid_fit"], found["joints_cam_m"]
    pose = found["pose_aa"].reshape(len(joints), -1)
    own = batch["orig_joint_valid"] * batch["is_3d"][:, None]
    return {
        "pose_param": over_all(pose, batch["pose_param"], good),
        "shape_param": over_all(found["betas"], batch["shape_param"], good),
        "joint_orig_cam": over_all(joints, batch["orig_joint_cam_m"], own),
        "joint_fit_cam": over_all(joints, batch["fit_joint_cam_m"], good[:, None]),
    }
