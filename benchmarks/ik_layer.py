"""Inverse kinematics: the default layer, the published scheme, and optimistix.

One run measures two things, in float32, compile time apart:

* the layer (joints and twists to rotations, no vertices) by scheme, forward and
  forward + backward with respect to targets, rest joints, twists and leaves;
* on one core, the joints-only solver on 24 joints with 5 mm noise, against optimistix'
  Levenberg-Marquardt on the same problem, with the ratio of the residuals.

    python benchmarks/ik_layer.py --out=benchmarks/results/ik_layer_cpu.json

Times are medians, wall and CPU seconds of the process; on a busy machine read the CPU
ones and the ratios.
"""

import dataclasses
import functools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

ONE_CORE = "HMR_BENCHMARK_ONE_CORE"
if ONE_CORE in os.environ and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

from absl import app, flags  # noqa: E402

import hmr_jax  # noqa: E402, F401  (sets the XLA guard before JAX starts)

import jax  # isort: skip  # noqa: E402
import jax.numpy as jnp  # isort: skip  # noqa: E402
import numpy as np  # isort: skip  # noqa: E402

from hmr_jax.body.joint_sets import SMPL_PARENTS  # isort: skip  # noqa: E402
from hmr_jax.files import atomic_write  # isort: skip  # noqa: E402
from hmr_jax.geometry import rotations  # isort: skip  # noqa: E402
from hmr_jax.systems.ikol.layer import ik_layer  # isort: skip  # noqa: E402
from hmr_jax.solvers.inverse_kinematics import inverse_kinematics  # isort: skip  # noqa: E402
from hmr_jax.systems.ikol.published import TRAIN  # isort: skip  # noqa: E402
from hmr_jax.solvers.fit_bones import fit_bones  # isort: skip  # noqa: E402

_BATCHES = flags.DEFINE_list("batches", ["1", "64", "1024"], "Numbers of poses.")
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed calls of each; the median counts.")
_LM_POSES = flags.DEFINE_integer("lm_poses", 64, "Poses given to optimistix.")
_NOISE_MM = flags.DEFINE_float("noise_mm", 5.0, "Noise of each target coordinate.")
_PART = flags.DEFINE_enum("part", "all", ["all", "layer", "joints"], "What to measure.")
_OUT = flags.DEFINE_string("out", None, "JSON file to write.")

PARENTS = tuple(int(p) for p in SMPL_PARENTS)
SCHEMES: dict[str, dict[str, Any]] = {
    "default": {"scheme": "newton"},
    "published, analytic J": {
        "scheme": "published",
        "options": dataclasses.replace(TRAIN, jacobian="exact"),
    },
    "published, autodiff J": {"scheme": "published", "options": TRAIN},
    "full unrolling": {
        "scheme": "published",
        "options": dataclasses.replace(TRAIN, jacobian="exact", backward="unroll"),
    },
}
# A plausible T-pose in metres, y up: bones of the lengths of an adult.
_BONES = """0 0 0  .07 -.09 0  -.07 -.09 0  0 .11 -.02  .03 -.38 0  -.03 -.38 0
 0 .14 .02  -.01 -.4 -.04  .01 -.4 -.04  0 .05 .02  .03 -.06 .12  -.03 -.06 .12
 0 .21 -.04  .08 .12 -.02  -.08 .12 -.02  0 .09 .05  .09 .03 0  -.09 .03 0
 .26 -.01 -.02  -.26 -.01 -.02  .25 .01 .02  -.25 .01 .02  .09 -.01 0  -.09 -.01 0"""


def rest_skeleton() -> np.ndarray:
    """Joints at rest ``[24, 3]``, metres."""
    bones = np.array(_BONES.split(), float).reshape(24, 3)
    rest = np.zeros((24, 3))
    for joint in range(1, 24):
        rest[joint] = rest[PARENTS[joint]] + bones[joint]
    return rest


def forward_kinematics(local: jax.Array, rest: jax.Array) -> jax.Array:
    """Joints of one pose, the root at 0."""
    frames, joints = [local[0]], [jnp.zeros(3, rest.dtype)]
    for joint in range(1, 24):
        parent = PARENTS[joint]
        bone = jnp.sum(frames[parent] * (rest[joint] - rest[parent]), axis=-1)
        joints.append(joints[parent] + bone)
        frames.append(rotations.matmul3(frames[parent], local[joint]))
    return jnp.stack(joints)


