"""Banks of poses for training on pictures rendered as they are needed.

A bank is small enough to lie on the accelerator; a batch names its poses by index.
Sources: the original's npz of poses, AMASS files, or the shipped motion capture with
the joint-limit sampler.
"""

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from hmr_jax.body.npz import read_npz
from hmr_jax.errors import UserError
from hmr_jax.outside import reader, reading
from hmr_jax.synthetic import joint_limits
from hmr_jax.synthetic.motion import FRAME_RATE_KEYS, MotionSet, load_motion

KEPT = ("all", "not_amass", "amass")
"""Filters by the source that a pose's name begins with; also one such beginning."""
NOT_AMASS = ("h36m", "up3d", "3dpw")


@dataclasses.dataclass(frozen=True)
class PoseBank:
    """Poses and what their root rotations mean.

    Attributes:
        poses_aa: float32 [N, 24, 3] axis-angle, radians.
        upright: the root turns the body in a world with y up, and any heading is as
            good as another; else it is the pose before the camera of some picture,
            y down.
        origin: where the poses come from, for messages.
    """

    poses_aa: np.ndarray
    upright: bool
    origin: str

    def __len__(self) -> int:
        return len(self.poses_aa)

    @property
    def fingerprint(self) -> str:
        """Changes with any pose."""
        return f"{len(self)}-{zlib.crc32(self.poses_aa.tobytes()):08x}"


@reader("an .npz of poses")
def read_pose_npz(path: str | os.PathLike, keep: str = "all") -> PoseBank:
    """Poses in the original's layout.

    Args:
        path: an ``.npz`` with ``fnames`` [N] and ``poses`` [N, 72], the global
            orientation first, as seen by the camera of each picture.
        keep: ``all``; ``not_amass``, those of Human3.6M, UP-3D and 3DPW, which the
            published training uses; ``amass``, the others; or the beginning of the
            names to keep.

    Returns:
        The bank.

    Raises:
        FileNotFoundError: no such file.
        UserError: a field is missing, has a wrong shape or is not finite, or no pose
            is kept; the file and the field are named.

    Source: specs/hierprob.md section 11.1.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"poses: no such file: {path}")
    data = read_npz(path)
    if not {"fnames", "poses"} <= set(data):
        raise UserError(
            f"{path}: expected arrays fnames and poses, found {sorted(data)}"
        )
    names = [_as_text(name) for name in np.atleast_1d(data["fnames"])]
    with reading(f"{path}: poses", "numbers"):
        poses = np.asarray(data["poses"], np.float32)
    if poses.ndim != 2 or poses.shape[1] != 72 or len(poses) != len(names):
        raise UserError(
            f"{path}: poses: expected shape ({len(names)}, 72), found {poses.shape}"
        )
    kept = np.array([_is_kept(name, keep) for name in names], bool)
    if not kept.any():
        raise UserError(
            f"{path}: fnames: expected names that {keep!r} keeps, found none among "
            f"{len(names)} (such as {str(names[0]) if len(names) else 'nothing'!r})"
        )
    return _checked(PoseBank(poses[kept].reshape(-1, 24, 3), False, str(path)))


def is_pose_npz(path: str | os.PathLike) -> bool:
    """Whether a file is in the original's layout of poses rather than AMASS's.

    Raises:
        UserError: it is in neither.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        return False
    found = set(read_npz(path))
    if "fnames" not in found and not found & {"trans", "betas", *FRAME_RATE_KEYS}:
        raise UserError(
            f"{path}: expected fnames and poses, or an AMASS file (poses with trans, "
            f"betas or a frame rate), found {sorted(found)}"
        )
    return "fnames" in found


def _as_text(name: Any) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


def _is_kept(name: str, keep: str) -> bool:
    if keep == "all":
        return True
    if keep in ("not_amass", "amass"):
        return name.startswith(NOT_AMASS) == (keep == "not_amass")
    return name.startswith(keep)


