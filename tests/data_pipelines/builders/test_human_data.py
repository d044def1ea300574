"""mmhuman3d's HumanData files: generic, compressed, and made from HybrIK's."""

import functools

import numpy as np
import pytest

from data_pipelines.builders.human_data import HumanData
from data_pipelines.schema import RecordError
from hmr_jax.body.joint_sets import JOINT_SETS
from tests.data_pipelines.builders.published import build, close, picture, put, read

N = 3


def save(folder, name, content):
    """As the format does: bookkeeping entries, dictionaries as objects."""
    path = folder / "preprocessed_datasets" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {"__key_strict__": False, "__data_len__": N}
    np.savez_compressed(path, **extra, **content)
    return f"preprocessed_datasets/{name}"


def pictures(folder):
    names = [f"clip/image_{i:04d}.png" for i in range(N)]
    for i, name in enumerate(names):
        put(folder / "datasets" / "mine" / name, picture(i, kind="PNG"))
    return names


def test_a_generic_compressed_file(tmp_path):
    rng = np.random.default_rng(0)
    names = pictures(tmp_path)
    kept = np.zeros(190, np.uint8)
    columns = [0, 4, 5, 16, 55, 144, 145]
    kept[columns] = 1
    pixels = rng.uniform(1, 40, (N, 7, 3))
    pixels[..., 2] = 0.8
    pixels[1, 2, 2] = 0
    joints = rng.standard_normal((N, 7, 4))
    joints[..., 3] = 1
    smpl = {
        "global_orient": rng.standard_normal((N, 3)),
        "body_pose": rng.standard_normal((N, 23, 3)),
        "betas": rng.standard_normal((N, 10)),
        "transl": rng.standard_normal((N, 3)),
    }
    boxes = np.array([[1, 2, 30, 40, 1], [3, 4, 20, 20, 1], [0, 0, 0, 9, 1.0]])
    file = save(
        tmp_path,
        "mine.npz",
        {
            "__keypoints_compressed__": True,
            "image_path": names,
            "bbox_xywh": boxes,
            "keypoints2d": pixels,
            "keypoints2d_mask": kept,
            "keypoints2d_convention": "human_data",
            "keypoints3d": joints,
            "keypoints3d_mask": kept,
            "keypoints3d_convention": "human_data",
            "smpl": smpl,
            "meta": {"gender": ["m", "female", "f"]},
            "config": "whatever",
        },
    )
    source = HumanData(str(tmp_path), train=file, images="datasets/mine")
    found = read(source, "train")
    assert list(found) == ["00000000", "00000001"]
    assert source.dropped == {("train", "box without width or height"): 1}
    places = {"pelvis": 0, "left_knee": 1, "right_knee": 2, "left_shoulder": 3}
    for number, record in enumerate(found.values()):
        for name, column in places.items():
            j = JOINT_SETS["smpl_29"].index(name)
            close(record["keypoints_px"][j], pixels[number, column])
            close(record["joints_cam_m"][j], joints[number, column])
        assert record["joints_cam_m"][:, 3].sum() == 4
        assert record["has_root"] == 0 and record["has_camera"] == 0
        close(record["bbox_xywh_px"], boxes[number, :4])
        close(record["pose_aa"][0], smpl["global_orient"][number])
        close(record["pose_aa"][1:], smpl["body_pose"][number])
        close(record["translation_m"], smpl["transl"][number])
        assert record["frame_id"] == number and record["sequence_id"] == "clip"
    assert [r["gender"] for r in found.values()] == ["male", "female"]


