import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.training import optimizer

PARAMS = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
GRADS = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 4.0)}


def test_multistep_counts_from_the_start_of_the_run():
    rate = optimizer.make_schedule(
        learning_rate=1.0, schedule="multistep", boundary_steps=(6, 8), warmup_steps=4
    )
    found = [float(rate(step)) for step in range(10)]
    expected = [0, 0.25, 0.5, 0.75, 1, 1, 0.1, 0.1, 0.01, 0.01]
    # As PyTorch's MultiStepLR: the new rate holds from the boundary on.
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_cosine_ends_where_told():
    rate = optimizer.make_schedule(
        learning_rate=2.0, schedule="cosine", total_steps=12, warmup_steps=2
    )
    np.testing.assert_allclose(
        [float(rate(step)) for step in (0, 1, 2, 7, 12)], [0, 1, 2, 1, 0], atol=1e-6
    )


def test_sgd_with_clipping_and_decay():
    tx = optimizer.make_optimizer(
        name="sgd", learning_rate=0.5, clip_global_norm=1.0, weight_decay=0.1
    )
    norm = np.sqrt(4 * 9.0 + 2 * 16.0)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(
        updates["kernel"], -0.5 * (3.0 / norm + 0.1) * np.ones((2, 2)), rtol=1e-6
    )
    np.testing.assert_allclose(updates["bias"], -0.5 * 4.0 / norm, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_first_adam_step_is_the_rate(name):
    tx = optimizer.make_optimizer(name=name, learning_rate=0.01)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["bias"], -0.01, rtol=1e-4)


def test_from_config_turns_epochs_into_steps():
    config = {
        "name": "adam",
        "learning_rate": 1e-3,
        "schedule": "multistep",
        "boundary_epochs": (50, 120),
        "factor": 0.1,
    }
    _, rate = optimizer.from_config(config, total_steps=4000, steps_per_epoch=10)
    found = [float(rate(s)) for s in (499, 500, 1199, 1200)]
    np.testing.assert_allclose(found, [1e-3, 1e-4, 1e-4, 1e-5], rtol=1e-5)
    config["clip_global_norm"] = 0.0  # a config's way to say: none
    tx, _ = optimizer.from_config(config, total_steps=4000, steps_per_epoch=10)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    assert np.all(np.asarray(updates["kernel"]) < 0)
    with pytest.raises(ValueError, match="length of an epoch"):
        optimizer.from_config(config, total_steps=4000)


def test_unknown_names():
    with pytest.raises(ValueError, match="'adamm'"):
        optimizer.make_optimizer(learning_rate=1.0, name="adamm")
    with pytest.raises(ValueError, match="'linear'"):
        optimizer.make_schedule(learning_rate=1.0, schedule="linear")
    with pytest.raises(ValueError, match="total_steps > warmup_steps=0; found None"):
        optimizer.make_schedule(learning_rate=1.0, schedule="cosine")
