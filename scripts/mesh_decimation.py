"""Left-right symmetric simplification of a triangle mesh by half-edge collapses.

Every remaining vertex is an original one, so shape directions, skinning weights and
texture coordinates carry over by indexing. The error is the quadric error (Garland and
Heckbert, 1997) summed over several shapes and poses of the same mesh, so that creases
which appear only in a bent elbow keep their vertices.
"""

import heapq

import numpy as np

MIN_NORMAL_COSINE = 0.3
MIN_TRIANGLE_QUALITY = 0.08
MAX_VALENCE = 10


def _face_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area vectors [K, F, 3] (length twice the area)."""
    a, b, c = (points[:, faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _boundary(faces: np.ndarray, num_vertices: int) -> np.ndarray:
    """Vertices [V] on an edge with only one face; they stay."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    out = np.zeros(num_vertices, bool)
    out[unique[count == 1]] = True
    return out


class Decimator:
    """State of one simplification; see ``decimate``."""

    def __init__(self, meshes_m, faces, face_uv, mirror, face_weight, length_weight):
        self.points = np.asarray(meshes_m, float)
        self.homogeneous = np.concatenate(
            [self.points, np.ones((*self.points.shape[:2], 1))], -1
        ).transpose(1, 0, 2)
        self.faces = [list(map(int, f)) for f in faces]
        self.uv = [list(map(int, f)) for f in face_uv]
        self.mirror = mirror
        self.around = [set() for _ in range(len(mirror))]
        for index, face in enumerate(self.faces):
            for vertex in face:
                self.around[vertex].add(index)
        self.fixed = _boundary(faces, len(mirror))
        self.stamp = np.zeros(len(mirror), int)
        self.alive = np.ones(len(mirror), bool)
        self.length_weight = length_weight
        self.quadrics, self.scale = self._initial_quadrics(faces, face_weight)
        self.heap = []

    def _initial_quadrics(self, faces, face_weight):
        normals = _face_normals(self.points, faces)
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        unit = normals / np.maximum(length, 1e-20)
        offset = -(unit * self.points[:, faces[:, 0]]).sum(-1, keepdims=True)
        plane = np.concatenate([unit, offset], -1)
        weight = 0.5 * length[..., 0] * face_weight
        per_face = np.einsum("kf,kfa,kfb->fkab", weight, plane, plane)
        quadrics = np.zeros((len(self.mirror), len(self.points), 4, 4))
        scale = np.zeros(len(self.mirror))
        for k in range(3):
            np.add.at(quadrics, faces[:, k], per_face)
            np.add.at(scale, faces[:, k], weight.mean(0))
        return quadrics, scale

    def neighbours(self, vertex):
        """Vertices that share a face with ``vertex``."""
        return {w for f in self.around[vertex] for w in self.faces[f]} - {vertex}

    def push(self, vertex, targets):
        """Put the collapses of ``vertex`` into each of ``targets`` on the heap."""
        targets = np.fromiter(targets, int)
        quadric = self.quadrics[vertex] + self.quadrics[targets]
        point = self.homogeneous[targets]
        cost = np.einsum("tka,tkab,tkb->t", point, quadric, point)
        edge = self.points[:, targets] - self.points[:, vertex, None]
        cost = cost + self.length_weight * self.scale[vertex] * (edge**2).sum((0, 2))
        for value, target in zip(cost, targets, strict=True):
            stamps = int(self.stamp[vertex]), int(self.stamp[target])
            heapq.heappush(self.heap, (float(value), vertex, int(target), *stamps))

    def valid(self, u, v):
        """Whether collapsing ``u`` into ``v`` keeps a good closed surface."""
        if self.fixed[u]:
            return False
        edge_faces = self.around[u] & self.around[v]
        near_u, near_v = self.neighbours(u), self.neighbours(v)
        if len(edge_faces) != 2 or len(near_u & near_v) != 2:
            return False
        if len(near_u | near_v) - 2 > MAX_VALENCE:
            return False
        if self._uv_map(u, v, edge_faces) is None:
            return False
        rest = [self.faces[f] for f in self.around[u] - edge_faces]
        if not rest:
            return False
        old = np.array(rest)
        new = np.where(old == u, v, old)
        before, after = (_face_normals(self.points, f) for f in (old, new))
        sizes = np.linalg.norm(before, axis=-1), np.linalg.norm(after, axis=-1)
        cosine = (before * after).sum(-1) / np.maximum(sizes[0] * sizes[1], 1e-20)
        corners = self.points[:, new]
        longest = ((corners - np.roll(corners, 1, axis=2)) ** 2).sum(-1).max(-1)
        quality = sizes[1] / np.maximum(longest, 1e-20)
        return (
            cosine.min() > MIN_NORMAL_COSINE and quality[0].min() > MIN_TRIANGLE_QUALITY
        )

    def _uv_map(self, u, v, edge_faces):
        """Texture index of ``v`` for each one of ``u``; None at a conflict."""
        mapping = {}
        for face in edge_faces:
            corners = dict(zip(self.faces[face], self.uv[face], strict=True))
            if mapping.setdefault(corners[u], corners[v]) != corners[v]:
                return None
        used = {self.uv[f][self.faces[f].index(u)] for f in self.around[u]}
        return mapping if used <= mapping.keys() else None

    def collapse(self, u, v):
        """Merge ``u`` into ``v``."""
        edge_faces = self.around[u] & self.around[v]
        mapping = self._uv_map(u, v, edge_faces)
        for face in edge_faces:
            for vertex in self.faces[face]:
                self.around[vertex].discard(face)
            self.faces[face] = None
        for face in self.around[u]:
            corner = self.faces[face].index(u)
            self.faces[face][corner] = v
            self.uv[face][corner] = mapping[self.uv[face][corner]]
            self.around[v].add(face)
        self.around[u] = set()
        self.alive[u] = False
        self.quadrics[v] += self.quadrics[u]
        self.scale[v] += self.scale[u]
        self.stamp[v] += 1

    def _half(self, vertex):
        """The vertices whose collapses are tried: one of each mirrored pair."""
        return vertex <= self.mirror[vertex]

    def run(self, target_vertices):
        """Collapse mirrored pairs until ``target_vertices`` remain."""
        for vertex in range(len(self.mirror)):
            if self._half(vertex):
                self.push(vertex, self.neighbours(vertex))
        remaining = int(self.alive.sum())
        while remaining > target_vertices and self.heap:
            _, u, v, stamp_u, stamp_v = heapq.heappop(self.heap)
            fresh = self.stamp[u] == stamp_u and self.stamp[v] == stamp_v
            if not (fresh and self.alive[u] and self.alive[v]):
                continue
            pairs = self._mirrored(u, v)
            if pairs is None or not all(self.valid(*pair) for pair in pairs):
                continue
            for pair in pairs:
                self.collapse(*pair)
            remaining -= len(pairs)
            for _, kept in pairs:
                near = self.neighbours(kept)
                if self._half(kept):
                    self.push(kept, near)
                for vertex in near:
                    if self._half(vertex):
                        self.push(vertex, {kept})

    def _mirrored(self, u, v):
        """The collapse and its mirror image; None if they would touch."""
        mirror_u, mirror_v = int(self.mirror[u]), int(self.mirror[v])
        if mirror_u == u:
            return [(u, v)] if mirror_v == v else None
        near = self.neighbours(u)
        if mirror_u in near or mirror_v == u:
            return None
        if near & self.neighbours(mirror_u) and (mirror_v != v or len(near) < 4):
            return None
        if mirror_v == v and len(near & self.neighbours(mirror_u)) > 1:
            return None
        return [(u, v), (mirror_u, mirror_v)]