def read_motion_bank(
    path: str | os.PathLike, *, stride: int = 1, limit: int = 0
) -> PoseBank:
    """Frames of an AMASS file or of all in a folder.

    Args:
        path: see ``synthetic.motion.load_motion``.
        stride: keep every so-manieth frame of each clip.
        limit: at most so many poses, evenly spaced; 0 for all.

    Returns:
        The bank, y up.
    """
    if stride < 1:
        raise UserError(f"stride: expected at least 1, got {stride}")
    clips = load_motion(path).clips
    poses = np.concatenate([clip.poses_aa[::stride] for clip in clips])
    if limit and len(poses) > limit:
        poses = poses[np.linspace(0, len(poses) - 1, limit).astype(np.int64)]
    return _checked(PoseBank(poses.astype(np.float32), True, str(path)))


def shipped_bank(
    split: str = "train",
    *,
    num_limits: int = 0,
    seed: int = 0,
    motion: MotionSet | None = None,
) -> PoseBank:
    """The shipped motion capture, and poses of the joint-limit sampler.

    Args:
        split: ``train`` or ``test``; the clips of the two are different motions.
        num_limits: poses from the joint-limit sampler behind the frames.
        seed: of that sampler.
        motion: other clips than the shipped ones.

    Returns:
        The bank, y up.
    """
    if num_limits < 0:
        raise UserError(f"num_limits: expected 0 or more, got {num_limits}")
    frames = (motion or load_motion()).split(split).poses_aa
    rng = np.random.default_rng([seed, zlib.crc32(split.encode())])
    sampled = [joint_limits.sample_pose(rng) for _ in range(num_limits)]
    poses = np.concatenate([frames, np.reshape(sampled, (-1, 24, 3))])
    origin = f"shipped motion ({split}) and {num_limits} poses within joint limits"
    return _checked(PoseBank(poses.astype(np.float32), True, origin))


def _checked(bank: PoseBank) -> PoseBank:
    bad = ~np.isfinite(bank.poses_aa).all((1, 2))
    if bad.any():
        raise UserError(
            f"{bank.origin}: poses: expected finite numbers, found NaN or infinity in "
            f"{bad.sum()} of {len(bad)} poses, first in number {np.argmax(bad)}"
        )
    return bank


class PoseOrder:
    """An endless, resumable stream of batches of pose indices.

    Every epoch goes through all poses once, in another order; what does not fill a
    batch is left out, as published. The processes of a run share each batch.

    Args:
        num_poses: poses in the bank.
        batch_size: over all processes.
        seed: of the orders.
        shuffle: else in the bank's order.
        process_index: this process.
        process_count: of the run.
    """

    def __init__(
        self,
        num_poses: int,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        process_index: int = 0,
        process_count: int = 1,
    ):
        if not 0 < batch_size <= num_poses:
            raise UserError(
                f"batch_size: expected 1 to the {num_poses} poses there are, "
                f"got {batch_size}"
            )
        if batch_size % process_count:
            raise UserError(
                f"batch_size: expected a multiple of the {process_count} processes, "
                f"got {batch_size}"
            )
        self._num_poses, self._batch_size = num_poses, batch_size
        self._seed, self._shuffle = seed, shuffle
        share = batch_size // process_count
        self._share = slice(process_index * share, (process_index + 1) * share)
        self._position, self._epoch = 0, -1
        self._order = np.arange(num_poses)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the poses."""
        return self._num_poses // self._batch_size

    @property
    def first_row(self) -> int:
        """Where this process's share of a batch begins."""
        return self._share.start

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """``pose_index`` int32 [B] of this process's share of the next batch."""
        epoch, place = divmod(self._position, self.steps_per_epoch)
        if epoch != self._epoch and self._shuffle:
            rng = np.random.default_rng([self._seed, epoch])
            self._order = rng.permutation(self._num_poses)
        self._epoch = epoch
        self._position += 1
        whole = self._order[place * self._batch_size :][: self._batch_size]
        return {"pose_index": whole[self._share].astype(np.int32)}

    def state(self) -> dict[str, int]:
        """Number of batches given."""
        return {"batches": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Go to where ``state`` was taken."""
        self._position = int(state["batches"])
        self._epoch = -1
