"""3DPW in I2L-MeshNet's layout."""

import functools

import numpy as np
import pytest

from data_pipelines.builders.pw3d_i2l import Pw3dI2l
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders.published import build, close, picture, put, read

FOCAL, CENTRE = (1960.0, 1962.0), (540.0, 960.0)


def make(tmp_path, pictures="data/imageFiles"):
    """Two people in frame 0 and one in frame 7; the first has the tool's joints."""
    rng = np.random.default_rng(6)
    images, annotations = [], []
    for number, frame in enumerate((0, 7)):
        file = f"image_{frame:05d}.jpg"
        put(tmp_path / pictures / "downtown" / file, picture(number))
        camera = {"focal": FOCAL, "princpt": CENTRE}
        image = {"id": number, "file_name": file, "sequence": "downtown"}
        size = {"width": 64, "height": 48}
        images.append({**image, **size, "frame_idx": frame, "cam_param": camera})
    for key, image, person, gender in (
        (3, 0, 0, "male"),
        (4, 0, 1, "female"),
        (9, 1, 0, "male"),
    ):
        fit = {
            "pose": rng.standard_normal(72),
            "shape": rng.standard_normal(10),
            "trans": rng.standard_normal(3),
            "gender": gender,
        }
        ids = {"id": key, "image_id": image, "person_id": person}
        box = [-3.0, 2.0, 20.0, 30.0]
        annotations.append({**ids, "bbox": box, "smpl_param": fit})
    annotations[0]["joint_cam"] = rng.standard_normal((24, 3)) + [0, 0, 4]
    annotations[0]["joint_img"] = rng.uniform(0, 48, (24, 2))
    content = {"images": images, "annotations": annotations}
    put(tmp_path / "data" / "3DPW_test.json", content)
    return annotations


@pytest.mark.parametrize("pictures", ["data/imageFiles", "imageFiles"])
def test_labels(tmp_path, pictures):
    annotations = make(tmp_path, pictures)
    source = Pw3dI2l(str(tmp_path))
    assert source.splits() == ("test",)
    found = read(source, "test")
    assert list(found) == ["00000003", "00000004", "00000009"]
    for record, label in zip(found.values(), annotations, strict=True):
        fit = label["smpl_param"]
        close(record["pose_aa"].ravel(), fit["pose"])
        close(record["betas"], fit["shape"])
        close(record["translation_m"], fit["trans"])
        close(record["bbox_xywh_px"], label["bbox"])
        assert record["gender"] == fit["gender"]
        assert record["person_id"] == label["person_id"]
        assert record["sequence_id"] == "downtown"
        close(record["intrinsics"][[0, 1], 2], CENTRE)
    assert [r["frame_id"] for r in found.values()] == [0, 0, 7]
    first, second, _ = found.values()
    close(first["joints_cam_m"][:, :3], annotations[0]["joint_cam"])
    close(first["keypoints_px"][:, :2], annotations[0]["joint_img"])
    assert first["root_depth_m"] == pytest.approx(annotations[0]["joint_cam"][0, 2])
    assert second["has_joints_3d"] == 0 and second["has_keypoints"] == 0


def test_detected_boxes(tmp_path):
    make(tmp_path)
    boxes = [
        {"ann_id": 9, "bbox": [1, 2, 30, 30], "root_cam": [0, 0, 4.5]},
        {"ann_id": 3, "bbox": [2, 2, 30, 30], "root_cam": [0, 0, 3.5]},
    ]
    put(tmp_path / "rootnet_output" / "bbox_root_pw3d_output.json", boxes)
    source = Pw3dI2l(str(tmp_path), rootnet=True)
    found = read(source, "test")
    assert list(found) == ["00000003", "00000009"]
    assert [float(r["root_depth_m"]) for r in found.values()] == [3.5, 4.5]
    close(found["00000003"]["bbox_xywh_px"], [2, 2, 30, 30])
    assert source.dropped == {("test", "no box in the detector's file"): 1}


def test_the_records_on_disk(tmp_path):
    make(tmp_path)
    factory = functools.partial(Pw3dI2l, str(tmp_path))
    assert build(factory, tmp_path / "out").spec == Pw3dI2l.spec


def test_a_folder_without_annotations(tmp_path):
    with pytest.raises(RecordError, match="pw3d_i2l: .*3DPW_train.json.*none"):
        Pw3dI2l(str(tmp_path)).splits()
