"""Inputs of the stored vectors of I2L-MeshNet, as their README says."""

import functools
import json

import jax.numpy as jnp
import numpy as np

from hmr_jax.body.joint_sets import (
    MANO_21_FROM_16_AND_TIPS,
    MANO_TIP_VERTICES_REGRESSOR,
    SMPL_VERTEX_JOINTS,
)
from hmr_jax.body.model import BodyModel
from hmr_jax.systems.i2l_meshnet.network import I2lMeshNet

KINDS = ("smpl", "mano")
SIZES = {"smpl": (29, 6890, 24), "mano": (21, 778, 16)}
"""Joints, vertices and rotations."""
GAINS = {"conv_x.0.weight": 150, "conv_y.0.weight": 150, "conv_z_2.0.weight": 8}
GAINS |= {"pose2feat.conv.0.weight": 8, "fc_shape.0.weight": 0.05}
EVERY = 20
"""Of the vertices, those that are stored."""


def load(parity_dir, name):
    with np.load(parity_dir / "i2l_meshnet" / f"{name}_public.npz") as file:
        return dict(file)


def manifest(parity_dir, kind):
    path = parity_dir / "i2l_meshnet" / f"manifest_{kind}_public.json"
    content = json.loads(path.read_text())
    return {
        part: {name: tuple(entry["shape"]) for name, entry in content[part].items()}
        for part in content
    }


def state_dict(parity_dir, recipe, kind, *, gain=True):
    """Weights of the whole network as the original would hold them."""
    state = recipe.fill_state_dict(manifest(parity_dir, kind)["network"], 0)
    for name in state if gain else ():
        for ending, factor in GAINS.items():
            if name.endswith(ending):
                state[name] = state[name] * np.float32(factor)
    return state


def pictures(recipe, name, count, dtype=np.float32):
    """[B, 256, 256, 3] in [0, 1]."""
    made = []
    for i, k in enumerate((16, 64, 32, 128)[:count]):
        small = recipe._rng(f"{name}/{i}", 0).random((3, 256 // k, 256 // k))
        made.append(np.kron(small, np.ones((k, k))).astype(np.float32))
    return jnp.asarray(np.stack(made).transpose(0, 2, 3, 1), dtype)


def faces(arrays):
    """Those without a repeated vertex."""
    f = arrays["f"].astype(np.int64)
    a, b, c = f.T
    return f[(a != b) & (a != c) & (b != c)]


def body_arrays(recipe, kind):
    return recipe.smpl_like(0) if kind == "smpl" else recipe.mano_like(0)


def regressor(arrays, kind):
    """Joints from vertices, rows as the network has them."""
    smpl = kind == "smpl"
    ends = SMPL_VERTEX_JOINTS["i2l_smpl_29"] if smpl else MANO_TIP_VERTICES_REGRESSOR
    own = np.asarray(arrays["J_regressor"], np.float32)
    rows = np.concatenate([own, np.eye(own.shape[1], dtype=np.float32)[list(ends)]])
    return rows if smpl else rows[list(MANO_21_FROM_16_AND_TIPS)]


def body(recipe, kind, dtype=jnp.float32):
    arrays = body_arrays(recipe, kind)
    parents = recipe.SMPL_PARENTS if kind == "smpl" else recipe.MANO_PARENTS
    return BodyModel.create(
        template_m=arrays["v_template"],
        shape_dirs_m=arrays["shapedirs"],
        pose_dirs_m=arrays["posedirs"],
        joint_regressor=arrays["J_regressor"],
        skin_weights=arrays["weights"],
        faces=faces(arrays),
        parents=tuple(int(p) for p in parents),
        hand_mean=arrays.get("hands_mean"),
        dtype=dtype,
    )


def network(kind, **options):
    joints, vertices, rotations = SIZES[kind]
    make = functools.partial(I2lMeshNet, joints, vertices, rotations, parameters=True)
    return make(**options)


def largest(found, expected):
    """The largest difference."""
    found = np.asarray(found).reshape(np.shape(expected))
    return float(np.abs(found - expected).max())
