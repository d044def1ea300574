"""The baseline that answers every picture with the mean pose."""

from typing import Any

import jax.numpy as jnp

from hmr_jax.body.forward import body_forward
from hmr_jax.body.landmarks import lsp_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.alignment import fit_rotation
from hmr_jax.geometry.rotations import axis_angle_to_matrix
from hmr_jax.synthetic.pose_bank import PoseBank
from hmr_jax.systems.hierprob import scores
from hmr_jax.systems.hierprob.data import load_poses


def score_mean_body(config: Any, body: BodyModel, validation: Any) -> scores.Scores:
    """Scores of the mean pose of the training set, whatever the picture.

    Args:
        config: an experiment.
        body: the body.
        validation: has ``score(predict)``.
    """
    poses = load_poses(config.data.poses, "train", config.seed)
    return validation.score(mean_body(body, poses))


def mean_body(body: BodyModel, poses: PoseBank) -> Any:
    """Answers every picture with the bank's mean pose, seen from the front.

    Args:
        body: the body.
        poses: of the training set.

    Returns:
        A function for ``Validation.score``.
    """
    mean = fit_rotation(axis_angle_to_matrix(jnp.asarray(poses.poses_aa)).mean(0))
    mean = mean.at[0].set(jnp.eye(3))
    betas = jnp.zeros(body.num_betas)
    posed = body_forward(body, betas, mean).vertices_m
    rest = body_forward(body, betas, jnp.zeros((body.num_joints, 3))).vertices_m
    one = {"vertices_m": posed, "zero_pose_vertices_m": rest}
    if "h36m_17" in body.extra_joint_regressors:
        one["joints3d_m"] = lsp_joints(body, posed)

    def predict(made, key):
        del key
        count = len(made["image"])
        mode = {k: jnp.repeat(v[None], count, 0) for k, v in one.items()}
        return scores.Prediction(mode, {}, {})

    return predict
