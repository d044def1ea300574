"""What the experiments of IKOL share."""

from ml_collections import ConfigDict

from configs import common


def base() -> ConfigDict:
    """The fields of this system; defaults stand for 'as it is best run today'."""
    config = common.shared()
    config.system = "ikol"
    config.depth_range_m = 2.0  # covered by the heat maps

    config.model = ConfigDict(
        {
            "depth": 34,  # of the ResNet: 18, 34, 50 or 101
            "width": 64,  # channels of its stem
            "depth_bins": 64,  # depth slices of a heat map
            "deconv_channels": (256, 256, 256),
            "hidden": 1024,
            "dropout_rate": 0.5,
            # Not in the paper: finer features of the ResNet also reach the heat maps.
            "skip_connections": False,
            "mean_betas": (),  # empty: zeros
            "dtype": "float32",  # or bfloat16, for the convolutions
            "sync_batch_norm": True,  # over devices
            "freeze_batch_norm": False,
            "unbiased": False,  # running variances as PyTorch's
        }
    )
    # 'newton' converges; 'published' is the paper's five damped steps; also
    # 'hybrik_naive' and 'hybrik_adaptive'. gradient_bound: how much one sample's
    # gradient may grow through the layer, per metre (0: without bound). The heat maps
    # of an untrained network put all joints in a heap, where it was seen to reach 1e7.
    config.ik = ConfigDict({"scheme": "newton", "gradient_bound": 30.0})
    config.losses = ConfigDict(
        {
            "align_quaternion_signs": True,
            "weights": {
                "beta": 1.0,
                "twist": 0.01,
                "uvd": 1.0,
                "theta": 0.01,
                "rotmat": 0.0,
                "joints": 0.0,
                "heatmap": 0.0,
            },
        }
    )
    common.add_records(config)
    # 'hybrik' or 'mm', whose augmentation is used; 'options' replaces fields of
    # data_pipelines.transforms.ikol.IkolOptions.
    config.data.loader = "hybrik"
    config.eval.protocols = ("pw3d_14", "smpl_24", "pve")
    config.eval.best_protocol = "pw3d_14"
    config.eval.flip_test = False
    return config


def as_published(config: ConfigDict) -> None:
    """The paper's layer and losses, and the original loaders' labels."""
    config.ik.scheme = "published"
    config.ik.gradient_bound = 0.0
    config.losses.align_quaternion_signs = False
    config.data.published_labels = True
    config.model.sync_batch_norm = False
    config.model.unbiased = True


def quicktest(config: ConfigDict) -> None:
    """A run that ends within a minute and shows only that everything works."""
    config.compile_fast = True
    config.image_size_px = 64
    config.model.depth = 18
    config.model.width = 8
    config.model.depth_bins = 8
    config.model.deconv_channels = (8, 8, 8)
    config.model.hidden = 16
    config.optimizer.warmup_steps = 0
    config.train.num_steps = 4
    config.train.log_every = 2
    config.train.checkpoint_every = 2
    config.train.evaluate_every = 0
    config.data.batch_size = 4
    config.data.synthetic.train_count = 8
    config.data.synthetic.test_count = 4
    config.data.synthetic.size_px = 64
    config.eval.batch_size = 4
    config.eval.limit = 4


def finish(config: ConfigDict, arg: str | None) -> ConfigDict:
    """``common.finish`` for this system."""
    return common.finish(config, arg, quick=quicktest, published=as_published)
