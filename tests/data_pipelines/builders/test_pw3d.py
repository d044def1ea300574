"""3DPW's own sequence files, as Python 2 pickled them."""

import functools
import importlib.util

import numpy as np
import pytest

from data_pipelines.builders import mpii_joints
from data_pipelines.builders.boxes import MIN_CONFIDENCE, smooth_boxes
from data_pipelines.builders.pw3d import Pw3d
from data_pipelines.schema import RecordError
from tests.data_pipelines.builders.published import (
    build,
    close,
    picture,
    pixels,
    put,
    python2_pickle,
    read,
    rodrigues,
)

FRAMES, SIZE = 12, (192, 108)
FOCAL, CENTRE = (196.0, 197.0), (96.0, 54.0)
K = np.array([[FOCAL[0], 0, CENTRE[0]], [0, FOCAL[1], CENTRE[1]], [0, 0, 1]])


def sequence(rng, name, frames=FRAMES):
    """Two people; camera poses turn and move with the frame."""
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    for frame in range(frames):
        cameras[frame, :3, :3] = rodrigues([0.05 * frame, 0.3, 3.0])
        cameras[frame, :3, 3] = [0.02 * frame, 0.1, 4.0]
    root = rng.standard_normal((2, frames, 1, 3)) * 0.1
    joints = root + 0.4 * rng.standard_normal((2, frames, 24, 3))
    detections = rng.uniform(20, 90, (2, frames, 3, 18))
    detections[:, :, 2] = 0.9
    return {
        "sequence": name,
        "betas": [rng.standard_normal(10), rng.standard_normal(300)],
        "poses": [rng.standard_normal((frames, 72)) for _ in range(2)],
        "trans": [rng.standard_normal((frames, 3)) for _ in range(2)],
        "jointPositions": [j.reshape(frames, 72) for j in joints],
        "genders": ["m", "f"],
        "campose_valid": [np.ones(frames, int), np.ones(frames, int)],
        "cam_poses": cameras,
        "cam_intrinsics": K,
        "poses2d": list(detections),
        "img_frame_ids": np.arange(frames),
        "v_template_clothed": [np.zeros((6, 3))] * 2,
    }


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(2)
    content = sequence(rng, "downtown_walk_00")
    content["campose_valid"][0][[0, 4]] = 0
    content["jointPositions"][1][7] = 90.0  # far outside the image
    content["poses2d"][1][3, 2] = 0.0  # nobody detected
    put(
        tmp_path / "sequenceFiles" / "test" / "downtown_walk_00.pkl",
        python2_pickle(content),
    )
    for frame in range(FRAMES):
        file = tmp_path / "imageFiles" / "downtown_walk_00" / f"image_{frame:05d}.jpg"
        put(file, picture(frame, SIZE))
    return tmp_path, content


def test_labels_of_every_record(dataset):
    folder, content = dataset
    source = Pw3d(str(folder))
    found = read(source, "test")
    assert len(found) == (FRAMES - 2) + (FRAMES - 1)
    assert source.dropped == {
        ("test", "no valid camera"): 2,
        ("test", "no joint inside the image"): 1,
    }
    assert next(iter(found)) == "downtown_walk_00_0_00001"
    for record in found.values():
        person, frame = int(record["person_id"]), int(record["frame_id"])
        camera = content["cam_poses"][frame]
        rotation, offset = camera[:3, :3], camera[:3, 3]
        world = content["jointPositions"][person][frame].reshape(24, 3)
        joints = world @ rotation.T + offset
        close(record["joints_cam_m"], np.c_[joints, np.ones(24)])
        expected = pixels(joints, FOCAL, CENTRE)
        close(record["keypoints_px"][:, :2], expected, 1e-2)
        pose = content["poses"][person][frame].reshape(24, 3)
        close(record["pose_aa"][1:], pose[1:])
        turned = rodrigues(record["pose_aa"][0].astype(float))
        close(turned, rotation @ rodrigues(pose[0]))
        # The root joint of the moved body is where the camera sees the root joint.
        rest = world[0] - content["trans"][person][frame]
        close(rest + record["translation_m"], joints[0])
        close(record["betas"], content["betas"][person][:10])
        close(record["extrinsics"], camera)
        close(record["intrinsics"], K)
        close(record["detections_px"], content["poses2d"][person][frame].T)
        assert record["gender"] == ("male", "female")[person]
        inside = np.all((expected >= 0) & (expected < SIZE), axis=1)
        low, high = expected[inside].min(0), expected[inside].max(0)
        sides = 1.2 * (high - low)
        close(record["bbox_xywh_px"], [*((low + high - sides) / 2), *sides], 1e-2)


def test_smoothed_boxes(dataset):
    folder, content = dataset
    source = Pw3d(str(folder), boxes="smooth")
    found = read(source, "test")
    assert len(found) == (FRAMES - 2) + (FRAMES - 1)
    assert source.dropped["test", "6 or fewer confident 2D detections"] == 1
    scipy_ndimage = pytest.importorskip("scipy.ndimage")
    scipy_signal = pytest.importorskip("scipy.signal")
    columns = np.swapaxes(content["poses2d"][0], 1, 2)
    # By pose_hg's script: hips, knees, ankles, wrists, elbows and shoulders as COCO
    # has them, the nose, and the middles of columns 11, 12 and 5, 6; eyes and ears not.
    middles = [(columns[:, i] + columns[:, i + 1]) / 2 for i in (5, 11)]
    derived = np.stack([columns[:, 0], *middles], 1)
    derived = np.concatenate([derived, columns[:, 5:17]], 1)
    for option, points in (
        ("smooth", columns[:, :14]),
        ("smooth_published", derived),
        ("smooth_int", columns[:, 2:14]),
    ):
        zero_ends = option != "smooth"
        low, high = points[..., :2].min(1), points[..., :2].max(1)
        scale = 150 / np.linalg.norm(high - low, axis=1)
        track = np.stack([*((low + high) / 2).T, scale])
        rows = []
        for row in track:
            padded = row if zero_ends else np.pad(row, 5, mode="edge")
            row = scipy_signal.medfilt(padded, 11)
            row = row if zero_ends else row[5:-5]
            rows.append(scipy_ndimage.gaussian_filter1d(row, 8))
        x, y, s = rows
        side = 1.1 * 150 / s
        expected = np.stack([x - side / 2, y - side / 2, side, side], 1)
        boxes = smooth_boxes(points, zero_ends)
        np.testing.assert_allclose(boxes, expected, rtol=1e-9)
        record = read(Pw3d(str(folder), boxes=option), "test")
        close(record["downtown_walk_00_0_00006"]["bbox_xywh_px"], expected[6], 1e-3)


