"""The first run: IKOL on rendered people of the open body, on a laptop's CPU.

    hmr-jax data build synthetic --config=configs/quickstart.py \
        --out=runs/quickstart/data
    hmr-jax train --config=configs/quickstart.py --workdir=runs/quickstart
    hmr-jax eval --config=configs/quickstart.py --workdir=runs/quickstart --baselines

or all of it, export included: ``make quickstart``. Poses come from motion capture; the
evaluation is on clips that training never saw. Expect about 13 minutes of training on
two cores and a falling loss; the README has the table it printed.

A network that learns from scratch in minutes needs help that the published recipe does
without: skip connections from the ResNet to the heat maps, a loss on the heat maps
themselves, and an easy world (below).
"""

from ml_collections import ConfigDict

from configs import ikol


def get_config(arg: str | None = None) -> ConfigDict:
    config = ikol.base()
    config.image_size_px = 96
    config.model.update(
        {
            "depth": 18,
            "width": 32,
            "depth_bins": 24,
            "deconv_channels": (64, 64, 64),
            "hidden": 256,
            "dropout_rate": 0.1,
            "skip_connections": True,
        }
    )
    config.losses.weights.theta = 0.05
    config.losses.weights.twist = 0.1
    config.losses.weights.heatmap = 1.0
    config.optimizer.learning_rate = 2e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.clip_global_norm = 10.0
    config.train.num_steps = 2400
    config.train.checkpoint_every = 600
    config.train.evaluate_every = 600  # with a first picture of what is predicted
    config.data.batch_size = 16
    config.data.sources = ConfigDict({"synthetic": 1.0})
    # No mirror images of pictures: the suit's colours tell left from right. The poses
    # themselves are mirrored when the records are made.
    config.data.options = ConfigDict(
        {
            "occlusion": 0.0,
            "rotation_probability": 0.0,
            "flip": 0.0,
            "scale_deviation": 0.1,
            "colour": 0.1,
        }
    )
    config.data.synthetic.train_count = 6000
    config.data.synthetic.test_count = 512
    config.data.synthetic.size_px = 128
    # An easy world for a short training: people in a suit with a colour for each part,
    # lit by a lamp at the camera whose light fades with the distance, who face the
    # camera more or less, in full view, before backgrounds without clutter. Shapes and
    # poses stay as hard as they are.
    config.data.synthetic.options = ConfigDict(
        {
            "azimuth_range_deg": 60.0,
            "truncated_share": 0.0,
            "clutter_share": 0.0,
            "limits_share": 0.2,
            "mixed_share": 0.4,
            "suit_share": 1.0,
            "flash_share": 1.0,
            "field_of_view_deg": (45.0, 70.0),
        }
    )
    config.eval.source = "synthetic"
    return ikol.finish(config, arg)
