"""Small made-up records: a marked image and consistent labels, no body model."""

import functools
import io

import numpy as np
from PIL import Image

from data_pipelines import schema
from data_pipelines.builders import conversion, record_source
from hmr_jax.body.joint_sets import JOINT_SETS

SIZE = 64


def encode_image(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, quality=95)
    return buffer.getvalue()


def make_record(index: int, *, size=(SIZE, SIZE), joint_set="smpl_24") -> dict:
    """Record number ``index``: joints before a camera, labels that agree."""
    width, height = size
    rng = np.random.default_rng([5, index])
    joints = len(JOINT_SETS[joint_set])
    intrinsics = np.array(
        [[1.3 * width, 0.4, 0.47 * width], [0, 1.2 * width, 0.55 * height], [0, 0, 1]]
    )
    points = rng.uniform(-0.4, 0.4, (joints, 3)) + [0.05, -0.02, 3.0]
    pixels = points @ intrinsics.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    low, high = pixels.min(0), pixels.max(0)
    image = rng.integers(0, 200, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    image = np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    h36m = np.concatenate([rng.uniform(-0.4, 0.4, (17, 3)), np.ones((17, 1))], 1)
    angle = rng.uniform(-np.pi, np.pi, 23)
    has_3d = joint_set.startswith("smpl")
    record = {
        "image": encode_image(image),
        "image_height": height,
        "image_width": width,
        "sample_id": f"person_{index:04d}",
        "sequence_id": f"sequence_{index // 4}",
        "frame_id": index % 4,
        "bbox_xywh_px": np.array([*low, *np.maximum(high - low, 4)]),
        "keypoints_px": np.concatenate([pixels, np.ones((joints, 1))], 1),
        "has_keypoints": 1,
        "has_joints_3d": has_3d,
        "has_camera": has_3d,
        "has_smpl": has_3d,
        "has_twist": has_3d,
        "has_mask": 0,
    }
    if has_3d:
        record |= {
            "joints_cam_m": np.concatenate([points, np.ones((joints, 1))], 1),
            "joints_h36m_cam_m": h36m + [0, 0, 3, 0],
            "intrinsics": intrinsics,
            "pose_aa": 0.5 * rng.standard_normal((24, 3)),
            "betas": rng.standard_normal(10),
            "translation_m": rng.standard_normal(3),
            "gender": "female",
            "twist_cos_sin": np.stack([np.cos(angle), np.sin(angle)], 1),
            "twist_weight": (rng.uniform(size=23) < 0.8).astype(np.float32),
        }
    return record


class People(record_source.RecordSource):
    """Made-up people as a dataset."""

    description = "Made-up people."

    def __init__(self, counts=(("train", 10),), joint_set="smpl_24", broken=None):
        self.name = f"people_{joint_set}"
        rotations = 16 if joint_set.startswith("mano") else 24
        self.spec = schema.RecordSpec(
            joint_set, len(JOINT_SETS[joint_set]), num_pose_joints=rotations
        )
        self._counts = dict(counts)
        self._broken = broken

    def splits(self):
        return tuple(self._counts)

    def keys(self, split):
        return [f"{split}_{i}" for i in range(self._counts[split])]

    def config(self):
        return {"counts": self._counts}

    def example(self, split, key):
        index = int(key.removeprefix(f"{split}_"))
        record = make_record(index, joint_set=self.spec.joint_set)
        broken = self._broken if isinstance(self._broken, tuple) else (self._broken,)
        if index in broken:
            record["betas"] = np.full(10, np.nan)
        return record


def build_people(path, count=10, num_shards=2, **arguments):
    """A directory of records with one split ``train``."""
    people = {k: arguments.pop(k) for k in ("joint_set", "broken") if k in arguments}
    factory = functools.partial(People, (("train", count),), **people)
    return conversion.build(
        factory, path, num_shards=num_shards, progress=False, **arguments
    )


def parsed(made: list[dict]) -> dict:
    """Records as a transform receives them: tensors of a batch, with traits."""
    import tensorflow as tf

    from data_pipelines import batch_plan
    from data_pipelines.transforms.ikol import IkolTransform

    spec = schema.RecordSpec()
    serialized = [schema.encode(schema.validate(r, spec)) for r in made]
    batch = schema.parse_batch(tf.constant(serialized), IkolTransform.fields, spec)
    for name, value in batch_plan.DEFAULT_TRAITS.items():
        batch[name] = tf.fill([len(made)], value)
    return batch
