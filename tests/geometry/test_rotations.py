"""Group laws, inverse pairs, singular points and the stored vectors of rotations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.geometry import rotations as rot
from hmr_jax.geometry import safe
from tests.tolerances import F32_IDENTITY, X64_IDENTITY

LBS_PARITY = 2e-6  # stated by the vectors' README
TWIST_PARITY = 1e-3

ANGLES = [0.0, 1e-20, 1e-7, 1e-3, 0.49, 0.51, 1.5, np.pi - 1e-7, np.pi, 4.0]
CYCLIC = jnp.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])


def rotation(rng, shape=()):
    return rot.axis_angle_to_matrix(jnp.asarray(rng.normal(size=(*shape, 3))))


def numpy_exponential(v):
    k = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    result, term = np.eye(3), np.eye(3)
    for i in range(1, 60):
        term = term @ k / i
        result = result + term
    return result


@jax.jit
def conversions(v):
    matrix = rot.axis_angle_to_matrix(v)
    quaternion = rot.axis_angle_to_quaternion(v)
    canonical = rot.matrix_to_quaternion(matrix)
    backs = (
        rot.quaternion_to_axis_angle(quaternion),
        rot.matrix_to_axis_angle(matrix),
    )
    matrices = (
        rot.quaternion_to_matrix(quaternion),
        rot.quaternion_to_matrix(canonical),
        *(rot.axis_angle_to_matrix(back) for back in backs),
    )
    return matrix, matrices, backs, canonical


def test_conversions_at_special_angles(x64):
    axes = np.array([(1, 0, 0), (0, -1, 0), (0.6, 0, 0.8), (2, -1, 2)], float)
    axes /= np.linalg.norm(axes, axis=-1, keepdims=True)
    v = np.array(ANGLES)[:, None, None] * axes
    matrix, matrices, backs, canonical = conversions(jnp.asarray(v))
    expected = np.array([[numpy_exponential(x) for x in row] for row in v])
    np.testing.assert_allclose(matrix, expected, atol=X64_IDENTITY)
    for again in matrices:
        np.testing.assert_allclose(again, expected, atol=X64_IDENTITY)
    for back in backs:
        assert np.linalg.norm(back, axis=-1).max() <= np.pi + X64_IDENTITY
    assert (np.asarray(canonical)[..., 0] >= 0).all()


SINGULAR_FUNCTIONS = [
    lambda a: rot.matrix_to_axis_angle(rot.axis_angle_to_matrix(a)),
    rot.axis_angle_to_quaternion,
    lambda a: rot.matrix_to_quaternion(rot.axis_angle_to_matrix(a), False),
    lambda a: rot.rotation_between(a, jnp.array([0.3, 0.1, 0.2])),
    lambda a: rot.rotation_between(a, a),
    lambda a: rot.rotation_between(a, -a),
    lambda a: jnp.stack(rot.swing_twist(rot.axis_angle_to_matrix(a), CYCLIC[0])),
    lambda a: jnp.stack(rot.swing_twist(rot.axis_angle_to_matrix(a), a)),
    lambda a: rot.twist_matrix(a, a[:2]),
    lambda a: rot.geodesic_distance(rot.axis_angle_to_matrix(a), jnp.eye(3)),
    lambda a: rot.rot6d_columns_to_matrix(jnp.concatenate([a, a])),
    lambda a: rot.rot6d_rows_to_matrix(jnp.concatenate([a, a])),
    lambda a: rot.quaternion_to_matrix(jnp.concatenate([a, a[:1]])),
    lambda a: rot.quaternion_to_axis_angle(jnp.concatenate([a, a[:1]])),
]


def test_gradients_are_finite_and_right():
    v = jnp.array(ANGLES)[:, None] * jnp.array([[0.6, 0.0, -0.8]])

    def value_and_weighted_gradient(f):
        def weighted(a):
            value = f(a)
            weights = jnp.cos(1 + jnp.arange(value.size, dtype=a.dtype))
            return jnp.sum(value * weights.reshape(value.shape)), value

        return jax.vmap(jax.value_and_grad(weighted, has_aux=True))

    @jax.jit
    def all_of_them(a):
        return [value_and_weighted_gradient(f)(a) for f in SINGULAR_FUNCTIONS]

    results = all_of_them(v)
    for i, result in enumerate(results):
        for leaf in jax.tree.leaves(result):
            assert np.isfinite(leaf).all(), i
    # The logarithm undoes the exponential, whose gradient is then the weights.
    below_pi = np.array(ANGLES) < 3
    gradient = np.asarray(results[0][1])[below_pi]
    weights = np.broadcast_to(np.cos(1.0 + np.arange(3)), gradient.shape)
    np.testing.assert_allclose(gradient, weights, atol=1e-4)


@jax.jit
def laws(a, b):
    """Pairs of arrays that the group laws make equal."""
    qa, qb = rot.axis_angle_to_quaternion(a), rot.axis_angle_to_quaternion(b)
    ra, rb = rot.axis_angle_to_matrix(a), rot.axis_angle_to_matrix(b)
    ua, ub = safe.normalize(a), safe.normalize(b)
    between = rot.rotation_between(a, b)
    swing, twist = rot.swing_twist(ra, b)
    eye = jnp.eye(3)
    product = rot.quaternion_to_matrix(rot.quaternion_multiply(qa, qb))
    minimal = jnp.sum(rot.matrix_to_axis_angle(swing) * ub)
    angle = safe.norm(rot.matrix_to_axis_angle(rot.matmul3(rot.transpose(ra), rb)))
    return {
        "product": (product, rot.matmul3(ra, rb)),
        "inverse": (rot.quaternion_to_matrix(rot.quaternion_conjugate(qa)), ra.T),
        "cross": (rot.matvec3(rot.skew(ua), ub), jnp.cross(ua, ub)),
        "between is a rotation": (rot.matmul3(between, between.T), eye),
        "between takes a to b": (rot.matvec3(between, ua), ub),
        "swing and twist": (rot.matmul3(swing, twist), ra),
        "twist keeps the axis": (rot.matvec3(twist, ub), ub),
        "swing is minimal": (minimal, 0 * minimal),
        "twist": (rot.twist_matrix(b, 3 * rot.twist_cos_sin(ra, b)), twist),
        "distance": (rot.geodesic_distance(ra, rb), angle),
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_group_laws(seed):
    rng = np.random.default_rng(seed)
    a, b = (jnp.asarray(rng.normal(size=3) * 2, jnp.float32) for _ in range(2))
    for law, (got, expected) in laws(a, b).items():
        np.testing.assert_allclose(got, expected, atol=2e-5, err_msg=law)


@pytest.mark.parametrize("batch", [(), (1,), (3, 1, 2)])
def test_batch_axes(batch, key):
    @jax.jit
    def round_trips(matrices, axis):
        vectors = rot.matrix_to_axis_angle(matrices)
        return (
            rot.axis_angle_to_matrix(vectors),
            rot.quaternion_to_matrix(rot.matrix_to_quaternion(matrices)),
            rot.rot6d_columns_to_matrix(rot.matrix_to_rot6d_columns(matrices)),
            rot.rot6d_rows_to_matrix(rot.matrix_to_rot6d_rows(matrices)),
            rot.matmul3(*rot.swing_twist(matrices, axis)),
            rot.matmul3(rot.rotation_between(vectors, vectors), matrices),
            matrices + rot.geodesic_distance(matrices, matrices)[..., None, None],
        )

    matrices = rot.random_rotation(key, batch)
    assert matrices.shape == (*batch, 3, 3)
    np.testing.assert_allclose(np.linalg.det(matrices), 1, atol=1e-5)
    for got in round_trips(matrices, jnp.ones((*batch, 3))):
        assert got.shape == matrices.shape
        np.testing.assert_allclose(got, matrices, atol=5 * F32_IDENTITY)


def test_rot6d_layouts():
    np.testing.assert_array_equal(
        rot.matrix_to_rot6d_columns(CYCLIC), [0, 1, 0, 0, 1, 0]
    )
    np.testing.assert_array_equal(rot.matrix_to_rot6d_rows(CYCLIC), [0, 1, 0, 0, 0, 1])
    identity = rot.rot6d_columns_to_matrix(jnp.array([1.0, 0, 0, 1, 0, 0]))
    np.testing.assert_array_equal(identity, np.eye(3))
    np.testing.assert_array_equal(rot.rot6d_columns_to_matrix(jnp.zeros(6)), 0)


def test_degenerate_directions():
    x, zero = jnp.array([2.0, 0, 0]), jnp.zeros(3)
    np.testing.assert_allclose(rot.rotation_between(x, x), np.eye(3), atol=1e-7)
    half = rot.rotation_between(x, -x)
    np.testing.assert_allclose(half @ x, -x, atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(half), 1, atol=1e-6)
    for a, b in ((x, zero), (zero, x), (zero, zero)):
        np.testing.assert_array_equal(rot.rotation_between(a, b), np.eye(3))
    np.testing.assert_array_equal(rot.twist_matrix(zero, jnp.ones(2)), np.eye(3))
    np.testing.assert_array_equal(rot.twist_matrix(x, jnp.zeros(2)), np.eye(3))
    swing, twist = rot.swing_twist(half, x)
    np.testing.assert_allclose(twist, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(swing, half, atol=1e-6)


def test_half_turns_computed_in_float64_and_cast():
    """There w is 6e-17, or anything a little beside 0, of either sign."""
    axes = np.concatenate([np.eye(3), [[0.6, 0.8, 0.0], [0.6, 0.0, -0.8]]])
    exact = Rotation.from_rotvec(np.pi * axes).as_matrix().astype(np.float32)
    for error in (0.0, 1e-16, -1e-16, 1e-12, 1e-9, 1e-7):
        turns = exact + np.float32(error) * np.array(rot.skew(jnp.asarray(axes)))
        vectors = np.asarray(rot.matrix_to_axis_angle(jnp.asarray(turns, jnp.float32)))
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), np.pi, atol=1e-6)
        again = Rotation.from_rotvec(vectors).as_matrix()
        np.testing.assert_allclose(again, exact, atol=1e-6)


def test_quaternions_next_to_a_half_turn():
    w = np.concatenate([[0.0], 10.0 ** np.arange(-37, -1)]).astype(np.float32)
    w = np.concatenate([w, -w])
    q = np.stack([w, 0.6 + 0 * w, 0.8 + 0 * w, 0 * w], -1)
    got = np.asarray(rot.quaternion_to_axis_angle(jnp.asarray(q)))
    angle = np.pi - 2 * np.arctan(np.abs(w.astype(float)))
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), angle, rtol=1e-6)
    sign = np.where(w < 0, -1, 1)
    direction = got / angle[:, None]
    np.testing.assert_allclose(direction[:, :2], np.outer(sign, [0.6, 0.8]), atol=1e-6)


def test_quaternions_on_both_sides_of_the_series(x64):
    half = np.arctan(np.sqrt(1e-3)) * (1 + np.array([-1e-3, -1e-9, 1e-9, 1e-3]))
    angle = np.concatenate([2 * half, [1e-300, 1e-150, 1e-8, 1e-3, 3.0]])
    q = np.stack([np.cos(angle / 2), 0 * angle, np.sin(angle / 2), 0 * angle], -1)
    got = rot.quaternion_to_axis_angle(jnp.asarray(q))
    np.testing.assert_allclose(got[:, 1], angle, rtol=1e-14)


@pytest.mark.parametrize("length", [1e-35, 1e-16, 1e25])
def test_any_length_counts(length, rng):
    """Lengths whose squares under- or overflow are no reason to take the default."""
    a, b = (jnp.asarray(rng.normal(size=3), jnp.float32) for _ in range(2))
    q = jnp.asarray(rng.normal(size=4), jnp.float32)
    pair, turn = jnp.array([0.0, 1.0]), rot.random_rotation(jax.random.key(0))

    def all_of_them(by):
        return (
            safe.normalize(a * by),
            safe.atan2(a[0] * by, a[1] * by),
            rot.quaternion_to_matrix(q * by),
            rot.quaternion_to_axis_angle(q * by),
            rot.rotation_between(a * by, b * by),
            rot.twist_matrix(a * by, pair * by),
            rot.twist_cos_sin(turn, a * by),
        )

    got, expected = (jax.jit(all_of_them)(jnp.float32(by)) for by in (length, 1))
    for i, (x, y) in enumerate(zip(got, expected, strict=True)):
        np.testing.assert_allclose(x, y, atol=2e-6, err_msg=str(i))


def test_the_twist_of_a_half_turned_swing_is_left_out(rng):
    """What rounding leaves of the pair that tells the twist is not made an angle."""
    axis = np.array([0.0, 1.0, 0.0])
    across = np.cross(axis, rng.normal(size=(50, 3)))
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    swings = Rotation.from_rotvec(np.pi * across).as_matrix().astype(np.float32)
    axes = jnp.broadcast_to(jnp.asarray(axis, jnp.float32), (50, 3))
    got = rot.twist_cos_sin(jnp.asarray(swings), axes)
    np.testing.assert_allclose(got, np.tile([1.0, 0.0], (50, 1)), atol=1e-6)


GRADIENT_ANGLES = [1e-9, 1e-4, 0.063, 0.0633, 0.5, 3.0, np.pi - 1e-3, np.pi - 1e-6]


def test_the_logarithms_derivative_next_to_both_ends(x64):
    """The chain exponential, logarithm is the identity, and so is its derivative."""

    @jax.jit
    @jax.vmap
    def derivatives(v):
        def by_matrix(x):
            return rot.matrix_to_axis_angle(rot.axis_angle_to_matrix(x))

        def by_quaternion(x):
            return rot.quaternion_to_axis_angle(3 * rot.axis_angle_to_quaternion(x))

        return jax.jacrev(by_matrix)(v), jax.jacrev(by_quaternion)(v)

    axis = np.array([0.48, 0.6, -0.64])
    v = jnp.asarray(np.outer(GRADIENT_ANGLES, axis))
    by_matrix, by_quaternion = derivatives(v)
    eye = np.broadcast_to(np.eye(3), by_matrix.shape)
    np.testing.assert_allclose(by_quaternion, eye, atol=X64_IDENTITY)
    np.testing.assert_allclose(by_matrix, eye, atol=X64_IDENTITY)


def test_nearly_opposite_directions():
    gaps = 10.0 ** -np.arange(10)
    b = np.stack([-np.ones(10), gaps, 0.3 * gaps], -1)
    a = np.broadcast_to([2.0, 0, 0], b.shape)
    matrix = np.asarray(
        rot.rotation_between(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    )
    eye = np.broadcast_to(np.eye(3), matrix.shape)
    np.testing.assert_allclose(matrix @ matrix.swapaxes(1, 2), eye, atol=1e-6)
    expected = b / np.linalg.norm(b, axis=-1, keepdims=True)
    np.testing.assert_allclose(matrix[:, :, 0], expected, atol=1e-6)


def test_stored_vectors(parity_dir):
    data = np.load(parity_dir / "ikol" / "ikol_lbs_public.npz")
    aa = jnp.asarray(data["in_pose_aa"]).reshape(144, 3)
    np.testing.assert_allclose(
        rot.axis_angle_to_matrix(aa), data["rodrigues"], atol=LBS_PARITY
    )
    angle = np.linalg.norm(aa, axis=-1)
    axis = jnp.asarray(aa / np.maximum(angle, 1e-30)[:, None], jnp.float32)
    np.testing.assert_allclose(
        rot.rodrigues(axis, jnp.cos(angle), jnp.sin(angle)),
        data["rodrigues"],
        atol=LBS_PARITY,
    )
    quaternions = jnp.asarray(data["in_pose_quat"]).reshape(144, 4)
    np.testing.assert_allclose(
        rot.quaternion_to_matrix(quaternions), data["quat_to_rotmat"], atol=LBS_PARITY
    )
    matrices, expected = jnp.asarray(data["in_rotmat64"]), data["rotmat_to_quat"]
    np.testing.assert_allclose(
        rot.matrix_to_quaternion(matrices, canonical=False), expected, atol=LBS_PARITY
    )
    assert (expected[:, 0] < 0).any()
    sign = np.where(expected[:, :1] < 0, -1, 1)
    np.testing.assert_allclose(
        rot.matrix_to_quaternion(matrices), sign * expected, atol=LBS_PARITY
    )


def test_stored_quaternion_labels(parity_dir, x64):
    data = np.load(parity_dir / "ikol" / "ikol_metrics_public.npz")
    got = rot.axis_angle_to_quaternion(jnp.asarray(data["in_theta"]))
    np.testing.assert_allclose(got, data["theta_quat_label"], atol=1e-6)


def test_stored_twist_angles(parity_dir, recipe):
    """Labels twist about the bone to the last child, at spine3 the right collar."""
    data = np.load(parity_dir / "ikol" / "ikol_lbs_public.npz")
    arrays = recipe.smpl_like(int(data["seed"]))
    child = {parent: joint for joint, parent in enumerate(SMPL_PARENTS)}
    joints = [j for j in range(1, 24) if j in child]
    leaves = [j - 1 for j in range(1, 24) if j not in child]
    expected = data["twist_angle_samples3to5"]
    assert (expected[:, leaves] == 0).all()
    betas = data["in_betas"][3:6].astype(float)
    shaped = arrays["v_template"] + np.einsum("vcs,bs->bvc", arrays["shapedirs"], betas)
    rest = arrays["J_regressor"] @ shaped
    bones = rest[:, [child[j] for j in joints]] - rest[:, joints]
    pose = jnp.asarray(data["in_pose_aa"][3:6].reshape(3, 24, 3)[:, joints])
    pair = rot.twist_cos_sin(
        rot.axis_angle_to_matrix(pose), jnp.asarray(bones, jnp.float32)
    )
    np.testing.assert_allclose(
        np.arctan2(pair[..., 1], pair[..., 0]),
        expected[:, [j - 1 for j in joints]],
        atol=TWIST_PARITY,
    )
