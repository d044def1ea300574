"""A short training of hierarchical probability distributions on a CPU.

    hmr-jax train --config=configs/hierprob_cpu.py --workdir=runs/hierprob
    hmr-jax eval --workdir=runs/hierprob --baselines

Smaller pictures and a narrower network than published, a faster rate that falls, and
the second stage after two thirds of the steps; data, losses and augmentation are the
published ones on the open body. For a night instead of an hour:
``--config.train.num_steps=40000 --config.train.stage2_step=26000``.
"""

from ml_collections import ConfigDict

from configs import common, hierprob


def get_config(arg: str | None = None) -> ConfigDict:
    config = hierprob.base()
    config.image_size_px = 96
    config.model.width = 32
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 100
    config.train.update(
        {
            "num_epochs": 0,
            "num_steps": 2400,
            "stage2_epoch": 0,
            "stage2_step": 1600,
            "checkpoint_every": 200,
            "evaluate_every": 400,
        }
    )
    config.data.batch_size = 32
    # Validation on frames of held-out motions, cropped well and in full view.
    config.eval.limit = 256
    config.eval.synthetic.augment = False
    return common.finish(
        config, arg, quick=hierprob.quicktest, published=hierprob.as_published
    )
