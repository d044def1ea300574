"""The published IKOL layer against the original's stored outputs and gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body import forward
from hmr_jax.systems.ikol import published as ip
from tests.systems.ikol import vectors as iv

F32_SHARE = {"autodiff": 0.3, "exact": 1.5, "published_efficient": 0.3}
EVAL_F32 = 1e-5  # the specification's absolute bound for evaluation modes


@pytest.fixture(scope="module")
def vectors(parity_dir):
    return iv.load(parity_dir)


def slow_but(*quick):
    """All modes, those not named marked slow."""
    slow = pytest.mark.slow
    return [m if m in quick else pytest.param(m, marks=slow) for m in iv.MODES]


def layer_fn(options):
    return jax.jit(lambda args: ip.ikol_published_trace(*args, options))


def losses_fn(options, where):
    """Both scalar losses of the vectors, and what they are made of."""

    def losses(inputs, body, weights):
        target, betas, phi, leaf = inputs
        rest = forward.rest_joints(body, betas)
        result = ip.ikol_published(target, rest, phi, leaf, options)
        mesh = forward.body_forward(body, betas, result.local_rotmats).vertices_m
        h36m = forward.regress_joints(body, mesh, "h36m_17")
        centre = jax.lax.stop_gradient(h36m[:, :1])  # detached, as in the original
        parts = {
            "joints": result.joints_m,
            "verts50": mesh[:, where] - centre,
            "h36m17": h36m - centre,
            "quat": ip.published_quaternions(result.local_rotmats).reshape(-1, 96),
        }
        named = {"joints": "joints", "verts50": "verts50", "h36m": "h36m17"}
        a = sum((weights[w] * parts[p]).sum() for w, p in named.items())
        return jnp.stack([a, (weights["quat"] * parts["quat"]).sum()]), parts

    def both(inputs, body, weights):
        value, pullback, parts = jax.vjp(
            lambda z: losses(z, body, weights), inputs, has_aux=True
        )
        (gradients,) = jax.vmap(pullback)(jnp.eye(2, dtype=value.dtype))
        return value, parts, gradients

    return jax.jit(both)


def loss_arguments(vectors, case, dtype):
    def get(name):
        return jnp.asarray(vectors[f"{case}/{name}"], dtype)

    inputs = tuple(get(f"in_{n}") for n in ("target", "betas", "phi", "leaf"))
    weights = {n: get(f"w_{n}") for n in ("joints", "verts50", "h36m", "quat")}
    return inputs, weights


def gradient_items(gradients):
    for name, pair in zip(("target", "betas", "phi", "leaf"), gradients, strict=True):
        for letter, gradient in zip("AB", pair, strict=True):
            yield f"grad{letter}_{name}", gradient


def check_trace(vectors, mode, result, trace, case):
    at = f"{case}/{mode}/"
    quaternions = ip.published_quaternions(result.local_rotmats)
    iv.assert_float64(trace.root_rotmat, vectors, at + "root_rot")
    angles = np.moveaxis(np.asarray(trace.angles_rad), 1, 0)
    iv.assert_float64(angles[1:], vectors, at + "alpha")
    iv.assert_float64(trace.mean_square_m2.T, vectors, at + "mse")
    iv.assert_float64(result.joints_m, vectors, at + "joints")
    iv.assert_float64(quaternions, vectors, at + "quat")


def test_train_gradients_float64(vectors, recipe, x64):
    body, where = iv.reduced_body(recipe, np.float64)
    losses = losses_fn(ip.TRAIN, where)
    for case in iv.CASES:
        inputs, weights = loss_arguments(vectors, case, np.float64)
        value, parts, gradients = losses(inputs, body, weights)
        at = f"{case}/train/"
        for name, part in parts.items():
            iv.assert_float64(part, vectors, at + name)
        for letter, loss in zip("AB", value, strict=True):
            iv.assert_float64(loss, vectors, f"{at}loss{letter}")
        for name, gradient in gradient_items(gradients):
            iv.assert_float64(gradient, vectors, at + name)


@pytest.mark.parametrize("mode", slow_but("eval_autograd", "eval_efficient"))
def test_iterates_float64(vectors, mode, x64):
    layer = layer_fn(iv.MODES[mode])
    for case in iv.CASES:
        result, trace = layer(iv.inputs(vectors, case, np.float64))
        check_trace(vectors, mode, result, trace, case)


@pytest.mark.parametrize("mode", slow_but("train"))
def test_jacobian_float64(vectors, mode, x64):
    options = iv.MODES[mode]

    @jax.jit
    @jax.vmap
    def jacobian(angles, target, rest, phi):
        problem, _ = ip.make_problem(target, rest, phi, options)
        return ip.jacobian(angles, problem, options)

    for case in iv.CASES:
        args = iv.inputs(vectors, case, np.float64)[:3]
        angles = np.asarray(vectors[f"{case}/in_jac_alpha"], np.float64)
        iv.assert_float64(jacobian(angles, *args), vectors, f"{case}/{mode}/jac")


@pytest.mark.slow
def test_exact_jacobian_is_the_limit_of_autodiff(vectors, x64):
    """The recursion drops the guards' effects, which vanish with eps."""
    options = dataclasses.replace(ip.EVAL_AUTOGRAD, eps=1e-14)

    @jax.jit
    @jax.vmap
    def jacobians(angles, target, rest, phi):
        problem, _ = ip.make_problem(target, rest, phi, options)
        exact = dataclasses.replace(options, jacobian="exact")
        return tuple(ip.jacobian(angles, problem, o) for o in (options, exact))

    args = iv.inputs(vectors, "hard", np.float64)[:3]
    angles = np.asarray(vectors["hard/in_jac_alpha"], np.float64)
    autodiff, exact = jacobians(angles, *args)
    np.testing.assert_allclose(exact, autodiff, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("jacobian", ["autodiff", "exact"])
def test_train_float32(vectors, recipe, jacobian):
    body, where = iv.reduced_body(recipe, np.float32)
    losses = losses_fn(dataclasses.replace(ip.TRAIN, jacobian=jacobian), where)
    share = F32_SHARE[jacobian]
    for case in iv.CASES:
        inputs, weights = loss_arguments(vectors, case, np.float32)
        _, parts, gradients = losses(inputs, body, weights)
        at = f"{case}/train/"
        for name, part in (*parts.items(), *gradient_items(gradients)):
            iv.assert_float32(part, vectors, at + name, share)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eval_autograd", "eval_efficient"])
def test_evaluation_float32(vectors, mode):
    layer = jax.jit(lambda args: ip.ikol_published(*args, iv.MODES[mode]))
    for case in iv.CASES:
        result = layer(iv.inputs(vectors, case, np.float32))
        expected = vectors[f"{case}/{mode}/joints"]
        np.testing.assert_allclose(result.joints_m, expected, atol=EVAL_F32, rtol=0)
        quaternions = ip.published_quaternions(result.local_rotmats)
        iv.assert_float32(quaternions, vectors, f"{case}/{mode}/quat", 0.3)


@pytest.mark.slow
def test_evaluation_meshes_float64(vectors, recipe, x64):
    body, where = iv.reduced_body(recipe, np.float64)
    losses = jax.jit(lambda *a: losses_fn(a[3], where)(*a[:3])[1], static_argnums=3)
    for mode in ("eval_autograd", "eval_efficient"):
        for case in iv.CASES:
            inputs, weights = loss_arguments(vectors, case, np.float64)
            parts = losses(inputs, body, weights, iv.MODES[mode])
            for name, part in parts.items():
                iv.assert_float64(part, vectors, f"{case}/{mode}/{name}")


@pytest.mark.slow
def test_closed_form_start_meets_clean_targets(vectors):
    options = dataclasses.replace(ip.EVAL_AUTOGRAD, init="closed_form", num_iters=0)
    layer = jax.jit(lambda args: ip.ikol_published(*args, options))
    args = iv.inputs(vectors, "clean", np.float32)
    result = layer(args)
    assert np.abs(np.asarray(result.joints_m) - args[0]).max() < 2e-6
    assert not result.info.failed.any()
    np.testing.assert_allclose(result.info.cost, 0.0, atol=1e-10)


@pytest.mark.slow
def test_leading_axes(vectors):
    layer = jax.jit(lambda args: ip.ikol_published(*args, ip.TRAIN))
    args = iv.inputs(vectors, "clean", np.float32)
    result = layer(args)
    two_axes = layer(tuple(a.reshape(2, 4, *a.shape[1:]) for a in args))
    np.testing.assert_allclose(
        two_axes.local_rotmats.reshape(8, 24, 3, 3), result.local_rotmats, atol=1e-5
    )
    single = layer(tuple(a[3] for a in args))
    np.testing.assert_allclose(single.joints_m, result.joints_m[3], atol=1e-5)
    assert single.info.iterations.shape == ()


def degenerate_inputs(vectors):
    """Straight limbs, opposite limbs, a zero bone, zero twists, zero quaternions."""
    args = [np.array(a) for a in iv.inputs(vectors, "clean", np.float32)]
    target, rest, phi, leaf = args
    target[0] = rest[0] - rest[0, 0]
    target[1] = -(rest[1] - rest[1, 0])
    target[2] = 0.0
    rest[3, 18] = rest[3, 16]
    target[4, 20] = target[4, 18]
    phi[5] = 0.0
    phi[0] = (1.0, 0.0)
    leaf[6] = 0.0
    target[7] = 1e3 * target[7]
    return tuple(jnp.asarray(a) for a in args)


@pytest.mark.parametrize(
    "options",
    [
        dataclasses.replace(ip.TRAIN, jacobian="exact", backward="one_step"),
        pytest.param(ip.TRAIN, marks=pytest.mark.slow),
        pytest.param(ip.EVAL_AUTOGRAD, marks=pytest.mark.slow),
        pytest.param(
            dataclasses.replace(ip.TRAIN, backward="unroll"), marks=pytest.mark.slow
        ),
        pytest.param(
            dataclasses.replace(ip.EVAL_AUTOGRAD, backward="implicit"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_degenerate_inputs_are_finite(vectors, options):
    def loss(args):
        result = ip.ikol_published(*args, options)
        return (result.joints_m**2).sum() + (result.local_rotmats**3).sum(), result

    gradients, result = jax.jit(jax.grad(loss, has_aux=True))(
        degenerate_inputs(vectors)
    )
    for array in jax.tree.leaves((gradients, result)):
        assert np.isfinite(np.asarray(array)).all()


@pytest.mark.slow
def test_backward_rules_agree_at_convergence(vectors, x64):
    """Long, lightly damped runs on clean targets: every rule is the derivative."""
    args = tuple(jnp.asarray(a) for a in iv.inputs(vectors, "clean", np.float64))
    base = dataclasses.replace(
        ip.EVAL_AUTOGRAD, init="closed_form", num_iters=6, damping=1e-8
    )
    gradients = {}
    for rule in ("unroll", "implicit", "gn_diff", "one_step"):
        options = dataclasses.replace(base, backward=rule, jacobian="exact")

        def loss(target, options=options):
            result = ip.ikol_published(target, *args[1:], options)
            return (result.local_rotmats**3).sum()

        gradients[rule] = np.asarray(jax.jit(jax.grad(loss))(args[0]))
    scale = np.abs(gradients["unroll"]).max()
    for rule, gradient in gradients.items():
        # The damping's share of what one step leaves is some 1e-6.
        error = np.abs(gradient - gradients["unroll"]).max() / scale
        assert error < 1e-5, (rule, error)


@pytest.mark.parametrize(
    "field, value",
    [
        ("root", "svd3"),
        ("spine3", ""),
        ("jacobian", "fast"),
        ("backward", "none"),
        ("init", "rest"),
        ("num_iters", -1),
    ],
)
def test_options_are_checked(field, value):
    with pytest.raises(ValueError, match=field):
        ip.IkolPublishedOptions(**{field: value})
