"""IKOL, second phase: the pretrained ResNet-34 on the 'hybrik' loader with box jitter.

Paper: IKOL: Inverse kinematics optimization layer for 3D human pose and shape
estimation via Gauss-Newton differentiation (AAAI 2023, arXiv 2302.01058).

    hmr-jax train --config=configs/ikol_finetune.py --workdir=runs/ikol_finetune \
        --config.data.dir=DATA --config.body.path=SMPL_NEUTRAL.pkl \
        --config.body.h36m_regressor=J_regressor_h36m.npy \
        --config.start.workdir=runs/ikol_pretrain

The data sets are those of ``configs/ikol_pretrain.py``, whose first lines build them.
Every number is the original's configuration IKOL_resnet34_hybrikloader_finetune: Adam
at 1e-4, a tenth of it from epoch 50 and again from 120, 199 epochs of the largest data
set's length, batches of 64 on one GPU, mixture .3 Human3.6M, .15 COCO, .4 MPI-INF-3DHP,
.15 3DPW (the two in the middle look swapped against the first phase; as configured).
What is expected: the paper's model. The repository holds no table of results and we
quote none.

Differences from the original: as in ``configs/ikol_pretrain.py``; ``:published`` undoes
them.
"""

from ml_collections import ConfigDict

from configs import ikol


def get_config(arg: str | None = None) -> ConfigDict:
    config = ikol.base()
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "multistep"
    config.optimizer.boundary_epochs = (50, 120)
    config.optimizer.factor = 0.1
    config.train.num_epochs = 199
    config.data.batch_size = 64
    config.data.loader = "hybrik"
    config.data.options = ConfigDict({"box_jitter": 1.0})
    config.data.sources = ConfigDict(
        {
            "h36m_hybrik": 0.3,
            "coco": 0.15,
            "mpi_inf_3dhp_hybrik": 0.4,
            "pw3d_hybrik": 0.15,
        }
    )
    config.train.evaluate_every = 2000
    config.eval.source = "pw3d_hybrik"
    config.eval.split = "test"
    config.eval.flip_test = True
    return ikol.finish(config, arg)
