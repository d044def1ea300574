"""Synthetic training samples: random scenes, their pictures, and every label.

A sample depends on (seed, split, index) alone. Its scene is drawn with numpy, its
picture and labels come from one jitted program, its bytes from Pillow.
"""

import collections
import concurrent.futures
import os
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from hmr_jax.body.joint_sets import JOINT_SETS
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.render.draw import encode_image
from hmr_jax.render.shade import Light
from hmr_jax.synthetic import joint_limits
from hmr_jax.synthetic.backgrounds import (
    Backgrounds,
    FolderBackgrounds,
    ProceduralBackgrounds,
)
from hmr_jax.synthetic.clothing import figure, sample_clothes
from hmr_jax.synthetic.motion import SPLITS, MotionSet
from hmr_jax.synthetic.pose_law import UPPER_BODY
from hmr_jax.synthetic.scene import Scene, Shot, shoot_all

LIMITS_SEQUENCE = "joint_limits"
"""Sequence name of samples whose pose comes from the joint-limit sampler."""
JITTER_RAD = 0.06
FIELD_OF_VIEW_DEG = (18.0, 62.0)
BETA_LIMIT = 2.5
_MIRROR = JOINT_SETS["smpl_24"].flip_permutation


def _turn(axis: int, angle_rad: float) -> np.ndarray:
    """Rotation matrix about a coordinate axis."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def heading_rad(root_aa: np.ndarray) -> float:
    """Azimuth a person faces: of the body's z axis, seen from above.

    Args:
        root_aa: root rotation, axis-angle [3], in a world with y up.

    Returns:
        Angle about y from +z, radians.
    """
    angle = np.linalg.norm(root_aa)
    x, y, z = root_aa / max(angle, 1e-12)
    c, s = np.cos(angle), np.sin(angle)
    return float(np.arctan2(x * z * (1 - c) + y * s, z * z * (1 - c) + c))


def mirror_pose(pose_aa: np.ndarray) -> np.ndarray:
    """The pose of the mirror image, left and right exchanged.

    Args:
        pose_aa: [24, 3] radians, the root's in a world whose mirror plane is x = 0.
    """
    return pose_aa[list(_MIRROR)] * np.array([1.0, -1.0, -1.0])


def sample_camera_rotmat(
    rng: np.random.Generator, front_rad: float = 0.0, azimuth_range_rad: float = np.pi
) -> np.ndarray:
    """Orientation of a camera somewhere around the person.

    Args:
        rng: source of randomness.
        front_rad: azimuth the person faces.
        azimuth_range_rad: how far to either side of it the camera may stand.

    Returns:
        [3, 3] world axes (y up) to camera axes: any azimuth in the range, looking down
        by 10 +- 12 degrees (-20 to 45), rolled by +- 4 degrees.
    """
    yaw = rng.uniform(-azimuth_range_rad, azimuth_range_rad) - front_rad
    down = np.deg2rad(np.clip(rng.normal(10.0, 12.0), -20.0, 45.0))
    roll = np.deg2rad(rng.normal(0.0, 4.0))
    upright = np.diag([1.0, -1.0, -1.0])
    return _turn(2, roll) @ _turn(0, down) @ upright @ _turn(1, yaw)


def sample_light(rng: np.random.Generator) -> Light:
    """A lamp above or beside the camera and ambient light, slightly coloured.

    Args:
        rng: source of randomness.

    Returns:
        ``Light`` of float32 arrays.
    """
    ambient = rng.uniform(0.4, 0.75) * rng.uniform(0.9, 1.1, 3)
    lamp = rng.uniform(0.3, 0.8) * rng.uniform(0.88, 1.12, 3)
    direction = rng.normal([0.0, -0.8, -0.9], [1.0, 0.7, 0.8])
    parts: list[Any] = [ambient, direction, lamp]
    return Light(*jax.tree.map(_as_float32, parts))


def _as_float32(x: Any) -> np.ndarray:
    x = np.asarray(x)
    return x if x.dtype == np.uint8 else x.astype(np.float32)


class SampleSource:
    """Random access to synthetic samples.

    Poses: frames of the split's clips. In training, part of them get the upper body of
    another frame, all get a little noise, and a share comes from the joint-limit
    sampler. The test split has unchanged frames of held-out clips only.
    """

    def __init__(
        self,
        body: BodyModel,
        motion: MotionSet,
        *,
        split: str = "train",
        image_size_px: int = 128,
        seed: int = 0,
        num_samples: int = 1000,
        backgrounds: Backgrounds | str | os.PathLike | None = None,
        limits_share: float = 0.2,
        mixed_share: float = 0.25,
        mirrored_share: float = 0.5,
        truncated_share: float = 0.12,
        suit_share: float = 0.0,
        flash_share: float = 0.0,
        azimuth_range_deg: float = 180.0,
        field_of_view_deg: tuple[float, float] = FIELD_OF_VIEW_DEG,
        betas_std: float = 1.0,
        supersample: int = 2,
        image_format: str = "jpeg",
        chunk_size: int = 8,
        num_threads: int | None = None,
    ):
        """Prepare; nothing is drawn yet.

        Args:
            body: a body of the 24-joint tree.
            motion: clips of both splits.
            split: "train" or "test".
            image_size_px: side of the square images.
            seed: of everything random.
            num_samples: length.
            backgrounds: None for procedural ones, a folder of pictures, or a callable
                (rng, size_px) -> uint8 picture.
            limits_share: share of training poses from the joint-limit sampler.
            mixed_share: share of training frames with another frame's upper body.
            mirrored_share: share of training poses that are mirrored left to right.
            truncated_share: share of pictures that cut the person.
            suit_share: share of people in a suit with a colour for each part.
            flash_share: share of pictures lit by a lamp at the camera, whose light
                fades with the square of the distance and so shows depth.
            azimuth_range_deg: how far from the person's front the camera may stand.
            field_of_view_deg: least and largest angle of view of the camera; a large
                one puts it near the person.
            betas_std: of the normal shape coefficients, cut at +-2.5 of them.
            supersample: rendering samples per pixel and axis.
            image_format: "jpeg" or "png".
            chunk_size: samples drawn by one call of the program; the samples do not
                depend on it.
            num_threads: chunks in progress at once; by default up to 4 CPUs.

        Raises:
            UserError: an argument out of range, or no clip in the split.
        """
        if split not in SPLITS:
            raise UserError(f"split: expected one of {SPLITS}, got {split!r}")
        for name, value in (
            ("image_size_px", image_size_px),
            ("chunk_size", chunk_size),
            ("supersample", supersample),
        ):
            if value < 1:
                raise UserError(f"{name}: expected at least 1, got {value}")
        for name, share in (
            ("limits_share", limits_share),
            ("mixed_share", mixed_share),
            ("mirrored_share", mirrored_share),
            ("truncated_share", truncated_share),
            ("suit_share", suit_share),
            ("flash_share", flash_share),
        ):
            if not 0.0 <= share <= 1.0:
                raise UserError(f"{name}: expected 0 to 1, got {share}")
        if image_format not in ("jpeg", "png"):
            raise UserError(
                f"image_format: expected 'jpeg' or 'png', got {image_format!r}"
            )
        low, high = field_of_view_deg
        if not 0.0 < low <= high < 150.0:
            raise UserError(
                "field_of_view_deg: expected two increasing angles between 0 and 150, "
                f"got {field_of_view_deg}"
            )
        self.clips = motion.split(split).clips
        if not self.clips:
            raise UserError(f"motion: expected clips of split {split!r}, found none")
        self.split, self.seed = split, seed
        self.image_size_px, self.num_samples = image_size_px, num_samples
        self.joint_set = "smpl_24"
        self._limits_share = limits_share if split == "train" else 0.0
        self._mixed_share = mixed_share if split == "train" else 0.0
        self._mirrored_share = mirrored_share if split == "train" else 0.0
        self._flash_share = flash_share
        self._truncated_share, self._suit_share = truncated_share, suit_share
        self._field_of_view_deg = (low, high)
        self._azimuth_range_rad = np.deg2rad(azimuth_range_deg)
        self._jitter_rad = JITTER_RAD if split == "train" else 0.0
        self._betas_std, self._supersample = betas_std, supersample
        self._image_format, self._chunk_size = image_format, chunk_size
        self._num_threads = num_threads or min(4, os.cpu_count() or 1)
        if backgrounds is None:
            backgrounds = ProceduralBackgrounds()
        elif isinstance(backgrounds, str | os.PathLike):
            backgrounds = FolderBackgrounds(backgrounds)
        self._backgrounds = backgrounds
        self._body, self._figure = body, figure(body)
        lengths = np.array([len(clip.poses_aa) for clip in self.clips], np.float64)
        # Long clips repeat themselves: the square root gives short ones more weight.
        self._clip_shares = np.sqrt(lengths) / np.sqrt(lengths).sum()

    def __len__(self) -> int:
        return self.num_samples

    def sample(self, index: int) -> dict[str, Any]:
        """One record.

        Args:
            index: from 0 to ``len - 1``.

        Returns:
            Fields of the record schema: numpy arrays, numbers, strings, image bytes.

        Raises:
            IndexError: no such sample.
        """
        return self._chunk([index])[0]

    def samples(self, indices: Iterable[int] | None = None) -> Iterator[dict[str, Any]]:
        """Records in a given order, drawn in chunks by several threads.

        Args:
            indices: by default all of them.

        Yields:
            What ``sample`` returns for each index.

        Raises:
            IndexError: no such sample.
        """
        chunks = self._chunks(range(len(self)) if indices is None else indices)
        pending: collections.deque = collections.deque()
        with concurrent.futures.ThreadPoolExecutor(self._num_threads) as pool:
            for chunk in chunks:
                pending.append(pool.submit(self._chunk, chunk))
                if len(pending) > self._num_threads:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()

    def _chunks(self, indices: Iterable[int]) -> Iterator[list[int]]:
        chunk: list[int] = []
        for index in indices:
            chunk.append(int(index))
            if len(chunk) == self._chunk_size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _rng(self, index: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng(
            [self.seed, zlib.crc32(self.split.encode()), index, purpose]
        )

    def _chunk(self, indices: list[int]) -> list[dict[str, Any]]:
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"sample {index} of {len(self)}")
        drawn = [self.scene(index) for index in indices]
        scenes = [scene for scene, _ in drawn]
        scenes += scenes[-1:] * (self._chunk_size - len(scenes))
        stacked = jax.tree.map(lambda *xs: np.stack(xs), *scenes)
        shots = jax.device_get(
            shoot_all(
                *(self._body, self._figure, stacked, np.int32(len(indices))),
                size_px=self.image_size_px,
                supersample=self._supersample,
                vectorized=jax.default_backend() != "cpu",
            )
        )
        records = []
        for position, (index, (scene, origin)) in enumerate(
            zip(indices, drawn, strict=True)
        ):
            shot = jax.tree.map(lambda x, at=position: x[at], shots)
            records.append(self._record(index, scene, shot, origin))
        return records

    def scene(self, index: int) -> tuple[Scene, tuple[str, int]]:
        """What sample ``index`` shows, before it is drawn.

        Args:
            index: of the sample.

        Returns:
            The scene in numpy arrays, and the name of the motion and the frame.
        """
        rng = self._rng(index, 0)
        pose, origin = self._sample_pose(rng, index)
        size = self.image_size_px
        half_view = np.deg2rad(rng.uniform(*self._field_of_view_deg)) / 2
        truncated = rng.uniform() < self._truncated_share
        fill = rng.uniform(0.95, 1.4) if truncated else rng.uniform(0.55, 0.9)
        room = 0.25 if truncated else max(0.0, 0.96 - fill) / 2
        betas = np.clip(rng.normal(size=self._body.num_betas), -BETA_LIMIT, BETA_LIMIT)
        fields: dict[str, Any] = {
            "pose_aa": pose,
            "betas": betas * self._betas_std,
            "camera_rotmat": sample_camera_rotmat(
                rng, heading_rad(pose[0]), self._azimuth_range_rad
            ),
            "focal_px": size / 2 / np.tan(half_view),
            "fill": fill,
            "centre_px": (size - 1) / 2 + size * rng.uniform(-room, room, 2),
            "light": sample_light(rng),
            "falloff": 2.0 if rng.uniform() < self._flash_share else 0.0,
            "clothes": sample_clothes(rng, self._suit_share),
            "background": self._backgrounds(rng, size),
        }
        return Scene(**jax.tree.map(_as_float32, fields)), origin

    def _sample_pose(self, rng: np.random.Generator, index: int):
        """Axis-angle [24, 3] with the root in a world with y up, and its origin."""
        mirrored = rng.uniform() < self._mirrored_share
        if rng.uniform() < self._limits_share:
            pose = joint_limits.sample_pose(rng)
            return mirror_pose(pose) if mirrored else pose, (LIMITS_SEQUENCE, index)
        pose, name, frame = self._sample_frame(rng)
        if rng.uniform() < self._mixed_share:
            other, _, _ = self._sample_frame(rng)
            pose[list(UPPER_BODY)] = other[list(UPPER_BODY)]
        pose[1:] += self._jitter_rad * rng.standard_normal((23, 3))
        return mirror_pose(pose) if mirrored else pose, (name, frame)

    def _sample_frame(self, rng: np.random.Generator):
        clip = self.clips[rng.choice(len(self.clips), p=self._clip_shares)]
        frame = int(rng.integers(len(clip.poses_aa)))
        return np.array(clip.poses_aa[frame], np.float64), clip.name, frame

    def _finish(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A camera's exposure, contrast and noise."""
        gain, contrast = rng.uniform(0.85, 1.15), rng.uniform(0.85, 1.15)
        noise = rng.standard_normal(image.shape, np.float32) * rng.uniform(0.0, 6.0)
        pixels = (image.astype(np.float32) * gain - 128.0) * contrast + 128.0 + noise
        return np.clip(np.round(pixels), 0, 255).astype(np.uint8)

    def _record(self, index: int, scene: Scene, shot: Shot, origin) -> dict[str, Any]:
        size = self.image_size_px
        image = self._finish(np.asarray(shot.image), self._rng(index, 1))
        labels = {
            name: np.asarray(value, np.float32)
            for name, value in shot.labels._asdict().items()
        }
        return {
            "image": encode_image(image, self._image_format),
            "image_height": size,
            "image_width": size,
            "sample_id": f"synthetic-{self.split}-{self.seed}-{index:07d}",
            "sequence_id": origin[0],
            "frame_id": origin[1],
            "person_id": 0,
            **labels,
            "intrinsics": np.asarray(shot.intrinsics),
            "extrinsics": np.asarray(shot.extrinsics),
            "pose_aa": np.asarray(shot.pose_aa),
            "betas": scene.betas,
            "translation_m": np.asarray(shot.translation_m),
            "gender": self._body.gender or "neutral",
            "mask": encode_image(np.asarray(shot.mask), "png"),
            "has_smpl": 1,
            "has_keypoints": 1,
            "has_joints_3d": 1,
            "has_camera": 1,
            "has_twist": 1,
            "has_mask": 1,
        }
