"""I2L-MeshNet, second stage, right hands: MANO's parameters.

Paper: I2L-MeshNet (ECCV 2020, arXiv 2008.03713); its authors say that they never
trained this stage for hands, and nothing is published.

    hmr-jax train --config=configs/i2l_freihand_param.py --workdir=runs/i2l_hand_param \
        --config.start.workdir=runs/i2l_hand --config.data.dir=DATA \
        --config.body.path=MANO_RIGHT.pkl

As the original's files would run it: 5 epochs, the first at 1e-5 and the others at
1e-6, and joints in millimetres, which is a weight of 1000 here.
"""

from ml_collections import ConfigDict

from configs import i2l_freihand_lixel, i2l_lixel, i2l_param


def get_config(arg: str | None = None) -> ConfigDict:
    config = i2l_freihand_lixel.base()
    i2l_param.second_stage(config)
    config.train.num_epochs = 5
    config.optimizer.learning_rate = 1e-5
    config.optimizer.boundary_epochs = (1,)
    config.losses.weights.param.joint_orig_cam = 1000.0
    config.losses.weights.param.joint_fit_cam = 1000.0
    return i2l_lixel.finish(config, arg)
