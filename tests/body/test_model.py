"""``BodyModel``: checks on creation, the pytree, the published arrays as properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.body.model import BodyModel


def arguments(arrays):
    return {
        "template_m": arrays["v_template"],
        "shape_dirs_m": arrays["shapedirs"],
        "pose_dirs_m": arrays["posedirs"],
        "joint_regressor": arrays["J_regressor"],
        "skin_weights": arrays["weights"],
        "faces": arrays["f"],
        "parents": SMPL_PARENTS,
    }


def test_properties_are_the_arrays_of_the_file(body_arrays):
    given = arguments(body_arrays)
    body = BodyModel.create(**given, uv=np.zeros((5, 2)), face_uv=np.zeros((40, 3)))
    for field in ("template_m", "shape_dirs_m", "pose_dirs_m", "skin_weights"):
        np.testing.assert_array_equal(
            getattr(body, field), np.float32(given[field]), err_msg=field
        )
    assert (body.num_joints, body.num_vertices, body.num_betas) == (24, 60, 10)
    assert body.faces.dtype == body.face_uv.dtype == jnp.int32
    shaped = body.template_m + body.shape_dirs_m @ jnp.ones(10)
    joints = body.joint_basis_m.sum(0)
    np.testing.assert_allclose(body.joint_regressor @ shaped, joints, atol=1e-6)


def test_pytree(tiny_body):
    leaves, tree = jax.tree.flatten(tiny_body)
    again = tree.unflatten(leaves)
    assert again.parents == SMPL_PARENTS and again.hand_mean is None
    assert hash(tree) == hash(jax.tree.structure(tiny_body))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tiny_body)
    assert shapes.num_vertices == 60
    assert jax.tree.map(lambda x: None, tiny_body).basis_m is None
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(tiny_body)]
    assert ".basis_m" in paths and ".extra_joint_regressors['h36m_17']" in paths


def test_astype(tiny_body, x64):
    wide = tiny_body.astype(jnp.float64)
    assert wide.basis_m.dtype == jnp.float64 and wide.faces.dtype == jnp.int32


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("template_m", lambda x: x[:, :2]),
        ("shape_dirs_m", lambda x: x[:-1]),
        ("pose_dirs_m", lambda x: x[..., :-1]),
        ("joint_regressor", lambda x: x[:-1]),
        ("skin_weights", lambda x: x[:, :-1]),
        ("faces", lambda x: x[:, :2]),
    ],
)
def test_wrong_shapes_are_named(body_arrays, field, change):
    given = arguments(body_arrays)
    given[field] = change(np.asarray(given[field]))
    with pytest.raises(ValueError, match=rf"{field}: expected shape .*, got "):
        BodyModel.create(**given)


def test_other_wrong_fields(body_arrays):
    given = arguments(body_arrays)
    for field, value in {
        "uv": np.zeros((5, 3)),
        "face_uv": np.zeros((39, 3)),
        "hand_mean": np.zeros(45),
        "hand_components": np.zeros((45, 45)),
    }.items():
        with pytest.raises(ValueError, match=f"{field}: expected shape"):
            BodyModel.create(**given, **{field: value})
    extra = {"h36m_17": np.zeros((17, 59))}
    with pytest.raises(ValueError, match=r"extra_joint_regressors\['h36m_17'\]"):
        BodyModel.create(**given, extra_joint_regressors=extra)
    for parents, message in (
        ((0, *SMPL_PARENTS[1:]), "expected the root"),
        ((*SMPL_PARENTS[:-1], 23), "expected joint 23's parent in 0..22, got 23"),
        ((*SMPL_PARENTS[:-1], -1), "joint 23's parent"),
    ):
        with pytest.raises(ValueError, match=message):
            BodyModel.create(**(given | {"parents": parents}))
