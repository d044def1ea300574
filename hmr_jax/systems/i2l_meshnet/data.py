"""I2L-MeshNet's batches from records, and the inputs of its program."""

import functools
import itertools
import os
from typing import Any

import numpy as np
from absl import logging

from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.systems import record_streams
from hmr_jax.systems.i2l_meshnet.joints import ends_of, kind_of
from hmr_jax.systems.i2l_meshnet.task import labelled_root_depth, space_of
from hmr_jax.systems.system import Batch

_TEST_OPTIONS = ("padding", "reduce_jpeg", "original_joints")
"""Options that hold without augmentation too."""


def transform(config: Any, *, train: bool) -> Any:
    """What turns records into batches.

    Args:
        config: an experiment.
        train: with augmentation.

    Returns:
        A ``data_pipelines.transforms.i2l.I2lTransform``.

    Raises:
        UserError: an option that it does not have.
    """
    from data_pipelines.transforms import i2l

    chosen = {
        name: value
        for name, value in dict(config.data.options).items()
        if train or name in _TEST_OPTIONS
    }
    try:
        options = i2l.i2l_options(
            kind_of(config),
            train=train,
            published=config.data.published_labels,
            **space_of(config),
            **chosen,
        )
    except TypeError as error:
        raise UserError(f"config.data.options: {error}") from error
    return i2l.I2lTransform(options)


def train_batches(config: Any, workdir: Any, assets: Any) -> Any:
    """The stream of training batches, see ``record_streams.train_stream``."""
    del assets
    folder = record_streams.data_dir(config, workdir)
    return record_streams.train_stream(config, folder, transform(config, train=True))


def eval_batches(config: Any, body: BodyModel, folder: str | os.PathLike) -> Any:
    """One pass over the evaluation split, with what ``predict`` needs.

    Args:
        config: an experiment.
        body: of ``joint_body``.
        folder: of the datasets.

    Returns:
        Resumable batches with ``intrinsics_inv``, and the root's depth as a detector
        or the dataset gave it; ``eval.root_depth`` 'labelled' takes that of the
        labelled body, as does a record that has none.
    """
    stream = record_streams.eval_stream(config, folder, transform(config, train=False))
    change = functools.partial(_with_camera, config, body)
    return record_streams.Mapped(stream, change)


def _with_camera(config: Any, body: BodyModel, batch: Batch) -> Batch:
    """The batch with ``intrinsics_inv`` and a depth of every root.

    Raises:
        UserError: a record has neither.
    """
    wanted = config.eval.root_depth
    if wanted not in ("given", "labelled"):
        raise UserError(
            f"config.eval.root_depth: expected 'given' or 'labelled', found {wanted!r}"
        )
    given = np.asarray(batch["root_depth_m"])
    missing = np.asarray(batch["valid"]) > 0
    if wanted == "given":
        missing &= given <= 0
    if missing.any():
        ends = ends_of(config, body.num_vertices)
        hand = bool(config.hand)
        own = labelled_root_depth(body, batch, hand=hand, ends=ends)
        given = np.where(missing, own, given)
        without = missing & (given <= 0)
        if without.any():
            record = int(np.asarray(batch["sample_index"])[np.flatnonzero(without)[0]])
            raise UserError(
                f"config.eval.source {config.eval.source!r}: expected the depth of the "
                "root or a body in every record, found neither in record "
                f"{record} (build the dataset with a detector's file: "
                "--option=rootnet=True)"
            )
    return {
        **batch,
        "root_depth_m": given.astype(np.float32),
        "intrinsics_inv": np.linalg.inv(_regular(batch["intrinsics"])),
    }


def _regular(intrinsics: Any) -> np.ndarray:
    """Camera matrices; that of padding is the identity."""
    matrices = np.asarray(intrinsics, np.float32)
    empty = np.logical_not(np.any(matrices.reshape(len(matrices), -1), axis=1))
    return np.where(empty[:, None, None], np.eye(3, dtype=np.float32), matrices)


def program_inputs(config: Any) -> dict[str, tuple[int, ...]]:
    """Inputs of the exported program and their shapes after the batch axis."""
    size = config.image_size_px
    return {
        "image": (size, size, 3),
        "crop_to_image": (2, 3),
        "intrinsics_inv": (3, 3),
        "root_depth_m": (),
    }


def example_inputs(
    config: Any, body: BodyModel, workdir: Any, count: int
) -> dict[str, np.ndarray]:
    """Inputs to compare an exported program with its model on.

    Args:
        config: an experiment.
        body: of ``joint_body``.
        workdir: of the run, whose held-out data are preferred to noise.
        count: samples.
    """
    try:
        folder = record_streams.data_dir(config, workdir)
        batches = eval_batches(config, body, folder)
        parts = list(itertools.islice(batches, -(-count // config.eval.batch_size)))
    except (OSError, UserError, ImportError) as error:
        logging.info("verifying on images of noise, not on held-out ones: %s", error)
        return _noise(config.image_size_px, count)
    names = program_inputs(config)
    return {n: np.concatenate([part[n] for part in parts])[:count] for n in names}


def _noise(size_px: int, count: int) -> dict[str, np.ndarray]:
    """Crops of noise before a plain camera."""
    rng = np.random.default_rng(0)
    camera = np.array(
        [[1.5 * size_px, 0, size_px / 2], [0, 1.5 * size_px, size_px / 2], [0, 0, 1]]
    )
    repeat = lambda x: np.repeat(np.asarray(x, np.float32)[None], count, 0)  # noqa: E731
    return {
        "image": rng.random((count, size_px, size_px, 3), np.float32),
        "crop_to_image": repeat(np.eye(2, 3)),
        "intrinsics_inv": repeat(np.linalg.inv(camera)),
        "root_depth_m": repeat(4.0),
    }
