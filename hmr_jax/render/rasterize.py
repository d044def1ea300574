"""A jitted triangle rasteriser: nearest face, depth and barycentrics of every pixel.

Work is proportional to the sum of the faces' clipped bounding boxes. Every pixel of
every box is one candidate; candidates are numbered through the cumulative sum of the
box areas and visited in chunks of fixed size under a ``while_loop`` that runs until
none is left. So a face may have any size, nothing can overflow, and memory beyond the
image and the face table is a few arrays of one chunk.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

FARTHEST_PX = 1e9
"""Faces with a screen coordinate beyond this are dropped (float32 products)."""
MAX_ITEMS = 2**31 - 1
CPU_CHUNK, CPU_CHUNK_LARGE, ACCELERATOR_CHUNK = 16384, 32768, 131072
"""Candidates per step; the larger one on the CPU is for images of over 512 x 512."""


class Fragments(NamedTuple):
    """What the nearest face leaves in each pixel.

    Attributes:
        depth: metres along the optical axis, infinity where no face is.
        face: index of the face, -1 where no face is.
        barycentrics: perspective-correct weights of the face's three vertices, zero
            where no face is.
    """

    depth: Float[Array, "*batch height width"]
    face: Int[Array, "*batch height width"]
    barycentrics: Float[Array, "*batch height width 3"]


class _FaceTable(NamedTuple):
    """Faces with their vertices in the order of (x, y), and their pixel boxes."""

    corners: Array  # [F, 9] x0 y0 1/z0, x1 y1 1/z1, x2 y2 1/z2
    boxes: Array  # [F, 3] first column, first row, number of columns
    counts: Array  # [F] pixels in the box


def _cross_at(a_x, a_y, b_x, b_y, x, y):
    """Twice the signed area of (pixel, a, b): exactly zero where a pixel is a or b."""
    return (a_x - x) * (b_y - y) - (a_y - y) * (b_x - x)


def _swap_if_after(a: Array, b: Array) -> tuple[Array, Array]:
    """Two [F, 3] vertices in the lexicographic order of their (x, y)."""
    after = (a[:, 0] > b[:, 0]) | ((a[:, 0] == b[:, 0]) & (a[:, 1] > b[:, 1]))
    after = after[:, None]
    return jnp.where(after, b, a), jnp.where(after, a, b)


def _face_table(triangles, in_range, height, width, near_m) -> _FaceTable:
    """Sort each face's vertices and find its box; dropped faces get an empty box."""
    xy, depth = triangles[..., :2], triangles[..., 2]
    usable = jnp.all(jnp.abs(xy) <= FARTHEST_PX, axis=(1, 2)) & in_range
    usable &= jnp.all((depth > near_m) & jnp.isfinite(depth), axis=1)
    inverse = 1.0 / jnp.where(usable[:, None], depth, 1.0)
    corners = jnp.concatenate([xy, inverse[..., None]], axis=-1)
    corners = jnp.where(usable[:, None, None], corners, 0.0)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    a, b = _swap_if_after(a, b)
    b, c = _swap_if_after(b, c)
    a, b = _swap_if_after(a, b)
    low = jnp.ceil(jnp.min(corners[..., :2], axis=1))
    high = jnp.floor(jnp.max(corners[..., :2], axis=1))
    limit = jnp.array([width - 1, height - 1], corners.dtype)
    low = jnp.clip(low, 0.0, limit[None] + 1.0).astype(jnp.int32)
    high = jnp.clip(high, -1.0, limit[None]).astype(jnp.int32)
    size = jnp.maximum(high - low + 1, 0)
    counts = jnp.where(usable, size[:, 0] * size[:, 1], 0)
    boxes = jnp.stack([low[:, 0], low[:, 1], jnp.maximum(size[:, 0], 1)], axis=1)
    return _FaceTable(jnp.concatenate([a, b, c], axis=1), boxes, counts)


def _candidates(table: _FaceTable, ends: Array, start: Array, chunk_size: int):
    """The face and the pixel of ``chunk_size`` consecutive candidates.

    Each face marks its first candidate (or the chunk's first), and a running maximum
    carries the marks on: a quarter faster than a binary search for every candidate.
    """
    begins = ends - table.counts
    offset = begins - start
    here = (table.counts > 0) & (offset < chunk_size)
    numbers = jnp.arange(ends.shape[0], dtype=jnp.int32)
    marks = jnp.zeros(chunk_size + 1, jnp.int32)
    marks = marks.at[jnp.where(here, jnp.maximum(offset, 0), chunk_size)].max(
        numbers, mode="promise_in_bounds"
    )
    face = jax.lax.cummax(marks[:-1])
    item = start + jnp.arange(chunk_size, dtype=jnp.int32)
    box = table.boxes[face]
    offset = item - begins[face]
    row = offset // box[:, 2]
    return face, box[:, 0] + offset - row * box[:, 2], box[:, 1] + row, item < ends[-1]


