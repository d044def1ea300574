"""Predicted meshes over the crops that they were found in."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hmr_jax.render import draw, shade


def overlays(
    crops: np.ndarray,
    batch: Mapping[str, Any],
    vertices_cam_m: np.ndarray,
    faces: Any,
    count: int,
) -> list[np.ndarray]:
    """Crops with the predicted mesh laid over them, beside the crops.

    Args:
        crops: [B, S, S, 3] RGB in [0, 1].
        batch: ``crop_to_image`` [B, 2, 3], ``intrinsics_inv`` [B, 3, 3] and ``valid``
            [B].
        vertices_cam_m: [B, V, 3] predictions in the camera frame, metres.
        faces: [F, 3] triangles.
        count: pictures at most.

    Returns:
        uint8 images [S, 2 S, 3].
    """
    size = crops.shape[1]
    pictures = []
    rows = np.flatnonzero(np.asarray(batch["valid"]) > 0)[:count]
    for row in rows:
        crop = draw.to_uint8(crops[row])
        to_crop = np.linalg.inv(np.vstack([batch["crop_to_image"][row], [0, 0, 1]]))
        camera = to_crop @ np.linalg.inv(batch["intrinsics_inv"][row])
        shaded = shade.render_mesh(
            np.asarray(vertices_cam_m[row], np.float32),
            faces,
            (camera / camera[2, 2]).astype(np.float32),
            size,
            size,
        )
        mask = np.asarray(shaded.mask)[..., None]
        colour = np.asarray(shaded.image) / np.maximum(mask, 1e-6)
        rgba = np.concatenate([np.clip(colour, 0.0, 1.0), mask], -1)
        pictures.append(np.concatenate([crop, draw.overlay_mesh(crop, rgba)], 1))
    return pictures
