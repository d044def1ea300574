"""Pictures rendered inside the training step: what they cost beside the training.

    python benchmarks/synthetic.py --size_px=256 --width=64 --batch=8 --out=s.json
    python benchmarks/synthetic.py --size_px=96 --width=32 --batch=32

Times three compiled programs in turn on the same batches: making a batch (poses,
bodies, clothes, light, camera, crop, occlusions, edges and heatmaps), a training step
of the given stage on a batch that is there already, and both as one program, which is
what ``hmr-jax train`` runs. On a GPU the making is to cost less than 30 % of the step.
"""

import dataclasses
import functools
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

import hmr_jax  # noqa: F401  (before JAX starts)
from hmr_jax.body.open_assets import load_open_body
from hmr_jax.files import atomic_write
from hmr_jax.synthetic.pose_bank import PoseOrder, shipped_bank
from hmr_jax.synthetic.proxies import make_batch
from hmr_jax.synthetic.proxy_feed import make_assets
from hmr_jax.systems.hierprob import task as hierprob_task
from hmr_jax.training import state, step

_SIZE = flags.DEFINE_integer("size_px", 256, "side of the pictures")
_WIDTH = flags.DEFINE_integer("width", 64, "channels of the ResNet's stem")
_BATCH = flags.DEFINE_integer("batch", 8, "pictures in a step")
_STAGE = flags.DEFINE_enum("stage", "stage1", hierprob_task.STAGES, "of the losses")
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "of the convolutions"
)
_REPEATS = flags.DEFINE_integer("repeats", 7, "timed calls", lower_bound=3)
_OUT = flags.DEFINE_string("out", None, "JSON file to write")


def programs() -> tuple[dict[str, Any], dict[str, float]]:
    """The three programs as functions of a number, and how long each compiled."""
    sys.path.append(str(pathlib.Path(__file__).parents[1]))
    from configs import hierprob

    config = hierprob.get_config()
    with config.unlocked():
        config.image_size_px, config.model.width = _SIZE.value, _WIDTH.value
        config.model.dtype, config.model.sync_batch_norm = _DTYPE.value, False
    poses = shipped_bank(num_limits=1000)
    assets = make_assets(
        *(load_open_body(), poses),
        image_size_px=_SIZE.value,
        num_textures=32,
        num_backgrounds=32,
    )
    assets = jax.tree.map(jnp.asarray, assets)
    order = PoseOrder(len(poses), _BATCH.value)
    options = hierprob_task.proxy_options(config, train=True)
    task = hierprob_task.make_task(config, _STAGE.value)
    tx = optax.adam(1e-4)
    whole = jax.jit(functools.partial(step.step, task=task, tx=tx))
    bare_task = dataclasses.replace(task, prepare=None)
    bare = jax.jit(functools.partial(step.step, task=bare_task, tx=tx))
    make = jax.jit(lambda key, batch, assets: make_batch(key, batch, assets, options))

    key = jax.random.key(0)
    start = jax.jit(functools.partial(state.init_state, task, tx))(key, next(order))
    batches = [next(order) for _ in range(_REPEATS.value + 1)]
    made = make(key, batches[0], assets)
    calls = {
        "making": lambda n: make(jax.random.key(n), batches[n], assets),
        "training": lambda n: bare(start, made, key, assets)[1],
        "both": lambda n: whole(start, batches[n], jax.random.key(n), assets)[1],
    }
    compiling = {}
    for name, call in calls.items():
        begin = time.perf_counter()
        jax.block_until_ready(call(0))
        compiling[name] = time.perf_counter() - begin
    return calls, compiling


def main(argv: list[str]) -> None:
    """Measure, print, and write."""
    del argv
    calls, compiling = programs()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(1, _REPEATS.value + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call(number))
            seconds[name].append(time.perf_counter() - begin)
    results: dict[str, Any] = {
        "machine": {
            "device": jax.devices()[0].device_kind,
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "jax": jax.__version__,
        },
        "flags": {
            flag.name: flag.value
            for flag in (_SIZE, _WIDTH, _BATCH, _STAGE, _DTYPE, _REPEATS)
        },
        "first_call_s": compiling,
    }
    for name, found in seconds.items():
        median = statistics.median(found)
        results[name] = {"ms": 1e3 * median, "images_per_s": _BATCH.value / median}
        print(
            f"{name:9s} {1e3 * median:9.1f} ms  {_BATCH.value / median:8.1f} images/s"
            f"  (first call {compiling[name]:.0f} s)"
        )
    shares = [a / b for a, b in zip(seconds["making"], seconds["both"], strict=True)]
    results["share_of_making"] = float(np.median(shares))
    print(f"making a batch takes {100 * results['share_of_making']:.0f} % of the step")
    if _OUT.value:
        with atomic_write(_OUT.value) as path:
            path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
