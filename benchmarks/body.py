"""Body forward and gradient: this library against body-models and smplfitter (JAX).

One run builds a random body of SMPL's size, writes it as an SMPL file, has every
library load that file, and times the jitted forward (vertices and joints from pose and
betas) and the gradient with respect to both, in float32, taking turns. It also compares
every library's vertices with a float64 numpy computation.

    python benchmarks/body.py --batches=1,64,256 --out=benchmarks/results/body_cpu.json
"""

import json
import pathlib
import pickle
import platform
import statistics
import tempfile
import time
from collections.abc import Callable

from absl import app, flags

import hmr_jax  # noqa: F401  (sets the XLA guard before JAX starts)

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip
import numpy as np  # isort: skip

from hmr_jax.body.forward import body_forward  # isort: skip
from hmr_jax.body.joint_sets import SMPL_PARENTS  # isort: skip
from hmr_jax.body.readers import load_body  # isort: skip
from hmr_jax.files import atomic_write  # isort: skip

_BATCHES = flags.DEFINE_list("batches", ["1", "64", "256"], "Numbers of bodies.")
_REPEATS = flags.DEFINE_integer("repeats", 7, "Timed calls of each; the median counts.")
_OUT = flags.DEFINE_string("out", None, "JSON file to write.")

Forward = Callable[[object, jax.Array, jax.Array], jax.Array]


def random_smpl_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays of SMPL's sizes and layout; up to four joints move a vertex."""
    rng = np.random.default_rng(seed)
    verts, parents = 6890, np.array(SMPL_PARENTS)
    rest = np.zeros((24, 3))
    for joint in range(1, 24):
        rest[joint] = rest[parents[joint]] + 0.15 * rng.standard_normal(3)
    owner = np.concatenate([np.arange(24), rng.integers(0, 24, verts - 24)])
    weights, joints = np.zeros((verts, 24)), owner.copy()
    for share in (0.6, 0.2, 0.15, 0.05):
        np.add.at(weights, (np.arange(verts), joints), share)
        joints = np.maximum(parents[joints], 0)
    regressor = np.zeros((24, verts))
    for joint in range(24):
        mine = np.flatnonzero(owner == joint)[:32]
        regressor[joint, mine] = 1 / len(mine)
    return {
        "v_template": rest[owner] + 0.05 * rng.standard_normal((verts, 3)),
        "shapedirs": 0.01 * rng.standard_normal((verts, 3, 10)),
        "posedirs": 0.001 * rng.standard_normal((verts, 3, 207)),
        "J_regressor": regressor,
        "weights": weights,
        "f": rng.integers(0, verts, (13776, 3)).astype(np.uint32),
        "kintree_table": np.stack(
            [np.where(parents < 0, 2**32 - 1, parents), np.arange(24)]
        ).astype(np.uint32),
    }


def write_model(folder: pathlib.Path) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """An SMPL file where smplfitter looks for it, with its (empty) kid template."""
    arrays = random_smpl_arrays()
    path = folder / "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl"
    with open(path, "wb") as file:
        pickle.dump(arrays, file, protocol=2)
    np.save(folder / "kid_template.npy", np.zeros_like(arrays["v_template"]))
    return path, arrays


