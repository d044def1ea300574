"""HybrIK's annotations of Human3.6M, 3DPW and MPI-INF-3DHP."""

import functools
import json

import numpy as np
import pytest

from data_pipelines.builders.h36m_hybrik import H36mHybrik
from data_pipelines.builders.mpi_inf_3dhp_hybrik import MpiInf3dhpHybrik
from data_pipelines.builders.pw3d_hybrik import Pw3dHybrik
from data_pipelines.schema import RecordError
from hmr_jax.body.joint_sets import JOINT_SETS
from tests.data_pipelines.builders.published import (
    build,
    close,
    picture,
    pixels,
    put,
    read,
    rodrigues,
)

SIZE = {"width": 64, "height": 48}
FOCAL, CENTRE = (1145.0, 1143.0), (512.0, 515.0)
R, T_MM = rodrigues([0.2, 1.0, 0.1]), np.array([1.0, 2.0, 3000.0])


def twist(rng):
    """Angles of which bones 3 and 20 are not known."""
    angle = rng.uniform(-3, 3, 23)
    values = {"angle": angle, "cos": np.cos(angle), "sin": np.sin(angle)}
    for value in values.values():
        value[[3, 20]] = -999
    return values


def check_twist(record, labels):
    known = np.ones(23)
    known[[3, 20]] = 0
    close(record["twist_weight"], known)
    expected = np.stack([labels["cos"], labels["sin"]], 1) * known[:, None]
    close(record["twist_cos_sin"], expected)


def h36m_item(rng, name, leaves):
    """An image and an annotation; joints before the camera, millimetres."""
    image = {
        "file_name": f"{name[:-7]}/{name}.jpg",
        **SIZE,
        "cam_param": {"R": R, "t": T_MM, "f": FOCAL, "c": CENTRE},
        "frame_idx": int(name[-6:]) - 1,
    }
    number = 29 if leaves else 24
    annotation = {
        "image_id": 0,
        "bbox": [2.0, 3.0, 20.0, 30.0],
        "h36m_joints": 200 * rng.standard_normal((17, 3)) + [0, 0, 4000],
        "smpl_joints": 200 * rng.standard_normal((number, 3)) + [0, 0, 4000],
        "betas": rng.standard_normal(10),
        "thetas": rng.standard_normal(72),
        "root_coord": rng.standard_normal(3) + [0, 0, 4000],
    }
    return image, annotation | ({"angle_twist": twist(rng)} if leaves else {})


@pytest.fixture
def h36m(tmp_path):
    rng = np.random.default_rng(1)
    names = {
        "train": ["s_01_act_02_subact_01_ca_01_000001"],
        "test": [
            "s_09_act_05_subact_02_ca_03_000021",
            "s_11_act_02_subact_01_ca_01_000041",
        ],
    }
    files = {
        "train": "Sample_5_train_Human36M_smpl_leaf_twist_protocol_2.json",
        "test": "Sample_20_test_Human36M_smpl_protocol_2.json",
    }
    items = {}
    for split, wanted in names.items():
        items[split] = [h36m_item(rng, name, split == "train") for name in wanted]
        images, annotations = zip(*items[split], strict=True)
        content = {"images": images, "annotations": annotations}
        put(tmp_path / "annotations" / files[split], content)
        for image in images:
            put(tmp_path / "images" / image["file_name"], picture(1))
    return tmp_path, items


def test_h36m_training_labels(h36m):
    folder, items = h36m
    record = list(read(H36mHybrik(str(folder)), "train").values())[0]
    _, label = items["train"][0]
    joints = label["smpl_joints"] / 1000
    close(record["joints_cam_m"], np.c_[joints, np.ones(29)])
    close(record["keypoints_px"][:, :2], pixels(joints, FOCAL, CENTRE), 1e-2)
    close(record["joints_h36m_cam_m"][:, :3], label["h36m_joints"] / 1000)
    close(record["pose_aa"].ravel(), label["thetas"])
    close(record["betas"], label["betas"])
    close(record["root_cam_m"], label["root_coord"] / 1000)
    close(record["extrinsics"][:3], np.c_[R, T_MM / 1000])
    close(record["bbox_xywh_px"], label["bbox"])
    check_twist(record, label["angle_twist"])
    assert record["sequence_id"] == "s_01_act_02_subact_01_ca_01"
    assert record["frame_id"] == 0 and record["translation_known"] == 0


