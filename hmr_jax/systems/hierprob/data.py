"""Poses, textures and backgrounds: what training pictures are rendered from."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from hmr_jax.body.forward import rest_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.synthetic import pose_bank, proxy_feed
from hmr_jax.synthetic.backgrounds import FolderBackgrounds
from hmr_jax.synthetic.proxies import ProxyAssets

Config = Any
MISPLACED_M = 0.1


def load_poses(section: Config, split: str, seed: int) -> pose_bank.PoseBank:
    """The bank of poses that a config's section names.

    Args:
        section: ``data.poses`` or ``eval.poses``.
        split: of the shipped motion: train or test.
        seed: of the joint-limit sampler.

    Raises:
        FileNotFoundError: no such file.
        UserError: it is not as expected.
    """
    path = section.path
    if not path:
        return pose_bank.shipped_bank(split, num_limits=section.num_limits, seed=seed)
    if path.endswith(".npz") and pose_bank.is_pose_npz(path):
        return pose_bank.read_pose_npz(path, section.keep)
    return pose_bank.read_motion_bank(path, stride=section.stride, limit=section.limit)


def check_root(
    config: Config, poses: pose_bank.PoseBank, field: str = "config.data.poses.path"
) -> None:
    """Refuse poses whose root rotations are not what the config takes them for.

    Args:
        config: an experiment.
        poses: of one of its sections.
        field: that names them, for the message.

    Raises:
        UserError: naming the fields.
    """
    root = config.data.synthetic.poses.get("root", "camera_right")
    if (root == "upright") != poses.upright:
        kind = "y up" if poses.upright else "as cameras saw them"
        wanted = "upright" if poses.upright else "camera_right or camera_left"
        raise UserError(
            f"config.data.synthetic.poses.root: expected {wanted} for poses {kind} "
            f"({field}: {poses.origin}), found {root!r}"
        )


def _assets(config: Config, body: BodyModel, *, train: bool) -> ProxyAssets:
    section = config.data if train else config.eval
    seed = config.seed if train else config.eval.seed
    poses = load_poses(section.poses, "train" if train else "test", seed)
    name = "config.data" if train else "config.eval"
    check_root(config, poses, f"{name}.poses.path")
    textures, backgrounds = section.textures, section.backgrounds
    logging.info("%d poses: %s", len(poses), poses.origin)
    if not backgrounds.path and backgrounds.count < 1:
        raise UserError(
            f"{name}.backgrounds.count: expected at least 1 (or a path), "
            f"found {backgrounds.count}"
        )
    _warn_of_camera(config, body)
    return proxy_feed.make_assets(
        body,
        poses,
        image_size_px=config.image_size_px,
        uv_path=config.data.uv_path,
        textures=textures.path or None,
        texture_limit=textures.limit,
        num_textures=textures.count,
        texture_size_px=textures.size_px,
        suit_share=textures.suit_share,
        num_backgrounds=0 if backgrounds.path else backgrounds.count,
        clutter_share=backgrounds.clutter_share,
        seed=seed,
    )


def _warn_of_camera(config: Config, body: BodyModel) -> None:
    """Say so where the mean camera does not look at the body's middle."""
    pelvis_m = float(rest_joints(body, jnp.zeros(body.num_betas))[0, 1])
    camera_m = float(config.data.synthetic.mean_camera_m[1])
    if abs(pelvis_m - camera_m) > MISPLACED_M:
        logging.warning(
            "config.data.synthetic.mean_camera_m: y is %g m, and the pelvis of the "
            "body is at %.2f m: bodies will not be in the middle of the pictures "
            "(published for SMPL: -0.2)",
            camera_m,
            pelvis_m,
        )


def validation_assets(config: Config, body: BodyModel) -> ProxyAssets:
    """What validation pictures are made of.

    Args:
        config: an experiment.
        body: the body.
    """
    return _assets(config, body, train=False)


def make_assets(config: Config, body: BodyModel) -> ProxyAssets:
    """What training pictures are made of.

    Args:
        config: an experiment.
        body: the body.
    """
    return _assets(config, body, train=True)


def backgrounds_of(section: Config) -> FolderBackgrounds | None:
    """The folder of backgrounds that a section names, or None for procedural ones."""
    if not section.path:
        return None
    return FolderBackgrounds(section.path, stretch=section.stretch)


class TrainBatches(proxy_feed.ProxyFeed):
    """The stream of a run, and what its record says of the data.

    Args:
        config: an experiment.
        assets: of ``make_assets``.
    """

    def __init__(self, config: Config, assets: ProxyAssets):
        order = pose_bank.PoseOrder(
            len(assets.poses_aa),
            config.data.batch_size,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        super().__init__(
            order,
            backgrounds_of(config.data.backgrounds),
            size_px=config.image_size_px,
            seed=config.seed,
        )
        self.num_records = len(assets.poses_aa)
        poses = pose_bank.PoseBank(np.asarray(assets.poses_aa), True, "")
        textures = zlib.crc32(np.asarray(assets.textures.images).tobytes())
        self.fingerprint = (
            f"poses {poses.fingerprint}, textures {textures:08x}, "
            f"backgrounds {config.data.backgrounds.path or 'procedural'}"
        )


def train_batches(config: Config, workdir: Any, assets: ProxyAssets) -> TrainBatches:
    """The endless, resumable stream of training batches of this process.

    Args:
        config: an experiment.
        workdir: unused: nothing lies there.
        assets: of ``make_assets``.
    """
    del workdir
    if config.data.batch_size % jax.device_count():
        raise UserError(
            f"config.data.batch_size: expected a multiple of the {jax.device_count()} "
            f"devices, found {config.data.batch_size}"
        )
    return TrainBatches(config, assets)
