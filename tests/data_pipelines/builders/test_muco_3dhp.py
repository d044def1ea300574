"""MuCo-3DHP in I2L-MeshNet's layout."""

import functools

import numpy as np
import pytest

from data_pipelines.builders.muco_3dhp import Muco3dhp
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders.published import build, close, picture, put, read

F, C = (1500.0, 1501.0), (1024.0, 1020.0)


@pytest.fixture
def dataset(tmp_path):
    """Pictures of two people, one outside, and nobody; person 101 has a fit."""
    rng = np.random.default_rng(5)
    images, annotations = [], []
    for number in range(3):
        file = f"augmented_set/{number}.jpg"
        put(tmp_path / "data" / file, picture(number))
        size = {"width": 64, "height": 48}
        images.append({"id": number, "file_name": file, **size, "f": F, "c": C})
    boxes = {
        100: (0, [1, 2, 30, 40]),
        101: (0, [5, 6, 20, 20]),
        102: (1, [70, 0, 9, 9]),
    }
    depths = {100: 4000.0, 101: 3000.0, 102: 2000.0}
    for key, (image, box) in boxes.items():
        cam = 200 * rng.standard_normal((21, 3)) + [0, 0, 4500]
        cam[14, 2] = depths[key]
        pixels = rng.uniform(0, 48, (21, 2))
        annotations.append(
            {
                "id": key,
                "image_id": image,
                "bbox": box,
                "keypoints_img": pixels,
                "keypoints_cam": cam,
            }
        )
    fit = {
        "pose": rng.standard_normal(72),
        "shape": rng.standard_normal(10),
        "trans": [0.1, 0.2, 3.0],
    }
    content = {"images": images, "annotations": annotations}
    put(tmp_path / "data" / "MuCo-3DHP.json", content)
    put(tmp_path / "data" / "smpl_param.json", {"101": fit})
    return tmp_path, annotations, fit


def test_the_nearest_person_of_each_picture(dataset):
    folder, annotations, fit = dataset
    source = Muco3dhp(str(folder))
    found = read(source, "train")
    assert list(found) == ["00000101"]
    assert source.dropped == {
        ("train", "box outside the image or empty"): 1,
        ("train", "farther than another person"): 1,
        ("train", "picture without people"): 2,
    }
    record = found["00000101"]
    label = annotations[1]
    close(record["keypoints_px"], np.c_[label["keypoints_img"], np.ones(21)])
    close(record["joints_cam_m"], np.c_[label["keypoints_cam"] / 1000, np.ones(21)])
    close(record["bbox_xywh_px"], label["bbox"])
    close(record["intrinsics"], [[F[0], 0, C[0]], [0, F[1], C[1]], [0, 0, 1]])
    close(record["pose_aa"].ravel(), fit["pose"])
    close(record["betas"], fit["shape"])
    close(record["translation_m"], fit["trans"])
    assert record["has_smpl"] == 1 and record["gender"] == "neutral"


def test_everyone(dataset):
    found = read(Muco3dhp(str(dataset[0]), people="all"), "train")
    assert list(found) == ["00000100", "00000101"]
    assert found["00000100"]["has_smpl"] == 0
    assert [r["person_id"] for r in found.values()] == [0, 1]


def test_the_records_on_disk(dataset, tmp_path):
    factory = functools.partial(Muco3dhp, str(dataset[0]))
    assert build(factory, tmp_path / "out").spec == Muco3dhp.spec


def test_errors_name_what_is_wrong(dataset):
    folder, annotations, _ = dataset
    with pytest.raises(ValueError, match="people.*nearest"):
        Muco3dhp(str(folder), people="first")
    annotations[1]["keypoints_cam"] = annotations[1]["keypoints_cam"][:20]
    images = [{"id": 0, "file_name": "a", "width": 64, "height": 48, "f": F, "c": C}]
    content = {"images": images, "annotations": annotations[:2]}
    put(folder / "data" / "MuCo-3DHP.json", content)
    message = r"muco_3dhp: .*annotation 101: keypoints_cam: .*\[21, 3\].*\[20, 3\]"
    with pytest.raises(RecordError, match=message):
        read(Muco3dhp(str(folder)), "train")


def test_a_box_that_is_none(dataset):
    folder, annotations, _ = dataset
    annotations[2]["bbox"] = [1, 2, "wide"]
    images = [{"id": k, "file_name": "a", "width": 64, "height": 48} for k in range(3)]
    images = [image | {"f": F, "c": C} for image in images]
    content = {"images": images, "annotations": annotations}
    put(folder / "data" / "MuCo-3DHP.json", content)
    with pytest.raises(RecordError, match=r"annotations\[2\]: bbox: .*four numbers"):
        Muco3dhp(str(folder)).keys("train")
