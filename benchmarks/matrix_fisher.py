"""Time of the matrix-Fisher normaliser and of exact sampling, against published ways.

    python benchmarks/matrix_fisher.py --out=matrix_fisher.json
    taskset -c 0 python benchmarks/matrix_fisher.py --repeats=30

Normaliser: value and gradient of 1,472 rows (64 images of 23 joints) by the default
quadrature and by the published 512-point trapezoid with its hand-written gradient, both
compiled by JAX. Goal: 10 times.

Sampling: 50 draws of 23 joints for one image and for 64. The published scheme takes one
joint of one image after another: 8 proposals for each draw at once from a fixed
envelope, the first accepted ones kept, all redrawn where they do not suffice. It is
written twice here, in numpy (no compiler, as published) and as one compiled JAX program
per joint, and the faster of the two is the peer. Goal: 2.5 times.

CPU time is summed over threads, wall time suffers from other load; ratios use CPU time
on a CPU and wall time elsewhere. The published scheme runs on the host either way.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import hmr_jax  # noqa: F401  (before JAX starts)
from hmr_jax.distributions.matrix_fisher import (
    MatrixFisher,
    log_normalizer,
    sample_matrix_fisher,
)
from hmr_jax.files import atomic_write

_OUT = flags.DEFINE_string("out", None, "file for the results, JSON")
_REPEATS = flags.DEFINE_integer(
    "repeats", 20, "timed calls of each kind", lower_bound=3
)
_BATCHES = flags.DEFINE_list("batches", ["1", "64"], "images in a sampling call")
_DRAWS = flags.DEFINE_integer("draws", 50, "poses per image", lower_bound=1)
JOINTS = 23
PUBLISHED_B = 1.5
OVERSAMPLING = 8


def singular_values(images: int) -> MatrixFisher:
    """Distributions as spread as those of a trained network: s from 1 to 100."""
    rng = np.random.default_rng(0)
    turns = np.linalg.qr(rng.standard_normal((2, images, JOINTS, 3, 3)))[0]
    s = -np.sort(-np.exp(rng.uniform(0, np.log(100), (images, JOINTS, 3))), -1)
    s[..., 2] *= rng.choice([-1, 1], (images, JOINTS), p=[0.15, 0.85])
    matrix = np.einsum("bjik,bjk,bjlk->bjil", turns[0], s, turns[1])
    build = jax.jit(lambda m: MatrixFisher.from_matrix(m, "backend"))
    return build(jnp.asarray(matrix, jnp.float32))


def measure(function: Callable[[], Any]) -> dict[str, float]:
    """Median milliseconds of a call, after a first one that compiles."""
    jax.block_until_ready(function())
    wall, cpu = [], []
    for _ in range(_REPEATS.value):
        marks = time.perf_counter(), time.process_time()
        jax.block_until_ready(function())
        wall.append(1e3 * (time.perf_counter() - marks[0]))
        cpu.append(1e3 * (time.process_time() - marks[1]))
    return {"wall_ms": statistics.median(wall), "cpu_ms": statistics.median(cpu)}


def ratio(peer: dict[str, float], ours: dict[str, float]) -> float:
    """How many times faster ours is."""
    unit = "cpu_ms" if jax.default_backend() == "cpu" else "wall_ms"
    return peer[unit] / ours[unit]


def show(name: str, record: dict[str, float], note: str = "") -> None:
    """One line of the table."""
    print(f"{name:44s} {record['wall_ms']:10.3f} {record['cpu_ms']:10.3f}  {note}")


def normalizer_part() -> dict[str, Any]:
    """Value and gradient of log c by both methods."""
    s = singular_values(64).s.reshape(-1, 3)
    results: dict[str, Any] = {}
    for method in ("accurate", "published"):

        def both(s, method=method):
            value, pull = jax.vjp(lambda x: log_normalizer(x, method), s)
            return value, pull(jnp.ones_like(value))[0]

        compiled = jax.jit(both)
        results[method] = measure(lambda compiled=compiled: compiled(s))
        show(f"log c and gradient, {len(s)} rows, {method}", results[method])
    results["ratio"] = ratio(results["published"], results["accurate"])
    print(f"  {results['ratio']:.1f} times faster (goal: 10)")
    return results


def published_numpy(
    rng: np.random.Generator, u: np.ndarray, s: np.ndarray, v: np.ndarray, draws: int
) -> np.ndarray:
    """One joint of one image by the published scheme."""
    exponents = 2 * np.array([0, s[1] + s[2], s[0] + s[2], s[0] + s[1]], np.float32)
    exponents = np.maximum(exponents, 0)
    scale = 1 / np.sqrt(1 + 2 * exponents / PUBLISHED_B)
    bound = np.exp(-(4 - PUBLISHED_B) / 2) * (4 / PUBLISHED_B) ** 2
    kept = np.zeros((0, 4))
    while len(kept) < draws:
        eps = rng.standard_normal((draws * OVERSAMPLING, 4), dtype=np.float32)
        q = eps * scale
        q = q / np.sqrt((q * q).sum(-1, keepdims=True))
        t = (q * q) @ exponents
        chance = np.exp(-t) * (1 + 2 * t / PUBLISHED_B) ** 2 / bound
        kept = q[rng.random(len(q), dtype=np.float32) < chance]
    w, x, y, z = kept[:draws].T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return u @ np.moveaxis(np.array(rows), -1, 0) @ v.T


@jax.jit
def _published_round(key, u, s, v):
    """One draw of all proposals of one joint, compiled; the accepted ones in front."""
    exponents = 2 * jnp.stack([0 * s[0], s[1] + s[2], s[0] + s[2], s[0] + s[1]])
    exponents = jnp.maximum(exponents, 0)[None]
    draws = _DRAWS.value
    first, second = jax.random.split(key)
    eps = jax.random.normal(first, (draws * OVERSAMPLING, 4))
    q = eps / jnp.sqrt(1 + 2 * exponents / PUBLISHED_B)
    q = q / jnp.sqrt(jnp.sum(q * q, -1, keepdims=True))
    t = jnp.sum(exponents * q * q, -1)
    bound = np.exp(-(4 - PUBLISHED_B) / 2) * (4 / PUBLISHED_B) ** 2
    chance = jnp.exp(-t) * (1 + 2 * t / PUBLISHED_B) ** 2 / bound
    accept = jax.random.uniform(second, (draws * OVERSAMPLING,)) < chance
    w, x, y, z = q[jnp.nonzero(accept, size=draws)[0]].T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    rotation = jnp.stack([jnp.stack(row) for row in rows])
    return jnp.einsum("ab,bcn,dc->nad", u, rotation, v), jnp.sum(accept) >= draws


def published_image_by_image(arrays, one_joint: Callable) -> list:
    """Every joint of every image, one after the other."""
    u, s, v = arrays
    return [
        one_joint(u[image, joint], s[image, joint], v[image, joint])
        for image in range(len(s))
        for joint in range(JOINTS)
    ]


def sampling_part() -> dict[str, Any]:
    """Draws of whole poses by all schemes."""
    results: dict[str, Any] = {}
    rng = np.random.default_rng(1)
    keys = iter(jax.random.split(jax.random.key(0), 10**5))
    draws = _DRAWS.value

    def compiled_joint(u, s, v):
        rotations, enough = _published_round(next(keys), u, s, v)
        while not enough:
            rotations, enough = _published_round(next(keys), u, s, v)
        return rotations

    def numpy_joint(u, s, v):
        return published_numpy(rng, u, s, v, draws)

    ours = jax.jit(lambda key, fisher: sample_matrix_fisher(key, fisher, draws))
    for images in map(int, _BATCHES.value):
        fisher = singular_values(images)
        arrays = tuple(np.asarray(x) for x in fisher[1:])
        key = jax.random.key(images)
        name = f"{draws} draws, {images} image(s)"
        record = {
            "ours": measure(lambda key=key, fisher=fisher: ours(key, fisher)),
            "published, numpy": measure(
                lambda arrays=arrays: published_image_by_image(arrays, numpy_joint)
            ),
        }
        if images * JOINTS * (_REPEATS.value + 1) < 10**4:
            record["published, jax"] = measure(
                lambda arrays=arrays: published_image_by_image(arrays, compiled_joint)
            )
        for scheme, row in record.items():
            note = f"{1e3 * images / row['wall_ms']:.0f} images/s"
            show(f"{name}, {scheme}", row, note)
        peers = [row for scheme, row in record.items() if scheme != "ours"]
        results[name] = {
            **record,
            "ratio": min(ratio(peer, record["ours"]) for peer in peers),
            "complete": bool(ours(key, fisher).complete.all()),
        }
        print(f"  {results[name]['ratio']:.1f} times faster (goal: 2.5; GPU: 30)")
    return results


def main(argv: list[str]) -> None:
    """Measure, print, and write."""
    del argv
    print(f"{'':44s} {'wall ms':>10s} {'CPU ms':>10s}")
    results = {
        "machine": {
            "device": jax.devices()[0].device_kind,
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "python": platform.python_version(),
            "jax": jax.__version__,
            "repeats": _REPEATS.value,
        },
        "normalizer": normalizer_part(),
        "sampling": sampling_part(),
    }
    if _OUT.value:
        with atomic_write(_OUT.value) as path:
            path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
