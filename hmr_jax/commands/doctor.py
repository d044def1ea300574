"""Say what this machine offers, what is missing, and whether the core works here.

    hmr-jax doctor
    hmr-jax doctor --body=SMPL_NEUTRAL.pkl

Prints versions, devices, where compiled programs are kept (HMR_JAX_CACHE names another
folder, or off) and optional packages, then runs small checks: the open body and hand,
skinning, inverse kinematics and its gradient, long float32 reductions. With --body it
also reads a body file of yours. Exit code 1 where a check fails.
"""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable

from absl import flags

from hmr_jax.commands import cli, compilation_cache

CORE = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "safetensors")
OPTIONAL = {
    "tensorflow-cpu": "data pipelines: pip install 'hmr_jax[data]'",
    "tensorflow-datasets": "data pipelines: pip install 'hmr_jax[data]'",
    "apache-beam": "large conversions: pip install 'hmr_jax[beam]'",
    "body-models": "benchmarks: pip install 'hmr_jax[bench]'",
    "smplfitter": "benchmarks: pip install 'hmr_jax[bench]'",
    "optimistix": "benchmarks: pip install 'hmr_jax[bench]'",
}


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "body", None, "An SMPL or MANO file to read and pose.", flag_values=values
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the words after ``doctor``.

    Returns:
        0, or 1 where a check failed.
    """
    values, rest = cli.parse("doctor", __doc__, _define, argv)
    cli.no_more(rest)
    _print_machine()
    checks: list[tuple[str, Callable[[], str]]] = [
        ("long float32 reductions", check_reductions),
        ("open body", check_open_body),
        ("open hand", check_open_hand),
        ("inverse kinematics", check_inverse_kinematics),
    ]
    if values.body:
        checks.append((f"body file {values.body}", lambda: check_file(values.body)))
    failed = 0
    for name, check in checks:
        try:
            line = check()
        except Exception as error:  # noqa: BLE001 -- whatever fails is the answer
            failed += 1
            line = f"FAILED: {error}"
        print(f"  {name}: {line}")
    print(f"{failed} of {len(checks)} checks failed" if failed else "all checks passed")
    return 1 if failed else 0


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print_machine() -> None:
    import jax

    from hmr_jax import __version__

    print(f"hmr_jax {__version__}, Python {platform.python_version()}, ", end="")
    free = shutil.disk_usage(".").free / 1e9
    print(f"{os.cpu_count()} cores, {free:.0f} GB free here, {sys.platform}")
    print("  " + ", ".join(f"{name} {_version(name)}" for name in CORE))
    kinds = [device.device_kind for device in jax.devices()]
    print(f"  backend {jax.default_backend()}: {', '.join(kinds)}")
    print(f"  compiled programs: {compilation_cache.describe()}")
    if tensorflow := _version("tensorflow"):
        print(f"  tensorflow {tensorflow}")
    for name, purpose in OPTIONAL.items():
        found = _version(name)
        if name == "tensorflow-cpu" and tensorflow and not found:
            continue
        print(f"  {name} {found}" if found else f"  {name} missing ({purpose})")


def check_reductions() -> str:
    """Whether jitted float32 sums of 40,000 terms are right on this backend."""
    import jax
    import numpy as np

    rng = np.random.default_rng(0)
    v = rng.standard_normal((3, 40_000))
    a = rng.standard_normal((3, 3, 40_000))
    found = jax.jit(jax.grad(lambda v, a: (v[:, None] * v[None] * a).sum()))(
        v.astype(np.float32), a.astype(np.float32)
    )
    expected = np.einsum("ijn,jn->in", a, v) + np.einsum("jin,jn->in", a, v)
    error = float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())
    if error > 1e-3:
        raise ValueError(
            f"relative error {error:.1e}, expected below 1e-3: gradients computed here "
            "cannot be trusted (set "
            "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= with an empty value)"
        )
    return f"right to {error:.0e}"


def _describe(body) -> str:
    import jax
    import numpy as np

    from hmr_jax.body.forward import body_forward

    betas = np.zeros(body.num_betas, np.float32)
    pose = np.zeros((body.num_joints, 3), np.float32)
    posed = jax.jit(body_forward)(body, betas, pose)
    gap = float(
        np.abs(np.asarray(posed.vertices_m) - np.asarray(body.template_m)).max()
    )
    if not gap < 1e-4:
        raise ValueError(f"the zero pose is {gap:g} m from the template")
    height = float(np.ptp(np.asarray(body.template_m), axis=0).max())
    return (
        f"{body.num_vertices} vertices, {body.num_joints} joints, "
        f"{body.num_betas} betas, longest side {height:.2f} m"
    )


def check_open_body() -> str:
    """Read the shipped body and pose it."""
    from hmr_jax.body.open_assets import load_open_body

    return _describe(load_open_body())


def check_open_hand() -> str:
    """Read the shipped hand and pose it."""
    from hmr_jax.body.open_assets import load_open_hand

    return _describe(load_open_hand())


def check_file(path: str) -> str:
    """Read a body file and pose it."""
    from hmr_jax.body.readers import load_body

    return _describe(load_body(path))


def check_inverse_kinematics() -> str:
    """Fit a random pose of the open body; the gradient must be finite."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from hmr_jax.body.forward import forward_kinematics, rest_joints
    from hmr_jax.body.open_assets import load_open_body
    from hmr_jax.geometry.rotations import axis_angle_to_matrix
    from hmr_jax.solvers.inverse_kinematics import inverse_kinematics

    body = load_open_body()
    rest = rest_joints(body, jnp.zeros(body.num_betas))
    rng = np.random.default_rng(0)
    pose = 0.3 * rng.standard_normal((body.num_joints, 3)).astype(np.float32)
    posed = forward_kinematics(
        axis_angle_to_matrix(jnp.asarray(pose)), rest, body.parents
    )[1]
    target = posed - posed[:1]
    twist = jnp.tile(jnp.asarray([1.0, 0.0]), (body.num_joints - 1, 1))

    def error(target):
        fitted = inverse_kinematics(target, rest, twist, None, parents=body.parents)
        return jnp.linalg.norm(fitted.joints_m - target, axis=-1).mean()

    value, gradient = jax.jit(jax.value_and_grad(error))(target + 1e-3)
    if not (np.isfinite(gradient).all() and value < 5e-3):
        raise ValueError(f"joint error {1e3 * float(value):.2f} mm, expected below 5")
    return f"joint error {1e3 * float(value):.2f} mm, gradient finite"