def reference_vertices(arrays: dict, betas: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Vertices of one body in float64 numpy."""
    angle = np.linalg.norm(pose, axis=-1)[:, None, None]
    x, y, z = (pose / angle[:, :, 0]).T
    o = np.zeros(24)
    k = np.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(24, 3, 3)
    local = np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    rest = arrays["J_regressor"] @ shaped
    posed = shaped + arrays["posedirs"] @ (local[1:] - np.eye(3)).reshape(-1)
    rotations, joints = local.copy(), rest.copy()
    for j in range(1, 24):
        p = SMPL_PARENTS[j]
        rotations[j] = rotations[p] @ local[j]
        joints[j] = joints[p] + rotations[p] @ (rest[j] - rest[p])
    offsets = joints - np.einsum("jab,jb->ja", rotations, rest)
    blended = np.einsum("vj,jab->vab", arrays["weights"], rotations)
    return np.einsum("vab,vb->va", blended, posed) + arrays["weights"] @ offsets


def make_ours(path: pathlib.Path) -> tuple[object, Forward]:
    """This library; the body is an argument."""

    def forward(body, betas, pose):
        out = body_forward(body, betas, pose)
        return out.vertices_m, out.joints_m

    return load_body(path), forward


def make_body_models(path: pathlib.Path) -> tuple[object, Forward]:
    """The PyPI package body-models; its model is closed over."""
    from body_models.smpl.jax import SMPL

    model = SMPL(model_path=path)

    def forward(_, betas, pose):
        arguments = dict(pelvis_rotation=pose[:, 0], shape=betas)
        vertices = model.forward_vertices(pose[:, 1:], **arguments)
        skeleton = model.forward_skeleton(pose[:, 1:], **arguments)
        return vertices, skeleton[..., :3, 3]

    return None, forward


def make_smplfitter(path: pathlib.Path) -> tuple[object, Forward]:
    """The PyPI package smplfitter; its model is closed over."""
    from smplfitter.jax import BodyModel

    model = BodyModel("smpl", "neutral", model_root=str(path.parent), num_betas=10)

    def forward(_, betas, pose):
        out = model(pose_rotvecs=pose.reshape(-1, 72), shape_betas=betas)
        return out["vertices"], out["joints"]

    return None, forward


OURS = "hmr_jax"
MAKERS = {
    OURS: make_ours,
    "body-models": make_body_models,
    "smplfitter": make_smplfitter,
}


def load_all(path: pathlib.Path) -> dict[str, tuple[object, Forward]]:
    """Every library that is installed."""
    loaded = {}
    for name, make in MAKERS.items():
        try:
            loaded[name] = make(path)
        except ImportError as error:
            print(f"{name} is not installed, left out ({error}); pip install {name}")
    return loaded


def gradient_of(forward: Forward, weight: jax.Array) -> Callable:
    """Gradient of a weighted sum of vertices and joints to betas and pose."""

    def loss(body, betas, pose):
        vertices, joints = forward(body, betas, pose)
        return jnp.sum(vertices * weight[None]) + jnp.sum(joints)

    return jax.grad(loss, argnums=(1, 2))


def timed(function: Callable, arguments: tuple) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start


def measure(functions: dict[str, tuple[Callable, tuple]], repeats: int) -> dict:
    """Compile time, median time in milliseconds, and median ratio to our time.

    The functions take turns.
    """
    compile_s, times = {}, {name: [] for name in functions}
    for name, (function, arguments) in functions.items():
        compile_s[name] = timed(function, arguments)
    for repeat in range(repeats + 1):
        for name, (function, arguments) in functions.items():
            seconds = timed(function, arguments)
            if repeat:
                times[name].append(seconds)
    # Of calls made one after the other, so that what else the machine does cancels.
    ratios = {
        name: statistics.median(a / b for a, b in zip(t, times[OURS], strict=True))
        for name, t in times.items()
    }
    return {
        name: {
            "ms": 1e3 * statistics.median(t),
            "ratio": ratios[name],
            "first_call_s": compile_s[name],
        }
        for name, t in times.items()
    }


def run_batch(models: dict, arrays: dict, batch: int, repeats: int) -> dict:
    """Times and errors of every library at one batch size."""
    rng = np.random.default_rng(batch)
    betas = rng.standard_normal((batch, 10)).astype(np.float32)
    pose = (0.4 * rng.standard_normal((batch, 24, 3))).astype(np.float32)
    weight = jnp.asarray(rng.standard_normal((6890, 3)), jnp.float32)
    expected = np.stack(
        [
            reference_vertices(arrays, betas[i].astype(float), pose[i].astype(float))
            for i in range(min(batch, 4))
        ]
    )
    forwards, gradients, errors = {}, {}, {}
    for name, (body, forward) in models.items():
        arguments = (body, jnp.asarray(betas), jnp.asarray(pose))
        forwards[name] = jax.jit(forward), arguments
        gradients[name] = jax.jit(gradient_of(forward, weight)), arguments
        vertices = np.asarray(forwards[name][0](*arguments)[0][: len(expected)])
        errors[name] = float(np.abs(vertices - expected).max())
    forward_times = measure(forwards, repeats)
    gradient_times = measure(gradients, repeats)
    return {
        name: {
            "forward_ms": forward_times[name]["ms"],
            "forward_ratio": forward_times[name]["ratio"],
            "gradient_ms": gradient_times[name]["ms"],
            "gradient_ratio": gradient_times[name]["ratio"],
            "gradient_first_call_s": gradient_times[name]["first_call_s"],
            "max_error_m": errors[name],
        }
        for name in models
    }


def print_batch(batch: int, rows: dict) -> None:
    """A table in which the ratios are to this library's own time."""
    print(f"batch {batch}")
    print(
        f"  {'':12s} {'forward ms':>11s} {'ratio':>6s} {'fwd+grad ms':>12s} "
        f"{'ratio':>6s} {'compile s':>9s} {'max error m':>12s}"
    )
    for name, row in rows.items():
        print(
            f"  {name:12s} {row['forward_ms']:11.3f} "
            f"{row['forward_ratio']:6.2f} "
            f"{row['gradient_ms']:12.3f} "
            f"{row['gradient_ratio']:6.2f} "
            f"{row['gradient_first_call_s']:9.2f} {row['max_error_m']:12.1e}"
        )


def main(argv: list[str]) -> None:
    """Run the comparison."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {argv[1:]}")
    device = jax.devices()[0]
    report = {
        "device": f"{device.platform}: {device.device_kind}",
        "machine": f"{platform.processor()}, {jax.device_count()} device(s)",
        "jax": jax.__version__,
        "repeats": _REPEATS.value,
        "batches": {},
    }
    print(f"{report['device']}, jax {jax.__version__}; ratio = time / hmr_jax's time")
    with tempfile.TemporaryDirectory() as folder:
        path, arrays = write_model(pathlib.Path(folder))
        models = load_all(path)
    for batch in map(int, _BATCHES.value):
        rows = run_batch(models, arrays, batch, _REPEATS.value)
        report["batches"][batch] = rows
        print_batch(batch, rows)
    if _OUT.value:
        with atomic_write(_OUT.value) as temporary:
            temporary.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
