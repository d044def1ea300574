"""Joints of a body model, where labels need them and the file is at hand."""

import numpy as np

from data_pipelines.builders import rigid
from data_pipelines.builders.raw import RawSource
from hmr_jax.body.joint_sets import SMPL_PARENTS


class RestRoot:
    """Rest joints of a body model as a linear function of its shape.

    Args:
        source: reads the file, and is named in errors.
        path: the body model, .pkl or .npz, with ``v_template``, ``shapedirs`` and
            ``J_regressor``.

    Raises:
        RecordError: the file is missing or lacks one of them.
    """

    def __init__(self, source: RawSource, path: str):
        read = source.read_npz if path.endswith(".npz") else source.read_pickle
        content = read(path)
        source.require(path, content, ("v_template", "shapedirs", "J_regressor"))
        regressor = np.asarray(content["J_regressor"], np.float64)
        directions = np.asarray(content["shapedirs"], np.float64)[..., :10]
        template = np.asarray(content["v_template"], np.float64)
        self._template = regressor @ template
        self._directions = np.einsum("jv,vcb->jcb", regressor, directions)

    def joints(self, betas: np.ndarray) -> np.ndarray:
        """Joints [J, 3] of the rest pose, metres, of shape coefficients [10]."""
        return self._template + self._directions @ np.asarray(betas, np.float64)

    def posed(self, pose_aa: np.ndarray, betas: np.ndarray) -> np.ndarray:
        """SMPL's joints [24, 3], metres, of a pose [24, 3] without translation."""
        rest = self.joints(betas)
        local = rigid.rotation_matrix(pose_aa)
        turned, placed = local.copy(), rest.copy()
        for joint, parent in enumerate(SMPL_PARENTS[1:], start=1):
            turned[joint] = turned[parent] @ local[joint]
            bone = rest[joint] - rest[parent]
            placed[joint] = placed[parent] + turned[parent] @ bone
        return placed

    def __call__(self, betas: np.ndarray) -> np.ndarray:
        """The root joint [3] of the rest pose, metres."""
        return self.joints(betas)[0]