def test_conventions_by_name(tmp_path):
    names = pictures(tmp_path)
    pixels = np.random.default_rng(1).uniform(1, 40, (N, 17, 3))
    content = {
        "image_path": names,
        "bbox_xywh": np.array([[1.0, 2, 30, 40]] * N),
        "keypoints2d": pixels,
        "keypoints2d_convention": "coco",
    }
    options = {"images": "datasets/mine", "joint_set": "mpii_16"}
    file = save(tmp_path, "coco.npz", content)
    record = read(HumanData(str(tmp_path), test=file, **options), "test")["00000001"]
    order = JOINT_SETS["mpii_16"]
    close(record["keypoints_px"][order.index("right_ankle")], pixels[1, 16])
    close(record["keypoints_px"][order.index("left_hip_extra")], pixels[1, 11])
    close(record["keypoints_px"][order.index("headtop")], 0)
    assert record["has_smpl"] == record["has_joints_3d"] == 0
    file = save(tmp_path, "odd.npz", content | {"keypoints2d_convention": "gta"})
    with pytest.raises(RecordError, match=r"odd.npz: keypoint convention.*found gta"):
        read(HumanData(str(tmp_path), test=file, **options), "test")
    file = save(tmp_path, "few.npz", content | {"keypoints2d": pixels[:, :16]})
    with pytest.raises(RecordError, match=r"few.npz.*17 of them, found 16"):
        read(HumanData(str(tmp_path), test=file, **options), "test")


SMPL_COLUMNS = [*range(15), 22, *range(16, 22), 66, 71, 15, 68, 73, 60, 63]
H36M_COLUMNS = [148, 145, 4, 7, 144, 5, 8, 150, 146, 152, 147, 16, 18, 20, 17, 19, 21]


def hybrik(names, factor, rng):
    """What the converters of HybrIK's annotations write."""
    image, cam, mocap = (np.zeros((N, 190, 4)) for _ in range(3))
    image[:, SMPL_COLUMNS] = rng.uniform(1, 40, (N, 29, 4))
    cam[:, SMPL_COLUMNS] = rng.uniform(1, 40, (N, 29, 4))
    mocap[:, H36M_COLUMNS] = rng.uniform(1, 40, (N, 17, 4))
    image[1, 5, 3] = cam[1, 5, 3] = 0
    weight = np.ones((N, 23, 2))
    weight[:, 4] = 0
    return {
        "image_path": names,
        "image_height": np.full(N, 48),
        "image_width": np.full(N, 64),
        "bbox_xywh": np.array([[1.0, 2, 30, 40, 1]] * N),
        "depth_factor": np.full(N, factor),
        "cam_param": {"f": np.full((N, 2), 1145.0), "c": np.full((N, 2), 512.0)},
        "root_cam": rng.standard_normal((N, 3)),
        "keypoints3d": image,
        "keypoints3d_cam": cam,
        "keypoints3d17_cam": mocap,
        "keypoints3d_mask": np.ones(190, np.uint8),
        "smpl": {
            "thetas": rng.standard_normal((N, 24, 3)),
            "betas": rng.random((N, 10)),
        },
        "phi": rng.standard_normal((N, 23, 2)),
        "phi_weight": weight,
    }


@pytest.mark.parametrize(("factor", "unit"), [(2000, 1e-3), (2, 1.0)])
def test_files_made_from_hybrik(tmp_path, factor, unit):
    content = hybrik(pictures(tmp_path), factor, np.random.default_rng(2))
    file = save(tmp_path, "hybrik_h36m_train.npz", content)
    source = HumanData(str(tmp_path), train=file, images="datasets/mine")
    for number, record in enumerate(read(source, "train").values()):
        cam = content["keypoints3d_cam"][number][SMPL_COLUMNS]
        valid = cam[:, 3] > 0
        close(record["joints_cam_m"][:, :3], cam[:, :3] * unit * valid[:, None])
        np.testing.assert_array_equal(record["joints_cam_m"][:, 3], valid)
        image = content["keypoints3d"][number][SMPL_COLUMNS]
        close(record["keypoints_px"][:, :2], image[:, :2] * valid[:, None])
        mocap = content["keypoints3d17_cam"][number][H36M_COLUMNS]
        close(record["joints_h36m_cam_m"][:, :3], mocap[:, :3] * unit)
        close(record["bbox_xywh_px"], [1, 2, 30, 39])  # corners, both included
        close(record["intrinsics"][[0, 1], 2], 512)
        close(record["pose_aa"], content["smpl"]["thetas"][number])
        close(record["betas"], content["smpl"]["betas"][number])
        weight = content["phi_weight"][number]
        close(record["twist_cos_sin"], content["phi"][number] * weight)
        close(record["twist_weight"], weight[:, 0])
        assert record["translation_known"] == 0 and record["has_root"] == 1


