"""Published files to IKOL's batches: HybrIK's three datasets and MS-COCO together."""

import functools

import numpy as np

from data_pipelines import reading
from data_pipelines.builders import conversion
from data_pipelines.builders.coco import Coco
from data_pipelines.builders.h36m_hybrik import H36mHybrik
from data_pipelines.builders.mpi_inf_3dhp_hybrik import MpiInf3dhpHybrik
from data_pipelines.builders.pw3d_hybrik import Pw3dHybrik
from data_pipelines.transforms.ikol import IkolTransform, ikol_options
from tests.data_pipelines.builders import test_coco
from tests.data_pipelines.builders.test_hybrik import h36m, mpi, pw3d  # noqa: F401

LIMBS = {4, 5, 7, 8, *range(16, 22)}
"""Knees, ankles, shoulders, elbows and wrists (specs/ikol.md, section 14.2)."""


def test_each_dataset_supervises_its_own_joints(h36m, mpi, pw3d, tmp_path):  # noqa: F811
    test_coco.make(tmp_path)
    opened = {
        "h36m": functools.partial(H36mHybrik, str(h36m[0])),
        "coco": functools.partial(Coco, str(tmp_path), people="ikol"),
        "mpi": functools.partial(MpiInf3dhpHybrik, str(mpi[0])),
        "pw3d": functools.partial(Pw3dHybrik, str(pw3d[0])),
    }
    paths = [
        conversion.build(f, tmp_path / "out", progress=False) for f in opened.values()
    ]
    sizes = [len(f().keys("train")) for f in opened.values()]
    assert sizes == [1, 2, 1, 2]
    options = {"train": False, "image_size_px": 32, "keep_outside_2d": True}
    transform = IkolTransform(ikol_options("hybrik", **options))
    batch = next(
        reading.make_dataset(
            paths,
            split="train",
            batch_size=sum(sizes),
            transform=transform,
            num_epochs=1,
            drop_remainder=False,
        )
    )
    source = np.repeat(list(opened), sizes)
    assert batch["image"].shape == (6, 32, 32, 3)
    weight = batch["target_uvd_weight"][..., 0] > 0
    for name, found in zip(source, weight, strict=True):
        joints = set(np.flatnonzero(found))
        allowed = {"coco": LIMBS, "mpi": LIMBS | {0, 12}}.get(name, set(range(24)))
        assert joints <= allowed
    coco = weight[source == "coco"]
    labelled = np.reshape(test_coco.PEOPLE[7]["keypoints"], (17, 3))[:, 2] > 0
    assert labelled.all() and set(np.flatnonzero(coco[1])) == LIMBS
    has_smpl = dict(zip(source, batch["has_smpl"][:, 0], strict=True))
    assert has_smpl == {"h36m": 1, "coco": 0, "mpi": 0, "pw3d": 1}
    joints = batch["joints_cam_m"][source == "mpi"][0]
    np.testing.assert_allclose(joints[0, :3], mpi[1]["train"][4], atol=1e-5)
    np.testing.assert_allclose(joints[12, :3], mpi[1]["train"][5], atol=1e-5)
    np.testing.assert_allclose(joints[20, :3], mpi[1]["train"][11], atol=1e-5)
    twist = batch["target_twist_weight"][..., 0].sum(1)
    assert dict(zip(source, twist, strict=True))["h36m"] == 21
