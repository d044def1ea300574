"""I2L-MeshNet, second stage, bodies: SMPL's parameters from the joints of the mesh.

Paper: I2L-MeshNet (ECCV 2020, arXiv 2008.03713).

    hmr-jax train --config=configs/i2l_param.py --workdir=runs/i2l_param \
        --config.start.workdir=runs/i2l_lixel --config.data.dir=DATA \
        --config.body.path=SMPL_NEUTRAL.pkl \
        --config.body.h36m_regressor=J_regressor_h36m_correct.npy \
        --config.body.coco_regressor=J_regressor_coco_hip_smpl.npy

The data sets are those of ``configs/i2l_lixel.py``, whose run (or a converted snapshot,
by --config.start.params) this one begins with: strictly, but for the new head. Every
number is the original's: 5 epochs (10 of ours) at 1e-4, a tenth of it from the third
and again from the fifth; Adam begins anew. Published on 3DPW: 100.0 mm MPJPE, 60.0 mm
PA-MPJPE of the parameters' body.

Differences from the original, undone by ``:published`` after the file name: those of
the first stage, and the rest of the network really stands still, statistics included.
"""

from ml_collections import ConfigDict

from configs import i2l_lixel


def get_config(arg: str | None = None) -> ConfigDict:
    config = i2l_lixel.base()
    second_stage(config)
    config.train.num_epochs = 10
    config.train.evaluate_every_epochs = 2
    config.optimizer.boundary_epochs = (4, 8)
    return i2l_lixel.finish(config, arg)


def second_stage(config: ConfigDict) -> None:
    """What the second stage of bodies and hands has in common."""
    config.train.stage = "param"
    config.start.dont_load = r"param_regressor\..*"
    config.eval.best_protocol = f"{config.eval.best_protocol}_param"
