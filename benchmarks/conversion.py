"""Conversion to records: memory and rate by size of the dataset, and kills survived.

Made-up datasets of tiny images are converted at several sizes, each in a process of its
own whose memory is watched together with that of its workers: records out of nothing
(``made_up``), which shows what the conversion itself holds, and annotations in COCO's
layout (``coco``), which a builder must have read as a whole. Then a conversion is
killed (SIGKILL) again and again and started anew until it is done, and its records are
compared with those of an undisturbed one.

    python benchmarks/conversion.py --sizes=1000,10000,100000 \
        --out=benchmarks/results/conversion_cpu.json
"""

import functools
import io
import itertools
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time

from absl import app, flags

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from data_pipelines import records, schema, storage  # noqa: E402
from data_pipelines.builders import conversion  # noqa: E402
from data_pipelines.builders.coco import Coco  # noqa: E402
from data_pipelines.builders.record_source import RecordSource  # noqa: E402
from hmr_jax.files import atomic_write  # noqa: E402

_SIZES = flags.DEFINE_list("sizes", ["1000", "10000", "100000"], "Numbers of records.")
_LAYOUTS = flags.DEFINE_list("layouts", ["made_up", "coco"], "Kinds of datasets.")
_WORKERS = flags.DEFINE_list("workers", ["0", "2"], "Numbers of worker processes.")
_KILLS = flags.DEFINE_integer("kills", 4, "How often a conversion is killed.")
_KILLED_SIZE = flags.DEFINE_integer("killed_size", 10000, "Records of that one.")
_OUT = flags.DEFINE_string("out", None, "JSON file to write.")
_CONVERT = flags.DEFINE_list("convert", None, "For this script's own child processes.")
_POLL_SECONDS = 0.05


class MadeUp(RecordSource):
    """Numbered records with a tiny image and every label of a body.

    Args:
        count: number of records.
    """

    name = "made_up"

    def __init__(self, count: int):
        from PIL import Image

        self._count = count
        buffer = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG")
        self._image = buffer.getvalue()

    def splits(self):
        """One."""
        return ("train",)

    def keys(self, split):
        """Numbers."""
        return range(self._count)

    def example(self, split, key):
        """A record whose labels follow its number."""
        values = np.sin(np.arange(24 * 4) + key).reshape(24, 4)
        values[:, 2:] = [3.0, 1.0]
        return {
            "image": self._image,
            "image_height": 32,
            "image_width": 32,
            "sample_id": f"record {key}",
            "sequence_id": f"sequence {key // 500}",
            "frame_id": key % 500,
            "bbox_xywh_px": [0, 0, 31, 31],
            "keypoints_px": values[:, [0, 1, 3]],
            "joints_cam_m": values,
            "pose_aa": values[:, :3],
            "betas": values[:10, 0],
            "translation_m": [0, 0, 3],
            "intrinsics": [[32, 0, 16], [0, 32, 16], [0, 0, 1]],
            "has_smpl": 1,
            "has_keypoints": 1,
            "has_joints_3d": 1,
            "has_camera": 1,
            "has_twist": 0,
            "has_mask": 0,
        }


def write_coco(folder: str, count: int) -> None:
    """People of 17 keypoints in COCO's layout, ten in each of a hundred pictures."""
    from PIL import Image

    root = pathlib.Path(folder)
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    rng = np.random.default_rng(0)
    images = []
    for number in range(100):
        name = f"{number:012d}.jpg"
        pixels = rng.integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(root / "train2017" / name)
        images.append({"id": number, "file_name": name, "width": 64, "height": 64})
    people = []
    for number in range(count):
        keypoints = rng.integers(5, 60, (17, 3))
        keypoints[:, 2] = 2
        people.append(
            {
                "id": number,
                "image_id": number % 100,
                "category_id": 1,
                "iscrowd": 0,
                "area": 400.0,
                "num_keypoints": 17,
                "bbox": [5.0, 5.0, 55.0, 55.0],
                "keypoints": keypoints.ravel().tolist(),
                # The polygon, of which the released files hold megabytes.
                "segmentation": [rng.uniform(0, 64, 40).round(2).tolist()],
            }
        )
    content = {
        "images": images,
        "annotations": people,
        "categories": [{"id": 1, "name": "person"}],
    }
    text = json.dumps(content)
    (root / "annotations" / "person_keypoints_train2017.json").write_text(text)


