"""Keeps users of some jaxlib releases from silently wrong CPU reductions.

jaxlib 0.10.2 fuses reductions with YNNPACK by default, and under ``jit`` some float32
reductions longer than about 8,192 come out wrong by 30 to 70 % (eager mode and float64
are right). ``tests/test_xla_guard.py`` holds the reproducer; 0.9.2, 0.10.0, 0.10.1,
0.11.0 and 0.12.0 pass it without help. The remedy is one XLA flag, read when the CPU
backend starts. An XLA that does not know the flag stops, so it is set for the 0.10
line alone, all of which knows it.
"""

import os
import warnings

import jax
import jaxlib

FLAG = "--xla_cpu_experimental_ynn_fusion_type="
AFFECTED = ((0, 10, 0), (0, 11, 0))  # first affected release, first one not affected


def _release(version: str) -> tuple[int, ...]:
    """The leading numeric parts of a version string, for example (0, 10, 2)."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def is_affected(version: str) -> bool:
    """Whether a jaxlib version has the faulty fusion on by default."""
    return AFFECTED[0] <= _release(version) < AFFECTED[1]


def _backend_started() -> bool:
    bridge = getattr(getattr(jax, "_src", None), "xla_bridge", None)
    started = getattr(bridge, "backends_are_initialized", None)
    return bool(started()) if callable(started) else False


def guard_cpu_reductions() -> None:
    """Turn the faulty fusion off by its XLA flag, or warn that it is too late."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_experimental_ynn_fusion_type" in flags:
        return
    if not is_affected(jaxlib.__version__):
        return
    if _backend_started():
        warnings.warn(
            f"hmr_jax was imported after JAX had started its backend. jaxlib "
            f"{jaxlib.__version__} gives wrong float32 reductions on the CPU unless "
            f"XLA_FLAGS contains '{FLAG}' (empty value): import hmr_jax before the "
            "first JAX computation, or set the flag in the environment.",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    os.environ["XLA_FLAGS"] = f"{flags} {FLAG}".strip()