def make_problem(batch: int, noise_m: float) -> dict[str, jax.Array]:
    """Random poses: noisy targets, rest joints, raw twists, leaf quaternions."""
    rng = np.random.default_rng(0)
    turns = 0.35 * rng.standard_normal((batch, 24, 3))
    turns[:, 0] = rng.uniform(-np.pi, np.pi, (batch, 3)) / np.sqrt(3)
    rest = np.tile(rest_skeleton(), (batch, 1, 1))
    local = rotations.axis_angle_to_matrix(jnp.asarray(turns, jnp.float32))
    joints = jax.vmap(forward_kinematics)(local, jnp.asarray(rest, jnp.float32))
    noise = noise_m * rng.standard_normal(joints.shape)
    noise[:, 0] = 0
    angle = 0.3 * rng.standard_normal((batch, 23))
    twists = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    arrays = {
        "target": np.asarray(joints) + noise,
        "rest": rest,
        "twist": twists,
        "leaf": rng.standard_normal((batch, 5, 4)),
    }
    return {name: jnp.asarray(a, jnp.float32) for name, a in arrays.items()}


def measure(fn: Callable, inputs: tuple, poses: int) -> tuple[dict[str, float], Any]:
    """Compile and median run times of a jitted function, with its last result."""
    start = time.process_time()
    compiled = jax.jit(fn).lower(*inputs).compile()
    record = {"compile_cpu_s": time.process_time() - start}
    out = jax.block_until_ready(compiled(*inputs))
    wall, cpu = [], []
    for _ in range(_REPEATS.value):
        marks = time.perf_counter(), time.process_time()
        out = jax.block_until_ready(compiled(*inputs))
        wall.append(time.perf_counter() - marks[0])
        cpu.append(time.process_time() - marks[1])
    record["wall_us_per_pose"] = 1e6 * statistics.median(wall) / poses
    record["cpu_us_per_pose"] = 1e6 * statistics.median(cpu) / poses
    return record, out


def show(name: str, batch: int, record: dict[str, float]) -> None:
    """One line of the table."""
    print(
        f"{name:42s} {batch:5d} {record['wall_us_per_pose']:11.2f} "
        f"{record['cpu_us_per_pose']:11.2f} {record['compile_cpu_s']:9.1f}",
        flush=True,
    )


def header(title: str) -> None:
    """Title and column names."""
    print(f"\n{title}")
    print(f"{'':42s} {'batch':>5s} {'wall us':>11s} {'CPU us':>11s} {'compile s':>9s}")


def layer_part() -> dict[str, Any]:
    """Time every scheme forward and forward + backward."""
    results: dict[str, Any] = {}
    header("layer: joints and twists to rotations, per pose")
    probe = jax.random.normal(jax.random.key(1), (24, 3, 3))
    for batch in map(int, _BATCHES.value):
        problem = make_problem(batch, _noise_m())
        inputs = tuple(problem.values())
        for name, options in SCHEMES.items():
            layer = functools.partial(ik_layer, **options)

            def loss(*inputs, layer=layer):
                pose = layer(*inputs)
                return jnp.sum(pose.local_rotmats * probe) + jnp.sum(pose.joints_m**2)

            step = jax.value_and_grad(loss, (0, 1, 2, 3))
            for label, fn in (("forward", layer), ("forward + backward", step)):
                record, _ = measure(fn, inputs, batch)
                results[f"{name}, {label}, {batch}"] = record
                show(f"{name}, {label}", batch, record)
    print("\nforward + backward against the default scheme (goal at 64: 10 or more)")
    for batch in map(int, _BATCHES.value):
        ours = results[f"default, forward + backward, {batch}"]["cpu_us_per_pose"]
        for name in list(SCHEMES)[1:]:
            other = results[f"{name}, forward + backward, {batch}"]["cpu_us_per_pose"]
            results[f"ratio, {name}, {batch}"] = other / ours
            print(f"  {name:24s} batch {batch:5d}: {other / ours:8.1f} times")
    return results


def optimistix_lm(targets: jax.Array, rest: jax.Array, start: jax.Array) -> jax.Array:
    """Half the squared residual of each pose at optimistix' LM optimum."""
    import optimistix

    def residual(turns, given):
        target, rest = given
        local = rotations.axis_angle_to_matrix(turns)
        return (forward_kinematics(local, rest) - target)[1:]

    def one(target, rest, turns):
        solution = optimistix.least_squares(
            residual,
            optimistix.LevenbergMarquardt(rtol=1e-6, atol=1e-6),
            turns,
            args=(target, rest),
            max_steps=50,
            throw=False,
        )
        return 0.5 * jnp.sum(residual(solution.value, (target, rest)) ** 2)

    return jax.vmap(one)(targets, rest, start)


