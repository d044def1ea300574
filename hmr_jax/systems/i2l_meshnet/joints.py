"""The joints that the network finds, on the body that a config names.

After the kinematic joints come single vertices: a body's nose, eyes and ears, a hand's
fingertips. Which they are depends on the mesh.
"""

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hmr_jax.body import open_assets
from hmr_jax.body.joint_sets import (
    MANO_21_FROM_16_AND_TIPS,
    MANO_TIP_VERTICES,
    MANO_TIP_VERTICES_REGRESSOR,
    SMPL_VERTEX_JOINTS,
)
from hmr_jax.body.landmarks import COCO_FROM_SMPL, FACE_VERTICES
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.systems.bodies import load_body, load_hand

SETS = {"body": "i2l_smpl_29", "hand": "mano_21"}
"""Joint set of the network by what is found."""
NUM_ENDS = 5
"""Joints after the kinematic ones."""
_SMPL_VERTICES, _MANO_VERTICES = 6890, 778
_TIPS_FROM_OPEN = (4, 0, 1, 3, 2)
"""Thumb, index, middle, ring, little finger among the open hand's tips."""


class Ends(NamedTuple):
    """Vertices that are joints.

    Attributes:
        regressed: in the network's matrix of joints from vertices.
        posed: of the labelled body. MANO's middle fingertip is another vertex there,
            as published.
    """

    regressed: tuple[int, ...]
    posed: tuple[int, ...]


def kind_of(config: Any) -> str:
    """``body`` or ``hand``."""
    return "hand" if config["hand"] else "body"


def joint_set_of(config: Any) -> str:
    """The network's joint set."""
    return SETS[kind_of(config)]


def ends_of(config: Any, num_vertices: int) -> Ends:
    """The vertices of a mesh that are joints.

    Args:
        config: an experiment; ``body.joint_vertices`` names those of other meshes.
        num_vertices: of the mesh.

    Raises:
        UserError: the mesh is unknown, or has no such vertices.
    """
    given = tuple(config["body"]["joint_vertices"])
    if given:
        if len(given) != NUM_ENDS or not all(0 <= v < num_vertices for v in given):
            raise UserError(
                "config.body.joint_vertices: expected 5 vertices, each below "
                f"{num_vertices}, found {list(given)}"
            )
        return Ends(given, given)
    if config["hand"]:
        if num_vertices == _MANO_VERTICES:
            return Ends(MANO_TIP_VERTICES_REGRESSOR, MANO_TIP_VERTICES)
        if num_vertices == len(open_assets.open_hand_arrays()["v_template"]):
            tips = open_assets.open_hand_tip_vertices()
            found = tuple(tips[i] for i in _TIPS_FROM_OPEN)
            return Ends(found, found)
    elif num_vertices == _SMPL_VERTICES:
        found = SMPL_VERTEX_JOINTS[SETS["body"]]
        return Ends(found, found)
    elif num_vertices in FACE_VERTICES:
        found = FACE_VERTICES[num_vertices]
        return Ends(found, found)
    wanted = (
        "thumb, index, middle, ring and little finger's tip"
        if config["hand"]
        else "nose, left and right eye, left and right ear"
    )
    raise UserError(
        f"config.body.joint_vertices: expected the 5 vertices of {wanted}, because a "
        f"mesh of {num_vertices} vertices is not known; found none"
    )


def joint_body(config: Any) -> BodyModel:
    """The config's body or hand, with the matrices that the system needs.

    Args:
        config: an experiment.

    Returns:
        The body; ``extra_joint_regressors`` has the network's joint set and, of a body,
        ``coco_17`` (of ``body.coco_regressor``, or of skeleton and face).

    Raises:
        UserError: the body is not what the config says, or lacks what is needed.
        FileNotFoundError: a named file is missing.
    """
    body = load_hand(config) if config["hand"] else load_body(config)
    ends = ends_of(config, body.num_vertices).regressed
    own = np.asarray(body.joint_regressor)
    rows = np.concatenate([own, _one_hot(ends, body.num_vertices)])
    extra = {}
    if config["hand"]:
        rows = rows[list(MANO_21_FROM_16_AND_TIPS)]
    elif "coco_17" not in body.extra_joint_regressors:
        face = _one_hot(ends, body.num_vertices)
        extra["coco_17"] = np.concatenate([face, own[list(COCO_FROM_SMPL)]])
    extra[joint_set_of(config)] = rows
    added = {name: jnp.asarray(value, own.dtype) for name, value in extra.items()}
    return dataclasses.replace(
        body, extra_joint_regressors=body.extra_joint_regressors | added
    )


def _one_hot(vertices: tuple[int, ...], num_vertices: int) -> np.ndarray:
    rows = np.zeros((len(vertices), num_vertices), np.float32)
    rows[np.arange(len(vertices)), list(vertices)] = 1.0
    return rows
