"""The body's forward and its gradients against numpy, the vectors, differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body.forward import (
    BodyOutput,
    add_hand_mean,
    body_forward,
    forward_kinematics,
    hand_pose_axis_angle,
    posed_joints,
    regress_joints,
    rest_joints,
    with_fingertips,
)
from hmr_jax.body.joint_sets import MANO_PARENTS, SMPL_PARENTS
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.rotations import quaternion_to_matrix
from tests.body import reference
from tests.tolerances import (
    F32_IDENTITY,
    FINITE_DIFFERENCE_X64,
    X64_IDENTITY,
)

LBS_PARITY = 2e-6  # stated by the vectors' README
forward = jax.jit(body_forward)


def make_body(arrays, parents=SMPL_PARENTS, **more):
    return BodyModel.create(
        template_m=arrays["v_template"],
        shape_dirs_m=arrays["shapedirs"],
        pose_dirs_m=arrays["posedirs"],
        joint_regressor=arrays["J_regressor"],
        skin_weights=arrays["weights"],
        faces=arrays["f"],
        parents=parents,
        **more,
    )


@pytest.fixture(scope="module")
def pose(rng_module):
    return rng_module.normal(size=(5, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def betas(rng_module):
    return rng_module.normal(size=(5, 10)).astype(np.float32)


@pytest.fixture(scope="module")
def rng_module():
    return np.random.default_rng(3)


def test_forward_equals_numpy(tiny_body, body_arrays, pose, betas):
    out = forward(tiny_body, jnp.asarray(betas), jnp.asarray(pose))
    for i in range(len(pose)):
        rotmats = np.stack([reference.rodrigues(a) for a in pose[i].astype(float)])
        expected = reference.body(body_arrays, betas[i], rotmats, SMPL_PARENTS)
        for got, want in zip(out, expected, strict=True):
            np.testing.assert_allclose(got[i], want, atol=5 * F32_IDENTITY)


def test_float64_equals_numpy_and_recursion(x64, tiny_body, body_arrays, pose, betas):
    body = make_body(body_arrays, dtype=jnp.float64)
    out = body_forward(
        body, jnp.asarray(betas[0], jnp.float64), jnp.asarray(pose[0], jnp.float64)
    )
    rotmats = np.stack([reference.rodrigues(a) for a in pose[0].astype(float)])
    expected = reference.body(
        body_arrays, betas[0].astype(float), rotmats, SMPL_PARENTS
    )
    for got, want in zip(out, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=X64_IDENTITY)


@pytest.mark.parametrize("parents", [SMPL_PARENTS, MANO_PARENTS, (-1, 0, 1, 2), (-1,)])
def test_kinematics_equal_recursion(x64, parents, rng):
    joints = len(parents)
    rotmats = np.stack([reference.rodrigues(a) for a in rng.normal(size=(joints, 3))])
    rest = rng.normal(size=(joints, 3))
    got = forward_kinematics(jnp.asarray(rotmats), jnp.asarray(rest), parents)
    expected = reference.kinematics(rotmats, rest, parents)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=X64_IDENTITY)


@pytest.mark.parametrize("batch", [(), (1,), (3, 1, 2)])
def test_any_batch_axes(tiny_body, pose, betas, batch):
    count = int(np.prod(batch))
    index = np.arange(count) % len(pose)
    out = body_forward(
        tiny_body,
        jnp.asarray(betas[index].reshape(*batch, 10)),
        jnp.asarray(pose[index].reshape(*batch, 24, 3)),
        jnp.ones((*batch, 3)),
    )
    single = forward(tiny_body, jnp.asarray(betas), jnp.asarray(pose))
    for got, want in zip(out[:2], single[:2], strict=True):
        want = want[index].reshape(*batch, *want.shape[1:]) + 1.0
        np.testing.assert_allclose(got, want, atol=2e-6)
    assert out.rest_joints_m.shape == (*batch, 24, 3)


def test_one_shape_for_many_poses_and_matrices_for_vectors(tiny_body, pose, betas):
    many = forward(tiny_body, jnp.tile(betas[:1], (5, 1)), jnp.asarray(pose))
    one = forward(tiny_body, jnp.asarray(betas[0]), jnp.asarray(pose))
    local = posed_joints(tiny_body, jnp.asarray(betas[0]), jnp.asarray(pose))[0]
    matrices = forward(tiny_body, jnp.asarray(betas[0]), local)
    for a, b, c in zip(many, one, matrices, strict=True):
        np.testing.assert_allclose(a, b, atol=F32_IDENTITY)
        np.testing.assert_allclose(a, c, atol=F32_IDENTITY)


def test_chunks_equal_the_whole(tiny_body, rng):
    pose = jnp.asarray(rng.normal(size=(150, 24, 3)), jnp.float32)
    betas = jnp.asarray(rng.normal(size=(150, 10)), jnp.float32)
    plain = jax.jit(functools.partial(body_forward, forward_mode=True))
    whole = plain(tiny_body, betas, pose).vertices_m
    chunked = forward(tiny_body, betas, pose).vertices_m
    np.testing.assert_allclose(chunked, whole, atol=2e-6)


def test_no_pose_correctives(tiny_body, body_arrays, pose, betas):
    without = BodyModel.create(
        template_m=body_arrays["v_template"],
        shape_dirs_m=body_arrays["shapedirs"],
        joint_regressor=body_arrays["J_regressor"],
        skin_weights=body_arrays["weights"],
        faces=body_arrays["f"],
        parents=SMPL_PARENTS,
    )
    zeros = make_body(body_arrays | {"posedirs": 0 * body_arrays["posedirs"]})
    a = forward(without, jnp.asarray(betas), jnp.asarray(pose)).vertices_m
    b = forward(zeros, jnp.asarray(betas), jnp.asarray(pose)).vertices_m
    np.testing.assert_allclose(a, b, atol=F32_IDENTITY)
    assert without.pose_dirs_m.shape == (60, 3, 207)


def gradient_loss(body, betas, pose, translation, forward_mode=False):
    out = body_forward(body, betas, pose, translation, forward_mode=forward_mode)
    weights = jnp.cos(jnp.arange(60 * 3, dtype=pose.dtype)).reshape(60, 3)
    return (
        jnp.sum(out.vertices_m**2 * weights)
        + jnp.sum(out.joints_m**3)
        + jnp.sum(out.global_rotmats**2 * out.joints_m[..., None, 0:1])
    )


def test_gradients_equal_finite_differences(x64, body_arrays, pose, betas):
    arguments = (
        make_body(body_arrays, dtype=jnp.float64),
        jnp.asarray(betas[0], jnp.float64),
        jnp.asarray(pose[0], jnp.float64),
        jnp.array([0.1, -0.2, 0.3], jnp.float64),
    )
    gradients = jax.jit(jax.grad(gradient_loss, (0, 1, 2, 3), allow_int=True))(
        *arguments
    )
    plain = jax.jit(
        jax.grad(lambda *x: gradient_loss(*x, True), (0, 1, 2, 3), allow_int=True)
    )(*arguments)
    value = jax.jit(gradient_loss)
    rng = np.random.default_rng(1)
    leaves, tree = jax.tree.flatten(arguments)
    floating = [i for i, x in enumerate(leaves) if x.dtype == jnp.float64]
    got, plain = jax.tree.leaves(gradients), jax.tree.leaves(plain)
    for i in floating:
        np.testing.assert_allclose(got[i], plain[i], atol=1e-9 * np.abs(plain[i]).max())
        direction = jnp.asarray(rng.normal(size=leaves[i].shape))
        step = 1e-6

        def at(sign, i=i, direction=direction, step=step):
            moved = list(leaves)
            moved[i] = leaves[i] + sign * step * direction
            return value(*tree.unflatten(moved))

        difference = (at(1.0) - at(-1.0)) / (2 * step)
        along = jnp.sum(got[i] * direction)
        scale = np.abs(difference) + 1e-3
        assert abs(along - difference) / scale < FINITE_DIFFERENCE_X64


@pytest.mark.parametrize("angle", [0.0, 1e-7, np.pi, 2 * np.pi])
def test_gradients_are_finite_and_right_at_special_angles(tiny_body, angle, x64):
    body = tiny_body.astype(jnp.float64)
    pose = jnp.zeros((24, 3)).at[:, 1].set(angle)
    gradient = jax.jit(
        jax.grad(lambda p: gradient_loss(body, jnp.zeros(10), p, jnp.zeros(3)))
    )(pose)
    single = jax.jit(
        jax.grad(
            lambda p: gradient_loss(
                tiny_body, jnp.zeros(10, jnp.float32), p, jnp.zeros(3, jnp.float32)
            )
        )
    )(pose.astype(jnp.float32))
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(single, gradient, atol=1e-4)


def test_learning_a_body_through_create(body_arrays):
    def loss(regressor, template):
        arrays = body_arrays | {"J_regressor": regressor, "v_template": template}
        out = body_forward(make_body(arrays), jnp.zeros(10), jnp.ones((24, 3)))
        return jnp.sum(out.joints_m**2) + jnp.sum(out.vertices_m**2)

    for gradient in jax.grad(loss, (0, 1))(
        jnp.asarray(body_arrays["J_regressor"], jnp.float32),
        jnp.asarray(body_arrays["v_template"], jnp.float32),
    ):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-3


def test_forward_mode(tiny_body):
    def vertices(pose, mode):
        out = body_forward(tiny_body, jnp.zeros(10), pose, forward_mode=mode)
        return out.vertices_m[:4]

    pose = 0.1 * jnp.ones((24, 3))
    forwards = jax.jit(jax.jacfwd(lambda p: vertices(p, True)))(pose)
    backwards = jax.jit(jax.jacrev(lambda p: vertices(p, False)))(pose)
    np.testing.assert_allclose(forwards, backwards, atol=5 * F32_IDENTITY)


def test_vmap_and_body_is_an_argument(tiny_body, pose, betas):
    mapped = jax.vmap(body_forward, in_axes=(None, 0, 0))
    a = mapped(tiny_body, jnp.asarray(betas), jnp.asarray(pose))
    b = forward(tiny_body, jnp.asarray(betas), jnp.asarray(pose))
    np.testing.assert_allclose(a.vertices_m, b.vertices_m, atol=F32_IDENTITY)
    text = forward.lower(tiny_body, jnp.asarray(betas), jnp.asarray(pose)).as_text()
    assert len(text) < 200_000  # 37 MB where a full-size body is closed over


def test_symbolic_batch_exports(tiny_body):
    b = jax.export.symbolic_shape("b")[0]
    specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tiny_body)
    exported = jax.export.export(jax.jit(lambda *x: body_forward(*x).vertices_m))(
        specs,
        jax.ShapeDtypeStruct((b, 10), jnp.float32),
        jax.ShapeDtypeStruct((b, 24, 3), jnp.float32),
    )
    assert len(exported.out_avals) == 1


def test_stored_vectors(recipe, parity_dir):
    data = np.load(parity_dir / "ikol" / "ikol_lbs_public.npz")
    seed = int(data["seed"])
    body = make_body(
        recipe.smpl_like(seed),
        extra_joint_regressors={"h36m_17": recipe.h36m_regressor(seed)},
    )
    betas = jnp.asarray(data["in_betas"])
    poses = {
        "aa": jnp.asarray(data["in_pose_aa"]).reshape(6, 24, 3),
        "quat": quaternion_to_matrix(
            jnp.asarray(data["in_pose_quat"]).reshape(6, 24, 4)
        ),
    }
    for name, pose in poses.items():
        out = forward(body, betas, pose)
        h36m = regress_joints(body, out.vertices_m, "h36m_17")
        local = posed_joints(body, betas, pose)[0]
        got = {
            "verts50": out.vertices_m[:, ::50],
            "joints24": out.joints_m,
            "rotmats": local,
            "h36m17": h36m,
            "layer_verts50": (out.vertices_m - h36m[:, :1])[:, ::50],
            "layer_joints24": out.joints_m - out.joints_m[:, :1],
            "layer_h36m17": h36m - h36m[:, :1],
        }
        for key, value in got.items():
            np.testing.assert_allclose(
                value, data[f"{name}/{key}"], atol=LBS_PARITY, err_msg=f"{name}/{key}"
            )


def test_hand(recipe):
    arrays = recipe.mano_like(0)
    hand = make_body(
        arrays,
        MANO_PARENTS,
        hand_components=arrays["hands_components"],
        hand_mean=arrays["hands_mean"],
        name="mano",
    )
    coefficients = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, 6)), jnp.float32
    )
    fingers = hand_pose_axis_angle(hand, coefficients, flat_hand_mean=True)
    expected = np.asarray(coefficients, float) @ arrays["hands_components"][:6]
    np.testing.assert_allclose(
        fingers, expected.reshape(2, 15, 3), atol=5 * F32_IDENTITY
    )
    bent = hand_pose_axis_angle(hand, coefficients)
    mean = arrays["hands_mean"].reshape(15, 3)
    np.testing.assert_allclose(
        bent - fingers, np.stack([mean, mean]), atol=F32_IDENTITY
    )
    pose = jnp.concatenate([jnp.zeros((2, 1, 3)), fingers], 1)
    np.testing.assert_allclose(
        add_hand_mean(hand, pose)[:, 1:], bent, atol=F32_IDENTITY
    )
    out = forward(hand, jnp.zeros((2, 10)), pose)
    rotmats = np.stack([reference.rodrigues(a) for a in np.asarray(pose[1], float)])
    expected = reference.body(arrays, np.zeros(10), rotmats, MANO_PARENTS)
    np.testing.assert_allclose(out.vertices_m[1], expected[0], atol=F32_IDENTITY)
    joints = with_fingertips(out.joints_m, out.vertices_m)
    assert joints.shape == (2, 21, 3)
    np.testing.assert_array_equal(joints[:, 4], out.vertices_m[:, 745])
    np.testing.assert_array_equal(joints[:, 1], out.joints_m[:, 13])


def test_errors_name_what_was_found(tiny_body):
    with pytest.raises(ValueError, match="expected 10 coefficients.*got 9"):
        rest_joints(tiny_body, jnp.zeros((2, 9)))
    with pytest.raises(ValueError, match=r"pose: expected .* got \(2, 23, 3\)"):
        body_forward(tiny_body, jnp.zeros((2, 10)), jnp.zeros((2, 23, 3)))
    with pytest.raises(ValueError, match="it has h36m_17"):
        regress_joints(tiny_body, jnp.zeros((60, 3)), "coco_17")
    with pytest.raises(ValueError, match="no hand_components"):
        hand_pose_axis_angle(tiny_body, jnp.zeros(6))


def test_output_is_a_tuple_of_named_arrays(tiny_body):
    out = forward(tiny_body, jnp.zeros(10), jnp.zeros((24, 3)))
    assert isinstance(out, BodyOutput)
    np.testing.assert_allclose(out.vertices_m, tiny_body.template_m, atol=F32_IDENTITY)
