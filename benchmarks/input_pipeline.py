"""Input pipelines: images/s of every system's training augmentation.

One run makes JPEG files of the sizes that the systems' datasets have, stores them as
records for this library and as files for its peer, PyTorch's DataLoader, which does the
same crops with OpenCV. Each measurement runs in a process of its own that may use one
core, and then all. This library's rate is measured twice: with JPEG files finer than
the crop decoded at a part of their size, which is the default, and at their full size,
as the peer does. The shortest training step that a rate feeds without waiting is that
of a batch at this rate, ``feeds_step_ms``. Where ``--step_ms`` gives the length of a
measured training step, batches are taken at its pace and the share of the time that it
waits for them is measured.

    python benchmarks/input_pipeline.py --peer_python=PATH/python --out=input.json
    python benchmarks/input_pipeline.py --systems=ikol --batch=64 --step_ms=250

``--peer_python`` is a Python with torch, opencv-python-headless and Pillow; without it
the peer is left out.
"""

import functools
import io
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import app, flags
from PIL import Image

from data_pipelines import clips, reading, schema
from data_pipelines.builders import conversion, record_source
from data_pipelines.transforms import i2l, ikol, int_hmr, pose_hg
from hmr_jax.body.joint_sets import get_joint_set
from hmr_jax.files import atomic_write

CLIP = 16
# Side of the files' images, share of its height that a person fills, joint set, pose
# joints: Human3.6M (ikol, i2l_body, int_clips), FreiHAND, COCO, MPII.
SYSTEMS: dict[str, tuple[tuple[int, int], float, str, int]] = {
    "ikol": ((1000, 1000), 0.45, "smpl_24", 24),
    "i2l_body": ((1000, 1000), 0.45, "h36m_right_first_17", 24),
    "i2l_hand": ((224, 224), 0.55, "mano_21", 16),
    "int_image": ((640, 480), 0.6, "spin_49", 24),
    "int_clips": ((1000, 1000), 0.45, "spin_49", 24),
    "pose_hg": ((1280, 720), 0.6, "mpii_16", 24),
}
_SYSTEMS = flags.DEFINE_list("systems", list(SYSTEMS), "Which to measure.")
_IMAGES = flags.DEFINE_integer("images", 512, "Files of each system.")
_BATCH = flags.DEFINE_integer(
    "batch", 32, "Images per batch (clips: a half clip each)."
)
_SECONDS = flags.DEFINE_float(
    "seconds", 20.0, "Length of each measurement and its warm-up."
)
_CORES = flags.DEFINE_list("cores", ["1", "all"], "Cores to measure with.")
_STEP_MS = flags.DEFINE_float(
    "step_ms",
    None,
    "Length of a measured training step of --batch images that batches are fed to, "
    "for one of --systems; without it no waiting is measured.",
    lower_bound=0.0,
)
_PEER = flags.DEFINE_string("peer_python", None, "Python with torch and OpenCV.")
_OUT = flags.DEFINE_string("out", None, "JSON file to write.")
_MEASURE = flags.DEFINE_string("measure", None, "Used by the script itself.")
_DATA = flags.DEFINE_string("data", "", "Used by the script itself.")
_FULL_SIZE = flags.DEFINE_bool("full_size", False, "Used by the script itself.")


