"""The body or hand that a config names."""

import dataclasses
import pathlib
from typing import Any

from hmr_jax.body.model import BodyModel
from hmr_jax.body.published_names import stated_gender
from hmr_jax.errors import UserError


def load_body(config: Any) -> BodyModel:
    """The body a config names.

    Args:
        config: an experiment.

    Returns:
        The open body, or the one of ``body.path``: a file, or a folder of the published
        files of all genders, of which ``body.gender`` chooses one.

    Raises:
        FileNotFoundError: a named file is missing.
        UserError: a path without the regressor of the 17 joints, or a body of another
            gender.
    """
    wanted = config.body.get("gender") or "neutral"
    if not config.body.path:
        from hmr_jax.body.open_assets import load_open_body

        if wanted != "neutral":
            raise UserError(
                "config.body.gender (--gender): expected 'neutral' (the open body is "
                f"neutral; config.body.path names another), found {wanted!r}"
            )
        return load_open_body()
    from hmr_jax.body.readers import load_body as read

    for field, exists in (
        ("path", pathlib.Path.exists),
        ("h36m_regressor", pathlib.Path.is_file),
    ):
        path = config.body[field]
        if not path:
            raise UserError(
                f"config.body.{field}: expected a file (a body of your own needs the "
                "regressor of the 17 Human3.6M joints, [17, vertices] as .npy)"
            )
        if not exists(pathlib.Path(path)):
            raise FileNotFoundError(f"config.body.{field}: no such file: {path}")
    path = pathlib.Path(config.body.path)
    extra = {"h36m_17": config.body.h36m_regressor}
    if config.body.get("coco_regressor"):
        extra["coco_17"] = config.body.coco_regressor
    if path.is_dir():
        body = read(path, gender=wanted, extra_regressors=extra)
    else:
        body = read(path, extra_regressors=extra)
        # A name that states no gender is read as neutral, and may be of any.
        stated = stated_gender(path)
        if stated not in (None, wanted):
            raise UserError(
                f"config.body.gender (--gender): expected {stated!r}, the gender "
                f"that the name of config.body.path states ({path}), found "
                f"{wanted!r}; a folder as config.body.path has a file for each gender"
            )
        body = dataclasses.replace(body, gender=wanted)
    if body.num_joints != 24:
        raise UserError(
            f"config.body.path: expected a body of 24 joints, found {body.num_joints}: "
            f"{config.body.path}"
        )
    for name in extra:
        rows, field = body.extra_joint_regressors[name].shape[0], name[:-3]
        if rows != 17:
            raise UserError(
                f"config.body.{field}_regressor: expected 17 joints, found {rows}: "
                f"{config.body[f'{field}_regressor']}"
            )
    return body


def load_hand(config: Any) -> BodyModel:
    """The right hand a config names.

    Args:
        config: an experiment.

    Returns:
        The open hand, or the one of ``body.path``: a file in MANO's layout, or a folder
        with the published one.

    Raises:
        FileNotFoundError: the file is missing.
        UserError: the file holds no right hand.
    """
    if not config.body.path:
        from hmr_jax.body.open_assets import load_open_hand

        return load_open_hand()
    from hmr_jax.body.readers import load_body as read

    path = pathlib.Path(config.body.path)
    if not path.exists():
        raise FileNotFoundError(f"config.body.path: no such file: {path}")
    hand = read(path, name="mano_right" if path.is_dir() else None)
    if hand.num_joints != 16 or hand.hand_mean is None:
        raise UserError(
            "config.body.path: expected a hand of 16 joints with hands_mean, found "
            f"{hand.num_joints} joints: {config.body.path}"
        )
    if "left" in path.stem.lower():
        raise UserError(
            "config.body.path: expected a right hand (pictures of left ones are "
            f"mirrored), found a left one: {config.body.path}"
        )
    return hand
