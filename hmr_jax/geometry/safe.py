"""Square roots, norms, quotients and angles with finite gradients everywhere.

Each function follows the two-``where`` rule: the argument is replaced by a harmless
number before the singular operation, and the result is replaced after it, so that
neither the value nor its derivative is ever computed at the singular point. At such a
point the value is the limit (or 0 where there is none) and the derivative is 0.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def _tiny(x: Array) -> float:
    """Squares below this count as zero: quotients by them would overflow."""
    return float(jnp.finfo(x.dtype).tiny) * 1e8


def sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Square root that is 0, with derivative 0, at zero and below.

    Args:
        x: any shape, any unit.

    Returns:
        ``sqrt(max(x, 0))``; numbers below about 1e-30 (float32) count as zero.
    """
    x = jnp.asarray(x)
    positive = x > _tiny(x)
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def norm(
    x: Float[Array, "*shape"], axis: int = -1, keepdims: bool = False
) -> Float[Array, "*reduced"]:
    """Euclidean norm whose derivative at the zero vector is 0.

    Args:
        x: vectors along ``axis``.
        axis: the axis that is summed.
        keepdims: keep that axis with length 1.

    Returns:
        The norms; vectors shorter than about 1e-15 (float32) count as zero.
    """
    x = jnp.asarray(x)
    return sqrt(jnp.sum(x * x, axis=axis, keepdims=keepdims))


def divide(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """Quotient that is 0, with derivative 0, where the divisor is 0.

    Args:
        a: dividend.
        b: divisor, broadcast against ``a``.

    Returns:
        ``a / b``; 0 where ``|b|`` is so small (1e-15 in float32) that the derivative
        would overflow. That 0 is no limit: nothing may be decided by comparing it.
    """
    b = jnp.asarray(b)
    regular = b * b > _tiny(b)
    return jnp.where(regular, a / jnp.where(regular, b, 1), 0)


def rescaling(
    x: Float[Array, "*shape"], axis: int | tuple[int, ...] = -1
) -> Float[Array, "*kept"]:
    """Powers of two that bring the largest magnitude along ``axis`` to [2, 4).

    Multiplying by them rounds nothing and keeps squares from under- or overflowing. No
    gradient flows through them: what does not depend on the scale of ``x`` has the
    right derivatives all the same.

    Args:
        x: any shape.
        axis: the axes that share a factor.

    Returns:
        Factors with those axes kept at length 1; 1 where all is zero.
    """
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True))
    normal = size >= jnp.finfo(size.dtype).tiny
    size = jnp.where(normal, size, 1)
    # To [0.5, 1) the largest numbers would need a factor that is no normal number.
    return jnp.where(normal, 4 * jnp.frexp(size)[0] / size, 1)


def normalize(
    x: Float[Array, "*shape"], axis: int = -1, floor: float = 0.0
) -> Float[Array, "*shape"]:
    """Unit vectors; the zero vector stays zero, with derivative 0.

    Args:
        x: vectors along ``axis``, of any length: also those whose square under- or
            overflows have length 1 afterwards.
        axis: the axis of the vectors' components.
        floor: shorter vectors are divided by this instead of by their norm.

    Returns:
        ``x / max(|x|, floor)``.
    """
    factor = rescaling(x, axis)
    x = x * factor
    length = norm(x, axis=axis, keepdims=True)
    if floor > 0.0:
        length = jnp.maximum(length, floor * factor)
    return divide(x, length)


def acos(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Arc cosine with the argument clipped to [-1, 1] and derivative 0 at the ends.

    Args:
        x: cosines.

    Returns:
        Angles in radians, [0, pi].
    """
    x = jnp.asarray(x)
    inside = jnp.abs(x) < 1
    end = jnp.where(x > 0, 0.0, jnp.pi).astype(x.dtype)
    return jnp.where(inside, jnp.arccos(jnp.where(inside, x, 0)), end)


def atan2(
    y: Float[Array, "*shape"], x: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Angle of the vector (x, y); 0, with derivative 0, at the origin.

    Args:
        y: sine-like component.
        x: cosine-like component, same shape; the pair may have any length.

    Returns:
        Angles in radians, (-pi, pi].
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    factor = rescaling(jnp.stack(jnp.broadcast_arrays(x, y)), 0)[0]
    x, y = x * factor, y * factor
    regular = x * x + y * y > _tiny(x)
    angle = jnp.arctan2(jnp.where(regular, y, 0), jnp.where(regular, x, 1))
    return jnp.where(regular, angle, 0)
