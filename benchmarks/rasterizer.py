"""Time of the rasteriser and of synthetic samples, as CPU time and as wall time.

    python benchmarks/rasterizer.py
    taskset -c 0 python benchmarks/rasterizer.py --sizes 128,256,512 --repeats 20

Prints milliseconds for each picture of the open body, standing so that it
fills 85 % of the image's height, and samples per second with all labels and encoding.
CPU time is summed over threads: divide by the cores to expect wall time on an idle
machine. On an accelerator only wall time means something.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

import hmr_jax  # noqa: F401  (before JAX starts)
from hmr_jax.body.forward import body_forward
from hmr_jax.body.open_assets import load_open_body
from hmr_jax.render.rasterize import rasterize
from hmr_jax.render.shade import project_to_screen, render_mesh
from hmr_jax.synthetic.motion import load_motion
from hmr_jax.synthetic.sampler import SampleSource

_SIZES = flags.DEFINE_list("sizes", ["128", "256", "512"], "image sides in pixels")
_REPEATS = flags.DEFINE_integer("repeats", 10, "pictures of each kind")
_BATCH = flags.DEFINE_integer("batch", 16, "pictures in one vmap")
_SAMPLES = flags.DEFINE_integer("samples", 64, "synthetic samples of each size")


def timed(function, repeats: int) -> tuple[float, float]:
    """CPU and wall milliseconds of one call, after a first one that compiles."""
    jax.block_until_ready(function())
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        jax.block_until_ready(function())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return 1e3 * cpu / repeats, 1e3 * wall / repeats


def standing(body, size: int):
    """Vertices in the camera frame and intrinsics: 85 % of the image's height."""
    vertices = body_forward(body, jnp.zeros(10), jnp.zeros((24, 3))).vertices_m
    middle = (jnp.max(vertices, axis=0) + jnp.min(vertices, axis=0)) / 2
    flip = jnp.array([[1.0, -1.0, -1.0]])
    vertices = (vertices - middle[None]) * flip + jnp.array([[0.0, 0.0, 4.0]])
    focal = 0.85 * size * 4.0 / float(jnp.ptp(vertices[:, 1]))
    centre = (size - 1) / 2
    return vertices, jnp.array([[focal, 0, centre], [0, focal, centre], [0, 0, 1.0]])


def row(name: str, cpu: float, wall: float, note: str = "") -> None:
    """One line of the table."""
    print(f"{name:34s} {cpu:9.2f} {wall:9.2f}  {note}")


def bench_size(body, size: int, repeats: int) -> None:
    """Rasterising alone, shaded, antialiased, and a batch."""
    vertices, intrinsics = standing(body, size)
    screen = project_to_screen(vertices, intrinsics)
    covered = rasterize(screen, body.faces, size, size).face >= 0
    times = timed(lambda: rasterize(screen, body.faces, size, size), repeats)
    row(f"rasterize {size}", *times, f"{float(covered.mean()):.0%} of pixels covered")
    for supersample in (1, 2):
        times = timed(
            lambda s=supersample: render_mesh(
                *(vertices, body.faces, intrinsics, size, size), supersample=s
            ),
            repeats,
        )
        row(f"render_mesh {size} supersample {supersample}", *times)
    many = jnp.broadcast_to(screen, (_BATCH.value, *screen.shape))
    batched = jax.jit(jax.vmap(lambda s: rasterize(s, body.faces, size, size)))
    cpu, wall = timed(lambda: batched(many), max(1, repeats // _BATCH.value))
    count = _BATCH.value
    row(f"rasterize {size}, each of vmap {count}", cpu / count, wall / count)


def bench_samples(body, size: int, count: int) -> None:
    """Whole samples: scene, picture, labels, JPEG."""
    source = SampleSource(
        body, load_motion(), image_size_px=size, num_samples=2 * count, seed=0
    )
    list(source.samples(range(8)))
    cpu, wall = time.process_time(), time.perf_counter()
    list(source.samples(range(count, 2 * count)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    note = f"{count / cpu:.0f} samples per CPU second, {count / wall:.0f} per second"
    row(f"synthetic sample {size}", 1e3 * cpu / count, 1e3 * wall / count, note)


def main(argv) -> None:
    """Print the table."""
    del argv
    sizes = [int(size) for size in _SIZES.value]
    body = load_open_body()
    device = jax.devices()[0]
    print(f"jax {jax.__version__}, {device.platform} ({device.device_kind})")
    print(f"{body.num_vertices} vertices, {np.shape(body.faces)[0]} faces")
    print(f"{'':34s} {'CPU ms':>9s} {'wall ms':>9s}")
    for size in sizes:
        bench_size(body, size, _REPEATS.value)
    for size in sizes[:2]:
        bench_samples(body, size, _SAMPLES.value)


if __name__ == "__main__":
    app.run(main)
