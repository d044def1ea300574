"""The layer by its schemes."""

import functools

import jax
import jax.numpy as jnp
import pytest

from hmr_jax.systems.ikol.layer import SCHEMES, ik_layer


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_has_the_same_outputs(scheme):
    shapes = [(2, 24, 3), (2, 24, 3), (2, 23, 2), (2, 5, 4)]
    inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    pose = jax.eval_shape(functools.partial(ik_layer, scheme=scheme), *inputs)
    assert pose.local_rotmats.shape == pose.global_rotmats.shape == (2, 24, 3, 3)
    assert pose.joints_m.shape == (2, 24, 3)
    assert {leaf.shape for leaf in pose.info} == {(2,)}


def test_options_reach_the_scheme():
    shapes = [(24, 3), (24, 3), (23, 2), (5, 4)]
    inputs = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    layer = functools.partial(ik_layer, options={"num_steps": 2})
    assert jax.eval_shape(layer, *inputs).joints_m.shape == (24, 3)


def test_an_unknown_scheme_is_named():
    zeros = [jnp.zeros(s) for s in ((24, 3), (24, 3), (23, 2), (5, 4))]
    with pytest.raises(ValueError, match="scheme must be one of .*'newtn'"):
        ik_layer(*zeros, scheme="newtn")
