"""The showing part of the data command: records with their labels, as pictures."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from absl import logging

from hmr_jax.commands import cli, data_build
from hmr_jax.errors import UserError

_TILE_PX = 256
_MARGIN = 1.3
"""The window that is drawn, in sides of the box."""
_NEAR_M = 0.01
_JOINTS_3D_RGB = (255, 0, 255)


def show(values: Any, word: str) -> int:
    """Write a contact sheet of records.

    Args:
        values: the command's flags.
        word: folder of records, or with ``--raw`` the name of a dataset.

    Returns:
        0.

    Raises:
        UsageError: a flag that does not fit.
    """
    import pathlib

    from hmr_jax.render import draw

    if values.n < 1:
        raise cli.UsageError(f"--n: expected at least 1, found {values.n}")
    read = _raw_records if values.raw else _built_records
    found, spec, config, default = read(values, word)
    body = _body(values.body, config)
    pictures, captions = [], []
    for record in found:
        pictures.append(draw_record(record, spec.joint_set, body))
        captions.append(f"{record['sequence_id']} {record['frame_id']}")
    picture = pathlib.Path(values.picture or default)
    draw.save_png(picture, draw.contact_sheet(pictures, columns=6, captions=captions))
    print(f"wrote {picture}")
    return 0


def _spread(size: int, count: int) -> list[int]:
    """Evenly spaced places."""
    return np.unique(np.linspace(0, size - 1, min(count, size)).astype(int)).tolist()


def _built_records(values: Any, word: str) -> tuple[Iterable, Any, dict, str]:
    from data_pipelines import records, storage

    if "://" not in word:
        cli.existing(word, "data show")
    directory = records.open_directory(word)
    splits = directory.manifest["splits"]
    split = values.split or ("train" if "train" in splits else sorted(splits)[0])
    size = len(directory.split(split))
    found = records.read_records(directory.path, split, _spread(size, values.n))
    logging.info("%d records in split %s of %s", size, split, directory.path)
    folder = storage.parent(directory.path)
    folder = folder if storage.is_local(folder) else "."
    default = f"{folder}/samples_{split}.png"
    return found, directory.spec, directory.manifest, default


def _raw_records(values: Any, word: str) -> tuple[Iterable, Any, dict, str]:
    from data_pipelines.builders import layouts
    from data_pipelines.builders.record_source import checked_examples, checked_keys

    if not layouts.is_known(word):
        names = ", ".join(layouts.DATASETS)
        raise cli.UsageError(f"data show: expected one of {names}, found {word!r}")
    source = data_build.raw_factory(values, word, need_out=False)()
    split = values.split or source.splits()[0]
    keys = checked_keys(source, split)
    chosen = [keys[i] for i in _spread(len(keys), values.n)]
    logging.info("%d records in split %s of %s", len(keys), split, values.raw)
    found = checked_examples(source, split, chosen)
    return found, source.spec, {}, f"samples_{word}_{split}.png"


def _body(path: str | None, manifest: dict) -> Any:
    """The body that is drawn: a file of the user, or the open one it was made of."""
    if path:
        from hmr_jax.body.readers import load_body

        return load_body(cli.existing(path, "--body"))
    synthetic = manifest.get("name") == data_build.SYNTHETIC
    if synthetic and manifest["config"].get("body") == "open":
        from hmr_jax.body.open_assets import load_open_body

        return load_open_body()
    return None


def draw_record(record: Any, joint_set: str, body: Any = None) -> np.ndarray:
    """A record's surroundings of the box, with its labels.

    Args:
        record: complete.
        joint_set: name of its joints.
        body: draws the mesh of the record's pose and shape, where given.

    Returns:
        uint8 [256, 256, 3]: the box yellow, 2D joints as a skeleton, projected 3D
        joints as magenta boxes.
    """
    from hmr_jax.body.joint_sets import JOINT_SETS
    from hmr_jax.pictures import decode_picture
    from hmr_jax.render import draw

    joints = JOINT_SETS[joint_set]
    window = _window(np.asarray(record["bbox_xywh_px"], np.float64))
    image = _cut(decode_picture(record["image"], str(record["sample_id"])), window)
    absolute = bool(record["has_camera"]) and bool(record["has_root"])
    if body is not None and record["has_smpl"] and absolute:
        image = _draw_mesh(image, record, body, window)
    box = np.array(record["bbox_xywh_px"], np.float64)
    box[:2] = _apply(window, box[:2])
    box[2:] *= window[0, 0]
    image = draw.draw_boxes(image, box[None])
    if record["has_keypoints"]:
        points = np.asarray(record["keypoints_px"], np.float64)
        image = draw.draw_skeleton(
            image,
            _apply(window, points[:, :2]),
            joints.parents,
            visible=points[:, 2] > 0,
            joints=joints.joints,
        )
    if record["has_joints_3d"] and absolute:
        points = np.asarray(record["joints_cam_m"], np.float64)
        points = points[(points[:, 3] > 0) & (points[:, 2] > _NEAR_M), :3]
        projected = points @ np.asarray(record["intrinsics"], np.float64).T
        places = _apply(window, projected[:, :2] / projected[:, 2:])
        marks = np.concatenate([places - 3, np.full_like(places, 6)], 1)
        image = draw.draw_boxes(image, marks, colour=_JOINTS_3D_RGB)
    return image


def _window(box: np.ndarray) -> np.ndarray:
    """Image to tile, pixels [3, 3], for a square about the box."""
    side = max(box[2:].max() * _MARGIN, 2.0)
    scale = _TILE_PX / side
    corner = box[:2] + box[2:] / 2 - side / 2
    matrix = np.diag([scale, scale, 1.0])
    # Pixel centres lie on whole numbers on both sides.
    matrix[:2, 2] = -scale * corner + (scale - 1) / 2
    return matrix


def _apply(window: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points * window[0, 0] + window[:2, 2]


def _cut(image: np.ndarray, window: np.ndarray) -> np.ndarray:
    import cv2

    height, width = image.shape[:2]
    shrink = max(1, int(1 / window[0, 0]))
    if shrink > 1:  # else a small tile of a large image would skip most pixels
        size = max(1, width // shrink), max(1, height // shrink)
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    ratio = np.array([width, height]) / image.shape[1::-1]
    # Pixel centres of the smaller picture, in the given one.
    matrix = window[:2] @ np.diag([*ratio, 1.0])
    matrix[:, 2] += window[0, 0] * (ratio - 1) / 2
    return cv2.warpAffine(image, matrix, (_TILE_PX, _TILE_PX))


def _draw_mesh(image: np.ndarray, record: Any, body: Any, window: np.ndarray) -> Any:
    import jax.numpy as jnp

    from hmr_jax.body.forward import body_forward
    from hmr_jax.render import draw, shade

    pose = np.asarray(record["pose_aa"], np.float32)
    if len(pose) != body.num_joints:
        raise UserError(
            f"--body: expected a body of {len(pose)} rotations as in the records, "
            f"found one of {body.num_joints}"
        )
    betas = np.zeros(body.num_betas, np.float32)
    given = np.asarray(record["betas"], np.float32)[: body.num_betas]
    betas[: len(given)] = given
    arrays = (jnp.asarray(a) for a in (betas, pose, record["translation_m"]))
    vertices = body_forward(body, *arrays).vertices_m
    camera = window @ np.asarray(record["intrinsics"], np.float64)
    shaded = shade.render_mesh(
        vertices,
        body.faces,
        jnp.asarray(camera.astype(np.float32)),
        _TILE_PX,
        _TILE_PX,
    )
    mask = np.asarray(shaded.mask)[..., None]
    colour = np.asarray(shaded.image) / np.maximum(mask, 1e-6)
    rgba = np.concatenate([np.clip(colour, 0.0, 1.0), mask], -1)
    return draw.overlay_mesh(image, rgba, opacity=0.6)
