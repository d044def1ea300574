import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.nn.deconv import (
    DeconvHead,
    conv_transpose_4x4,
    conv_transpose_dilated,
    conv_transpose_phases,
)
from tests import tolerances


def _scatter(inputs, kernel):
    """The definition: every input pixel adds its 4x4 patch at twice its place."""
    batch, height, width, _ = inputs.shape
    out = np.zeros((batch, 2 * height + 2, 2 * width + 2, kernel.shape[-1]))
    flipped = kernel[::-1, ::-1]
    for row in range(height):
        for column in range(width):
            patch = np.einsum("bc,yxco->byxo", inputs[:, row, column], flipped)
            out[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += patch
    return out[:, 1:-1, 1:-1]


FORMS = [conv_transpose_dilated, conv_transpose_phases, conv_transpose_4x4]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_every_form_equals_the_definition(form, rng):
    inputs = jnp.asarray(rng.standard_normal((2, 3, 5, 4)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((4, 4, 4, 2)), jnp.float32)
    np.testing.assert_allclose(
        form(inputs, kernel),
        _scatter(np.asarray(inputs), np.asarray(kernel)),
        atol=1e-5,
        rtol=0,
    )


def test_gradients_of_both_forms_agree(rng):
    inputs = jnp.asarray(rng.standard_normal((2, 3, 4, 3)), jnp.float32)
    kernel = jnp.asarray(rng.standard_normal((4, 4, 3, 2)), jnp.float32)
    weight = jnp.asarray(rng.standard_normal((2, 6, 8, 2)), jnp.float32)

    def gradients(form):
        loss = lambda x, k: (form(x, k) * weight).sum()  # noqa: E731
        return jax.grad(loss, argnums=(0, 1))(inputs, kernel)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=0),
        gradients(conv_transpose_phases),
        gradients(conv_transpose_dilated),
    )


def test_head_doubles_the_side_per_entry_and_keeps_its_names(key):
    head = DeconvHead((6, 5))
    features = jnp.ones((1, 2, 2, 3))
    variables = head.init(key, features, use_running_average=True)
    out = head.apply(variables, features, use_running_average=True)
    assert out.shape == (1, 8, 8, 5)
    assert set(variables["params"]) == {"deconv0", "bn0", "deconv1", "bn1"}
    assert np.isfinite(out).all()
    std = float(np.std(variables["params"]["deconv0"]["kernel"]))
    assert std == pytest.approx(1e-3, rel=5 * tolerances.FINITE_DIFFERENCE_F32)


def test_skips_are_projected_and_added_before_normalisation(key, rng):
    head = DeconvHead((6, 5))
    features = jnp.asarray(rng.standard_normal((2, 2, 2, 3)), jnp.float32)
    skips = [jnp.asarray(rng.standard_normal((2, 4, 4, 7)), jnp.float32)]
    variables = head.init(key, features, skips, use_running_average=True)
    assert variables["params"]["lateral0"]["kernel"].shape == (1, 1, 7, 6)
    assert "lateral1" not in variables["params"]
    with_skip = head.apply(variables, features, skips, use_running_average=True)
    none = [jnp.zeros_like(skips[0])]
    without = head.apply(variables, features, none, use_running_average=True)
    plain = head.apply(variables, features, use_running_average=True)
    np.testing.assert_allclose(without, plain, atol=1e-6, rtol=0)
    assert np.abs(with_skip - plain).max() > 1e-3


def test_a_skip_of_another_size_is_an_error(key):
    skips = [jnp.ones((1, 3, 4, 7))]
    with pytest.raises(ValueError, match=r"skips\[0\]: expected .* 4 x 4, got 3 x 4"):
        DeconvHead((6,)).init(
            key, jnp.ones((1, 2, 2, 3)), skips, use_running_average=True
        )
