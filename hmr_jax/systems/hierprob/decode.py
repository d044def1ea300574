"""Bodies of the predicted distributions: the most likely one, samples, their spread.

Bodies are y up; cameras see them turned by half a turn about x.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from hmr_jax import sample_keys
from hmr_jax.body.forward import body_forward
from hmr_jax.body.landmarks import coco_joints, lsp_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.distributions.gaussian import DiagonalGaussian
from hmr_jax.distributions.matrix_fisher import MatrixFisher, sample_matrix_fisher
from hmr_jax.geometry.cameras import (
    to_camera_axes,
    weak_perspective_project,
    weak_perspective_to_translation,
)
from hmr_jax.nn.proxy import PUBLISHED_SIZE_PX

Predictions = dict[str, Array]

FOCAL_PX = 300.0


def pose_distribution(raw: Mapping[str, Array]) -> MatrixFisher:
    """The distributions of the joints below the root [B, J].

    Args:
        raw: output of ``HierProbNet``.
    """
    return MatrixFisher(
        raw["pose_fisher_matrix"], raw["pose_u"], raw["pose_s"], raw["pose_v"]
    )


def shape_distribution(raw: Mapping[str, Array]) -> DiagonalGaussian:
    """The distribution of the shape coefficients [B, betas].

    Args:
        raw: output of ``HierProbNet``.
    """
    return DiagonalGaussian(raw["shape_mean"], raw["shape_log_std"])


def project_joints(
    joints_m: Float[Array, "*batch joints 3"], camera: Float[Array, "*batch 3"]
) -> Float[Array, "*batch joints 2"]:
    """Weak-perspective picture of points, in [-1, 1] over the crop.

    Args:
        joints_m: y up, metres.
        camera: scale, tx, ty; the scale multiplies the shifted points.

    Source: specs/hierprob.md section 10.3.
    """
    return weak_perspective_project(
        to_camera_axes(joints_m), camera[..., 0], camera[..., 1:]
    )


def _pose(body: BodyModel, betas: Array, root: Array, rotmats: Array) -> Predictions:
    """Mesh and joints of bodies with any number of batch axes."""
    pose = jnp.concatenate([root[..., None, :, :], rotmats], -3)
    posed = body_forward(body, betas, pose)
    return {
        "vertices_m": posed.vertices_m,
        "joints_m": posed.joints_m,
        "joints_coco_m": coco_joints(body, posed.vertices_m, posed.joints_m),
    }


def decode(
    raw: Mapping[str, Array], body: BodyModel, *, reposed: bool = False
) -> Predictions:
    """The most likely body: the mode of the pose and the mean of the shape.

    Args:
        raw: output of ``HierProbNet``.
        body: 24 joints, see ``body.landmarks.coco_joints``.
        reposed: also the body of the mean shape in its rest pose.

    Returns:
        The distributions (as in ``raw``, without the features), and of the mode, y up,
        metres: ``vertices_m``, ``joints_m``, ``joints_coco_m``, ``joints3d_m`` (the 14
        that are evaluated; left out where the body lacks ``h36m_17``),
        ``joints2d_norm`` [B, 1, 17, 2] in [-1, 1], ``camera_translation_m`` [B, 3] of
        a camera with ``FOCAL_PX``; with ``reposed`` also ``reposed_vertices_m``.

    Source: specs/hierprob.md section 10.
    """
    mode = _pose(body, raw["shape_mean"], raw["global_rotmat"], raw["pose_mode"])
    camera = raw["camera"]
    joints2d = project_joints(mode["joints_coco_m"], camera)
    out = {name: value for name, value in raw.items() if name != "features"}
    out |= mode
    out["joints2d_norm"] = joints2d[:, None]
    out["camera_translation_m"] = weak_perspective_to_translation(
        camera[:, 0], camera[:, 1:], FOCAL_PX, float(PUBLISHED_SIZE_PX)
    )
    if "h36m_17" in body.extra_joint_regressors:
        out["joints3d_m"] = lsp_joints(body, mode["vertices_m"])
    if reposed:
        betas = raw["shape_mean"]
        rest = jnp.zeros((*betas.shape[:-1], body.num_joints, 3), betas.dtype)
        out["reposed_vertices_m"] = body_forward(body, betas, rest).vertices_m
    return out


def decode_samples(
    key: Array,
    raw: Mapping[str, Array],
    body: BodyModel,
    num_samples: int,
    *,
    sample_shape: bool = True,
    envelope_b: float | None = None,
) -> Predictions:
    """Bodies drawn from the distributions, exact and in one program.

    Args:
        key: random key, or one for each image.
        raw: output of ``HierProbNet``.
        body: as in ``decode``.
        num_samples: bodies per image, S.
        sample_shape: draw the shape too; off keeps its mean.
        envelope_b: see ``distributions.matrix_fisher.sample_matrix_fisher``.

    Returns:
        ``sample_rotmats`` [B, S, J, 3, 3], ``sample_betas`` [B, S, betas],
        ``sample_vertices_m`` [B, S, V, 3], ``sample_joints_m``,
        ``sample_joints_coco_m``, ``sample_joints2d_norm`` [B, S, 17, 2],
        ``sample_complete`` [B], false where the distribution was not finite, and
        ``sample_joints3d_m`` where the body has ``h36m_17``. All share the image's
        global rotation and camera. Differentiable, see ``sample_matrix_fisher``.

    Source: specs/hierprob.md sections 8 and 9.
    """
    pose_key, shape_key = sample_keys.split(key, 2)
    drawn = sample_matrix_fisher(
        pose_key, pose_distribution(raw), num_samples, envelope_b
    )
    rotmats = jnp.moveaxis(drawn.rotmats, 0, 1)
    mean = raw["shape_mean"]
    if sample_shape:
        drawn_betas = shape_distribution(raw).sample(shape_key, num_samples)
        betas = jnp.moveaxis(drawn_betas, 0, 1)
    else:
        betas = jnp.broadcast_to(
            mean[:, None], (mean.shape[0], num_samples, mean.shape[1])
        )
    root = jnp.broadcast_to(raw["global_rotmat"][:, None], (*betas.shape[:2], 3, 3))
    posed = _pose(body, betas, root, rotmats)
    camera = jnp.broadcast_to(raw["camera"][:, None], (*betas.shape[:2], 3))
    out = {f"sample_{name}": value for name, value in posed.items()}
    out |= {
        "sample_rotmats": rotmats,
        "sample_betas": betas,
        "sample_joints2d_norm": project_joints(posed["joints_coco_m"], camera),
        "sample_complete": jnp.all(drawn.complete, -1),
    }
    if "h36m_17" in body.extra_joint_regressors:
        out["sample_joints3d_m"] = lsp_joints(body, posed["vertices_m"])
    return out


def vertex_spread(
    vertices_m: Float[Array, "*batch samples verts 3"],
) -> Float[Array, "*batch verts"]:
    """Mean distance of each vertex from its mean over samples, metres.

    Args:
        vertices_m: vertices of the samples.

    Source: specs/hierprob.md section 9.
    """
    offset = vertices_m - vertices_m.mean(-3, keepdims=True)
    return jnp.sqrt(jnp.sum(offset * offset, -1)).mean(-2)


def vertex_uncertainty(
    key: PRNGKeyArray,
    raw: Mapping[str, Array],
    body: BodyModel,
    num_samples: int = 50,
    *,
    sample_shape: bool = False,
) -> Float[Array, "batch verts"]:
    """How far each vertex of the predicted bodies may be off.

    Args:
        key: random key.
        raw: output of ``HierProbNet``.
        body: 24 joints.
        num_samples: bodies per image.
        sample_shape: let the shape vary too; the published figure varies pose alone.

    Returns:
        Mean distance from the mean over the samples, metres.

    Source: specs/hierprob.md sections 9 and 15.
    """
    samples = decode_samples(key, raw, body, num_samples, sample_shape=sample_shape)
    return vertex_spread(samples["sample_vertices_m"])


def samples_by_fit(
    joints2d_px: Float[Array, "batch samples joints 2"],
    target_px: Float[Array, "batch joints 2"],
    visible: Any,
) -> Array:
    """Samples ordered by their largest joint error in the picture, best first.

    Args:
        joints2d_px: joints of the samples, pixels.
        target_px: joints that were seen, pixels.
        visible: [batch, joints], those that count. With none, the order stays.

    Returns:
        Indices [batch, samples].

    Source: specs/hierprob.md section 9.
    """
    seen = (visible != 0) & jnp.isfinite(target_px).all(-1)
    target = jnp.where(seen[..., None], target_px, 0)
    offset = joints2d_px - target[:, None]
    error = jnp.sqrt(jnp.sum(offset * offset, -1))
    return jnp.argsort(jnp.where(seen[:, None], error, 0).max(-1), axis=-1, stable=True)
