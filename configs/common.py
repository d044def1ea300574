"""Fields of experiments, with their meaning and default; arithmetic only.

A config file gives ``get_config(arg)``. It starts from ``base()``, changes fields, and
ends with ``finish(config, arg)``, which applies the words of ``--config=FILE:words``
and locks the fields: a mistyped name is then an error.
"""

from collections.abc import Callable

from ml_collections import ConfigDict


def shared() -> ConfigDict:
    """The fields of every system."""
    config = ConfigDict()
    config.system = ""
    config.seed = 23333
    # Side of the square crop, a multiple of 32.
    config.image_size_px = 256
    config.resume_with_other_data = False
    # Programs with few optimisations: for trial runs, most of which is compiling.
    config.compile_fast = False

    # Empty path: the open body that comes with the package. Else an SMPL .pkl or .npz,
    # or a folder of the published files, of which gender chooses one, with the .npy of
    # the regressor of the 17 Human3.6M joints.
    config.body = ConfigDict({"path": "", "gender": "neutral", "h36m_regressor": ""})

    # What training starts from: an ImageNet backbone (torchvision's file), parameters
    # written by export or convert, or another run's folder. At most one.
    config.start = ConfigDict({"backbone": "", "params": "", "workdir": ""})

    config.optimizer = ConfigDict(
        {
            "name": "adam",
            "learning_rate": 1e-3,
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
            "momentum": 0.0,
            "weight_decay": 0.0,
            "clip_global_norm": 0.0,  # 0: no clipping
            "schedule": "constant",  # constant, multistep or cosine
            "warmup_steps": 0,
            "boundary_steps": (),
            "boundary_epochs": (),
            "factor": 0.1,
            "final_fraction": 0.0,
        }
    )
    config.train = ConfigDict(
        {
            "num_steps": 0,  # 0: num_epochs decides
            "num_epochs": 0,  # one epoch is as long as the largest source
            "accumulate": 1,
            "log_every": 20,
            "checkpoint_every": 1000,
            "evaluate_every": 0,  # steps; 0: evaluate_every_epochs decides
            "evaluate_every_epochs": 0,  # 0: at the end alone
            "keep_latest": 2,
        }
    )
    return config


def base() -> ConfigDict:
    """IKOL's fields; defaults stand for 'as the method is best run today'."""
    config = shared()
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
    config.data = ConfigDict(
        {
            "dir": "",  # empty: the folder 'data' of the workdir
            "batch_size": 64,  # over all devices and processes
            "split": "train",
            # Name of the dataset (a folder of 'dir') -> its share of the samples.
            "sources": {},
            # 'hybrik' or 'mm', whose augmentation is used; options replaces fields of
            # data_pipelines.transforms.ikol.IkolOptions.
            "loader": "hybrik",
            "published_labels": False,  # keep the original loaders' errors
            "options": {},
            "num_threads": 0,  # 0: as many as there are cores
            # What 'data build synthetic' makes.
            "synthetic": {
                "train_count": 0,
                "test_count": 0,
                "size_px": 256,
                "seed": 1,
                # Arguments of synthetic.sampler.SampleSource; clutter_share.
                "options": {},
            },
        }
    )
    config.eval = ConfigDict(
        {
            "source": "",
            "split": "test",
            "batch_size": 64,
            "limit": 0,  # 0: all samples
            "protocols": ("pw3d_14", "smpl_24", "pve"),
            # The best checkpoint is kept by this protocol's metric.
            "best_protocol": "pw3d_14",
            "best_metric": "PA-MPJPE",
            "flip_test": False,
        }
    )
    return config


WORDS = ("quicktest", "published")


def finish(
    config: ConfigDict,
    arg: str | None,
    *,
    quick: Callable[[ConfigDict], None] | None = None,
    published: Callable[[ConfigDict], None] | None = None,
) -> ConfigDict:
    """Apply the words after ``--config=FILE:`` and lock the fields.

    Args:
        config: an experiment.
        arg: words joined by commas: 'quicktest' shrinks the run to a few small steps;
            'published' keeps what the original gets wrong (layer, labels, crops).
        quick: does what 'quicktest' asks for; IKOL's by default.
        published: does what 'published' asks for; IKOL's by default.

    Returns:
        The config, locked.

    Raises:
        ValueError: an unknown word.
    """
    words = [word for word in (arg or "").split(",") if word]
    for word in words:
        if word not in WORDS:
            raise ValueError(f"config word {word!r}: expected one of {WORDS}")
    if "published" in words:
        (published or as_published)(config)
    if "quicktest" in words:
        (quick or quicktest)(config)
    return config.lock()


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