def _status(pid: int, name: str) -> int:
    """A number of bytes from a process's status file; 0 where it is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in text.splitlines() if line.startswith(f"{name}:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        for path in pathlib.Path("/proc").glob(f"{found[-1]}/task/*/children"):
            try:
                waiting += map(int, path.read_text().split())
            except OSError:
                continue
    return found


class Memory(threading.Thread):
    """Watches the resident memory of a process and its children.

    Args:
        pid: of the process.

    Attributes:
        peak: largest sum seen, bytes.
        largest: largest of one process, bytes.
    """

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self._pid, self._over = pid, threading.Event()
        self.peak = self.largest = 0

    def run(self) -> None:
        """Look again and again."""
        while not self._over.wait(_POLL_SECONDS):
            found = [_status(pid, "VmRSS") for pid in _family(self._pid)]
            self.peak = max(self.peak, sum(found))
            self.largest = max(self.largest, *found)

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


def convert(folder: str, count: int, workers: int, raw: str) -> None:
    """Convert a dataset; runs in a child process."""
    factory: functools.partial[RecordSource] = functools.partial(MadeUp, count)
    if raw:
        factory = functools.partial(Coco, raw)
    started = time.monotonic()
    conversion.build(factory, folder, num_workers=workers, progress=False)
    print(json.dumps({"seconds": time.monotonic() - started}))


def start(folder: str, count: int, workers: int, raw: str = "") -> subprocess.Popen:
    """A child process that converts."""
    words = f"--convert={folder},{count},{workers},{raw}"
    command = [sys.executable, __file__, words]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | quiet,
    )


def measure(count: int, workers: int, layout: str) -> dict:
    """Memory and rate of one conversion."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as raw:
        if layout == "coco":
            write_coco(raw, count)
        child = start(folder, count, workers, raw if layout == "coco" else "")
        memory = Memory(child.pid)
        memory.start()
        out, _ = child.communicate()
        memory.stop()
        if child.returncode:
            raise RuntimeError(
                f"conversion of {count} records: exit {child.returncode}"
            )
        seconds = json.loads(out)["seconds"]
        found = len(records.open_directory(folder).split("train"))
    if found != count:
        raise RuntimeError(f"expected {count} records, found {found}")
    return {
        "layout": layout,
        "records": count,
        "workers": workers,
        "seconds": round(seconds, 2),
        "records_per_second": round(count / seconds, 1),
        # Pages that processes share, such as TensorFlow's code, count in each of them.
        "peak_rss_mb_all_processes": round(memory.peak / 1e6, 1),
        "peak_rss_mb_one_process": round(memory.largest / 1e6, 1),
    }


def _kill(child: subprocess.Popen) -> None:
    """SIGKILL for the conversion; its workers leave by themselves."""
    family = _family(child.pid)
    child.send_signal(signal.SIGKILL)
    child.wait()
    while any(pathlib.Path(f"/proc/{pid}").exists() for pid in family[1:]):
        time.sleep(0.05)


def _finished_shards(folder: str) -> int:
    parts = pathlib.Path(folder) / "made_up"
    return len(list(parts.glob(f"{records.INCOMPLETE}*/.parts/*.npz")))


def survive(count: int, kills: int, workers: int) -> dict:
    """Kill a conversion after every few shards and compare what comes out."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as calm:
        conversion.build(functools.partial(MadeUp, count), calm, progress=False)
        kept = []
        for _ in range(kills):
            child = start(folder, count, workers)
            already = _finished_shards(folder)
            while child.poll() is None and _finished_shards(folder) < already + 2:
                time.sleep(0.01)
            if child.poll() is not None:
                break
            _kill(child)
            kept.append(_finished_shards(folder))
        child = start(folder, count, workers)
        out, _ = child.communicate()
        seconds = json.loads(out)["seconds"]
        whole, pieced = (records.open_directory(path) for path in (calm, folder))
        ids = [r["sample_id"] for r in records.read_records(folder, "train")]
        return {
            "records": count,
            "workers": workers,
            "kills": len(kept),
            "shards": len(pieced.split("train").shards),
            "finished_shards_after_each_kill": kept,
            "last_run_seconds": round(seconds, 2),
            "every_record_once_in_order": ids == [f"record {i}" for i in range(count)],
            "same_fingerprint_as_undisturbed": whole.fingerprint == pieced.fingerprint,
            "verified_records": records.verify(folder)["train"],
            "left_over": [
                name
                for name in storage.names(str(pathlib.Path(folder) / "made_up"))
                if name not in (".lock", schema.SCHEMA_VERSION)
            ],
        }


def _cpu() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main(argv: list[str]) -> None:
    """Run the measurements."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    if _CONVERT.value:
        folder, count, workers, raw = _CONVERT.value
        convert(folder, int(count), int(workers), raw)
        return
    report = {
        "command": f"python benchmarks/conversion.py --sizes={','.join(_SIZES.value)} "
        f"--layouts={','.join(_LAYOUTS.value)} "
        f"--workers={','.join(_WORKERS.value)} --kills={_KILLS.value} "
        f"--killed_size={_KILLED_SIZE.value}",
        "device": f"{_cpu()}, {os.cpu_count()} cores",
        "load_average_at_start": os.getloadavg()[0],
        "python": platform.python_version(),
        "conversions": [],
        "killed": [],
    }
    print(f"{report['device']}; load {report['load_average_at_start']:.1f}")
    cases = itertools.product(_LAYOUTS.value, _WORKERS.value, _SIZES.value)
    for layout, workers, count in cases:
        row = measure(int(count), int(workers), layout)
        report["conversions"].append(row)
        print(
            f"{layout}: {count:>7} records, {workers} workers: peak "
            f"{row['peak_rss_mb_all_processes']:7.1f} MB in all processes, "
            f"{row['peak_rss_mb_one_process']:6.1f} MB in one; "
            f"{row['records_per_second']:7.1f} records/s",
            flush=True,
        )
    for workers in map(int, _WORKERS.value):
        row = survive(_KILLED_SIZE.value, _KILLS.value, workers)
        report["killed"].append(row)
        print(f"killed {row['kills']} times, {workers} workers: {row}", flush=True)
    if _OUT.value:
        with atomic_write(_OUT.value) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
