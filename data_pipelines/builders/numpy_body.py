"""A body model in numpy, where labels need it and its file is at hand."""

import functools

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipelines.builders.published_dataset import PublishedDataset
from hmr_jax.body.joint_sets import SMPL_PARENTS

_REST = ("v_template", "shapedirs", "J_regressor")
_SKIN = ("posedirs", "weights", "kintree_table")


class NumpyBody:
    """A body model in SMPL's layout.

    Args:
        source: reads the file, and is named in errors.
        path: the body model, .pkl or .npz.
        skinned: whether vertices are wanted; rest joints need fewer entries.

    Raises:
        RecordError: the file is missing or lacks an entry.
    """

    def __init__(self, source: PublishedDataset, path: str, *, skinned: bool = False):
        read = source.read_npz if path.endswith(".npz") else source.read_pickle
        content, names = read(path), (*_REST, *(_SKIN if skinned else ()))
        source.require(path, content, names)
        self._arrays = {name: np.asarray(content[name], np.float64) for name in names}
        self._shape_dirs = self._arrays["shapedirs"][..., :10]

    @functools.cached_property
    def _rest(self) -> tuple[np.ndarray, np.ndarray]:
        """Joints [J, 3] of the mean shape, and their directions [J, 3, 10]."""
        regressor = self._arrays["J_regressor"]
        directions = np.einsum("jv,vcb->jcb", regressor, self._shape_dirs)
        return regressor @ self._arrays["v_template"], directions

    def rest_joints(self, betas: np.ndarray) -> np.ndarray:
        """Joints [J, 3] of the rest pose, metres, of shape coefficients [10]."""
        template, directions = self._rest
        return template + directions @ np.asarray(betas, np.float64)

    def posed(self, pose_aa: np.ndarray, betas: np.ndarray) -> np.ndarray:
        """Joints [J, 3], metres, of a pose [J, 3] (radians) without translation."""
        return self._frames(rotation_matrices(pose_aa), self.rest_joints(betas))[..., 3]

    def _frames(self, turns: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """Rotation and place [J, 3, 4] of each posed joint."""
        tree = self._arrays.get("kintree_table")
        parents = SMPL_PARENTS if tree is None else tree[0].astype(int)
        frames = np.concatenate([turns, rest[..., None]], axis=-1)
        for joint, parent in enumerate(parents[1:], start=1):
            above = frames[parent]
            frames[joint, :, :3] = above[:, :3] @ turns[joint]
            bone = rest[joint] - rest[parent]
            frames[joint, :, 3] = above[:, :3] @ bone + above[:, 3]
        return frames

    def vertices(self, pose_aa: np.ndarray, betas: np.ndarray) -> np.ndarray:
        """Vertices [V, 3], metres, by linear blend skinning.

        Args:
            pose_aa: [J, 3] axis-angle, radians.
            betas: [10] shape coefficients.
        """
        turns, rest = rotation_matrices(pose_aa), self.rest_joints(betas)
        shaped = self._arrays["v_template"] + self._shape_dirs @ np.asarray(betas)
        shaped = shaped + self._arrays["posedirs"] @ (turns[1:] - np.eye(3)).ravel()
        moves = self._frames(turns, rest)
        moves[..., 3] -= np.einsum("jab,jb->ja", moves[..., :3], rest)
        blended = np.einsum("vj,jab->vab", self._arrays["weights"], moves)
        return np.einsum("vab,vb->va", blended[..., :3], shaped) + blended[..., 3]


def rotation_matrices(pose_aa: np.ndarray) -> np.ndarray:
    """Rotation matrices [J, 3, 3] of axis-angle vectors, radians."""
    return Rotation.from_rotvec(np.reshape(pose_aa, (-1, 3))).as_matrix()
