"""Hierarchical probability distributions, trained on rendered pictures alone.

    hmr-jax train --config=configs/hierprob.py --workdir=runs/hierprob

The published schedules: 300 epochs of batches of 72 at a constant rate, the second
stage from epoch 66 on, a validation after each epoch; the best model is replaced when
both PVE-SC and MPJPE-PA are no worse. Nothing needs to be downloaded: without files of
your own the open body, the shipped motion capture, clothes drawn on the body's texture
map and procedural backgrounds are used. With SMPL and the original's files:

    --config=configs/hierprob.py:published --config.body.path=SMPL_NEUTRAL.pkl
    --config.body.h36m_regressor=J_regressor_h36m.npy
    --config.data.uv_path=UV_Processed.mat --config.data.poses.path=smpl_train_poses.npz
    --config.data.textures.path=smpl_train_textures.npz
    --config.data.backgrounds.path=lsun_backgrounds/train
    --config.eval.poses.path=smpl_val_poses.npz
    --config.eval.textures.path=smpl_val_textures.npz
    --config.eval.backgrounds.path=lsun_backgrounds/val

For a gendered model give that gender's body. A GPU is needed for the whole length: see
configs/hierprob_cpu.py for a run that a laptop's CPU can do.
"""

from ml_collections import ConfigDict

from configs import common


def base() -> ConfigDict:
    """The fields of this system, with published values."""
    config = common.shared()
    config.system = "hierprob"
    config.model = ConfigDict(
        {
            "depth": 18,  # of the ResNet: 18 or 50
            "width": 64,
            "hidden": 0,  # 0: 512, or 1024 behind ResNet-50
            "embedding": 256,
            "pose_hidden": 128,
            "num_betas": 10,
            "identity_weight": 1.0,
            # Of the 3x3 decompositions: 'lapack_old' as the published weights expect,
            # 'lapack_new', or 'backend'. A network keeps the one it was trained with.
            "signs": "lapack_old",
            "min_gap": 1e-4,
            "dtype": "float32",  # or bfloat16, for the convolutions
            "sync_batch_norm": True,
            "unbiased": False,
        }
    )
    stage = {"overreg": 1.005, "joints2d_on": "mode", "num_samples": 8}
    config.losses = ConfigDict(
        {
            "normalizer": "accurate",  # or 'published', its biased sum
            "stage1": {
                **stage,
                "weights": {
                    "pose": 80.0,
                    "shape": 50.0,
                    "joints2d": 5000.0,
                    "global_rotmat": 5000.0,
                    "vertices": 0.0,
                    "joints3d": 0.0,
                },
            },
            "stage2": {
                **stage,
                "joints2d_on": "mode+samples",  # or 'samples'
                "weights": {
                    "pose": 10.0,
                    "shape": 80.0,
                    "joints2d": 30000.0,
                    "global_rotmat": 5000.0,
                    "vertices": 5000.0,
                    "joints3d": 5000.0,
                },
            },
        }
    )
    config.optimizer.learning_rate = 1e-4
    config.train.num_epochs = 300
    config.train.evaluate_every_epochs = 1
    # Where the second stage begins: an epoch, or a step where num_steps is given. The
    # optimiser's state is kept.
    config.train.stage2_epoch = 66
    config.train.stage2_step = 0
    poses = {
        # Empty: the shipped motion capture. Else the original's npz ('fnames' and
        # 'poses'), or an AMASS file or folder.
        "path": "",
        "keep": "not_amass",  # of the original's npz: all, amass, or a prefix
        "stride": 1,  # of AMASS's frames
        "limit": 0,  # at most so many of them; 0: all
        "num_limits": 20000,  # of the joint-limit sampler, behind the shipped ones
    }
    textures = {
        "path": "",  # the original's npz ('grey' and 'nongrey'); empty: procedural
        "limit": 0,  # at most so many of each kind; 0: all
        "count": 512,  # of the procedural ones
        "size_px": 256,
        "suit_share": 0.0,
    }
    backgrounds = {
        "path": "",  # a folder of pictures; empty: procedural
        "stretch": True,  # whole pictures without keeping their aspect, as published
        "count": 1024,  # of the procedural ones
        "clutter_share": 0.8,
    }
    config.data = ConfigDict(
        {
            "batch_size": 72,  # over all devices and processes
            "uv_path": "",  # DensePose's UV_Processed.mat, for SMPL
            "poses": dict(poses),
            "textures": dict(textures),
            "backgrounds": dict(backgrounds),
            # Fields of synthetic.proxies.ProxyOptions, and of its parts.
            "synthetic": {
                # The open body's pelvis is its origin; SMPL's lies 0.22 m below.
                "mean_camera_m": (0.0, 0.0, 2.5),
                "shape_std": 1.25,
                "light_per_image": True,
                "normal_seams": False,
                "flip_backgrounds": True,
                "augment": True,
                "augmentation": {},
                "poses": {
                    "root": "upright",
                    "azimuth_range_deg": 180.0,
                    "mirrored_share": 0.5,
                    "mixed_share": 0.25,
                    "jitter_rad": 0.06,
                },
            },
        }
    )
    config.eval = ConfigDict(
        {
            # Rendered validation pictures by default; else a dataset that 'data build'
            # made of ssp_3d or pw3d_hierprob, in the folder data_dir.
            "source": "synthetic",
            "data_dir": "",
            # SMPL files that pose a dataset's gendered labels; empty: the neutral body,
            # with which the numbers are not the published ones.
            "male_body": "",
            "female_body": "",
            "split": "test",
            "batch_size": 64,
            "limit": 0,  # pictures; 0: all
            "num_samples": 8,  # published on datasets: 10
            "seed": 1,
            "poses": {**poses, "keep": "all", "num_limits": 0},
            "textures": {**textures, "count": 64},
            "backgrounds": {**backgrounds, "count": 128},
            # Changes of data.synthetic. As published, validation is augmented too; the
            # held-out frames themselves stay as they are.
            "synthetic": {
                "augment": True,
                "augmentation": {},
                "poses": {
                    "mirrored_share": 0.0,
                    "mixed_share": 0.0,
                    "jitter_rad": 0.0,
                },
            },
            # One metric, or several with '+' between them: better when none is worse.
            "best_metric": "PVE-SC+MPJPE-PA",
            "best_protocol": "synthetic",
        }
    )
    return config


