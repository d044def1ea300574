"""PoseTrack 2018: every label by hand."""

import json

import numpy as np
import pytest

from data_pipelines.builders.posetrack import PoseTrack
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders import written


def write(folder, split, video, frames, people, unlabelled=()):
    """A video's JSON with the tracks ``people`` and its frames."""
    rng = np.random.default_rng(7)
    images, annotations = [], []
    for i in range(frames):
        name = f"images/{split}/{video}/{i:06d}.jpg"
        labelled = i not in unlabelled
        number = 10000 + i
        images.append({"id": number, "frame_id": number, "file_name": name})
        images[-1] |= {"is_labeled": labelled, "nframes": frames, "vid_id": "000001"}
        written.write_image(folder / name, seed=i)
        for track in people:
            points = rng.uniform(1, 30, (17, 3))
            points[:, 2] = 1
            points[[3, 4]] = 0
            annotations.append(
                {
                    "bbox": [*rng.uniform(0, 10, 2), *rng.uniform(5, 20, 2)],
                    "keypoints": points.ravel().tolist(),
                    "track_id": track,
                    "image_id": number,
                    "id": number * 100 + track,
                    "bbox_head": [0, 0, 1, 1],
                    "category_id": 1,
                }
            )
    path = folder / "posetrack_data" / "annotations" / split
    path.mkdir(parents=True, exist_ok=True)
    content = {"images": images, "annotations": annotations, "categories": []}
    (path / f"{video}.json").write_text(json.dumps(content))
    return path / f"{video}.json", content


def test_every_label(tmp_path):
    raw = tmp_path / "raw"
    path, content = write(raw, "train", "000001_bonn", 9, (0, 3), unlabelled=(4,))
    write(raw, "val", "000002_mpii", 8, (1,))
    # Track 3 keeps 7 frames, one of them without keypoints in between.
    content["annotations"][3]["keypoints"] = [0] * 51
    path.write_text(json.dumps(content))

    def make():
        return PoseTrack(str(raw))

    dataset = make()
    found = written.read_all(dataset, "train")
    frames = [i for i in range(9) if i != 4]
    assert list(found) == [f"000001_bonn/0000/{i:06d}" for i in frames]
    assert dataset.dropped == {
        ("train", "frame not labelled"): 2,
        ("train", "no box or keypoints"): 1,
        ("train", "track too short"): 7,
    }
    assert len(dataset.keys("val")) == 8
    people = {p["image_id"]: p for p in content["annotations"] if p["track_id"] == 0}
    for i, record in zip(frames, found.values(), strict=True):
        person = people[10000 + i]
        x, y, w, h = person["bbox"]
        side = 0.8 * max(w, h)
        keypoints = np.reshape(person["keypoints"], (17, 3))
        keypoints[:, 2] = np.where(keypoints[:, 0] > 0, 2, 0)
        written.same(
            record,
            {
                "keypoints_px": keypoints,
                "bbox_xywh_px": [
                    *(x + w / 2 - side / 2, y + h / 2 - side / 2),
                    *(side, side),
                ],
                "sequence_id": "000001_bonn/0000",
                "frame_id": i,
                "person_id": 0,
            },
        )
    written.same_records(written.built(make, tmp_path / "out", "train"), found)


def test_options(tmp_path):
    _, content = write(tmp_path, "train", "000001_bonn", 3, (5,))
    dataset = PoseTrack(str(tmp_path), min_frames=1, box="annotated")
    found = written.read_all(dataset, "train").values()
    for person, record in zip(content["annotations"], found, strict=True):
        written.same(record, {"bbox_xywh_px": person["bbox"], "person_id": 5})
    assert PoseTrack(str(tmp_path)).keys("train") == []


def test_another_release(tmp_path):
    with pytest.raises(RecordError, match="posetrack: .*JSON files, one a video"):
        PoseTrack(str(tmp_path)).keys("train")
    path, _ = write(tmp_path, "train", "a", 1, (0,))
    path.write_text(json.dumps({"annolist": []}))
    with pytest.raises(RecordError, match=r"a.json: expected an entry named 'images'"):
        PoseTrack(str(tmp_path)).keys("train")


def test_a_track_twice_in_a_frame(tmp_path):
    path, content = write(tmp_path, "train", "000001_bonn", 3, (5,))
    again = content["annotations"][1] | {"bbox": [1, 2, 3, 4], "id": 7}
    content["annotations"].append(again)
    path.write_text(json.dumps(content))
    dataset = PoseTrack(str(tmp_path), min_frames=3, box="annotated")
    found = list(written.read_all(dataset, "train").values())
    assert len(found) == 3
    box = content["annotations"][1]["bbox"]
    written.same(found[1], {"bbox_xywh_px": box})
    assert dataset.dropped == {("train", "track twice in a frame"): 1}
    assert PoseTrack(str(tmp_path), min_frames=4).keys("train") == []
