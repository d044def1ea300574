"""Products and pieces of 3x3 matrices, written out as multiply-adds."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def matmul3(
    a: Float[Array, "*batch 3 3"], b: Float[Array, "*batch 3 n"]
) -> Float[Array, "*batch 3 n"]:
    """Product of 3x3 matrices (or 3x3 by 3xN) written out as multiply-adds.

    Batches of 3x3 ``dot``s are slow on the CPU and lose digits on accelerators (TF32);
    nine fused multiply-adds per entry do neither.

    Args:
        a: left factors.
        b: right factors, same batch axes.

    Returns:
        ``a @ b`` in full precision.
    """
    return (
        a[..., :, 0:1] * b[..., 0:1, :]
        + a[..., :, 1:2] * b[..., 1:2, :]
        + a[..., :, 2:3] * b[..., 2:3, :]
    )


def matvec3(
    a: Float[Array, "*batch 3 3"], v: Float[Array, "*batch 3"]
) -> Float[Array, "*batch 3"]:
    """Product of 3x3 matrices and vectors in full precision.

    Args:
        a: matrices.
        v: vectors, same batch axes.

    Returns:
        ``a @ v``.
    """
    return matmul3(a, v[..., None])[..., 0]


def transpose(a: Float[Array, "*batch n m"]) -> Float[Array, "*batch m n"]:
    """Swap the last two axes: the inverse of a rotation matrix.

    Args:
        a: matrices.

    Returns:
        Their transposes.
    """
    return jnp.swapaxes(a, -1, -2)


def identity_like(x: Float[Array, "*batch n"]) -> Float[Array, "*batch 3 3"]:
    """Identity matrices, one for each vector.

    Args:
        x: vectors; only their batch axes and type matter.

    Returns:
        Identity matrices.
    """
    return jnp.broadcast_to(jnp.eye(3, dtype=x.dtype), (*x.shape[:-1], 3, 3))


def skew(v: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Cross-product matrices: ``skew(v) @ u`` is ``v x u``.

    Args:
        v: vectors.

    Returns:
        Antisymmetric matrices.
    """
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    o = jnp.zeros_like(x)
    rows = jnp.stack([o, -z, y, z, o, -x, -y, x, o], axis=-1)
    return rows.reshape(*v.shape[:-1], 3, 3)


def outer(
    a: Float[Array, "*batch n"], b: Float[Array, "*batch m"]
) -> Float[Array, "*batch n m"]:
    """Outer products.

    Args:
        a: left vectors.
        b: right vectors.

    Returns:
        ``a b^T``.
    """
    return a[..., :, None] * b[..., None, :]


def rodrigues(
    n: Float[Array, "*batch 3"],
    cos: Float[Array, "*batch"],
    sin: Float[Array, "*batch"],
) -> Float[Array, "*batch 3 3"]:
    """``I + sin [n]x + (1 - cos) [n]x [n]x`` without normalising anything.

    Args:
        n: axes, used as they are.
        cos: numbers used as cosines.
        sin: numbers used as sines.

    Returns:
        Matrices; rotations where ``|n| = 1`` and ``cos^2 + sin^2 = 1``.
    """
    eye = identity_like(n)
    squared = outer(n, n) - jnp.sum(n * n, -1)[..., None, None] * eye
    return eye + sin[..., None, None] * skew(n) + (1 - cos)[..., None, None] * squared
