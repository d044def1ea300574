"""MS-COCO's keypoints, fits and detected boxes."""

import functools

import numpy as np
import pytest

from data_pipelines.builders.coco import Coco
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders.published import build, close, picture, put, read

SIZE = {"width": 64, "height": 48}


def person(key, image, *, flags=2, box=(5, 6, 20, 30), area=100.0, crowd=0, category=1):
    keypoints = np.random.default_rng(key).uniform(1, 40, (17, 3))
    keypoints[:, 2] = flags
    keypoints[keypoints[:, 2] == 0] = 0
    return {
        "id": key,
        "image_id": image,
        "bbox": list(box),
        "area": area,
        "iscrowd": crowd,
        "category_id": category,
        "keypoints": keypoints.ravel().tolist(),
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "segmentation": [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]],
    }


MIXED = np.array([2, 1, 0] * 5 + [2, 0])
PEOPLE = (
    person(1, 25, flags=MIXED),
    person(2, 25, crowd=1),
    person(3, 25, flags=0),
    person(4, 30, area=0.0),
    person(5, 30, box=(5, 6, 0, 30)),
    person(6, 30, category=2),
    person(7, 30, box=(70, 6, 20, 30)),
    person(8, 30, box=(-10, 6, 20, 30)),
    person(9, 30, box=(5, 6, -2, -3)),
)


def make(tmp_path, folder="images/", year=2017):
    names = {25: "000000000025.jpg", 30: "000000000030.jpg", 31: "000000000031.jpg"}
    for key, name in names.items():
        for split in ("train", "val"):
            put(tmp_path / f"{folder}{split}{year}" / name, picture(key))
    images = [{"id": k, "file_name": v, **SIZE} for k, v in names.items()]
    stem = tmp_path / "annotations" / f"person_keypoints_{{}}{year}.json"
    train = {
        "images": images,
        "annotations": list(PEOPLE),
        "categories": [],
        "info": {},
    }
    put(stem.with_name(stem.name.format("train")), train)
    val = {"images": images[:1], "annotations": [person(11, 25)]}
    put(stem.with_name(stem.name.format("val")), val)
    return Coco


@pytest.mark.parametrize(
    ("people", "kept"),
    [
        ("labelled", [1, 4, 6, 7, 8]),
        ("all", [1, 2, 3, 4, 6, 7, 8]),
        ("ikol", [1, 8]),
        ("i2l", [1, 4, 6, 8]),
        ("pose_hg", [1, 2, 6, 8]),
    ],
)
def test_who_is_kept(tmp_path, people, kept):
    make(tmp_path)
    source = Coco(str(tmp_path), people=people)
    keys = source.keys("train")
    assert [int(str(k).split("_")[1]) for k in keys] == kept
    assert sum(source.dropped.values()) == len(PEOPLE) - len(kept)


