"""Made-up people before a camera, for any transform: consistent labels, one mark."""

import numpy as np

from data_pipelines import schema
from tests.data_pipelines.people import encode_image

WIDTH, HEIGHT = 300, 260
MARK = 5


def person(index: int, joints: int, *, rotations: int = 24, kind: str = "PNG") -> dict:
    """A record whose joints project onto its keypoints; joint 5 is marked."""
    rng = np.random.default_rng([9, index])
    camera = np.array([[400.0, 0.0, 0.0], [0.0, 390.0, 126.0], [0.0, 0.0, 1.0]])
    camera[0, 2] = (WIDTH - 1) / 2
    points = rng.uniform(-0.4, 0.4, (joints, 3)) + [0.06, -0.03, 3.0]
    pixels = points @ camera.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    low, high = pixels.min(0) - 8, pixels.max(0) + 8
    h36m = np.column_stack([rng.uniform(-0.4, 0.4, (17, 3)), np.ones(17)])
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    x, y = pixels[MARK]
    spot = 250 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2))
    return {
        "sample_id": f"person_{index}",
        "image": encode_image(np.repeat(spot[..., None], 3, -1).astype(np.uint8), kind),
        "image_height": HEIGHT,
        "image_width": WIDTH,
        "bbox_xywh_px": np.array([*low, *(high - low)]),
        "keypoints_px": np.column_stack([pixels, np.ones(joints)]),
        "joints_cam_m": np.column_stack([points, np.ones(joints)]),
        "joints_h36m_cam_m": h36m + [0, 0, 3, 0],
        "intrinsics": camera,
        "pose_aa": 0.5 * rng.standard_normal((rotations, 3)),
        "betas": 0.5 * rng.standard_normal(10),
        "translation_m": np.array([0.1, 0.05, 3.0]),
        "twist_cos_sin": rng.uniform(-1, 1, (rotations - 1, 2)),
        "twist_weight": np.ones(rotations - 1),
        **dict.fromkeys(("has_smpl", "has_keypoints", "has_joints_3d"), 1),
        **dict.fromkeys(("has_camera", "has_twist"), 1),
        "has_mask": 0,
    }


def mirrored_person(record: dict, flips: dict, last_pixel: bool) -> dict:
    """The same person in a mirror, by plain numpy.

    ``flips`` has the permutations of ``joints``, ``pose`` and ``h36m``; boxes end at
    their last pixel or after it.
    """
    import io

    from PIL import Image

    def side(points, permutation):
        return (points * ([-1] + [1] * (points.shape[-1] - 1)))[list(permutation)]

    with Image.open(io.BytesIO(record["image"])) as image:
        pixels = np.asarray(image)[:, ::-1]
    x, y, w, h = record["bbox_xywh_px"]
    keypoints = record["keypoints_px"].copy()
    keypoints[:, 0] = WIDTH - 1 - keypoints[:, 0]
    camera = record["intrinsics"].copy()
    camera[0, 2] = WIDTH - 1 - camera[0, 2]
    pose = (record["pose_aa"] * [1, -1, -1])[list(flips["pose"])]
    order = [joint - 1 for joint in flips["pose"][1:]]
    return record | {
        "image": encode_image(pixels),
        "bbox_xywh_px": np.array([WIDTH - 1 - x - w + last_pixel, y, w, h]),
        "keypoints_px": keypoints[list(flips["joints"])],
        "joints_cam_m": side(record["joints_cam_m"], flips["joints"]),
        "joints_h36m_cam_m": side(record["joints_h36m_cam_m"], flips["h36m"]),
        "intrinsics": camera,
        "pose_aa": pose,
        "translation_m": record["translation_m"] * [-1, 1, 1],
        "twist_cos_sin": (record["twist_cos_sin"] * [1, -1])[order],
        "twist_weight": record["twist_weight"][order],
    }


def spec_of(joint_set, rotations: int = 24) -> schema.RecordSpec:
    """Numbers of the records; joints are already in the transform's set."""
    return schema.RecordSpec(joint_set, len(joint_set), num_pose_joints=rotations)
