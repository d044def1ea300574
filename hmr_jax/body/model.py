"""``BodyModel``: the arrays of an SMPL-like body as one pytree.

The body is an argument of every function that uses it, never a constant of the
program. It is stored as the fast path of ``forward.py`` reads it: component-major
planes with the vertices along the last axis. The arrays of the published files are
properties. To learn a body's own arrays, differentiate through ``BodyModel.create``.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from hmr_jax.body.tree import check_parents

_STATIC = ("parents", "name", "gender")


@dataclasses.dataclass(frozen=True)
class BodyModel:
    """An SMPL-like body or a MANO-like hand; build one with ``BodyModel.create``.

    Attributes:
        template_planes_m: rest vertices of the mean shape, metres.
        basis_m: shape directions and then pose directions as component-major
            planes, metres. The pose directions are absent where a body has none.
        joint_basis_m: the same for the rest joints: template and shape terms, metres.
        blend_weights: skinning weights, joint-major.
        joint_regressor: rest joints from the shaped template. ``joint_basis_m`` holds
            its product, so the forward does not read (or differentiate) it.
        faces: vertex indices of the triangles.
        extra_joint_regressors: further joints from posed vertices, by name.
        hand_components: rows are principal components of the finger pose (MANO).
        hand_mean: mean finger pose, axis-angle, radians (MANO).
        uv: texture coordinates in [0, 1], origin at the lower left.
        face_uv: indices into ``uv`` of the triangles' corners.
        parents: parent of each joint, -1 for the root; parents come first.
        name: for messages and files.
        gender: "neutral", "female", "male" or "" where it has no meaning.
    """

    template_planes_m: Float[Array, "3 verts"]
    basis_m: Float[Array, "terms 3 verts"]
    joint_basis_m: Float[Array, "shape_terms joints 3"]
    blend_weights: Float[Array, "joints verts"]
    joint_regressor: Float[Array, "joints verts"]
    faces: Int[Array, "faces 3"]
    extra_joint_regressors: dict[str, Float[Array, "_ verts"]]
    hand_components: Float[Array, "components finger_angles"] | None
    hand_mean: Float[Array, "finger_angles"] | None
    uv: Float[Array, "texels 2"] | None
    face_uv: Int[Array, "faces 3"] | None
    parents: tuple[int, ...]
    name: str
    gender: str

    @classmethod
    def create(
        cls,
        *,
        template_m: Any,
        shape_dirs_m: Any,
        joint_regressor: Any,
        skin_weights: Any,
        faces: Any,
        parents: tuple[int, ...],
        pose_dirs_m: Any = None,
        extra_joint_regressors: Mapping[str, Any] | None = None,
        hand_components: Any = None,
        hand_mean: Any = None,
        uv: Any = None,
        face_uv: Any = None,
        name: str = "body",
        gender: str = "neutral",
        dtype: Any = jnp.float32,
    ) -> "BodyModel":
        """Check the arrays of a model file against each other and store them.

        Args:
            template_m: [V, 3] rest vertices, metres.
            shape_dirs_m: [V, 3, S] displacement per unit of each shape coefficient.
            joint_regressor: [J, V].
            skin_weights: [V, J].
            faces: [F, 3] integers.
            parents: J indices, the root's is -1, each smaller than its own position.
            pose_dirs_m: [V, 3, 9 (J - 1)] displacement per entry of ``R_k - I``, joints
                1..J-1, row-major; None where the body has no pose correctives.
            extra_joint_regressors: name to [K, V].
            hand_components: [C, 3 (J - 1)].
            hand_mean: [3 (J - 1)], radians.
            uv: [T, 2].
            face_uv: [F, 3] integers.
            name: for messages and files.
            gender: "neutral", "female", "male" or "".
            dtype: floating point type of the arrays.

        Returns:
            The body; traced arrays are accepted.

        Raises:
            ValueError: a shape disagrees; the message names field, expected and found.
        """
        parents = tuple(int(p) for p in parents)
        check_parents(parents)
        joints = len(parents)
        shape = np.shape(template_m)
        if len(shape) != 2 or shape[1] != 3:
            raise ValueError(f"template_m: expected shape (V, 3), got {shape}")
        verts, num_faces = shape[0], (np.shape(faces) or (0,))[0]
        expected: dict[str, tuple[Any, tuple[int | str, ...]]] = {
            "shape_dirs_m": (shape_dirs_m, (verts, 3, "S")),
            "joint_regressor": (joint_regressor, (joints, verts)),
            "skin_weights": (skin_weights, (verts, joints)),
            "faces": (faces, ("F", 3)),
            "pose_dirs_m": (pose_dirs_m, (verts, 3, 9 * (joints - 1))),
            "hand_components": (hand_components, ("C", 3 * (joints - 1))),
            "hand_mean": (hand_mean, (3 * (joints - 1),)),
            "uv": (uv, ("T", 2)),
            "face_uv": (face_uv, (num_faces, 3)),
        }
        extra = dict(extra_joint_regressors or {})
        for key, value in extra.items():
            expected[f"extra_joint_regressors[{key!r}]"] = (value, ("K", verts))
        for field, (value, want) in expected.items():
            if value is not None:
                _check_shape(field, np.shape(value), want)

        def real(x):
            return None if x is None else jnp.asarray(x, dtype)

        def whole(x):
            return None if x is None else jnp.asarray(_as_int32(x))

        template, shapes = real(template_m), real(shape_dirs_m)
        directions = [jnp.transpose(shapes, (2, 1, 0))]
        regressor = real(joint_regressor)
        joint_basis = jnp.einsum(
            "jv,kcv->kjc",
            regressor,
            jnp.concatenate([template.T[None], *directions]),
            precision=jax.lax.Precision.HIGHEST,
        )
        if pose_dirs_m is not None:
            directions.append(jnp.transpose(real(pose_dirs_m), (2, 1, 0)))
        return cls(
            template_planes_m=template.T,
            basis_m=jnp.concatenate(directions),
            joint_basis_m=joint_basis,
            blend_weights=real(skin_weights).T,
            joint_regressor=regressor,
            faces=whole(faces),
            extra_joint_regressors={key: real(value) for key, value in extra.items()},
            hand_components=real(hand_components),
            hand_mean=real(hand_mean),
            uv=real(uv),
            face_uv=whole(face_uv),
            parents=parents,
            name=name,
            gender=gender,
        )

    @property
    def num_joints(self) -> int:
        """Number of kinematic joints."""
        return len(self.parents)

    @property
    def num_vertices(self) -> int:
        """Number of vertices."""
        return self.basis_m.shape[-1]

    @property
    def num_betas(self) -> int:
        """Number of shape coefficients."""
        return self.joint_basis_m.shape[0] - 1

    @property
    def has_pose_dirs(self) -> bool:
        """Whether the body has pose correctives."""
        return self.basis_m.shape[0] > self.num_betas

    @property
    def template_m(self) -> Float[Array, "verts 3"]:
        """Rest vertices of the mean shape, metres."""
        return self.template_planes_m.T

    @property
    def shape_dirs_m(self) -> Float[Array, "verts 3 betas"]:
        """Displacement of the vertices per unit of each shape coefficient, metres."""
        return jnp.transpose(self.basis_m[: self.num_betas], (2, 1, 0))

    @property
    def pose_dirs_m(self) -> Float[Array, "verts 3 pose_terms"]:
        """Displacement per entry of ``R_k - I``, metres; zeros where there is none."""
        if not self.has_pose_dirs:
            terms = 9 * (self.num_joints - 1)
            return jnp.zeros((self.num_vertices, 3, terms), self.basis_m.dtype)
        return jnp.transpose(self.basis_m[self.num_betas :], (2, 1, 0))

    @property
    def skin_weights(self) -> Float[Array, "verts joints"]:
        """Skinning weights, vertex-major."""
        return self.blend_weights.T

    def astype(self, dtype: Any) -> "BodyModel":
        """The same body with another floating point type.

        Args:
            dtype: floating point type.

        Returns:
            A body whose integer arrays are unchanged.
        """
        return jax.tree.map(
            lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x,
            self,
        )


def _check_shape(
    field: str, found: tuple[int, ...], want: tuple[int | str, ...]
) -> None:
    """Compare a shape with the expected one, in which names stand for any size."""
    fits = len(found) == len(want) and all(
        isinstance(w, str) or f == w for f, w in zip(found, want, strict=True)
    )
    if not fits:
        text = ", ".join(map(str, want)) + ("," if len(want) == 1 else "")
        raise ValueError(f"{field}: expected shape ({text}), got {found}")


def _as_int32(x: Any) -> Any:
    return x.astype(np.int32) if hasattr(x, "astype") else np.asarray(x, np.int32)


_DYNAMIC = tuple(f.name for f in dataclasses.fields(BodyModel) if f.name not in _STATIC)


def _flatten_with_keys(body: BodyModel):
    children = [(jax.tree_util.GetAttrKey(f), getattr(body, f)) for f in _DYNAMIC]
    return children, tuple(getattr(body, f) for f in _STATIC)


def _unflatten(static: tuple, children) -> BodyModel:
    # Without __init__: JAX also unflattens trees of placeholders and specifications.
    body = object.__new__(BodyModel)
    for field, value in zip((*_DYNAMIC, *_STATIC), (*children, *static), strict=True):
        object.__setattr__(body, field, value)
    return body


jax.tree_util.register_pytree_with_keys(BodyModel, _flatten_with_keys, _unflatten)
