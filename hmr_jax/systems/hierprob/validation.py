"""Scores on rendered pictures that are the same every time, and examples of them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from hmr_jax import progress
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.synthetic.proxies import make_batch
from hmr_jax.systems.hierprob import scores
from hmr_jax.systems.hierprob import task as tasks
from hmr_jax.systems.hierprob.data import backgrounds_of, validation_assets
from hmr_jax.systems.hierprob.metrics import METRES_NAMES
from hmr_jax.systems.system import Variables

Config = Any
KNOWN_METRICS = (*METRES_NAMES, "joints2D-L2E")


class Validation:
    """Scores variables on rendered pictures that are the same every time.

    Args:
        config: an experiment.
        body: the body.
        show: a progress bar.
    """

    def __init__(self, config: Config, body: BodyModel, *, show: bool = False):
        self._config, self._progress = config, show
        if config.eval.batch_size < 1:
            raise UserError(
                "config.eval.batch_size: expected at least 1, "
                f"found {config.eval.batch_size}"
            )
        self._backgrounds = backgrounds_of(config.eval.backgrounds)
        self.assets = jax.device_put(validation_assets(config, body))
        self._size = config.eval.batch_size
        options = tasks.proxy_options(config, train=False)
        self._image_size_px = options.image_size_px
        model = tasks.make_model(config)
        num_samples = config.eval.num_samples

        def make(key, batch, assets):
            return make_batch(key, batch, assets, options, targets="all")

        def predict(variables, key, made, body):
            raw = model.apply(variables, made["proxy"], train=False)
            return scores.predict(key, raw, body, num_samples)

        self._make, self._predict = jax.jit(make), jax.jit(predict)

    def _batches(self) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Batches, the last one padded, and how many samples of each count."""
        total = len(self.assets.poses_aa)
        count = min(self._config.eval.limit or total, total)
        chosen = np.linspace(0, total - 1, count).astype(np.int32)
        backgrounds = self._backgrounds
        starts = range(0, count, self._size)
        bar = progress.bar(
            starts, desc="eval", unit="batch", disable=not self._progress, leave=False
        )
        for number, start in enumerate(bar):
            index = chosen[start : start + self._size]
            valid = len(index)
            index = np.pad(index, (0, self._size - valid), mode="edge")
            batch = {"pose_index": index}
            if backgrounds is not None:
                rng = np.random.default_rng([self._config.eval.seed, number])
                pictures = [backgrounds(rng, self._image_size_px) for _ in index]
                batch["background"] = np.stack(pictures)
            yield batch, valid

    def _results(self, predict: Callable[..., scores.Prediction]) -> Iterator[Any]:
        for number, (batch, valid) in enumerate(self._batches()):
            data_key, sample_key = self._keys(number)
            made = self._make(data_key, batch, self.assets)
            target = scores.rendered_targets(made, self._image_size_px)
            yield made, predict(made, sample_key), target, valid

    def rendered(self) -> Iterator[dict[str, Any]]:
        """The batches alone."""
        for number, (batch, _) in enumerate(self._batches()):
            yield self._make(self._keys(number)[0], batch, self.assets)

    def _keys(self, number: int) -> Any:
        key = jax.random.key(self._config.eval.seed)
        return jax.random.split(jax.random.fold_in(key, number))

    def results(self, variables: Variables) -> Iterator[Any]:
        """Rendered batches, predictions, targets and how many samples count."""
        placed = jax.device_put(variables)
        return self._results(
            lambda made, key: self._predict(placed, key, made, self.assets.body)
        )

    def __call__(self, variables: Variables) -> scores.Scores:
        """Score a model's variables."""
        return scores.score(found[1:] for found in self.results(variables))

    def score(self, predict: Callable[..., scores.Prediction]) -> scores.Scores:
        """Score any predictor ``(rendered batch, random key) -> Prediction``."""
        return scores.score(found[1:] for found in self._results(predict))


def program_inputs(config: Config) -> dict[str, tuple[int, ...]]:
    """Inputs of the exported program and their shapes after the batch axis."""
    size = config.image_size_px
    return {
        "image": (size, size, 3),
        "joints2d_px": (17, 2),
        "joints2d_visible": (17,),
    }


def example_inputs(
    config: Config, body: BodyModel, workdir: Any, count: int
) -> dict[str, np.ndarray]:
    """Rendered pictures to compare an exported program with its model on.

    Args:
        config: an experiment.
        body: the body.
        workdir: unused: pictures are rendered.
        count: samples.
    """
    del workdir
    small = config.copy_and_resolve_references().unlock()
    small.eval.update({"batch_size": count, "limit": count, "num_samples": 0})
    made = next(Validation(small, body).rendered())
    return {name: np.asarray(made[name]) for name in program_inputs(config)}
