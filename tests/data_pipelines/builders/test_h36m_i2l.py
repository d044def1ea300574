"""Human3.6M in I2L-MeshNet's layout."""

import functools

import numpy as np
import pytest

from data_pipelines.builders.h36m_i2l import H36mI2l
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders.published import (
    build,
    close,
    picture,
    pixels,
    put,
    read,
    rodrigues,
)

SUBJECTS = (1, 5, 6, 7, 8, 9, 11)
ROTATION = rodrigues([1.4, 0.3, -0.2])
OFFSET_MM = np.array([100.0, 200.0, 4500.0])
FOCAL, CENTRE = (1145.0, 1143.0), (512.0, 515.0)
# R leg first: pelvis, right leg, left leg, trunk, left arm, right arm.
LEFT_FIRST = [0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]


def name_of(subject, action, camera, frame):
    folder = f"s_{subject:02d}_act_{action:02d}_subact_01_ca_{camera:02d}"
    return f"{folder}/{folder}_{frame + 1:06d}"


@pytest.fixture
def dataset(tmp_path):
    """(subject, action, camera, frame); the body at frame 5 of subject 1 has a fit."""
    rng = np.random.default_rng(3)
    frames = [
        *((1, 2, 1, 0), (1, 2, 3, 5), (1, 2, 1, 7)),
        *((9, 2, 4, 0), (9, 2, 4, 64), (9, 2, 2, 64), (9, 2, 4, 10), (11, 3, 4, 128)),
    ]
    labels = {"joints": {}, "fits": {}}
    for subject in SUBJECTS:
        images, annotations, joints, fits = [], [], {}, {}
        for number, (_, action, camera, frame) in enumerate(
            f for f in frames if f[0] == subject
        ):
            name = name_of(subject, action, camera, frame)
            put(tmp_path / "images" / f"{name}.jpg", picture(number))
            images.append(
                {
                    "id": 100 * subject + number,
                    "file_name": f"{name}.jpg",
                    "width": 64,
                    "height": 48,
                    "subject": subject,
                    "action_idx": action,
                    "subaction_idx": 1,
                    "cam_idx": camera,
                    "frame_idx": frame,
                }
            )
            box = [3.5, 4.0, 20.0, 30.0]
            ids = {"id": number, "image_id": 100 * subject + number}
            annotations.append({**ids, "bbox": box})
            frames_of_action = joints.setdefault(str(action), {"1": {}})["1"]
            new = 300 * rng.standard_normal((17, 3))
            points = frames_of_action.setdefault(str(frame), new)  # cameras share it
            labels["joints"][name] = points
            if (subject, frame) != (1, 0):
                fit = {
                    "pose": 0.4 * rng.standard_normal(72),
                    "shape": rng.standard_normal(10),
                    "trans": rng.standard_normal(3),
                }
                labels["fits"][name] = fit
                fits.setdefault(str(action), {"1": {}})["1"][str(frame)] = fit
        camera = {"R": ROTATION, "t": OFFSET_MM, "f": FOCAL, "c": CENTRE}
        stem = tmp_path / "annotations" / f"Human36M_subject{subject}"
        content = {"images": images, "annotations": annotations}
        put(stem.with_name(stem.name + "_data.json"), content)
        cameras = {str(k): camera for k in (1, 2, 3, 4)}
        put(stem.with_name(stem.name + "_camera.json"), cameras)
        put(stem.with_name(stem.name + "_joint_3d.json"), joints)
        put(stem.with_name(stem.name + "_smpl_param.json"), fits)
    return tmp_path, labels