@pytest.fixture(scope="module")
def published(parity_dir, recipe):
    """pose_hg's script on a track of 40 frames: the track and what came out."""
    path = parity_dir / "pose_hg" / "inputs_posehg3d.py"
    spec = importlib.util.spec_from_file_location("inputs_posehg3d", path)
    inputs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(inputs)
    inputs.original = 11  # the seed, which the function takes for a global
    return inputs.track_keypoints(11), np.load(path.with_name("prep_public.npz"))


def test_detections_as_the_published_script_reads_them(published):
    track, stored = published
    found = mpii_joints.detections_in_mpii_order(track)
    np.testing.assert_allclose(found, stored["mpii2d_raw"], rtol=1e-6, atol=1e-4)
    seen = found[..., 2] > MIN_CONFIDENCE
    np.testing.assert_array_equal(seen, stored["mpii2d"][..., 2])
    np.testing.assert_array_equal(seen.sum(1) > 6, stored["keep"])


def test_the_published_filter(published):
    track, stored = published
    boxes = smooth_boxes(track, zero_ends=True)
    x, y, scale = stored["bbox_params"].T
    side = 1.1 * 150 / scale
    expected = np.stack([x - side / 2, y - side / 2, side, side], 1)
    np.testing.assert_allclose(boxes, expected, rtol=1e-9)


def test_frames_are_kept_by_the_joints_that_make_the_box(dataset):
    """Seven columns are seen: seven detections, but nine of the sixteen joints."""
    folder, content = dataset
    detections = content["poses2d"][1]
    detections[:, 2] = 0.1
    detections[:, 2, [0, 1, 5, 6, 7, 11, 12]] = 0.9
    file = folder / "sequenceFiles" / "test" / "downtown_walk_00.pkl"
    put(file, python2_pickle(content))
    for option, kept in (("smooth", 12), ("smooth_published", 12), ("smooth_int", 0)):
        keys = Pw3d(str(folder), boxes=option).keys("test")
        assert len([key for key in keys if "_1_" in key]) == kept, option
    # Columns 0, 5, 6, 11, 12: nose, neck and head top, and both pairs and middles.
    detections[:, 2, [1, 7]] = 0.1
    put(file, python2_pickle(content))
    for option, kept in (("smooth", 0), ("smooth_published", 12)):
        keys = Pw3d(str(folder), boxes=option).keys("test")
        assert len([key for key in keys if "_1_" in key]) == kept, option


def test_boxes_of_people_not_seen_at_first(rng):
    points = rng.uniform(0, 90, (20, 18, 3))
    points[:, :, 2] = 1
    points[:3, :, 2] = 0
    points[9, :, 2] = 0
    points[18:, :, 2] = 0
    boxes = smooth_boxes(points)
    missing = np.isnan(boxes).all(1)
    np.testing.assert_array_equal(np.flatnonzero(missing), [0, 1, 2, 18, 19])
    assert np.isnan(smooth_boxes(0 * points)).all()


def test_the_records_on_disk(dataset, tmp_path):
    folder, _ = dataset
    rng = np.random.default_rng(3)
    for split, name in (("train", "a_00"), ("validation", "b_00")):
        content = sequence(rng, name, frames=2)
        file = folder / "sequenceFiles" / split / f"{name}.pkl"
        put(file, python2_pickle(content))
        for frame in range(2):
            image = folder / "imageFiles" / name / f"image_{frame:05d}.jpg"
            put(image, picture(frame, SIZE))
    factory = functools.partial(Pw3d, str(folder))
    directory = build(factory, tmp_path / "out")
    assert directory.spec == Pw3d.spec
    sequences = folder / "sequenceFiles" / "train"
    (sequences / "._a_00.pkl").write_bytes(b"what macOS leaves")
    assert build(factory, tmp_path / "out").fingerprint == directory.fingerprint
    put(sequences / "c_00.pkl", python2_pickle(sequence(rng, "c_00", frames=2)))
    message = r"sequenceFiles/train/\*.pkl: 1 files before, 2 now.*--rebuild"
    with pytest.raises(RecordError, match=message):
        build(factory, tmp_path / "out")


def test_what_is_missing_is_named(dataset):
    folder, content = dataset
    with pytest.raises(RecordError, match=r"pw3d: .*sequenceFiles/train.*\*.pkl"):
        Pw3d(str(folder)).keys("train")
    del content["poses2d"]
    file = folder / "sequenceFiles" / "test" / "downtown_walk_00.pkl"
    put(file, python2_pickle(content))
    with pytest.raises(RecordError, match=r"downtown_walk_00.pkl.*'poses2d'"):
        Pw3d(str(folder)).keys("test")
