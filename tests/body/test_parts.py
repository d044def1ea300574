"""Parts and the visibility of joints against stored values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax.body import parts
from hmr_jax.body.joint_sets import get_joint_set
from tests.systems.hierprob.inputs import SEED, load_inputs, load_vectors


@pytest.fixture(scope="module")
def stored(parity_dir):
    return load_vectors(parity_dir, "geom")


def test_coarse_parts(stored):
    labels = jnp.arange(-1, 25)
    expected = stored["part14_of_m1_to_24"]
    np.testing.assert_array_equal(parts.coarse_parts(labels), expected)
    found = parts.coarse_parts(labels.astype(jnp.float32))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(parts.coarse_parts(jnp.array([25, 99])), 0)


def test_visibility_of_joints(parity_dir, recipe, stored):
    inputs = load_inputs(parity_dir, recipe)
    joints = jnp.asarray(inputs.joints2d("vis", SEED, 2, 256))
    inside = parts.joints_in_frame(joints, 256, 256)
    np.testing.assert_array_equal(inside, stored["vis_inframe"])
    labels = jnp.asarray(stored["vis_seg24"])
    check = jax.jit(parts.joints_on_visible_parts, static_argnums=1)
    for pixels in (50, 70):
        seen = inside & check(labels, pixels)
        np.testing.assert_array_equal(seen, stored[f"vis_occl_thr{pixels}"])


def test_a_part_shows_its_own_side():
    names = get_joint_set("coco_17").joints
    sides = {11: "right", 12: "left", 3: "left", 5: "right", 7: "left", 9: "right"}
    sides |= {14: "left", 13: "right"}
    for joint, part in parts.PART14_OF_JOINT.items():
        assert names[joint].startswith(sides[part])


def test_joints_that_are_not_numbers_are_outside():
    joints = jnp.array([[jnp.nan, 1.0], [0.0, 8.0], [8.1, 0.0], [-0.1, 3.0]])
    found = parts.joints_in_frame(joints, 8, 8)
    np.testing.assert_array_equal(found, [False, True, False, False])
