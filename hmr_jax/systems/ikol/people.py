"""From crops of persons to bodies, where nobody says how far away they are.

The network needs the depth of the root, which ``lifting.root_depth`` chooses.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from hmr_jax.body.forward import rest_joints
from hmr_jax.body.joint_sets import SMPL_PARENTS
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.cameras import to_camera_axes
from hmr_jax.systems.ikol.data import normalization
from hmr_jax.systems.ikol.task import make_model, make_predict
from hmr_jax.systems.lifting import (
    project,
    rays_of,
    root_depth,
    squared_lengths,
    weak_perspective_of,
)
from hmr_jax.systems.system import Seen

_BONES = tuple((parent, child) for child, parent in enumerate(SMPL_PARENTS) if child)


def people(
    config: Any, options: Mapping[str, Any]
) -> Callable[[Any, BodyModel, Seen], dict[str, Array]]:
    """What finds the bodies of a batch of persons, see ``System``.

    Args:
        config: an experiment.
        options: none are looked at.

    Returns:
        A function to ``vertices_m``, ``joints_m`` (y up, about the root),
        ``local_rotmats`` [B, 24, 3, 3], ``betas``, ``root_cam_m``, ``camera`` and
        ``joints2d_crop_px``.
    """
    del options
    size = config.image_size_px
    mean, deviation = (
        np.asarray(x, np.float32).reshape(1, 1, 1, 3) for x in normalization(config)
    )
    predict_raw, to_body = make_predict(config, make_model(config))

    def predict(variables: Any, body: BodyModel, seen: Seen) -> dict[str, Array]:
        side = seen.crops.shape[1]
        shape = (len(seen.crops), size, size, 3)
        images = jax.image.resize(seen.crops, shape, "linear", antialias=True)
        raw = predict_raw(variables, (images - mean) / deviation)
        # Pixels of the network's crop are larger than those of the engine's.
        affine = seen.crop_to_image.at[:, :, :2].multiply(side / size)
        camera = {"crop_to_image": affine, "intrinsics_inv": seen.intrinsics_inv}
        crop_px = (raw["uvd"][..., :2] + 0.5) * size
        lengths = squared_lengths(rest_joints(body, raw["shape"]), _BONES)
        depth = raw["uvd"][..., 2] * config.depth_range_m
        rays = rays_of(crop_px, affine, seen.intrinsics_inv)
        root_m = rays[:, 0] * root_depth(rays, depth, _BONES, lengths)[:, None]
        out = to_body(raw, {**camera, "root_cam_m": root_m}, body)
        joints_m = out["pred_joints_struct_m"]
        joints_px = project(joints_m + root_m[:, None], seen)
        return {
            "vertices_m": to_camera_axes(out["pred_vertices_cam_m"] - root_m[:, None]),
            "joints_m": to_camera_axes(joints_m),
            "local_rotmats": out["pred_rotmats"],
            "betas": out["pred_shape"],
            "root_cam_m": root_m,
            "camera": weak_perspective_of(joints_m, 2 * joints_px / side - 1),
            "joints2d_crop_px": joints_px,
        }

    return predict
