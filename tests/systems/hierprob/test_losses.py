"""Losses of the distribution network against stored values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.hierprob import get_config
from hmr_jax.losses import elementwise
from hmr_jax.losses.reduce import finish
from hmr_jax.systems.hierprob import losses as hierprob
from tests.systems.hierprob.inputs import SEED, load_inputs, load_vectors

losses = functools.partial(hierprob.hierprob_losses, image_size_px=256.0)
TERMS = {
    "pose": "pose_nll",
    "shape": "shape_nll",
    "joints2d": "joints2d_mse",
    "global_rotmat": "glob_mse",
    "vertices": "verts_mse",
    "joints3d": "joints3d_mse",
}
GRADIENTS = {
    "pose_fisher_matrix": "F",
    "shape_mean": "loc",
    "shape_log_std": "log_std",
    "joints2d_norm": "j2d",
    "global_rotmat": "glob",
    "vertices_m": "verts",
    "joints3d_m": "j3d",
}


@pytest.fixture(scope="module")
def inputs(parity_dir, recipe):
    return load_inputs(parity_dir, recipe)


def stored_case(inputs, samples):
    """Predictions and batch of the stored loss; ``samples`` is K."""
    draw, turn = inputs.normal, inputs.rotations
    predictions = {
        "pose_fisher_matrix": 3 * np.eye(3, dtype=np.float32)
        + np.float32(1.5) * draw("loss.F", SEED, 2, 23, 3, 3),
        "shape_mean": draw("loss.loc", SEED, 2, 10),
        "shape_log_std": np.float32(0.3) * draw("loss.log_std", SEED, 2, 10),
        "joints2d_norm": np.float32(0.5)
        * draw(f"loss.j2d{samples}", SEED, 2, samples, 17, 2),
        "global_rotmat": turn("loss.glob", SEED, 2),
        "vertices_m": draw("loss.verts", SEED, 2, 6890, 3),
        "joints3d_m": draw("loss.j3d", SEED, 2, 14, 3),
    }
    batch = {
        "target_pose_rotmats": turn("loss.tpose", SEED, 2, 23),
        "target_shape": draw("loss.tshape", SEED, 2, 10),
        "target_joints2d_px": inputs.joints2d("loss", SEED, 2, 256),
        "target_joints2d_visible": (
            inputs.uniform("loss.vis", SEED, 0, 1, 2, 17) > 0.2
        ).astype(np.float32),
        "target_global_rotmat": turn("loss.tglob", SEED, 2),
        "target_vertices_m": draw("loss.tverts", SEED, 2, 6890, 3),
        "target_joints3d_m": draw("loss.tj3d", SEED, 2, 14, 3),
    }
    return jax.tree.map(jnp.asarray, (predictions, batch))


@pytest.mark.parametrize("stage", [1, 2])
def test_the_stored_losses_and_gradients_are_met(parity_dir, inputs, stage):
    stored = load_vectors(parity_dir, "loss")
    predictions, batch = stored_case(inputs, 1 if stage == 1 else 9)
    weights = get_config().losses[f"stage{stage}"].weights

    def total(predictions):
        terms = losses(predictions, batch, normalizer="published", signs="backend")
        values = {name: finish(*term) for name, term in terms.items()}
        return sum(weights[name] * value for name, value in values.items()), values

    function = jax.jit(jax.value_and_grad(total, has_aux=True))
    (value, values), gradient = function(predictions)
    for ours, theirs in TERMS.items():
        np.testing.assert_allclose(
            values[ours], stored[f"s{stage}_{theirs}"], rtol=1e-5, err_msg=ours
        )
    np.testing.assert_allclose(value, stored[f"s{stage}_total"], rtol=2e-6)
    np.testing.assert_allclose(value, stored[f"s{stage}_total_f64"], rtol=2e-6)
    for ours, theirs in GRADIENTS.items():
        expected = stored[f"s{stage}_grad_{theirs}"]
        found = gradient[ours][:, ::97] if ours == "vertices_m" else gradient[ours]
        atol = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol, err_msg=ours)


@pytest.mark.parametrize("signs", ["backend", "lapack_old"])
@pytest.mark.parametrize("prefix", ["", "ext_"])
def test_the_stored_likelihoods_and_gradients_are_met(parity_dir, prefix, signs):
    stored = load_vectors(parity_dir, "mfloss")
    suffix = "_ext" if prefix else ""
    matrix = jnp.asarray(stored[f"F{suffix}"])
    target = jnp.asarray(stored[f"target_R{suffix}"])

    def nll(matrix, overreg=elementwise.OVERREG):
        values = elementwise.matrix_fisher_nll(
            matrix, target, overreg, "published", signs
        )
        return values.sum(), values

    (_, values), gradient = jax.jit(jax.value_and_grad(nll, has_aux=True))(matrix)
    for key in ("nll", "nll_f64"):
        expected = stored[prefix + key]
        assert (np.abs(values - expected) <= 2e-5 * (1 + np.abs(expected))).all()
    for key in ("grad_F", "grad_F_f64"):
        np.testing.assert_allclose(gradient, stored[prefix + key], rtol=0, atol=1e-5)
    expected = stored[f"{prefix}nll_overreg1025"]
    _, values = nll(matrix, 1.025)
    assert (np.abs(values - expected) <= 2e-5 * (1 + np.abs(expected))).all()


@pytest.mark.parametrize("prefix", ["", "ext_"])
def test_the_accurate_likelihood_uses_the_exact_normaliser(parity_dir, prefix):
    stored = load_vectors(parity_dir, "mfloss")
    suffix = "_ext" if prefix else ""
    matrix = stored[f"F{suffix}"]
    target = stored[f"target_R{suffix}"]
    values = jax.jit(lambda m, r: elementwise.matrix_fisher_nll(m, r, signs="backend"))(
        jnp.asarray(matrix), jnp.asarray(target)
    )
    product = (matrix.astype(np.float64) * target).sum((1, 2))
    expected = elementwise.OVERREG * stored[f"{prefix}log_c_exact"] - product
    scale = 1 + np.abs(product) + np.abs(stored[f"{prefix}log_c_exact"])
    assert (np.abs(values - expected) <= 2e-6 * scale).all()


def test_the_optimum_of_the_concentration_is_bounded():
    """Isotropic and centred, overreg 1.005: the accurate optimum is where it should be.

    1 - 1 / 1.005 = 1 - d log c / (3 ds), which is about 1 / (2 s) for large s.
    """
    scale = jnp.linspace(50.0, 150.0, 401)
    eye = jnp.broadcast_to(jnp.eye(3)[None], (401, 3, 3))
    values = elementwise.matrix_fisher_nll(
        scale[:, None, None] * eye, eye, signs="backend"
    )
    best = float(scale[jnp.argmin(values)])
    assert 95 < best < 106


def random_case(rng, samples=3, batch=3):
    def normal(*shape):
        return jnp.asarray(rng.standard_normal((batch, *shape)), jnp.float32)

    predictions = {
        "pose_fisher_matrix": normal(23, 3, 3),
        "shape_mean": normal(10),
        "shape_log_std": 0.1 * normal(10),
        "joints2d_norm": normal(samples, 17, 2),
        "global_rotmat": normal(3, 3),
        "vertices_m": normal(30, 3),
        "joints3d_m": normal(14, 3),
    }
    labels = {
        "target_pose_rotmats": normal(23, 3, 3),
        "target_shape": normal(10),
        "target_joints2d_px": 128 + 50 * normal(17, 2),
        "target_joints2d_visible": jnp.asarray(
            rng.integers(0, 2, (batch, 17)), jnp.float32
        ),
        "target_global_rotmat": normal(3, 3),
        "target_vertices_m": normal(30, 3),
        "target_joints3d_m": normal(14, 3),
    }
    return predictions, labels


@jax.jit
def terms_and_gradient(predictions, batch):
    def total(predictions):
        terms = losses(predictions, batch, signs="backend")
        return sum(finish(*term) for term in terms.values()), terms

    (_, terms), gradient = jax.value_and_grad(total, has_aux=True)(predictions)
    return terms, gradient


def test_padding_changes_no_mean(rng):
    predictions, batch = random_case(rng)
    batch["valid"] = jnp.array([1.0, 0.0, 1.0])
    spoiled = {k: v.at[1].set(jnp.nan) for k, v in batch.items() if k != "valid"}
    spoiled["valid"] = batch["valid"]
    padded, gradient = terms_and_gradient(predictions, spoiled)
    rows = jnp.array([0, 2])
    real, _ = terms_and_gradient(
        {k: v[rows] for k, v in predictions.items()},
        {k: v[rows] for k, v in batch.items()},
    )
    for name in real:
        np.testing.assert_allclose(padded[name], real[name], rtol=1e-5, err_msg=name)
    for name, array in gradient.items():
        assert np.isfinite(array).all(), name


def test_no_visible_joint_and_nan_joints_are_defined(rng):
    predictions, batch = random_case(rng)
    batch["target_joints2d_px"] = jnp.full((3, 17, 2), jnp.nan)
    terms, gradient = terms_and_gradient(predictions, batch)
    np.testing.assert_array_equal(terms["joints2d"], [0, 0])
    assert finish(*terms["joints2d"]) == 0
    assert np.isfinite(gradient["joints2d_norm"]).all()


def test_counts_are_the_published_denominators(rng):
    predictions, batch = random_case(rng, samples=9)
    terms, _ = terms_and_gradient(predictions, batch)
    visible = float(batch["target_joints2d_visible"].sum())
    expected = {
        "pose": 3 * 23,
        "shape": 3,
        "joints2d": 2 * 9 * visible,
        "global_rotmat": 27,
        "vertices": 3 * 30 * 3,
        "joints3d": 3 * 14 * 3,
    }
    assert {name: float(term[1]) for name, term in terms.items()} == expected


def test_shapes_that_would_broadcast_are_refused(rng):
    predictions, batch = random_case(rng)
    batch["target_shape"] = batch["target_shape"][:1]
    with pytest.raises((ValueError, TypeError)):
        losses(predictions, batch, signs="backend")
    predictions, batch = random_case(rng)
    predictions["joints2d_norm"] = predictions["joints2d_norm"][:, 0]
    with pytest.raises(ValueError, match="joints2d_norm"):
        losses(predictions, batch, signs="backend")