def test_h36m_test_part_has_24_joints_and_blocked_sequences(h36m):
    folder, items = h36m
    source = H36mHybrik(str(folder))
    found = list(read(source, "test").values())
    assert source.dropped == {("test", "blocked sequence"): 1}
    (record,) = found
    label = items["test"][1][1]
    close(record["joints_cam_m"][:24, :3], label["smpl_joints"] / 1000)
    assert not record["joints_cam_m"][24:].any()
    assert not record["keypoints_px"][24:].any()
    assert record["has_twist"] == 0 and record["frame_id"] == 40
    assert len(H36mHybrik(str(folder), blocked=True).keys("test")) == 2


def test_h36m_translation_with_the_body(h36m, body_arrays):
    folder, items = h36m
    np.savez(folder / "smpl.npz", **body_arrays)
    source = H36mHybrik(str(folder), smpl_model=str(folder / "smpl.npz"))
    (record,) = read(source, "train").values()
    label = items["train"][0][1]
    shaped = body_arrays["v_template"] + body_arrays["shapedirs"] @ label["betas"]
    root = body_arrays["J_regressor"][0] @ shaped
    close(root + record["translation_m"], label["smpl_joints"][0] / 1000)
    assert record["translation_known"] == 1


def test_h36m_on_disk_and_unequal_lists(h36m, tmp_path):
    folder, items = h36m
    factory = functools.partial(H36mHybrik, str(folder))
    assert build(factory, tmp_path / "out").spec == H36mHybrik.spec
    file = folder / "annotations/Sample_20_test_Human36M_smpl_protocol_2.json"
    put(file, {"images": [items["test"][0][0]], "annotations": []})
    with pytest.raises(RecordError, match=r"Sample_20.*as many images.*found 1, 0"):
        H36mHybrik(str(folder)).keys("test")


@pytest.fixture
def pw3d(tmp_path):
    """Three people, one with a tiny box; image ids are no positions."""
    rng = np.random.default_rng(2)
    images, annotations = [], []
    for number in (40, 41):
        file = f"image_{number:05d}.jpg"
        put(tmp_path / "imageFiles" / "office" / file, picture(number))
        camera = {"focal": FOCAL, "princpt": CENTRE}
        image = {"id": number, "file_name": file, "sequence": "office", **SIZE}
        images.append(image | {"cam_param": camera})
    for image, side in ((41, 20), (40, 4), (40, 20)):
        fit = {"shape": rng.standard_normal(10), "pose": rng.standard_normal(72)}
        annotation = {
            "image_id": image,
            "bbox": [2.0, 3.0, 20.0, side],
            "smpl_param": fit,
            "h36m_joints": rng.standard_normal((17, 3)),
            "smpl_joint_cam": rng.standard_normal((24, 3)),
            "smpl_joint_img": rng.standard_normal((24, 3)),
            "fitted_3d_pose": rng.standard_normal((24, 3)),
        }
        annotations.append(annotation)
    annotations[0]["angle_twist"] = twist(rng)
    annotations[0]["smpl_param"]["trans"] = [0.1, 0.2, 3.0]
    content = {"images": images, "annotations": annotations}
    put(tmp_path / "json" / "3DPW_train_our.json", content)
    return tmp_path, annotations


def test_pw3d_labels(pw3d):
    folder, annotations = pw3d
    source = Pw3dHybrik(str(folder))
    assert source.splits() == ("train",)
    found = read(source, "train")
    assert list(found) == ["00000000", "00000002"]
    assert source.dropped == {("train", "box under 5 pixels"): 1}
    for key, record in found.items():
        label = annotations[int(key)]
        close(record["joints_cam_m"][:, :3], label["smpl_joint_cam"])
        close(record["keypoints_px"][:, :2], label["smpl_joint_img"][:, :2])
        close(record["joints_h36m_cam_m"][:, :3], label["h36m_joints"])
        close(record["pose_aa"].ravel(), label["smpl_param"]["pose"])
        close(record["betas"], label["smpl_param"]["shape"])
        close(record["intrinsics"][[0, 1], [0, 1]], FOCAL)
        assert record["frame_id"] == label["image_id"]
    first, last = found.values()
    check_twist(first, annotations[0]["angle_twist"])
    close(first["translation_m"], [0.1, 0.2, 3.0])
    assert (first["translation_known"], last["translation_known"]) == (1, 0)
    assert last["has_twist"] == 0


