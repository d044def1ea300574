"""Human mesh recovery in JAX: bodies, inverse kinematics, models, training."""

from hmr_jax._version import __version__
from hmr_jax._xla_guard import guard_cpu_reductions

__all__ = ["__version__"]

guard_cpu_reductions()
