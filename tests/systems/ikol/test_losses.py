import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.ikol import base
from hmr_jax.losses import elementwise
from hmr_jax.losses.reduce import finish
from hmr_jax.systems.ikol import losses as ikol
from tests import tolerances


@pytest.fixture(scope="module")
def stored(parity_dir):
    with np.load(parity_dir / "ikol" / "ikol_net_public.npz") as file:
        return dict(file)


def published_batch(stored):
    """The stored labels under our names."""
    quat = stored["label/target_theta"].reshape(2, 24, 4)
    batch = {
        "has_smpl": stored["label/target_smpl_weight"],
        "target_shape": stored["label/target_beta"],
        "target_shape_weight": stored["label/target_smpl_weight"],
        "target_twist": stored["label/target_twist"],
        "target_twist_weight": stored["label/target_twist_weight"],
        "target_uvd": stored["label/target_uvd_29"][:, :72].reshape(2, 24, 3),
        "target_uvd_weight": stored["label/target_weight_29"][:, :72].reshape(2, 24, 3),
        "target_quat": quat,
        "target_quat_weight": stored["label/target_theta_weight"].reshape(2, 24, 4),
    }
    return {name: jnp.asarray(value, jnp.float32) for name, value in batch.items()}


def stored_predictions(stored, case):
    shapes = {
        "pred_uvd": ("pred_uvd_jts", (2, 24, 3)),
        "pred_shape": ("pred_shape", (2, 10)),
        "pred_twist": ("pred_phi", (2, 23, 2)),
        "pred_quaternions": ("pred_theta_mats", (2, 24, 4)),
    }
    return {
        ours: jnp.asarray(stored[f"{case}/{theirs}"].reshape(shape), jnp.float32)
        for ours, (theirs, shape) in shapes.items()
    }


@pytest.mark.parametrize("case", ["train_bnfrozen", "train_bnbatch"])
def test_stored_losses_are_met(stored, case):
    terms = ikol.ikol_losses(
        stored_predictions(stored, case),
        published_batch(stored),
        align_quaternion_signs=False,
    )
    values = {name: finish(*term) for name, term in terms.items()}
    for name in ("beta", "twist", "uvd", "theta", "leaf"):
        expected = stored[f"{case}/loss_{name}"][0]
        np.testing.assert_allclose(values[name], expected, rtol=1e-5, err_msg=name)
    weights = base().losses.weights
    total = sum(weights.get(name, 0.0) * value for name, value in values.items())
    np.testing.assert_allclose(total, stored[f"{case}/total_loss"][0], rtol=1e-5)


def _random(rng, samples=3):
    def normal(*shape):
        return jnp.asarray(rng.standard_normal((samples, *shape)), jnp.float32)

    def mask(*shape):
        return jnp.asarray(rng.integers(0, 2, (samples, *shape)), jnp.float32)

    predictions = {
        "pred_uvd": normal(24, 3),
        "pred_shape": normal(10),
        "pred_twist": normal(23, 2),
        "pred_quaternions": normal(24, 4),
        "pred_rotmats": normal(24, 3, 3),
        "pred_joints_m": normal(24, 3),
    }
    batch = {
        "has_smpl": mask(1),
        "target_shape": normal(10),
        "target_shape_weight": mask(1),
        "target_twist": normal(23, 2),
        "target_twist_weight": mask(23, 2),
        "target_uvd": normal(24, 3),
        "target_uvd_weight": mask(24, 3),
        "target_quat": normal(24, 4),
        "target_quat_weight": mask(24, 1),
        "joints_cam_m": jnp.concatenate([normal(24, 3), mask(24, 1)], -1),
    }
    return predictions, batch


