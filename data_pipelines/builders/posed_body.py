"""Vertices of SMPL in numpy, where a published preprocessing needs them."""

import numpy as np

from data_pipelines.builders.raw import RawSource
from data_pipelines.builders.rigid import rotation_matrix

_ENTRIES = (
    *("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table"),
)


class PosedBody:
    """A body model's linear blend skinning.

    Args:
        source: reads the file, and is named in errors.
        path: the body model, .pkl or .npz, in SMPL's layout.

    Raises:
        RecordError: the file is missing or lacks an entry.
    """

    def __init__(self, source: RawSource, path: str):
        read = source.read_npz if path.endswith(".npz") else source.read_pickle
        content = read(path)
        source.require(path, content, _ENTRIES)
        arrays = {name: np.asarray(content[name], np.float64) for name in _ENTRIES}
        self._template = arrays["v_template"]
        self._shape_dirs = arrays["shapedirs"][..., :10]
        self._pose_dirs = arrays["posedirs"]
        self._regressor = arrays["J_regressor"]
        self._weights = arrays["weights"]
        self._parents = [int(p) for p in arrays["kintree_table"][0]]

    def __call__(
        self, pose_aa: np.ndarray, betas: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pose and shape the body.

        Args:
            pose_aa: [J, 3] axis-angle, radians.
            betas: [10] shape coefficients.

        Returns:
            Vertices [V, 3] and the rest pose's root joint [3], metres.
        """
        shaped = self._template + self._shape_dirs @ np.asarray(betas, np.float64)
        joints = self._regressor @ shaped
        turns = rotation_matrix(np.asarray(pose_aa, np.float64).reshape(-1, 3))
        posed = shaped + self._pose_dirs @ (turns[1:] - np.eye(3)).ravel()
        world = np.zeros((len(joints), 3, 4))
        for j, parent in enumerate(self._parents):
            if j == 0:
                world[j, :, :3], world[j, :, 3] = turns[j], joints[j]
                continue
            above = world[parent]
            world[j, :, :3] = above[:, :3] @ turns[j]
            world[j, :, 3] = above[:, :3] @ (joints[j] - joints[parent]) + above[:, 3]
        moves = world.copy()
        moves[..., 3] -= np.einsum("jab,jb->ja", world[..., :3], joints)
        blended = np.einsum("vj,jab->vab", self._weights, moves)
        vertices = np.einsum("vab,vb->va", blended[..., :3], posed) + blended[..., 3]
        return vertices, joints[0]