def test_labels_of_every_training_frame(dataset):
    folder, labels = dataset
    source = H36mI2l(str(folder))
    found = read(source, "train")
    first, second = name_of(1, 2, 1, 0), name_of(1, 2, 3, 5)
    assert list(found) == [first, second]
    assert source.dropped == {("train", "frame is no multiple of 5"): 1}
    for name, record in found.items():
        joints = (labels["joints"][name] @ ROTATION.T + OFFSET_MM) / 1000
        close(record["joints_cam_m"], np.c_[joints, np.ones(17)])
        close(record["joints_h36m_cam_m"][:, :3], joints[LEFT_FIRST])
        expected = pixels(joints, FOCAL, CENTRE)
        close(record["keypoints_px"], np.c_[expected, np.ones(17)], 1e-2)
        close(record["intrinsics"][[0, 1], [0, 1]], FOCAL)
        close(record["extrinsics"][:3, :3], ROTATION)
        close(record["extrinsics"][:3, 3], OFFSET_MM / 1000)
        close(record["bbox_xywh_px"], [3.5, 4, 20, 30])
        assert record["sequence_id"] == name.split("/")[0]
        assert record["image_width"] == 64 and record["has_camera"] == 1
    assert found[first]["frame_id"] == 0 and found[second]["frame_id"] == 5
    assert found[first]["has_smpl"] == 0 and found[second]["has_smpl"] == 1


def test_fit_in_the_camera_frame(dataset, body_arrays):
    folder, labels = dataset
    np.savez(folder / "smpl.npz", **body_arrays)
    name = name_of(1, 2, 3, 5)
    fit = labels["fits"][name]
    plain = read(H36mI2l(str(folder)), "train")[name]
    turned = rodrigues(plain["pose_aa"][0])
    close(turned, ROTATION @ rodrigues(fit["pose"][:3]))
    close(plain["pose_aa"][1:].ravel(), fit["pose"][3:])
    close(plain["betas"], fit["shape"])
    close(plain["translation_world_m"], fit["trans"])
    assert plain["translation_known"] == 0 and not plain["translation_m"].any()
    exact = read(H36mI2l(str(folder), smpl_model=str(folder / "smpl.npz")), "train")
    exact = exact[name]
    shaped = body_arrays["v_template"] + body_arrays["shapedirs"] @ fit["shape"]
    root = body_arrays["J_regressor"][0] @ shaped
    expected = ROTATION @ (root + fit["trans"]) + OFFSET_MM / 1000 - root
    close(exact["translation_m"], expected)
    assert exact["translation_known"] == 1


def test_test_split_and_detected_boxes(dataset):
    folder, labels = dataset
    names = [name_of(9, 2, 4, 0), name_of(9, 2, 4, 64), name_of(11, 3, 4, 128)]
    source = H36mI2l(str(folder))
    found = read(source, "test")
    assert list(found) == names
    assert source.dropped["test", "not camera 4"] == 1
    for name, record in found.items():
        pelvis = (ROTATION @ labels["joints"][name][0] + OFFSET_MM) / 1000
        assert record["root_depth_m"] == pytest.approx(pelvis[2], rel=1e-5)
    boxes = [
        {"image_id": 1100, "bbox": [-4, 2, 50, 50], "root_cam": [1, 2, 4321.0]},
        {"image_id": 900, "bbox": [1, 2, 40, 40], "root_cam": [1, 2, 4000.0]},
    ]
    put(folder / "rootnet_output" / "bbox_root_human36m_output.json", boxes)
    source = H36mI2l(str(folder), rootnet=True)
    found = read(source, "test")
    assert list(found) == [names[0], names[2]]
    assert source.dropped["test", "no box in the detector's file"] == 1
    close(found[names[2]]["bbox_xywh_px"], [-4, 2, 50, 50])
    assert found[names[2]]["root_depth_m"] == pytest.approx(4.321)
    assert found[names[2]]["box_is_crop"] == 1
    every = H36mI2l(str(folder), test_camera=0, test_stride=2)
    assert len(every.keys("test")) == 5


def test_the_records_on_disk(dataset, tmp_path):
    folder, labels = dataset
    directory = build(functools.partial(H36mI2l, str(folder)), tmp_path / "out")
    assert directory.spec == H36mI2l.spec
    assert directory.manifest["joint_set"] == "h36m_right_first_17"


def test_errors_name_file_and_field(dataset):
    folder, _ = dataset
    file = folder / "annotations" / "Human36M_subject1_joint_3d.json"
    put(file, {"2": {"1": {"0": [[0, 0, 1]] * 17}}})
    with pytest.raises(RecordError, match=r"subject1_joint_3d.*frame_idx 5.*none"):
        read(H36mI2l(str(folder)), "train")
    file.unlink()
    with pytest.raises(RecordError, match=r"h36m_i2l: .*subject1_joint_3d.*no such"):
        read(H36mI2l(str(folder)), "train")
