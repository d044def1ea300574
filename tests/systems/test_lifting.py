"""Depths of roots, where no body fits too."""

import jax.numpy as jnp
import numpy as np

from hmr_jax.systems import lifting

BONES = ((0, 1), (1, 2), (1, 3))


def test_the_depth_at_which_bones_have_their_lengths(rng):
    joints = rng.uniform(-0.5, 0.5, (4, 4, 3)).astype(np.float32)
    depth = np.array([2.0, 3.0, 5.0, 9.0], np.float32)
    there = joints.copy()
    there[..., 2] += depth[:, None] - joints[:, :1, 2]
    rays = there / there[..., 2:]
    lengths = lifting.squared_lengths(jnp.asarray(joints), BONES)
    expected = sum(((joints[:, a] - joints[:, b]) ** 2).sum(-1) for a, b in BONES)
    np.testing.assert_allclose(lengths, expected, rtol=1e-5)
    relative = jnp.asarray(joints[..., 2] - joints[:, :1, 2])
    found = lifting.root_depth(jnp.asarray(rays), relative, BONES, lengths)
    np.testing.assert_allclose(found, depth, rtol=1e-3)


def test_differences_of_depth_that_no_body_has():
    rays = jnp.ones((1, 4, 3))
    depth = jnp.linspace(-9.0, 9.0, 4)[None]
    found = lifting.root_depth(rays, depth, BONES, jnp.array([1.0]))
    assert np.isfinite(found).all() and found[0] >= lifting.NEAREST_M