def decimate(
    meshes_m: np.ndarray,
    faces: np.ndarray,
    face_uv: np.ndarray,
    mirror: np.ndarray,
    target_vertices: int,
    face_weight: np.ndarray,
    length_weight: float = 3e-3,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simplify a mesh symmetrically; the edge of an open one stays as it is.

    Args:
        meshes_m: [K, V, 3] shapes and poses of the mesh; the first decides quality.
        faces: [F, 3] triangles.
        face_uv: [F, 3] texture indices.
        mirror: [V] the mirrored vertex of each, itself on the midline; ``arange(V)``
            for a mesh without symmetry.
        target_vertices: number of vertices to keep.
        face_weight: [F] importance of each face.
        length_weight: how much long edges cost next to distance from the surface.

    Returns:
        (kept vertex numbers [W], faces [G, 3] over them, texture indices [G, 3]).
    """
    state = Decimator(meshes_m, faces, face_uv, mirror, face_weight, length_weight)
    state.run(target_vertices)
    kept = np.flatnonzero(state.alive)
    renumber = np.full(len(mirror), -1)
    renumber[kept] = np.arange(len(kept))
    left = [f for f, face in enumerate(state.faces) if face is not None]
    new_faces = renumber[np.array([state.faces[f] for f in left])]
    return kept, new_faces.astype(np.int32), np.array([state.uv[f] for f in left])


def mirror_map(points_m: np.ndarray, tolerance_m: float = 2e-4) -> np.ndarray:
    """Index of each vertex's mirror image across x = 0 in a symmetric mesh [V, 3]."""
    from scipy.spatial import cKDTree

    distance, index = cKDTree(points_m).query(points_m * [-1.0, 1.0, 1.0])
    if distance.max() > tolerance_m or not np.array_equal(
        index[index], np.arange(len(index))
    ):
        raise ValueError(f"mesh is not symmetric: {distance.max():.2e} m off")
    return index
