"""IKOL's batches from records, and the inputs of its program."""

import itertools
import os
from typing import Any

import numpy as np
from absl import logging

from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.systems import record_streams


def transform(config: Any, *, train: bool) -> Any:
    """What turns records into the batches of a config's system.

    Args:
        config: an experiment.
        train: with augmentation.

    Returns:
        A ``data_pipelines.transforms.ikol.IkolTransform``.

    Raises:
        UserError: an option that it does not have.
    """
    from data_pipelines.transforms import ikol, ikol_options

    chosen = {
        name: value
        for name, value in dict(config.data.options).items()
        if train or name in ikol_options.TEST_KEYS
    }
    try:
        options = ikol.ikol_options(
            config.data.loader,
            train=train,
            published=config.data.published_labels,
            image_size_px=config.image_size_px,
            depth_range_m=config.depth_range_m,
            **chosen,
        )
    except TypeError as error:
        raise UserError(f"config.data.options: {error}") from error
    return ikol.IkolTransform(options)


def normalization(config: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of red, green and blue in [0, 1]."""
    from data_pipelines.transforms.image import NORMALIZATIONS

    return NORMALIZATIONS[transform(config, train=False).options.normalization]


def train_batches(config: Any, workdir: Any, assets: Any) -> Any:
    """The stream of training batches, see ``record_streams.train_stream``."""
    del assets
    folder = record_streams.data_dir(config, workdir)
    return record_streams.train_stream(config, folder, transform(config, train=True))


def eval_batches(config: Any, folder: str | os.PathLike) -> Any:
    """One pass over the evaluation split, see ``record_streams.eval_stream``."""
    return record_streams.eval_stream(config, folder, transform(config, train=False))


def program_inputs(config: Any) -> dict[str, tuple[int, ...]]:
    """Inputs of the exported program and their shapes after the batch axis."""
    size = config.image_size_px
    return {
        "image": (size, size, 3),
        "crop_to_image": (2, 3),
        "intrinsics_inv": (3, 3),
        "root_cam_m": (3,),
    }


def example_inputs(
    config: Any, body: BodyModel, workdir: Any, count: int
) -> dict[str, np.ndarray]:
    """Inputs to compare an exported program with its model on.

    Args:
        config: an experiment.
        body: unused.
        workdir: of the run, whose held-out data are preferred to noise.
        count: samples.
    """
    del body
    held_out = _held_out(config, workdir, count)
    return held_out or _example_inputs(config.image_size_px, count)


def _held_out(config, workdir, count: int):
    """Crops of the evaluation split, or None where the data are not at hand."""
    try:
        folder = record_streams.data_dir(config, workdir)
        batches = eval_batches(config, folder)
        parts = list(itertools.islice(batches, -(-count // config.eval.batch_size)))
    except (OSError, UserError, ImportError) as error:
        logging.info("verifying on images of noise, not on held-out ones: %s", error)
        return None
    names = program_inputs(config)
    return {n: np.concatenate([part[n] for part in parts])[:count] for n in names}


def _example_inputs(size_px: int, count: int):
    """Crops of noise before a plain camera."""
    rng = np.random.default_rng(0)
    camera = np.array(
        [[1.5 * size_px, 0, size_px / 2], [0, 1.5 * size_px, size_px / 2], [0, 0, 1]]
    )
    repeat = lambda x: np.repeat(np.asarray(x, np.float32)[None], count, 0)  # noqa: E731
    shape = (count, size_px, size_px, 3)
    return {
        "image": rng.standard_normal(shape).astype(np.float32),
        "crop_to_image": repeat(np.eye(2, 3)),
        "intrinsics_inv": repeat(np.linalg.inv(camera)),
        "root_cam_m": repeat([0.0, 0.0, 4.0]),
    }
