"""FreiHAND in its two published layouts."""

import functools

import numpy as np
import pytest

from data_pipelines.builders.freihand import FreiHand
from data_pipelines.builders.record_source import examples_or_errors
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders.published import (
    build,
    close,
    picture,
    pixels,
    put,
    read,
)

SIZE = (224, 224)
K = np.array([[480.0, 0, 112], [0, 481, 113], [0, 0, 1]])


@pytest.fixture
def release(tmp_path):
    """Two hands, eight training pictures, and one picture to evaluate."""
    rng = np.random.default_rng(8)
    xyz = 0.05 * rng.standard_normal((2, 21, 3)) + [0, 0, 0.7]
    mano = rng.standard_normal((2, 1, 61))
    for number in range(8):
        put(tmp_path / f"training/rgb/{number:08d}.jpg", picture(number, SIZE))
    for number in range(2):
        mask = picture(90 + number, SIZE)
        put(tmp_path / f"training/mask/{number:08d}.jpg", mask)
    put(tmp_path / "evaluation/rgb/00000000.jpg", picture(50, SIZE))
    put(tmp_path / "training_xyz.json", xyz)
    put(tmp_path / "training_mano.json", mano)
    put(tmp_path / "training_K.json", [K, K])
    put(tmp_path / "training_scale.json", [0.03, 0.04])
    put(tmp_path / "evaluation_K.json", [K])
    put(tmp_path / "evaluation_scale.json", [0.05])
    return tmp_path, xyz, mano


def test_the_release(release):
    folder, xyz, mano = release
    found = read(FreiHand(str(folder)), "train")
    assert list(found) == [f"train_{i:08d}" for i in range(8)]
    for number, record in enumerate(found.values()):
        item = number % 2
        expected = pixels(xyz[item], (480, 481), (112, 113))
        close(record["joints_cam_m"], np.c_[xyz[item], np.ones(21)])
        close(record["keypoints_px"][:, :2], expected, 1e-3)
        close(record["pose_aa"].ravel(), mano[item, 0, :48])
        close(record["betas"], mano[item, 0, 48:58])
        close(record["intrinsics"], K)
        low, high = expected.min(0), expected.max(0)
        middle, sides = (low + high) / 2, 1.2 * (high - low)
        close(record["bbox_xywh_px"], [*(middle - sides / 2), *sides], 1e-3)
        assert record["frame_id"] == item and record["translation_known"] == 0
        assert record["hand_scale_m"] == pytest.approx((0.03, 0.04)[item])
        file = folder / f"training/rgb/{number:08d}.jpg"
        assert record["image"] == file.read_bytes()
    assert len(FreiHand(str(folder), backgrounds=1).keys("train")) == 2


def test_evaluation_pictures_have_no_labels(release):
    record = read(FreiHand(str(release[0])), "eval")["eval_00000000"]
    assert record["has_joints_3d"] == record["has_smpl"] == 0
    close(record["bbox_xywh_px"], [0, 0, 224, 224])
    assert record["hand_scale_m"] == pytest.approx(0.05)


def test_translation_with_the_hand_model(release, rng):
    folder, xyz, mano = release
    hand = {
        "v_template": rng.standard_normal((30, 3)),
        "shapedirs": rng.standard_normal((30, 3, 10)),
        "J_regressor": rng.random((16, 30)) / 15,
    }
    np.savez(folder / "mano.npz", **hand)
    source = FreiHand(str(folder), mano_model=str(folder / "mano.npz"))
    record = read(source, "train")["train_00000003"]
    shaped = hand["v_template"] + hand["shapedirs"] @ mano[1, 0, 48:58]
    wrist = hand["J_regressor"][0] @ shaped
    close(wrist + record["translation_m"], xyz[1, 0])
    assert record["translation_known"] == 1


def test_masks(release):
    found = list(read(FreiHand(str(release[0]), masks=True), "train").values())
    assert [r["has_mask"] for r in found] == [1] * 8


def test_a_label_file_of_another_length(release):
    put(release[0] / "training_xyz.json", release[1][:1])
    with pytest.raises(RecordError, match=r"training_xyz.json: expected 2 .*found 1"):
        FreiHand(str(release[0])).keys("train")


@pytest.fixture
def i2l(tmp_path):
    rng = np.random.default_rng(9)
    camera = {"focal": [480, 481], "princpt": [112, 113]}
    hand = {
        "pose": rng.standard_normal(48),
        "shape": rng.standard_normal(10),
        "trans": [0.01, 0.02, 0.7],
    }
    joints = 0.05 * rng.standard_normal((21, 3)) + [0, 0, 0.7]
    label = {"cam_param": camera, "mano_param": hand, "joint_3d": joints}
    put(tmp_path / "data/freihand_train_data.json", {"17": label})
    put(
        tmp_path / "data/freihand_eval_data.json",
        {"3": {"cam_param": camera, "scale": 0.03}},
    )
    for split, folder, index in (("train", "training", 17), ("eval", "evaluation", 3)):
        file = f"{folder}/00000000.jpg"
        put(tmp_path / "data" / file, picture(index, SIZE))
        image = {"id": 5, "file_name": file, "width": 224, "height": 224}
        annotation = {"id": 0, "image_id": 5, "bbox": [10, 20, 90, 80]}
        content = {"images": [image | {"db_idx": index}], "annotations": [annotation]}
        put(tmp_path / "data" / f"freihand_{split}_coco.json", content)
    boxes = [{"image_id": 5, "bbox": [1, 2, 150, 150], "root_cam": [0, 0, 0.69]}]
    put(tmp_path / "rootnet_output/bbox_root_freihand_output.json", boxes)
    return tmp_path, hand, joints


def test_the_layout_of_i2l_meshnet(i2l):
    folder, hand, joints = i2l
    source = FreiHand(str(folder), layout="i2l", rootnet=True)
    record = read(source, "train")["training/00000000"]
    close(record["pose_aa"].ravel(), hand["pose"])
    close(record["translation_m"], hand["trans"])
    close(record["joints_cam_m"][:, :3], joints)
    close(record["keypoints_px"][:, :2], pixels(joints, (480, 481), (112, 113)), 1e-3)
    close(record["bbox_xywh_px"], [10, 20, 90, 80])
    assert record["translation_known"] == 1 and record["frame_id"] == 17
    record = read(source, "eval")["evaluation/00000000"]
    close(record["bbox_xywh_px"], [1, 2, 150, 150])
    assert record["root_depth_m"] == pytest.approx(0.69)
    assert record["has_smpl"] == 0 and record["has_camera"] == 1


def test_the_records_on_disk(release, tmp_path):
    factory = functools.partial(FreiHand, str(release[0]))
    assert build(factory, tmp_path / "out").spec == FreiHand.spec


def test_a_mask_that_cannot_be_read_is_named(release):
    (release[0] / "training/mask/00000001.jpg").write_bytes(b"no picture")
    source = FreiHand(str(release[0]), masks=True)
    found = list(examples_or_errors(source, "train", source.keys("train")))
    bad = [i for i, item in enumerate(found) if not isinstance(item, dict)]
    assert bad == [1, 3, 5, 7]
    assert "mask/00000001.jpg: expected an image" in str(found[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rootnet": True}, "rootnet: not an option of the layout published"),
        ({"layout": "i2l", "masks": True}, "masks: not an option of the layout i2l"),
        ({"layout": "i2l", "backgrounds": 1}, "backgrounds: not an option"),
        ({"layout": "i2l", "mano_model": "a.pkl"}, "mano_model: not an option"),
    ],
)
def test_options_of_the_other_layout(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        FreiHand(str(tmp_path), **options)
