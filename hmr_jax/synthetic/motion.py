"""Motion clips: the shipped motion capture and users' own AMASS-like files."""

import dataclasses
import functools
import importlib.resources
import os
import pathlib
from typing import Any

import numpy as np
from absl import logging

from hmr_jax.body.npz import read_npz
from hmr_jax.errors import UserError
from hmr_jax.files import is_hidden
from hmr_jax.outside import FileError, reader

MOTION_FILE = "motion.npz"
FRAME_RATE_KEYS = ("mocap_framerate", "mocap_frame_rate", "fps")
_NAMES = ("poses", "trans", *FRAME_RATE_KEYS)
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Clip:
    """One motion of one person.

    Attributes:
        name: unique in its set.
        poses_aa: [T, 24, 3] axis-angle in SMPL's joint order, radians; joint 0 turns
            the body in the world, y up; the identity faces +z.
        root_m: [T, 3] translation, metres, y up; the open body's pelvis.
        fps: frames per second.
        split: "train" or "test".
    """

    name: str
    poses_aa: np.ndarray
    root_m: np.ndarray
    fps: float
    split: str

    def __len__(self) -> int:
        return len(self.poses_aa)


@dataclasses.dataclass(frozen=True)
class MotionSet:
    """Some clips.

    Attributes:
        clips: the clips, in a fixed order.
    """

    clips: tuple[Clip, ...]

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def num_frames(self) -> int:
        """Frames of all clips together."""
        return sum(map(len, self.clips))

    @property
    def poses_aa(self) -> np.ndarray:
        """[frames, 24, 3] poses of all clips, one after another."""
        if not self.clips:
            return np.zeros((0, 24, 3), np.float32)
        return np.concatenate([clip.poses_aa for clip in self.clips])

    def split(self, name: str) -> "MotionSet":
        """The clips of one split.

        Args:
            name: "train" or "test".

        Returns:
            A set with those clips, maybe none.

        Raises:
            UserError: another name.
        """
        if name not in SPLITS:
            raise UserError(f"split: expected one of {SPLITS}, got {name!r}")
        return MotionSet(tuple(clip for clip in self.clips if clip.split == name))


def load_motion(
    path: str | os.PathLike | None = None, *, split: str = "train"
) -> MotionSet:
    """The shipped clips, or those of an AMASS-like file or folder.

    The shipped clips are 20 motions (1,200 frames at 30 per second) of walking,
    running, dancing, fighting and acrobatics. Five kinds of motion are held out as
    "test": ``dance_a``, ``getup_facedown``, ``jump``, ``kick``, ``run``.

    Args:
        path: an ``.npz`` with ``poses`` [T, >= 66] (SMPL, SMPL-H or SMPL-X order, of
            which the 22 body joints are read), optionally ``trans`` [T, 3] and
            ``mocap_framerate`` or ``mocap_frame_rate`` (else 30), z up as in AMASS; or
            a folder, read with its subfolders, where files without ``poses`` (AMASS's
            ``shape.npz`` and ``*_stagei.npz``) and hidden ones are left out and
            counted in a warning; or None for the shipped clips.
        split: the split that clips of ``path`` get; the shipped ones have their own.

    Returns:
        The clips.

    Raises:
        FileNotFoundError: no such file, or a folder without files of poses.
        OSError: a file cannot be read; it is named.
        UserError: an array has a wrong shape, or the one file given lacks ``poses``;
            the file is named.
    """
    if path is None:
        return _shipped()
    if split not in SPLITS:
        raise UserError(f"split: expected one of {SPLITS}, got {split!r}")
    path = pathlib.Path(path)
    if path.is_dir():
        return MotionSet(tuple(_read_folder(path, split)))
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: expected an .npz of poses or a folder of them"
        )
    clip = _read_amass(path, path.parent, split)
    if clip is None:
        raise UserError(f"{path}: expected an array 'poses', found none")
    return MotionSet((clip,))


def _read_folder(folder: pathlib.Path, split: str) -> list[Clip]:
    """The clips of a folder; what holds no motion is left out and counted."""
    files = [
        path
        for path in sorted(folder.rglob("*.npz"))
        if not any(map(is_hidden, path.relative_to(folder).parts))
    ]
    clips = [_read_amass(path, folder, split) for path in files]
    found = [clip for clip in clips if clip is not None]
    if not found:
        others = f", found {len(files)} files without" if files else ""
        raise FileNotFoundError(
            f"{folder}: expected .npz files with an array 'poses'{others}"
        )
    if len(found) < len(files):
        first = files[clips.index(None)]
        logging.warning(
            "%s: %d motions; %d other .npz files without poses were left out (%s)",
            *(folder, len(found), len(files) - len(found), first),
        )
    return found


