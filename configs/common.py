"""Fields of experiments, with their meaning and default; arithmetic only.

A config file gives ``get_config(arg)``. It starts from a system's ``base()`` and ends
with ``finish(config, arg, ...)``, which applies the words of ``--config=FILE:words``
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
    # written by export or convert, or another run's folder. At most one. Variables
    # whose dotted names match dont_load stay as they are initially (a new head, say).
    config.start = ConfigDict(
        {"backbone": "", "params": "", "workdir": "", "dont_load": ""}
    )

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


def add_records(config: ConfigDict) -> None:
    """The fields of systems that learn from datasets of records."""
    config.data = ConfigDict(
        {
            "dir": "",  # empty: the folder 'data' of the workdir
            "batch_size": 64,  # over all devices and processes
            "split": "train",
            # Name of the dataset (a folder of 'dir') -> its share of the samples.
            "sources": {},
            "published_labels": False,  # keep the original loaders' errors
            "options": {},  # replaces fields of the transform's options
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
            "protocols": (),
            # The best checkpoint is kept by this protocol's metric.
            "best_protocol": "",
            "best_metric": "PA-MPJPE",
        }
    )


WORDS = ("quicktest", "published")


def finish(
    config: ConfigDict,
    arg: str | None,
    *,
    quick: Callable[[ConfigDict], None],
    published: Callable[[ConfigDict], None],
) -> ConfigDict:
    """Apply the words after ``--config=FILE:`` and lock the fields.

    Args:
        config: an experiment.
        arg: words joined by commas: 'quicktest' shrinks the run to a few small steps;
            'published' keeps what the original does differently.
        quick: does what 'quicktest' asks for.
        published: does what 'published' asks for.

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
        published(config)
    if "quicktest" in words:
        quick(config)
    return config.lock()