def test_padding_and_batch_splits_change_no_mean(rng):
    predictions, batch = _random(rng, 4)
    batch["valid"] = jnp.array([1.0, 1.0, 0.0, 1.0])

    def terms(rows):
        take = lambda tree: {k: v[rows] for k, v in tree.items()}  # noqa: E731
        return ikol.ikol_losses(take(predictions), take(batch), extensions=True)

    whole = terms(jnp.arange(4))
    real = terms(jnp.array([0, 1, 3]))
    first, second = terms(jnp.array([0, 2])), terms(jnp.array([1, 3]))
    for name in whole:
        np.testing.assert_allclose(whole[name], real[name], rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(
            np.add(first[name], second[name]), whole[name], rtol=1e-5, err_msg=name
        )


def test_masked_labels_that_are_nan_reach_neither_loss_nor_gradient(rng):
    predictions, batch = _random(rng, 2)
    for name, value in batch.items():
        if name == "has_smpl" or name.endswith("_weight"):
            batch[name] = value.at[1].set(0)
        else:
            batch[name] = value.at[1].set(jnp.nan)
    batch["joints_cam_m"] = batch["joints_cam_m"].at[1, :, 3].set(0)

    def total(predictions):
        terms = ikol.ikol_losses(predictions, batch, extensions=True)
        return sum(finish(*term) for term in terms.values())

    value, gradient = jax.value_and_grad(total)(predictions)
    assert np.isfinite(value)
    for name, array in gradient.items():
        assert np.isfinite(array).all(), name


def test_either_sign_of_a_quaternion_is_right(rng):
    predictions, batch = _random(rng)
    batch |= {"has_smpl": jnp.ones((3, 1)), "target_quat_weight": jnp.ones((3, 24, 1))}
    batch["target_quat"] = -predictions["pred_quaternions"]
    aligned = ikol.ikol_losses(predictions, batch)["theta"]
    published = ikol.ikol_losses(predictions, batch, align_quaternion_signs=False)
    assert aligned[0] == 0
    assert published["theta"][0] > 1
    assert aligned[1] == 3 * 24 * 4


def _heatmaps(rng, batch, height=3, width=4, depth=5):
    shape = (len(batch["has_smpl"]), height, width, 24 * depth)
    return jnp.asarray(3 * rng.standard_normal(shape), jnp.float32)


def test_heatmap_loss_in_numpy(rng):
    _, batch = _random(rng)
    batch["target_uvd"] = jnp.asarray(rng.uniform(-0.5, 0.5, (3, 24, 3)), jnp.float32)
    batch["valid"] = jnp.array([1.0, 0.0, 1.0])
    logits = _heatmaps(rng, batch)
    total, count = ikol.heatmap_loss(logits, batch, spread_cells=0.7)

    volume = np.exp(np.asarray(logits, np.float64).reshape(3, 3, 4, 24, 5))
    volume /= volume.sum((1, 2, 4), keepdims=True)
    target = np.asarray(batch["target_uvd"], np.float64)
    weight = np.asarray(batch["target_uvd_weight"])
    expected, labelled = 0.0, 0.0
    for sample in (0, 2):
        for joint in range(24):
            gaussians = []
            for axis, cells in enumerate((4, 3, 5)):
                place = cells * (target[sample, joint, axis] + 0.5)
                row = np.exp(-0.5 * ((np.arange(cells) - place) / 0.7) ** 2)
                gaussians.append(row / row.sum())
            u, v, d = gaussians
            found = volume[sample, :, :, joint]
            both = weight[sample, joint, 0] * weight[sample, joint, 1]
            expected -= both * (np.outer(v, u) * np.log(found.sum(-1))).sum()
            expected -= weight[sample, joint, 2] * (d * np.log(found.sum((0, 1)))).sum()
            labelled += both
    np.testing.assert_allclose([total, count], [expected, labelled], rtol=1e-5)


def test_heatmap_loss_is_finite_for_far_peaks_and_masked_nan(rng):
    _, batch = _random(rng)
    target = jnp.where(batch["target_uvd_weight"] > 0, batch["target_uvd"], jnp.nan)
    batch["target_uvd"] = target
    logits = 1e4 * _heatmaps(rng, batch)
    value, gradient = jax.value_and_grad(
        lambda logits: finish(*ikol.heatmap_loss(logits, batch))
    )(logits)
    assert np.isfinite(value) and value > 0
    assert np.isfinite(gradient).all()


def test_extensions_in_numpy(rng):
    predictions, batch = _random(rng)
    terms = ikol.ikol_losses(predictions, batch, extensions=True)
    labelled = np.asarray(batch["joints_cam_m"])
    weight = labelled[..., 3:] * labelled[:, :1, 3:]
    error = np.asarray(predictions["pred_joints_m"]) - (
        labelled[..., :3] - labelled[:, :1, :3]
    )
    np.testing.assert_allclose(
        terms["joints"], [(np.abs(error) * weight).sum(), 3 * weight.sum()], rtol=1e-5
    )
    assert terms["rotmat"][1] == 3 * 24 * 9


def test_coordinate_accuracy_counts_near_labels_off_the_border():
    target = jnp.zeros((4, 1, 3))
    target = target.at[3].set(-0.5)  # in the first cell: not counted
    pred = target.at[1, 0, 0].set(0.04).at[2, 0, 0].set(0.06)
    hits, counted = ikol.coordinate_accuracy(pred, target, jnp.ones_like(target))
    np.testing.assert_array_equal(counted, [3])
    np.testing.assert_array_equal(hits, [2])  # .04 of the crop is .4, .06 is .6


def test_a_weight_that_does_not_fit_is_refused(rng):
    predictions, batch = _random(rng)
    batch["target_twist_weight"] = jnp.ones((3, 22, 2))
    with pytest.raises(ValueError, match="does not fit"):
        ikol.ikol_losses(predictions, batch)


def test_nearer_sign_keeps_the_rotation(rng):
    quaternions = jnp.asarray(rng.standard_normal((5, 4)), jnp.float32)
    targets = jnp.asarray(rng.standard_normal((5, 4)), jnp.float32)
    near = elementwise.nearer_sign(quaternions, targets)
    assert (jnp.sum(near * quaternions, -1) >= 0).all()
    np.testing.assert_allclose(
        jnp.abs(near), jnp.abs(targets), atol=tolerances.F32_IDENTITY
    )