@pytest.mark.parametrize(
    "stored, spelled",
    [
        ("sub/a.png", "sub\\a.png"),
        ("a.png", "./a.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("caf\u00e9/a.png", "cafe\u0301\\a.png"),
        ("000000000139.jpg", "COCO_train2014_000000000139.jpg"),
        ("COCO_train2014_000000000139.jpg", "000000000139.jpg"),
    ],
)
def test_spellings_of_one_name_are_found(tmp_path, stored, spelled):
    put(tmp_path / "train2017" / stored, picture(0))
    put(tmp_path / "train2017" / "b.jpg", picture(1))
    images = [{"id": 139, "file_name": spelled, **SIZE}]
    content = {"images": images, "annotations": [person(1, 139)]}
    put(tmp_path / "annotations" / "person_keypoints_train2017.json", content)
    (record,) = read(Coco(str(tmp_path)), "train").values()
    assert record["image"] == (tmp_path / "train2017" / stored).read_bytes()


def test_pictures_that_are_missing_are_named_as_the_file_does(tmp_path):
    put(tmp_path / "train2017" / "b.jpg", picture(1))
    images = [{"id": 1, "file_name": "sub\\a.jpg", **SIZE}]
    content = {"images": images, "annotations": [person(1, 1)]}
    put(tmp_path / "annotations" / "person_keypoints_train2017.json", content)
    source = Coco(str(tmp_path))
    with pytest.raises(RecordError, match=r"train2017/sub/a\.jpg: .*no such file"):
        read(source, "train")
    images[0]["file_name"] = 7
    put(tmp_path / "annotations" / "person_keypoints_train2017.json", content)
    with pytest.raises(RecordError, match=r"images\[0\]: file_name: expected a name"):
        read(Coco(str(tmp_path)), "train")


@pytest.mark.parametrize("folder", ["images/", ""])
def test_labels(tmp_path, folder):
    make(tmp_path, folder)
    found = read(Coco(str(tmp_path)), "train")
    record = found["000000000025_1"]
    expected = np.reshape(PEOPLE[0]["keypoints"], (17, 3))
    close(record["keypoints_px"], expected)
    assert set(record["keypoints_px"][:, 2]) == {0, 1, 2}
    close(record["bbox_xywh_px"], [5, 6, 20, 30])
    assert (record["image_width"], record["image_height"]) == (64, 48)
    assert record["has_camera"] == record["has_smpl"] == record["has_joints_3d"] == 0
    assert record["frame_id"] == 25 and record["person_id"] == 1


def test_a_pelvis_between_the_hips(tmp_path):
    make(tmp_path)
    source = Coco(str(tmp_path), pelvis=True)
    assert source.spec.joint_set == "coco_18"
    for number in (1, 8):
        image = 25 if number == 1 else 30
        record = read(source, "train")[f"{image:012d}_{number}"]
        hips = np.reshape(PEOPLE[number - 1]["keypoints"], (17, 3))[11:13]
        close(record["keypoints_px"][17, :2], hips[:, :2].mean(0))
        assert (record["keypoints_px"][17, 2] > 0) == (hips[0, 2] * hips[1, 2] > 0)


def test_fits(tmp_path):
    make(tmp_path)
    rng = np.random.default_rng(0)
    fit = {
        "pose": rng.standard_normal(72),
        "shape": rng.standard_normal(10),
        "trans": [0.1, 0.3, 7.0],
    }
    camera = {"focal": [500, 501], "princpt": [32, 24]}
    content = {"8": {"smpl_param": fit, "cam_param": camera}}
    put(tmp_path / "annotations" / "coco_smplifyx_train.json", content)
    found = read(Coco(str(tmp_path), fits=True), "train")
    record = found["000000000030_8"]
    close(record["pose_aa"].ravel(), fit["pose"])
    close(record["translation_m"], fit["trans"])
    close(record["betas"], fit["shape"])
    close(record["intrinsics"], [[500, 0, 32], [0, 501, 24], [0, 0, 1]])
    assert found["000000000025_1"]["has_smpl"] == 0


def test_detected_boxes(tmp_path):
    make(tmp_path)
    boxes = [
        {"image_id": 25, "bbox": [1, 2, 30, 30], "root_cam": [0, 0, 9000.0]},
        {"image_id": 99, "bbox": [1, 2, 30, 30], "root_cam": [0, 0, 9000.0]},
        {"image_id": 25, "bbox": [9, 2, 20, 20], "root_cam": [0, 0, 8000.0]},
    ]
    put(tmp_path / "rootnet_output" / "bbox_root_coco_output.json", boxes)
    source = Coco(str(tmp_path), rootnet=True)
    found = list(read(source, "val").values())
    assert [float(r["root_depth_m"]) for r in found] == [9, 8]
    close(found[1]["bbox_xywh_px"], [9, 2, 20, 20])
    close(found[0]["intrinsics"], [[1500, 0, 32], [0, 1500, 24], [0, 0, 1]])
    assert found[0]["has_keypoints"] == 0 and found[0]["box_is_crop"] == 1
    assert sum(source.dropped.values()) == 1


def test_the_records_on_disk(tmp_path):
    make(tmp_path)
    factory = functools.partial(Coco, str(tmp_path), people="i2l")
    assert build(factory, tmp_path / "out").manifest["joint_set"] == "coco_17"


def test_the_release_of_2014(tmp_path):
    make(tmp_path, "", 2014)
    assert len(read(Coco(str(tmp_path), year=2014), "val")) == 1
    with pytest.raises(RecordError, match=r"person_keypoints_train2017.json.*none"):
        Coco(str(tmp_path)).splits()


def test_a_picture_of_another_size_is_a_bad_record(tmp_path):
    make(tmp_path)
    picture_path = "images/train2017/000000000025.jpg"
    put(tmp_path / picture_path, picture(25, (48, 64)))
    source = Coco(str(tmp_path))
    message = f"{picture_path}: expected 64 x 48 pixels as annotated, found 48 x 64"
    with pytest.raises(RecordError, match=message):
        read(source, "train")
