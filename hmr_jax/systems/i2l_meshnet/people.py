"""From crops of persons to meshes before a camera, where nobody says how far they are.

The depth of the root is the one at which the bones of the predicted body, or of the
mean one in the first stage, have their length.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hmr_jax.body.forward import regress_joints
from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.body.model import BodyModel
from hmr_jax.geometry.cameras import to_camera_axes
from hmr_jax.systems.i2l_meshnet import decode
from hmr_jax.systems.i2l_meshnet.joints import ends_of, joint_set_of
from hmr_jax.systems.i2l_meshnet.task import make_model, predictions, sizes, space_of
from hmr_jax.systems.lifting import (
    project,
    rays_of,
    root_depth,
    squared_lengths,
    weak_perspective_of,
)
from hmr_jax.systems.system import Seen


def people(
    config: Any, options: Mapping[str, Any]
) -> Callable[[Any, BodyModel, Seen], dict[str, Array]]:
    """What finds the bodies of a batch of persons, see ``System``.

    Args:
        config: an experiment.
        options: none are looked at.

    Returns:
        A function to ``vertices_m`` of the heat maps (y up, about the root),
        ``root_cam_m``, ``camera``, ``joints2d_crop_px`` and ``joints_m``, the kinematic
        joints; in the second stage also ``param_vertices_m``, ``pose_rotmats`` and
        ``betas``.
    """
    del options
    model, space = make_model(config), space_of(config)
    hand, joint_set = bool(config["hand"]), joint_set_of(config)
    bones = JOINT_SETS[joint_set].bones
    ends = ends_of(config, sizes(config).vertices)
    size, kinematic = space["image_size_px"], 21 if hand else 24

    def predict(variables: Any, body: BodyModel, seen: Seen) -> dict[str, Array]:
        side = seen.crops.shape[1]
        shape = (len(seen.crops), size, size, 3)
        images = jax.image.resize(seen.crops, shape, "linear", antialias=True)
        rows = body.extra_joint_regressors[joint_set]
        raw: Any = model.apply(variables, images, rows, train=False)
        # Pixels of the network's crop are larger than those of the engine's.
        affine = seen.crop_to_image.at[:, :, :2].multiply(side / size)
        if "betas" in raw:
            sized = decode.posed(raw, body, joint_set, hand=hand)["joints_cam_m"]
        else:
            mean = regress_joints(body, body.template_m[None], joint_set)
            sized = jnp.broadcast_to(mean, (len(images), *mean.shape[1:]))
        joints = raw["mesh_joints_cells"]
        cells_px = size / space["heatmap_size"]
        rays = rays_of(joints[..., :2] * cells_px, affine, seen.intrinsics_inv)
        relative = joints[..., 2] / space["heatmap_size"] * 2 - 1
        relative = relative * (space["depth_range_m"] / 2)
        own = relative[:, :1]
        depth = root_depth(rays, relative - own, bones, squared_lengths(sized, bones))
        batch = {
            "crop_to_image": affine,
            "intrinsics_inv": seen.intrinsics_inv,
            "root_depth_m": depth - own[:, 0],
        }
        out = predictions(config, raw, batch, body, ends)
        mesh = out["vertices_m"]
        there = regress_joints(body, mesh, joint_set)
        root = there[:, 0]
        joints_px = project(there, seen)[:, :kinematic]
        about = there[:, :kinematic] - root[:, None]
        found = {
            "vertices_m": to_camera_axes(mesh - root[:, None]),
            "joints_m": to_camera_axes(about),
            "root_cam_m": root,
            "camera": weak_perspective_of(about, 2 * joints_px / side - 1),
            "joints2d_crop_px": joints_px,
        }
        if "betas" in raw:
            other = out["param_vertices_m"] - root[:, None]
            found["param_vertices_m"] = to_camera_axes(other)
            found |= {name: out[name] for name in ("pose_rotmats", "betas")}
        return found

    return predict