def _cover(corners: Array, column: Array, row: Array) -> tuple[Array, Array]:
    """Whether each pixel centre lies in its face, and the inverse depth there.

    The three edges run in the order of (x, y), so two faces that share an edge compute
    the same number from the same operands, and the half planes ``edge >= 0`` and
    ``edge < 0`` leave no pixel to both or to neither. That equals moving the pixel by
    an infinitesimal (-e^2, e), hence a rule without ties or orientation.
    """
    x, y = column.astype(corners.dtype), row.astype(corners.dtype)
    ax, ay, az, bx, by, bz, cx, cy, cz = corners.T
    from_x = jnp.stack([ax, bx, ax])
    from_y = jnp.stack([ay, by, ay])
    edges = _cross_at(
        from_x,
        from_y,
        jnp.stack([bx, cx, cx]),
        jnp.stack([by, cy, cy]),
        x[None],
        y[None],
    )
    ab, bc, ac = edges
    inside = ((ab >= 0) == (bc >= 0)) & ((bc >= 0) != (ac >= 0))
    area = jnp.where(inside, ab + bc - ac, 1.0)
    inverse = (bc * az - ac * bz + ab * cz) / area
    low, high = (
        jnp.minimum(jnp.minimum(az, bz), cz),
        jnp.maximum(jnp.maximum(az, bz), cz),
    )
    return inside, jnp.clip(inverse, low, high)


def _paint_block(table, first_face, buffers, width, chunk_size):
    """Draw the faces of one table into (inverse depth, face), chunk by chunk."""
    ends = jnp.cumsum(table.counts)
    nowhere = buffers[0].shape[0] - 1

    def paint_chunk(state):
        start, nearest, winner = state
        face, column, row, active = _candidates(table, ends, start, chunk_size)
        inside, inverse = _cover(table.corners[face], column, row)
        pixel = jnp.where(active & inside, row * width + column, nowhere)
        drawn = nearest.at[pixel].max(inverse, mode="promise_in_bounds")
        winner = jnp.where(drawn > nearest, MAX_ITEMS, winner)
        wins = inverse == drawn[pixel]
        winner = winner.at[jnp.where(wins, pixel, nowhere)].min(
            face + first_face, mode="promise_in_bounds"
        )
        return start + chunk_size, drawn, winner

    start = jnp.zeros_like(ends[-1])
    state = jax.lax.while_loop(
        lambda state: state[0] < ends[-1], paint_chunk, (start, *buffers)
    )
    return state[1:]