def joints_part() -> dict[str, Any]:
    """Time the joints-only solver and LM on one core, and compare their residuals."""
    results: dict[str, Any] = {}
    header(f"joints only, one core, {_NOISE_MM.value:g} mm noise, per pose")
    costs = {}
    batches = [int(b) for b in _BATCHES.value]
    for batch in batches:
        problem = make_problem(batch, _noise_m())
        inputs = (problem["target"], problem["rest"])
        for label, steps in (("2 steps", 2), ("3 steps", 3), ("converged", None)):
            options = {} if steps is None else {"num_steps": steps}
            fit = functools.partial(fit_bones, parents=PARENTS, **options)
            record, (_, info) = measure(fit, inputs, batch)
            costs[label, batch] = np.asarray(info.cost)
            record["converged"] = float(np.mean(np.asarray(info.converged)))
            record["most_steps"] = int(np.max(np.asarray(info.iterations)))
            results[f"fit_bones, {label}, {batch}"] = record
            show(f"fit_bones, {label}", batch, record)
    poses, batch = min(_LM_POSES.value, max(batches)), max(batches)
    problem = {k: v[:poses] for k, v in make_problem(batch, _noise_m()).items()}
    pose = jax.jit(inverse_kinematics)(problem["target"], problem["rest"])
    near = jax.jit(rotations.matrix_to_axis_angle)(pose.local_rotmats)
    best = np.full(poses, np.inf)
    for label, start in (("from rest", jnp.zeros_like(near)), ("from ours", near)):
        inputs = (problem["target"], problem["rest"], start)
        record, cost = measure(optimistix_lm, inputs, poses)
        best = np.minimum(best, np.asarray(cost))
        results[f"optimistix LM {label}, {poses}"] = record
        show(f"optimistix LM {label}", poses, record)
    print(f"\nresidual (sum of squares) over the best LM optimum, {poses} poses")
    for label in ("2 steps", "3 steps", "converged"):
        ratio = costs[label, batch][:poses] / best
        summary = {
            "total": float(costs[label, batch][:poses].sum() / best.sum()),
            "median": float(np.median(ratio)),
            "worst": float(ratio.max()),
        }
        results[f"residual ratio, {label}"] = summary
        print(f"  {label:10s} " + ", ".join(f"{k} {v:.6f}" for k, v in summary.items()))
    slow = results[f"optimistix LM from rest, {poses}"]["cpu_us_per_pose"]
    fast = results[f"fit_bones, 3 steps, {batch}"]["cpu_us_per_pose"]
    results["optimistix LM over fit_bones"] = slow / fast
    print(f"  optimistix LM takes {slow / fast:.0f} times as long per pose")
    return results


def _noise_m() -> float:
    return 1e-3 * _NOISE_MM.value


def joints_on_one_core() -> dict[str, Any]:
    """Run the joints part in a process bound to one core."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "joints.json"
        names = ("repeats", "lm_poses", "noise_mm")
        options = [f"--{name}={flags.FLAGS[name].value}" for name in names]
        options += [f"--batches={','.join(_BATCHES.value)}", f"--out={out}"]
        subprocess.run(
            [sys.executable, __file__, "--part=joints", *options],
            check=True,
            env={**os.environ, ONE_CORE: "1", "JAX_PLATFORMS": "cpu"},
        )
        return json.loads(out.read_text())["joints"]


def describe() -> dict[str, Any]:
    """The device and versions."""
    import optimistix

    return {
        "device": jax.devices()[0].device_kind,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "optimistix": optimistix.__version__,
        "repeats": _REPEATS.value,
    }


def main(argv: list[str]) -> None:
    """Measure, print, and write."""
    del argv
    results: dict[str, Any] = {"machine": describe()}
    if _PART.value in ("all", "layer"):
        results["layer"] = layer_part()
    if _PART.value == "all":
        results["joints"] = joints_on_one_core()
    elif _PART.value == "joints":
        results["joints"] = joints_part()
    if _OUT.value:
        with atomic_write(_OUT.value) as path:
            path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
