"""I2L-MeshNet, first stage, right hands: FreiHAND.

Paper: I2L-MeshNet (ECCV 2020, arXiv 2008.03713).

    hmr-jax data build freihand --option=layout=i2l --option=rootnet=True \
        --raw=RAW/FreiHAND --out=DATA
    hmr-jax train --config=configs/i2l_freihand_lixel.py --workdir=runs/i2l_hand \
        --config.data.dir=DATA --config.body.path=MANO_RIGHT.pkl \
        --config.start.backbone=resnet50.pth

Every number is the original's: Adam at 1e-4, a tenth of it from epoch 17 and again from
21, 25 epochs. Published: 7.4 mm PA-MPJPE, 7.6 mm PA-MPVPE; reruns by others 7.7 to 7.8.
FreiHAND's test labels are not in its files, so nothing is scored while this trains;
name a dataset of labelled hands with --config.eval.source.

Difference from the original, undone by ``:published``: batch normalisation counts all
devices.
"""

from ml_collections import ConfigDict

from configs import i2l_lixel


def get_config(arg: str | None = None) -> ConfigDict:
    config = base()
    config.train.num_epochs = 25
    config.optimizer.boundary_epochs = (17, 21)
    return i2l_lixel.finish(config, arg)


def base() -> ConfigDict:
    """Fields of both stages, with the values of hands."""
    config = i2l_lixel.base()
    config.hand = True
    config.depth_range_m = 0.3
    # The dataset's own joints are those of the fit: there are no others.
    config.losses.weights.lixel.joint_orig = 0.0
    config.losses.weights.lixel.mesh_joint_orig = 0.0
    config.data.sources = ConfigDict({"freihand": 1.0})
    config.eval.source = ""
    config.eval.protocols = ("mano_21", "pve_hand")
    config.eval.best_protocol = "mano_21"
    return config