def test_pw3d_on_disk_and_a_missing_image(pw3d, tmp_path):
    folder, annotations = pw3d
    factory = functools.partial(Pw3dHybrik, str(folder))
    assert build(factory, tmp_path / "out").spec == Pw3dHybrik.spec
    (folder / "imageFiles/office/image_00041.jpg").unlink()
    with pytest.raises(RecordError, match=r"pw3d_hybrik: .*image_00041.*no such file"):
        read(Pw3dHybrik(str(folder)), "train")


@pytest.fixture
def mpi(tmp_path):
    """One frame per part; the camera is 3 x 4 in training and 3 x 3 in the test."""
    rng = np.random.default_rng(4)
    parts = {
        "train": (
            "train_v2",
            "train_set",
            "S1/Seq1/imageFrames/video_0/frame_000031.jpg",
        ),
        "test": ("test", "test_set", "TS3/imageSequence/img_000007.jpg"),
    }
    matrix = np.array([[FOCAL[0], 0, CENTRE[0]], [0, FOCAL[1], CENTRE[1]], [0, 0, 1]])
    labels = {}
    for split, (name, folder, file) in parts.items():
        joints = 28 if split == "train" else 17
        points = 200 * rng.standard_normal((joints, 3)) + [0, 0, 3000]
        camera = np.c_[matrix, np.zeros(3)] if split == "train" else matrix
        image = {"id": 3, "file_name": file, **SIZE}
        image["cam_param"] = {"intrinsic_param": camera}
        annotation = {"image_id": 3, "bbox": [1, 2, 30, 40], "keypoints_cam": points}
        if split == "test":
            annotation["activity_id"] = 5
        content = {"images": [image], "annotations": [annotation]}
        put(tmp_path / f"annotation_mpi_inf_3dhp_{name}.json", content)
        put(tmp_path / f"mpi_inf_3dhp_{folder}" / file, picture(7))
        labels[split] = points / 1000
    return tmp_path, labels


def test_mpi_inf_3dhp_labels(mpi):
    folder, labels = mpi
    source = MpiInf3dhpHybrik(str(folder))
    (train,) = read(source, "train").values()
    close(train["joints_cam_m"], np.c_[labels["train"], np.ones(28)])
    close(train["keypoints_px"][:, :2], pixels(labels["train"], FOCAL, CENTRE), 1e-2)
    assert train["sequence_id"] == "S1/Seq1/imageFrames/video_0"
    assert train["frame_id"] == 31
    (test,) = read(source, "test").values()
    order = JOINT_SETS["hybrik_3dhp_28"].joints
    published = (
        "headtop neck right_shoulder right_elbow right_wrist left_shoulder left_elbow "
        "left_wrist right_hip_extra right_knee right_ankle left_hip_extra left_knee "
        "left_ankle pelvis spine_extra head_extra"
    ).split()
    for name, point in zip(published, labels["test"], strict=True):
        close(test["joints_cam_m"][order.index(name)], [*point, 1])
    # Section 17.4: where each joint of the test set stands among Human3.6M's 17.
    scored = [14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
    close(test["joints_h36m_cam_m"], np.c_[labels["test"][scored], np.ones(17)])
    assert test["joints_cam_m"][:, 3].sum() == 17
    assert test["keypoints_px"][:, 2].sum() == 17
    assert test["activity_id"] == 5 and train["activity_id"] == 0


def test_mpi_inf_3dhp_on_disk(mpi, tmp_path):
    factory = functools.partial(MpiInf3dhpHybrik, str(mpi[0]))
    assert build(factory, tmp_path / "out").spec == MpiInf3dhpHybrik.spec


def test_pw3d_numbers_people_and_takes_the_other_name(pw3d):
    folder, annotations = pw3d
    path = folder / "json/3DPW_train_our.json"
    path.rename(folder / "json/3DPW_train_new.json")
    source = Pw3dHybrik(str(folder))
    assert source.splits() == ("train",)
    assert [r["person_id"] for r in read(source, "train").values()] == [0, 1]
    content = json.loads((folder / "json/3DPW_train_new.json").read_text())
    content["annotations"][2]["person_id"] = 7
    put(path, content)
    found = read(Pw3dHybrik(str(folder)), "train")
    assert [r["person_id"] for r in found.values()] == [0, 7]