@functools.cache
def _shipped() -> MotionSet:
    asset = importlib.resources.files("hmr_jax.synthetic") / "assets" / MOTION_FILE
    if not asset.is_file():
        raise FileNotFoundError(
            f"{asset}: not found; the package was installed without its assets "
            "(reinstall hmr_jax, or build the file with scripts/build_motion.py)"
        )
    with asset.open("rb") as stream, np.load(stream, allow_pickle=False) as data:
        ends = np.cumsum(data["lengths"])
        poses = np.split(data["poses_aa"].astype(np.float32), ends[:-1])
        roots = np.split(data["root_m"].astype(np.float32), ends[:-1])
        fps = float(data["fps"])
        names, splits = data["names"].tolist(), data["splits"].tolist()
    return MotionSet(
        tuple(
            Clip(name, pose, root, fps, part)
            for name, pose, root, part in zip(names, poses, roots, splits, strict=True)
        )
    )


@reader("an .npz of poses")
def _read_amass(path: pathlib.Path, root: pathlib.Path, split: str) -> Clip | None:
    """One AMASS-like file: z up, body joints first; None where it has no poses."""
    data = _arrays(path)
    if "poses" not in data:
        return None
    poses = np.asarray(data["poses"], np.float32)
    frames = len(poses) if poses.ndim else 0
    poses = poses.reshape(frames, -1) if poses.ndim > 1 and frames else poses
    if poses.ndim != 2 or poses.shape[1] < 66 or poses.shape[1] % 3:
        raise UserError(
            f"{path}: poses: expected shape (T, 3 n) with 3 n >= 66 (22 joints), "
            f"got {poses.shape}"
        )
    trans = np.asarray(data.get("trans", np.zeros((frames, 3))), np.float32)
    if trans.shape != (frames, 3):
        raise UserError(
            f"{path}: trans: expected shape ({frames}, 3), got {trans.shape}"
        )
    rates = [float(data[key]) for key in FRAME_RATE_KEYS if key in data]
    pose = np.zeros((frames, 24, 3), np.float32)
    # The 22 body joints are the same in SMPL, SMPL-H and SMPL-X. Of 72 numbers the
    # rest are SMPL's hand joints; otherwise fingers or a face, which SMPL has not.
    joints = 24 if poses.shape[1] == 72 else 22
    pose[:, :joints] = poses[:, : 3 * joints].reshape(frames, joints, 3)
    pose[:, 0] = _turn_z_up_to_y_up(pose[:, 0])
    name = str(path.relative_to(root).with_suffix(""))
    root_m = np.stack([trans[:, 0], trans[:, 2], -trans[:, 1]], axis=-1)
    return Clip(name, pose, root_m, rates[0] if rates else 30.0, split)


def _arrays(path: pathlib.Path) -> dict[str, Any]:
    """The arrays that make a motion, of those that a file has."""
    try:
        return read_npz(path, names=_NAMES)
    except FileError as error:
        raise OSError(str(error)) from error


def _turn_z_up_to_y_up(vectors: np.ndarray) -> np.ndarray:
    """Axis-angle of the rotation by -90 degrees about x after each given one."""
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    axis = vectors / np.maximum(angle, 1e-12)
    # Quaternion product: (cos 45, -sin 45, 0, 0) times the given one.
    w, x = np.cos(angle / 2), np.sin(angle / 2) * axis
    half = np.sqrt(0.5).astype(vectors.dtype)
    turn = np.array([-half, 0.0, 0.0], vectors.dtype)
    out_w = half * w - (x * turn).sum(-1, keepdims=True)
    out_v = half * x + w * turn + np.cross(turn, x)
    flip = np.where(out_w < 0, -1.0, 1.0).astype(vectors.dtype)
    out_w, out_v = out_w * flip, out_v * flip
    sine = np.linalg.norm(out_v, axis=-1, keepdims=True)
    scale = 2 * np.arctan2(sine, out_w) / np.maximum(sine, 1e-12)
    return (out_v * scale).astype(vectors.dtype)
