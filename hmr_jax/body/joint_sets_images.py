"""Joint sets of image datasets and collections; ``joint_sets`` registers them."""

from hmr_jax.body.joint_set import JointSet

SETS: tuple[JointSet, ...] = ()
"""The sets of this file."""
