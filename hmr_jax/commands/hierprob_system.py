"""What the commands need to know of hierarchical probability distributions."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging

from hmr_jax import progress
from hmr_jax.body.model import BodyModel
from hmr_jax.evaluation import hierprob as scoring
from hmr_jax.synthetic import pose_bank, proxy_feed
from hmr_jax.synthetic.backgrounds import FolderBackgrounds
from hmr_jax.synthetic.proxies import ProxyAssets, make_batch
from hmr_jax.training import hierprob_task
from hmr_jax.training.task import Task, Variables

Config = Any


def make_task(config: Config) -> Task:
    """The task of the last stage, by which a trained model predicts."""
    return hierprob_task.make_task(config)


def stages(config: Config, steps_per_epoch: int, total: int) -> list[tuple[Task, int]]:
    """The tasks of a run, and the step at which each ends.

    Args:
        config: an experiment.
        steps_per_epoch: of its poses.
        total: length of the run.

    Returns:
        Tasks in order; a stage of no steps is left out.

    Raises:
        ValueError: the second stage's beginning is given twice.
    """
    epoch, step = config.train.stage2_epoch, config.train.stage2_step
    if epoch and step:
        raise ValueError(
            "config.train: expected one of stage2_epoch and stage2_step to be zero, "
            f"found {epoch} and {step}"
        )
    switch = min(step or epoch * steps_per_epoch, total)
    ends = (("stage1", switch), ("stage2", total))
    return [
        (hierprob_task.make_task(config, stage), end)
        for number, (stage, end) in enumerate(ends)
        if end > (0, switch)[number]
    ]


def load_poses(section: Config, split: str, seed: int) -> pose_bank.PoseBank:
    """The bank of poses that a config's section names.

    Args:
        section: ``data.poses`` or ``eval.poses``.
        split: of the shipped motion: train or test.
        seed: of the joint-limit sampler.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not as expected.
    """
    path = section.path
    if not path:
        return pose_bank.shipped_bank(split, num_limits=section.num_limits, seed=seed)
    if path.endswith(".npz") and pose_bank.is_pose_npz(path):
        return pose_bank.read_pose_npz(path, section.keep)
    return pose_bank.read_motion_bank(path, stride=section.stride, limit=section.limit)


def check_root(config: Config, poses: pose_bank.PoseBank) -> None:
    """Refuse poses whose root rotations are not what the config takes them for.

    Raises:
        ValueError: naming the field.
    """
    root = config.data.synthetic.poses.get("root", "camera_right")
    if (root == "upright") != poses.upright:
        kind = "y up" if poses.upright else "as cameras saw them"
        wanted = "upright" if poses.upright else "camera_right or camera_left"
        raise ValueError(
            f"config.data.synthetic.poses.root: expected {wanted} for poses {kind} "
            f"({poses.origin}), found {root!r}"
        )


def _assets(config: Config, body: BodyModel, *, train: bool) -> ProxyAssets:
    section = config.data if train else config.eval
    seed = config.seed if train else config.eval.seed
    poses = load_poses(section.poses, "train" if train else "test", seed)
    check_root(config, poses)
    textures, backgrounds = section.textures, section.backgrounds
    logging.info("%d poses: %s", len(poses), poses.origin)
    return proxy_feed.make_assets(
        body,
        poses,
        image_size_px=config.image_size_px,
        uv_path=config.data.uv_path,
        textures=textures.path or None,
        texture_limit=textures.limit,
        num_textures=textures.count,
        texture_size_px=textures.size_px,
        suit_share=textures.suit_share,
        num_backgrounds=0 if backgrounds.path else backgrounds.count,
        clutter_share=backgrounds.clutter_share,
        seed=seed,
    )


def make_assets(config: Config, body: BodyModel) -> ProxyAssets:
    """What training pictures are made of.

    Args:
        config: an experiment.
        body: of ``experiment.load_body``.
    """
    return _assets(config, body, train=True)


def _backgrounds(section: Config) -> FolderBackgrounds | None:
    if not section.path:
        return None
    return FolderBackgrounds(section.path, stretch=section.stretch)


class TrainBatches(proxy_feed.ProxyFeed):
    """The stream of a run, and what its record says of the data.

    Args:
        config: an experiment.
        assets: of ``make_assets``.
    """

    def __init__(self, config: Config, assets: ProxyAssets):
        order = pose_bank.PoseOrder(
            len(assets.poses_aa),
            config.data.batch_size,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        super().__init__(
            order,
            _backgrounds(config.data.backgrounds),
            size_px=config.image_size_px,
            seed=config.seed,
        )
        self.num_records = len(assets.poses_aa)
        poses = pose_bank.PoseBank(np.asarray(assets.poses_aa), True, "")
        self.fingerprint = f"poses {poses.fingerprint}"


def train_batches(config: Config, workdir: Any, assets: ProxyAssets) -> TrainBatches:
    """The endless, resumable stream of training batches of this process.

    Args:
        config: an experiment.
        workdir: unused: nothing lies there.
        assets: of ``make_assets``.
    """
    del workdir
    if config.data.batch_size % jax.device_count():
        raise ValueError(
            f"config.data.batch_size: expected a multiple of the {jax.device_count()} "
            f"devices, found {config.data.batch_size}"
        )
    return TrainBatches(config, assets)


class Validation:
    """Scores variables on rendered pictures that are the same every time.

    Args:
        config: an experiment.
        body: the body.
        show: a progress bar.
    """

    def __init__(self, config: Config, body: BodyModel, *, show: bool = False):
        self._config, self._progress = config, show
        self.assets = jax.device_put(_assets(config, body, train=False))
        self._size = config.eval.batch_size
        options = hierprob_task.proxy_options(config, train=False)
        self._image_size_px = options.image_size_px
        model = hierprob_task.make_model(config)
        num_samples = config.eval.num_samples

        def make(key, batch, assets):
            return make_batch(key, batch, assets, options, targets="all")

        def predict(variables, key, made, body):
            raw = model.apply(variables, made["proxy"], train=False)
            return scoring.predict(key, raw, body, num_samples)

        self._make, self._predict = jax.jit(make), jax.jit(predict)

    def _batches(self) -> Iterator[tuple[dict[str, np.ndarray], int]]:
        """Batches, the last one padded, and how many samples of each count."""
        total = len(self.assets.poses_aa)
        count = min(self._config.eval.limit or total, total)
        chosen = np.linspace(0, total - 1, count).astype(np.int32)
        backgrounds = _backgrounds(self._config.eval.backgrounds)
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

    def _results(self, predict: Callable[..., scoring.Prediction]) -> Iterator[Any]:
        for number, (batch, valid) in enumerate(self._batches()):
            data_key, sample_key = self._keys(number)
            made = self._make(data_key, batch, self.assets)
            target = scoring.rendered_targets(made, self._image_size_px)
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

    def __call__(self, variables: Variables) -> scoring.Scores:
        """Score a model's variables."""
        return scoring.score(found[1:] for found in self.results(variables))

    def score(self, predict: Callable[..., scoring.Prediction]) -> scoring.Scores:
        """Score any predictor ``(rendered batch, random key) -> Prediction``."""
        return scoring.score(found[1:] for found in self._results(predict))


def score_and_draw(config: Config, values: Any, out: Any) -> None:
    """See ``commands.hierprob_eval``, and ``hierprob_datasets`` for datasets."""
    from hmr_jax.commands import hierprob_datasets, hierprob_eval

    synthetic = config.eval.source == "synthetic"
    chosen = hierprob_eval if synthetic else hierprob_datasets
    chosen.score_and_draw(config, values, out)


def evaluation(
    config: Config, task: Task, body: BodyModel, workdir: Any
) -> Callable[[Variables, int], dict[str, float]] | None:
    """The periodic validation during training."""
    del task, workdir
    if config.eval.source != "synthetic":
        return None
    validation = Validation(config, body)

    def evaluate(variables, step):
        del step
        values = validation(variables).values()
        if config.eval.best_metric not in values:
            raise ValueError(
                f"config.eval.best_metric: expected one of {sorted(values)}, "
                f"found {config.eval.best_metric!r}"
            )
        return {f"synthetic/{name}": value for name, value in values.items()}

    return evaluate


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
