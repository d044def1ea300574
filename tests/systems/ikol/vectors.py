"""The stored vectors of the IKOL layer, their body, and their tolerances."""

import numpy as np

from hmr_jax.body.model import BodyModel
from hmr_jax.systems.ikol import published as ip

CASES = ("clean", "noisy", "hard")
MODES = {
    "train": ip.TRAIN,
    "eval_autograd": ip.EVAL_AUTOGRAD,
    "eval_efficient": ip.EVAL_EFFICIENT,
}
FLOAT64_RELATIVE = 1e-9
"""The vectors' own rule for float64, relative to an array's largest entry."""
STORED_FLOAT32_RELATIVE = 2e-7
"""The same for arrays stored in float32: two units in the last place."""
FLOORS = {"joints": 2e-5, "verts50": 2e-5, "h36m17": 2e-5, "quat": 5e-5}
FLOORS |= {"rotmats": 5e-5, "grad": 2e-4}
"""Float32 floors: metres, or entries; for gradients relative to the largest entry."""


def load(parity_dir):
    return dict(np.load(parity_dir / "ikol" / "ikol_layer_public.npz"))


def inputs(vectors, case, dtype):
    names = ("in_target", "rest_J", "in_phi", "in_leaf")
    return tuple(np.asarray(vectors[f"{case}/{name}"], dtype) for name in names)


def reduced_body(recipe, dtype) -> tuple[BodyModel, np.ndarray]:
    """The vectors' body without unused vertices; where the stored ones are."""
    arrays, h36m = recipe.smpl_like(11), recipe.h36m_regressor(11)
    stored = np.arange(0, 6890, 50)
    read = np.flatnonzero(arrays["J_regressor"].any(0) | h36m.any(0))
    keep = np.union1d(stored, read)
    body = BodyModel.create(
        template_m=arrays["v_template"][keep],
        shape_dirs_m=arrays["shapedirs"][keep],
        pose_dirs_m=arrays["posedirs"][keep],
        joint_regressor=arrays["J_regressor"][:, keep],
        skin_weights=arrays["weights"][keep],
        faces=np.zeros((1, 3), int),
        parents=tuple(int(p) for p in recipe.SMPL_PARENTS),
        extra_joint_regressors={"h36m_17": h36m[:, keep]},
        dtype=dtype,
    )
    return body, np.searchsorted(keep, stored)


def assert_float64(actual, vectors, key):
    """Equal to 1e-9 of the largest entry, or to what was stored."""
    expected = vectors[key]
    stored32 = expected.dtype == np.float32
    relative = STORED_FLOAT32_RELATIVE if stored32 else FLOAT64_RELATIVE
    error = np.abs(np.asarray(actual).reshape(expected.shape) - expected).max()
    assert error <= relative * np.abs(expected).max(), (key, error)


def assert_float32(actual, vectors, key, eps_share):
    """Within the vectors' float32 rule: floor, 30 * f32err, share of eps0err."""
    expected = vectors[key]
    name = key.rsplit("/", 1)[-1]
    if name.startswith("grad"):
        floor = FLOORS["grad"] * np.abs(expected).max()
    else:
        floor = FLOORS[name]
    per_sample = (len(expected), -1)
    difference = np.asarray(actual).reshape(expected.shape) - expected
    error = np.abs(difference).reshape(per_sample).max(1)
    tolerance = np.maximum(floor, 30 * vectors[f"f32err/{key}"])
    tolerance = np.maximum(tolerance, eps_share * vectors[f"eps0err/{key}"])
    assert (error <= tolerance).all(), (key, (error / tolerance).max())