def as_published(config: ConfigDict) -> None:
    """What the original does with its own files and with SMPL."""
    config.losses.normalizer = "published"
    config.model.sync_batch_norm = False
    config.model.unbiased = True
    config.model.min_gap = 0.0
    synthetic = config.data.synthetic
    synthetic.mean_camera_m = (0.0, -0.2, 2.5)
    synthetic.light_per_image = False
    synthetic.normal_seams = True
    synthetic.flip_backgrounds = False
    synthetic.poses = ConfigDict({"root": "camera_right"})


def quicktest(config: ConfigDict) -> None:
    """A run that ends within a minute and shows only that everything works."""
    config.compile_fast = True
    config.image_size_px = 64
    config.model.update({"width": 8, "hidden": 32, "embedding": 16, "pose_hidden": 8})
    config.optimizer.warmup_steps = 0
    config.train.update(
        {
            "num_steps": 4,
            "num_epochs": 0,
            "stage2_step": 2,
            "stage2_epoch": 0,
            "log_every": 1,
            "checkpoint_every": 2,
            "evaluate_every": 0,
            "evaluate_every_epochs": 0,
        }
    )
    config.data.batch_size = 4
    config.data.poses.num_limits = 8
    for section in (config.data, config.eval):
        section.textures.update({"count": 2, "size_px": 32})
        section.backgrounds.count = 2
    config.eval.update({"batch_size": 4, "limit": 8, "num_samples": 2})


def get_config(arg: str | None = None) -> ConfigDict:
    return common.finish(base(), arg, quick=quicktest, published=as_published)
