"""Records of I2L-MeshNet's data sets against its own loaders (public vectors)."""

import json
import zipfile

import numpy as np
import pytest

from data_pipelines.builders import catalog, layouts, record_source
from hmr_jax.body.joint_sets import map_joints

BUILDS = {
    "Human36M": ("h36m_i2l", "Human36M", {"rootnet": True}),
    "MuCo": ("muco_3dhp", "MuCo", {}),
    "MSCOCO": (
        "coco",
        "MSCOCO",
        {"people": "i2l", "fits": True, "pelvis": True, "rootnet": True},
    ),
    "PW3D": ("pw3d_i2l", "PW3D", {"rootnet": True}),
    "FreiHAND": ("freihand", "FreiHAND", {"layout": "i2l", "rootnet": True}),
}
TEST_SPLIT = {"MSCOCO": "val", "FreiHAND": "eval"}
TRAINED = ("Human36M", "MuCo", "MSCOCO", "FreiHAND")
TESTED = ("Human36M", "MSCOCO", "PW3D", "FreiHAND")
DEPTH_M = {"FreiHAND": 0.3}


@pytest.fixture(scope="module")
def folder(parity_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("minidata")
    with zipfile.ZipFile(parity_dir / "i2l_meshnet" / "minidata_public.zip") as file:
        file.extractall(path)
    return path / "data"


@pytest.fixture(scope="module")
def vectors(parity_dir):
    arrays, lists = {}, {}
    for kind in ("smpl", "mano"):
        stem = parity_dir / "i2l_meshnet" / f"datasets_{kind}_public"
        with np.load(stem.with_suffix(".npz")) as file:
            arrays |= {k: file[k] for k in file.files if "aug1" not in k}
        lists |= json.loads(stem.with_suffix(".json").read_text())
    return arrays, lists


def opened(folder, name, split, **options):
    builder, sub, published = BUILDS[name]
    split = TEST_SPLIT.get(name, "test") if split == "test" else split
    dataset = catalog.load(layouts.choose(builder))(
        str(folder / sub), **{**published, **options}
    )
    keys = dataset.keys(split)
    return dataset, list(record_source.checked_examples(dataset, split, keys))


def published_box(box, width, height):
    """Section 10.2 in scalars: shift, cut, make square, times 1.25."""
    x, y = max(0, box[0]), max(0, box[1])
    right = min(width - 1, x + max(0, box[2] - 1))
    bottom = min(height - 1, y + max(0, box[3] - 1))
    side = max(right - x, bottom - y) * 1.25
    return [(x + right - side) / 2, (y + bottom - side) / 2, side, side]


@pytest.mark.parametrize("name", TRAINED)
def test_training_samples_and_boxes(name, folder, vectors):
    arrays, lists = vectors
    _, records = opened(folder, name, "train")
    assert len(records) == lists[f"{name}.train"]["n"]
    for record, path in zip(records, lists[f"{name}.train"]["img_path"], strict=True):
        file = folder.parent / path.removeprefix("../")
        assert record["image"] == file.read_bytes()
    boxes = [
        published_box(r["bbox_xywh_px"], r["image_width"], r["image_height"])
        for r in records
    ]
    np.testing.assert_allclose(boxes, arrays[f"{name}.train.bbox"], atol=2e-4)


@pytest.mark.parametrize("name", TESTED)
def test_detected_boxes_and_depths(name, folder, vectors):
    arrays, lists = vectors
    _, records = opened(folder, name, "test")
    for record, path in zip(records, lists[f"{name}.test"]["img_path"], strict=True):
        file = folder.parent / path.removeprefix("../")
        assert record["image"] == file.read_bytes()
        assert record["box_is_crop"] == 1
    boxes = [r["bbox_xywh_px"] for r in records]
    np.testing.assert_allclose(boxes, arrays[f"{name}.test.bbox"], rtol=1e-6)
    unit = 1e-3 if name in ("Human36M", "MSCOCO") else 1.0
    np.testing.assert_allclose(
        [r["root_depth_m"] for r in records],
        unit * arrays[f"{name}.test.root_joint_depth"],
        rtol=1e-6,
    )


def in_heatmap(record, points_cam, root_depth_m, depth_m):
    """Sections 10.3 and 10.6 without augmentation, from pixels and metres."""
    size = record["image_width"], record["image_height"]
    x, y, side, _ = published_box(record["bbox_xywh_px"], *size)
    image = points_cam @ record["intrinsics"].astype(np.float64).T
    pixels = image[:, :2] / image[:, 2:]
    z = ((points_cam[:, 2] - root_depth_m) / (depth_m / 2) + 1) / 2
    return 64 * np.stack(
        [(pixels[:, 0] - x) / side, (pixels[:, 1] - y) / side, z], axis=1
    )


@pytest.mark.parametrize("name", ("Human36M", "MuCo"))
def test_original_joints(name, folder, vectors):
    arrays, _ = vectors
    dataset, records = opened(folder, name, "train")
    index, present = map_joints_of_i2l(dataset.spec.joint_set)
    root = dataset.spec.joint_set == "muco_21" and 14 or 0
    for number, record in enumerate(records):
        key = f"{name}.train.{number}.aug0"
        joints = record["joints_cam_m"][:, :3].astype(np.float64)
        expected = arrays[f"{key}.orig_joint_valid"][:, 0]
        np.testing.assert_array_equal(expected, present)
        relative = (joints - joints[root])[index] * present[:, None]
        np.testing.assert_allclose(relative, arrays[f"{key}.orig_joint_cam"], atol=2e-6)
        heatmap = in_heatmap(record, joints, joints[root, 2], 2.0)[index]
        np.testing.assert_allclose(
            heatmap[present], arrays[f"{key}.orig_joint_img"][present], atol=5e-4
        )


def test_coco_keypoints(folder, vectors):
    arrays, _ = vectors
    dataset, records = opened(folder, "MSCOCO", "train")
    index, present = map_joints_of_i2l(dataset.spec.joint_set)
    for number, record in enumerate(records):
        key = f"MSCOCO.train.{number}.aug0"
        points = record["keypoints_px"].astype(np.float64)
        valid = (points[:, 2] > 0)[index] & present
        expected = arrays[f"{key}.orig_joint_valid"][:, 0]
        np.testing.assert_array_equal(valid, expected)
        size = record["image_width"], record["image_height"]
        x, y, side, _ = published_box(record["bbox_xywh_px"], *size)
        heatmap = 64 * (points[:, :2] - [x, y]) / side
        np.testing.assert_allclose(
            heatmap[index][valid],
            arrays[f"{key}.orig_joint_img"][valid, :2],
            atol=5e-4,
        )


@pytest.mark.parametrize("name", TRAINED)
def test_body_parameters(name, folder, vectors, recipe, tmp_path):
    """Pose, shape, and the root joint, which holds the translation."""
    arrays, _ = vectors
    is_hand = name == "FreiHAND"
    body = recipe.mano_like(0) if is_hand else recipe.smpl_like(0)
    np.savez(tmp_path / "body.npz", **{k: body[k] for k in BODY_KEYS})
    options = {"smpl_model": str(tmp_path / "body.npz")} if name == "Human36M" else {}
    _, records = opened(folder, name, "train", **options)
    fits = 0
    for number, record in enumerate(records):
        key = f"{name}.train.{number}.aug0"
        if not record["has_smpl"]:
            assert arrays[f"{key}.is_valid_fit"] == 0
            continue
        fits += 1
        betas = record["betas"].astype(np.float64)
        shaped = body["v_template"] + body["shapedirs"][..., :10] @ betas
        root = body["J_regressor"][0] @ shaped + record["translation_m"]
        depth = DEPTH_M.get(name, 2.0)
        heatmap = in_heatmap(record, root[None], root[2], depth)[0]
        np.testing.assert_allclose(
            heatmap, arrays[f"{key}.fit_joint_img"][0], atol=5e-4
        )
        pose = arrays[f"{key}.pose_param"].reshape(-1, 3)
        np.testing.assert_allclose(record["pose_aa"][1:], pose[1:], atol=1e-6)
        turned = rotation(record["pose_aa"][0]), rotation(pose[0])
        np.testing.assert_allclose(*turned, atol=1e-5)
        shape = betas if is_hand or np.all(np.abs(betas) <= 3) else 0 * betas
        np.testing.assert_allclose(shape, arrays[f"{key}.shape_param"], atol=1e-6)
    assert fits


BODY_KEYS = ("v_template", "shapedirs", "J_regressor")


def rotation(axis_angle):
    """Rodrigues' formula."""
    angle = np.linalg.norm(axis_angle)
    x, y, z = axis_angle / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


_TO_I2L = {
    "h36m_right_first_17": "0 4 1 7 5 2 -1 6 3 -1 -1 -1 8 -1 -1 -1 11 14 12 15 13 16 "
    "-1 -1 9 -1 -1 -1 -1",
    "muco_21": "14 11 8 -1 12 9 15 13 10 -1 20 19 -1 -1 -1 16 5 2 6 3 7 4 18 17 -1 -1 "
    "-1 -1 -1",
    "coco_18": "17 11 12 -1 13 14 -1 15 16 -1 -1 -1 -1 -1 -1 -1 5 6 7 8 9 10 -1 -1 0 1 "
    "2 3 4",
}


def map_joints_of_i2l(joint_set):
    """The published table of section 3.6."""
    table = np.array([int(n) for n in _TO_I2L[joint_set].split()])
    return np.maximum(table, 0), table >= 0


def test_ground_truth_boxes_of_the_test_split(folder):
    dataset, records = opened(folder, "Human36M", "test", rootnet=False)
    for record in records:
        assert record["box_is_crop"] == 0
        depth = record["joints_cam_m"][0, 2]
        assert record["root_depth_m"] == pytest.approx(depth)
    assert dataset.dropped["test", "not camera 4"] > 0
    assert dataset.dropped["test", "frame is no multiple of 64"] > 0


def test_exactly_named_joints_map_by_name():
    """What maps by exact name is a part of the published tables."""
    for name in _TO_I2L:
        index, present = map_joints(name, "i2l_smpl_29")
        table, known = map_joints_of_i2l(name)
        assert np.all(known[present])
        np.testing.assert_array_equal(index[present], table[present])