def test_hybrik_coco_holds_its_keypoints_as_2d(tmp_path):
    """COCO's file has neither fits nor joints; its columns are the convention's."""
    content = hybrik(pictures(tmp_path), 2, np.random.default_rng(3))
    image = content["keypoints3d"]
    content = {k: content[k] for k in ("image_path", "bbox_xywh", "depth_factor")}
    pixels = np.random.default_rng(4).uniform(1, 40, (N, 190, 3))
    pixels[1, 5, 2] = 0
    file = save(tmp_path, "hybrik_coco_2017_train.npz", content)
    source = HumanData(str(tmp_path), train=file, images="datasets/mine")
    assert all(r["has_keypoints"] == 0 for r in read(source, "train").values())
    file = save(tmp_path, file.rpartition("/")[2], content | {"keypoints2d": pixels})
    source = HumanData(str(tmp_path), train=file, images="datasets/mine")
    knee, wrist = (JOINT_SETS["smpl_29"].index(n) for n in ("left_knee", "left_wrist"))
    for number, record in enumerate(read(source, "train").values()):
        assert record["has_keypoints"] == 1 and record["has_joints_3d"] == 0
        close(record["keypoints_px"][knee], pixels[number, 4])
        close(record["keypoints_px"][wrist], pixels[number, 20])
    right = JOINT_SETS["smpl_29"].index("right_knee")
    found = read(source, "train")["00000001"]["keypoints_px"]
    close(found[right], 0)
    both = content | {"keypoints2d": pixels, "keypoints3d": image}
    file = save(tmp_path, "both.npz", both)
    source = HumanData(str(tmp_path), train=file, images="datasets/mine")
    close(read(source, "train")["00000000"]["keypoints_px"][knee, :2], image[0, 4, :2])


@pytest.mark.parametrize(
    ("convention", "joint_set", "places"),
    [
        ("h36m_mmpose", "h36m_right_first_17", {"right_knee": 2, "left_wrist": 13}),
        ("penn_action", "penn_action_13", {"left_shoulder": 1, "right_ankle": 12}),
        ("instavariety", "insta_variety_25", {"op_nose": 14, "op_right_ankle": 24}),
    ],
)
def test_conventions_of_videos(tmp_path, convention, joint_set, places):
    order = JOINT_SETS[joint_set]
    number = len(order.joints)
    pixels = np.random.default_rng(5).uniform(1, 40, (N, number, 3))
    content = {
        "image_path": pictures(tmp_path),
        "bbox_xywh": np.array([[1.0, 2, 30, 40]] * N),
        "keypoints2d": pixels,
        "keypoints2d_convention": convention,
    }
    file = save(tmp_path, "video.npz", content)
    options = {"images": "datasets/mine", "joint_set": joint_set}
    found = read(HumanData(str(tmp_path), test=file, **options), "test")["00000002"]
    close(found["keypoints_px"], pixels[2])
    assert {name: order.index(name) for name in places} == places


def test_the_records_on_disk(tmp_path):
    content = hybrik(pictures(tmp_path), 2, np.random.default_rng(2))
    file = save(tmp_path, "hybrik_pw3d_test.npz", content)
    options = {"test": file, "images": "datasets/mine"}
    factory = functools.partial(HumanData, str(tmp_path), **options)
    assert build(factory, tmp_path / "out").manifest["joint_set"] == "smpl_29"


def test_wrong_files(tmp_path):
    with pytest.raises(ValueError, match="human_data: expected a file"):
        HumanData(str(tmp_path))
    content = {"image_path": pictures(tmp_path), "bbox_xywh": np.ones((N - 1, 5))}
    file = save(tmp_path, "short.npz", content)
    with pytest.raises(RecordError, match=r"short.npz: bbox_xywh: expected 3 rows"):
        HumanData(str(tmp_path), train=file).keys("train")