def jpeg(index: int, size: tuple[int, int]) -> bytes:
    """A picture with coarse and fine content, about as large as photographs' files."""
    rng = np.random.default_rng([3, index])
    width, height = size
    layers = []
    for step, strength in ((64, 90), (8, 40), (2, 14)):
        shape = (height // step + 2, width // step + 2, 3)
        coarse = rng.uniform(0, 255, shape).astype(np.uint8)
        fine = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        layers.append(strength / 255 * (np.asarray(fine, np.float32) - 127))
    image = np.clip(127 + sum(layers), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def person(index: int, system: str) -> dict[str, Any]:
    """Box, joints and camera of one made-up person."""
    (width, height), share, joint_set, rotations = SYSTEMS[system]
    rng = np.random.default_rng([4, index])
    count = len(get_joint_set(joint_set))
    side = share * min(width, height)
    centre = [rng.uniform(0.4, 0.6) * width, rng.uniform(0.4, 0.6) * height]
    pixels = np.array(centre) + rng.uniform(-0.4, 0.4, (count, 2)) * side
    focal, depth = 1.1 * width, 4.0
    points = (pixels - [width / 2, height / 2]) / focal * depth
    points = np.column_stack([points, np.full(count, depth), np.ones(count)])
    h36m = np.column_stack([rng.uniform(-0.4, 0.4, (17, 3)) + [0, 0, 4], np.ones(17)])
    flat = system == "pose_hg" and index % 2
    return {
        "sample_id": f"{index:06d}",
        "sequence_id": f"{index // CLIP:06d}",
        "frame_id": index % CLIP,
        "image_width": width,
        "image_height": height,
        "bbox_xywh_px": [centre[0] - side / 2, centre[1] - side / 2, side, side],
        "keypoints_px": np.column_stack([pixels, np.ones(count)]),
        "joints_cam_m": points,
        "joints_h36m_cam_m": h36m,
        "intrinsics": [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]],
        "pose_aa": rng.uniform(-0.5, 0.5, (rotations, 3)),
        "betas": rng.standard_normal(10),
        "translation_m": [0.0, 0.0, depth],
        "twist_cos_sin": np.zeros((rotations - 1, 2)),
        "twist_weight": np.zeros(rotations - 1),
        **dict.fromkeys(("has_smpl", "has_keypoints", "has_camera", "has_twist"), 1),
        "has_joints_3d": int(not flat),
        "has_mask": 0,
    }


class People(record_source.RecordSource):
    """The made-up people of one system."""

    def __init__(self, system: str, count: int):
        _, _, joint_set, rotations = SYSTEMS[system]
        self.name, self._system, self._count = f"bench_{system}", system, count
        joints = len(get_joint_set(joint_set))
        self.spec = schema.RecordSpec(joint_set, joints, num_pose_joints=rotations)

    def splits(self):
        """One split."""
        return ("train",)

    def keys(self, split):
        """Numbers of the people."""
        return range(self._count)

    def config(self):
        """Size of the dataset."""
        return {"count": self._count}

    def example(self, split, key):
        """One person in one picture."""
        record = person(key, self._system)
        size = record["image_width"], record["image_height"]
        return record | {"image": jpeg(key, size)}


def write_data(system: str, folder: pathlib.Path, count: int) -> None:
    """Records for this library; the same JPEG files and labels for the peer."""
    factory = functools.partial(People, system, count)
    location = conversion.build(
        factory, folder / "records", num_shards=4, progress=False
    )
    (folder / "location").write_text(str(location))
    files = folder / "files"
    files.mkdir()
    boxes, keypoints = [], []
    made = factory()
    for key in range(count):
        record = made.example("train", key)
        (files / f"{key:06d}.jpg").write_bytes(record["image"])
        boxes.append(record["bbox_xywh_px"])
        keypoints.append(record["keypoints_px"])
    np.savez(folder / "labels.npz", boxes=boxes, keypoints=np.array(keypoints))


def make_transform(system: str, reduce_jpeg: bool) -> Any:
    """The full training augmentation of a system."""
    common: dict[str, Any] = {"train": True, "reduce_jpeg": reduce_jpeg}
    if system == "ikol":
        return ikol.IkolTransform(ikol.ikol_options("hybrik", **common))
    if system.startswith("i2l"):
        mode = system.removeprefix("i2l_")
        return i2l.I2lTransform(i2l.i2l_options(mode, **common))
    if system.startswith("int"):
        together = system == "int_clips"
        options = int_hmr.int_options(2, clips=together, **common)
        return int_hmr.IntTransform(options)
    return pose_hg.PoseHgTransform(pose_hg.pose_hg_options(**common))


def images_of(system: str, batch: int) -> int:
    """Images in a batch: clips are whole."""
    return max(1, batch // CLIP) * CLIP if system == "int_clips" else batch


def open_batches(
    system: str, folder: pathlib.Path, batch: int, threads: int, reduce_jpeg: bool
):
    """An endless iterator of batches and the images in each."""
    together = system == "int_clips"
    batches = reading.make_dataset(
        (folder / "location").read_text(),
        split="train",
        batch_size=max(1, batch // CLIP) if together else batch,
        transform=make_transform(system, reduce_jpeg),
        shuffle=True,
        clips=clips.ClipOptions(CLIP) if together else None,
        num_threads=threads,
    )
    return batches, images_of(system, batch)


def warm_up(batches: Any, seconds: float) -> None:
    """Until windows of all sizes were seen, whose programs are compiled once."""
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        next(batches)


def measured_rate(batches: Any, images: int, seconds: float) -> dict[str, float]:
    """Images/s once the pipeline runs."""
    warm_up(batches, seconds)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or count < 3:
        next(batches)
        count += 1
    elapsed = time.perf_counter() - start
    return {"images_per_s": count * images / elapsed}


def measured_wait(
    batches: Any, images: int, seconds: float, step_ms: float
) -> dict[str, float]:
    """Share of the time that a step of a given length waits for its batch."""
    warm_up(batches, seconds)
    waited, start, count = 0.0, time.perf_counter(), 0
    while time.perf_counter() - start < seconds or count < 3:
        asked = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - asked
        # The accelerator computes; this thread has nothing to do.
        time.sleep(step_ms / 1000)
        count += 1
    elapsed = time.perf_counter() - start
    return {
        "step_ms": step_ms,
        "batch_images": images,
        "waiting_share": waited / elapsed,
    }


def measure(kind: str) -> None:
    """In a process of its own: ``system:rate`` or ``system:wait``; prints JSON."""
    system, what = kind.split(":")
    threads = len(os.sched_getaffinity(0))
    folder = pathlib.Path(_DATA.value)
    batches, images = open_batches(
        system, folder, _BATCH.value, threads, not _FULL_SIZE.value
    )
    if what == "rate":
        result = measured_rate(batches, images, _SECONDS.value)
    else:
        step_ms = _STEP_MS.value or 0.0
        result = measured_wait(batches, images, _SECONDS.value, step_ms)
    print(json.dumps(result))


def in_process(command: list[str], cores: int) -> dict[str, Any]:
    """What a command prints as JSON on its last line, on the first cores alone."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        ["taskset", "-c", ",".join(map(str, allowed)), *command],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[1]} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measured(system: str, folder: pathlib.Path, cores: int, total: int) -> dict:
    """Rates of this library and its peer with a number of cores."""
    common = [f"--data={folder}", f"--batch={_BATCH.value}", "--seconds"]
    seconds = str(_SECONDS.value)
    ours = [sys.executable, __file__, f"--measure={system}:rate", *common, seconds]
    row: dict[str, Any] = {"system": system, "cores": cores}
    rate = in_process(ours, cores)["images_per_s"]
    row["ours_images_per_s"] = rate
    row["feeds_step_ms"] = 1000 * images_of(system, _BATCH.value) / rate
    full = in_process([*ours, "--full_size"], cores)
    row["ours_full_size_images_per_s"] = full["images_per_s"]
    if _PEER.value:
        script = pathlib.Path(__file__).with_name("input_pipeline_peer.py")
        peer = [_PEER.value, str(script), f"--system={system}", *common, seconds]
        row["peer_images_per_s"] = in_process(peer, cores)["images_per_s"]
        row["ratio"] = row["ours_images_per_s"] / row["peer_images_per_s"]
        row["full_size_ratio"] = full["images_per_s"] / row["peer_images_per_s"]
    if cores == total and _STEP_MS.value is not None:
        kind = [f"--measure={system}:wait", f"--step_ms={_STEP_MS.value}"]
        command = [sys.executable, __file__, *kind, *common, seconds]
        row |= in_process(command, cores)
    return row


def main(_: list[str]) -> None:
    """Measure, print a table, write the JSON file."""
    if _MEASURE.value:
        measure(_MEASURE.value)
        return
    unknown = sorted(set(_SYSTEMS.value) - set(SYSTEMS))
    if unknown:
        raise app.UsageError(f"--systems: expected {', '.join(SYSTEMS)}, got {unknown}")
    if _STEP_MS.value is not None and len(_SYSTEMS.value) != 1:
        raise app.UsageError("--step_ms: expected one of --systems, whose step it is")
    total = len(os.sched_getaffinity(0))
    rows = []
    print(
        f"{'system':10} {'cores':>5} {'images/s':>9} {'full size':>9} {'peer':>9} "
        f"{'ratio':>6} {'feeds':>8}  waits"
    )
    for system in _SYSTEMS.value:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            write_data(system, folder, _IMAGES.value)
            for text in _CORES.value:
                cores = total if text == "all" else int(text)
                row = measured(system, folder, cores, total)
                rows.append(row)
                wait = row.get("waiting_share")
                print(
                    f"{system:10} {cores:5} {row['ours_images_per_s']:9.1f} "
                    f"{row['ours_full_size_images_per_s']:9.1f} "
                    f"{row.get('peer_images_per_s', float('nan')):9.1f} "
                    f"{row.get('ratio', float('nan')):6.2f} "
                    f"{row['feeds_step_ms']:5.0f} ms  "
                    + (
                        "" if wait is None else f"{wait:.1%} of {row['step_ms']:.0f} ms"
                    ),
                    flush=True,
                )
    if _OUT.value:
        result: dict[str, Any] = {
            "machine": platform.processor() or platform.machine(),
            "rows": rows,
        }
        result |= {"cores": total, "batch": _BATCH.value, "images": _IMAGES.value}
        with atomic_write(_OUT.value) as path:
            pathlib.Path(path).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