def _nearest_faces(triangles, in_range, height, width, near_m, chunk_size) -> Array:
    """Index of the nearest face per pixel, -1 for none: [height, width] int32."""
    table = _face_table(triangles, in_range, height, width, near_m)
    num_faces = triangles.shape[0]
    # Candidates are counted in int32; a block holds as many faces as cannot overflow.
    block = max(1, min(num_faces, (MAX_ITEMS - chunk_size) // (height * width)))
    num_blocks = -(-num_faces // block)
    padding = num_blocks * block - num_faces
    table = _FaceTable(*(_pad_and_split(x, padding, num_blocks) for x in table))
    buffers = (
        jnp.zeros(height * width + 1, triangles.dtype),
        jnp.full(height * width + 1, MAX_ITEMS, jnp.int32),
    )

    def paint(buffers, block_of_faces):
        first, part = block_of_faces
        return _paint_block(part, first, buffers, width, chunk_size), None

    firsts = block * jnp.arange(num_blocks, dtype=jnp.int32)
    (_, winner), _ = jax.lax.scan(paint, buffers, (firsts, table))
    winner = winner[:-1].reshape(height, width)
    return jnp.where(winner == MAX_ITEMS, -1, winner)


def _pad_and_split(x: Array, padding: int, num_blocks: int) -> Array:
    x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(num_blocks, -1, *x.shape[1:])


def _resolve(triangles: Array, face: Array) -> Fragments:
    """Depth and barycentrics of known faces, differentiable in the vertices."""
    height, width = face.shape
    covered = face >= 0
    dtype, index = triangles.dtype, jnp.maximum(face, 0)
    # Nine gathers of numbers take half the time of one gather of rows.
    ax, ay, az, bx, by, bz, cx, cy, cz = (
        column[index] for column in triangles.reshape(-1, 9).T
    )
    x = jnp.arange(width, dtype=dtype)[None]
    y = jnp.arange(height, dtype=dtype)[:, None]
    areas = [
        _cross_at(bx, by, cx, cy, x, y),
        _cross_at(cx, cy, ax, ay, x, y),
        _cross_at(ax, ay, bx, by, x, y),
    ]
    # Without the clip a pixel on an edge could get a weight of about -1e-7.
    sign = jnp.where(areas[0] + areas[1] + areas[2] < 0, -1.0, 1.0).astype(dtype)
    areas = [jnp.maximum(sign * area, 0.0) for area in areas]
    over_z = [
        area / jnp.where(covered, z, 1.0)
        for area, z in zip(areas, (az, bz, cz), strict=True)
    ]
    total = over_z[0] + over_z[1] + over_z[2]
    defined = covered & (total > 0)
    safe = jnp.where(defined, total, 1.0)
    weights = jnp.stack([term / safe for term in over_z], axis=-1)
    # A face so thin that its area vanishes in float32 is taken at its first vertex.
    first = jnp.array([1.0, 0.0, 0.0], dtype)
    weights = jnp.where(defined[..., None], weights, first[None, None])
    depth = jnp.where(defined, (areas[0] + areas[1] + areas[2]) / safe, az)
    return Fragments(
        depth=jnp.where(covered, depth, jnp.inf),
        face=face,
        barycentrics=jnp.where(covered[..., None], weights, 0.0),
    )


def _of_device(nearest, chunk_size: int | None, cpu_chunk: int, *inputs) -> Array:
    """Faces by chunks of the size given, or of that for the program's device."""
    if chunk_size is not None:
        return nearest(*inputs, chunk_size=chunk_size)
    cpu, default = (
        functools.partial(nearest, chunk_size=size)
        for size in (cpu_chunk, ACCELERATOR_CHUNK)
    )
    return jax.lax.platform_dependent(*inputs, cpu=cpu, default=default)


@functools.partial(jax.jit, static_argnames=("height", "width", "near_m", "chunk_size"))
def rasterize(
    vertices_screen: Float[Array, "vertices 3"],
    faces: Int[Array, "faces 3"],
    height: int,
    width: int,
    *,
    near_m: float = 0.01,
    chunk_size: int | None = None,
) -> Fragments:
    """Find the nearest face of a mesh in every pixel.

    Args:
        vertices_screen: x and y in pixels (pixel centres at integers, x right, y down)
            and depth in metres along the optical axis.
        faces: vertex indices, of any orientation. Faces with an index outside the
            vertices (-1 as padding) are ignored.
        height: image height in pixels.
        width: image width in pixels.
        near_m: a face with a vertex at this depth or nearer is dropped whole; subdivide
            large faces near the camera if that is too coarse.
        chunk_size: candidates per step, by default chosen by the device; the result
            does not depend on it.

    Returns:
        ``Fragments``. Depth and barycentrics are differentiable in the vertices, the
        choice of the face is not. At equal depth the smaller face index wins.

    Raises:
        ValueError: a size that is not positive.

    Note:
        Faces that share an edge leave neither hole nor double pixel between them, with
        either orientation. Faces with a NaN or infinity, of zero area, or beyond 1e9
        pixels are ignored. Vectorise with ``jax.vmap``; ``jax.lax.map`` is the faster
        choice on a CPU.
    """
    if height < 1 or width < 1:
        raise ValueError(f"expected a positive image size, got {height} x {width}")
    num_vertices = vertices_screen.shape[0]
    in_range = jnp.all((faces >= 0) & (faces < num_vertices), axis=1)
    triangles = vertices_screen[jnp.clip(faces, 0, num_vertices - 1)]
    face = _of_device(
        functools.partial(_nearest_faces, height=height, width=width, near_m=near_m),
        chunk_size,
        CPU_CHUNK if height * width <= 512 * 512 else CPU_CHUNK_LARGE,
        jax.lax.stop_gradient(triangles),
        in_range,
    )
    return _resolve(triangles, face)


def interpolate(
    fragments: Fragments, face_attributes: Float[Array, "faces 3 channels"]
) -> Float[Array, "height width channels"]:
    """Spread values given at the corners of faces over the pixels.

    Args:
        fragments: from ``rasterize``.
        face_attributes: one vector for each corner, in the order of ``faces``.

    Returns:
        Perspective-correct values, zero where no face is.
    """
    corners = face_attributes[jnp.maximum(fragments.face, 0)]
    return jnp.sum(corners * fragments.barycentrics[..., None], axis=-2)
