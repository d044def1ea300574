"""IKOL, first phase: ResNet-34 from ImageNet on four data sets, the 'mm' loader.

Paper: IKOL: Inverse kinematics optimization layer for 3D human pose and shape
estimation via Gauss-Newton differentiation (AAAI 2023, arXiv 2302.01058).

    hmr-jax data build h36m --option=layout=hybrik --raw=RAW/h36m --out=DATA
    hmr-jax data build mpi_inf_3dhp --option=layout=hybrik --raw=RAW/3dhp --out=DATA
    hmr-jax data build coco --raw=RAW/coco --out=DATA --option=people=ikol
    hmr-jax data build pw3d --option=layout=hybrik --raw=RAW/3dpw --out=DATA
    hmr-jax train --config=configs/ikol_pretrain.py --workdir=runs/ikol_pretrain \
        --config.data.dir=DATA --config.body.path=SMPL_NEUTRAL.pkl \
        --config.body.h36m_regressor=J_regressor_h36m.npy \
        --config.start.backbone=resnet34.pth

Every number is the original's configuration IKOL_resnet34_mmloader: Adam at 1e-3, a
tenth of it from epoch 50 and again from 120, 399 epochs of the largest data set's
length, batches of 24 on one GPU, mixture .3 Human3.6M, .1 MPI-INF-3DHP, .4 COCO, .2
3DPW. What is expected: the input of ``configs/ikol_finetune.py``. The repository holds
no table of results and we quote none.

Differences from the original, all of them undone by ``:published`` after the file name:
the layer converges (``ik.scheme='newton'``), target quaternions are compared up to
sign, labels and normalisation are right where its loader's are not, and batch
normalisation counts all devices.
"""

from ml_collections import ConfigDict

from configs import ikol


def get_config(arg: str | None = None) -> ConfigDict:
    config = ikol.base()
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "multistep"
    config.optimizer.boundary_epochs = (50, 120)
    config.optimizer.factor = 0.1
    config.train.num_epochs = 399
    config.data.batch_size = 24
    config.data.loader = "mm"
    config.data.sources = ConfigDict(
        {
            "h36m_hybrik": 0.3,
            "mpi_inf_3dhp_hybrik": 0.1,
            "coco": 0.4,
            "pw3d_hybrik": 0.2,
        }
    )
    config.train.evaluate_every = 5000
    config.eval.source = "pw3d_hybrik"
    config.eval.split = "test"
    config.eval.flip_test = True
    return ikol.finish(config, arg)
