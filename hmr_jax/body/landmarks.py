"""Joints of picture datasets on a posed body: face landmarks, COCO's 17, LSP's 14."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from hmr_jax.body.forward import regress_joints
from hmr_jax.body.joint_sets import LSP_FROM_H36M
from hmr_jax.body.model import BodyModel

FACE_REGRESSOR = "coco_face_5"
"""Extra regressor of a body that is neither SMPL nor the open body."""

FACE_VERTICES: dict[int, tuple[int, ...]] = {
    6890: (332, 2800, 6260, 583, 4071),
    6799: (98, 6726, 6784, 6205, 2936),
}
"""Nose, left and right eye, left and right ear by the number of vertices: SMPL's as
published, the open body's by place (tip of the nose, eyelids, front of the ears)."""

COCO_FROM_SMPL = (16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8)
"""Joints of the body that stand for COCO's joints 5 to 16."""


def face_landmarks(
    body: BodyModel, vertices_m: Float[Array, "*batch verts 3"]
) -> Float[Array, "*batch 5 3"]:
    """Nose, eyes and ears on the surface.

    Args:
        body: SMPL, the open body, or a body with the extra regressor ``coco_face_5``.
        vertices_m: its posed vertices, metres.

    Returns:
        Nose, left eye, right eye, left ear, right ear, metres.

    Raises:
        ValueError: the body is another one and has no such regressor.
    """
    if FACE_REGRESSOR in body.extra_joint_regressors:
        return regress_joints(body, vertices_m, FACE_REGRESSOR)
    if body.num_vertices not in FACE_VERTICES:
        raise ValueError(
            f"body {body.name!r}: the face of a body with {body.num_vertices} vertices "
            f"is not known (of {sorted(FACE_VERTICES)} it is); add the extra joint "
            f"regressor {FACE_REGRESSOR!r}"
        )
    return vertices_m[..., jnp.array(FACE_VERTICES[body.num_vertices]), :]


def coco_joints(
    body: BodyModel,
    vertices_m: Float[Array, "*batch verts 3"],
    joints_m: Float[Array, "*batch joints 3"],
) -> Float[Array, "*batch 17 3"]:
    """COCO's joints: the face from the surface, the rest from the skeleton.

    Args:
        body: see ``face_landmarks``; 24 joints in SMPL's order.
        vertices_m: posed vertices, metres.
        joints_m: posed joints of the body, metres.

    Returns:
        Joints of ``coco_17``, metres.

    Source: specs/hierprob.md section 10.1.
    """
    face = face_landmarks(body, vertices_m)
    rest = joints_m[..., jnp.array(COCO_FROM_SMPL), :]
    return jnp.concatenate([face, rest], -2)


def lsp_joints(
    body: BodyModel, vertices_m: Float[Array, "*batch verts 3"]
) -> Float[Array, "*batch 14 3"]:
    """The 14 joints that 3D errors are measured on.

    Args:
        body: with the extra regressor ``h36m_17``.
        vertices_m: posed vertices, metres.

    Returns:
        Joints of ``lsp_14``, metres.

    Source: specs/hierprob.md section 10.1.
    """
    h36m = regress_joints(body, vertices_m, "h36m_17")
    return h36m[..., jnp.array(LSP_FROM_H36M), :]
