"""Distributions over pose and shape from a proxy representation, and bodies of them.

``HierProbNet`` predicts distributions; ``decode`` poses the most likely body;
``decode_samples`` draws bodies; ``vertex_uncertainty`` says how far they spread.
Source: Sengupta et al., ICCV 2021; specs/hierprob.md.
"""

from hmr_jax.systems.hierprob.decode import (
    decode,
    decode_samples,
    pose_distribution,
    project_joints,
    samples_by_fit,
    shape_distribution,
    vertex_spread,
    vertex_uncertainty,
)
from hmr_jax.systems.hierprob.network import (
    BODY_PARENTS,
    INIT_CAMERA,
    INIT_GLOBAL_ROT6D,
    HierarchicalPose,
    HierProbNet,
    ancestors,
)

__all__ = [
    "BODY_PARENTS",
    "INIT_CAMERA",
    "INIT_GLOBAL_ROT6D",
    "HierProbNet",
    "HierarchicalPose",
    "ancestors",
    "decode",
    "decode_samples",
    "pose_distribution",
    "project_joints",
    "samples_by_fit",
    "shape_distribution",
    "vertex_spread",
    "vertex_uncertainty",
]
