"""What the commands need to know of hierarchical probability distributions."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from hmr_jax import progress
from hmr_jax.body.forward import rest_joints
from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.evaluation import hierprob as scoring
from hmr_jax.metrics.hierprob import METRES_NAMES
from hmr_jax.remote import location
from hmr_jax.synthetic import pose_bank, proxy_feed
from hmr_jax.synthetic.backgrounds import FolderBackgrounds
from hmr_jax.synthetic.proxies import ProxyAssets, make_batch
from hmr_jax.training import hierprob_task
from hmr_jax.training.task import Task, Variables
from hmr_jax.training.writers import read_jsonl

Config = Any
KNOWN_METRICS = (*METRES_NAMES, "joints2D-L2E")
MISPLACED_M = 0.1


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
        UserError: the second stage's beginning is given twice.
    """
    epoch, step = config.train.stage2_epoch, config.train.stage2_step
    if min(epoch, step) < 0:
        raise UserError(
            "config.train: expected stage2_epoch and stage2_step of 0 or more, "
            f"found {epoch} and {step}"
        )
    if epoch and step:
        raise UserError(
            "config.train: expected one of stage2_epoch and stage2_step to be zero, "
            f"found {epoch} and {step}"
        )
    switch = min(step or epoch * steps_per_epoch, total)
    if switch == total:
        logging.warning(
            "the second stage would begin at step %d; the run of %d steps has none",
            step or epoch * steps_per_epoch,
            total,
        )
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
        UserError: it is not as expected.
    """
    path = section.path
    if not path:
        return pose_bank.shipped_bank(split, num_limits=section.num_limits, seed=seed)
    if path.endswith(".npz") and pose_bank.is_pose_npz(path):
        return pose_bank.read_pose_npz(path, section.keep)
    return pose_bank.read_motion_bank(path, stride=section.stride, limit=section.limit)


def check_root(
    config: Config, poses: pose_bank.PoseBank, field: str = "config.data.poses.path"
) -> None:
    """Refuse poses whose root rotations are not what the config takes them for.

    Args:
        config: an experiment.
        poses: of one of its sections.
        field: that names them, for the message.

    Raises:
        UserError: naming the fields.
    """
    root = config.data.synthetic.poses.get("root", "camera_right")
    if (root == "upright") != poses.upright:
        kind = "y up" if poses.upright else "as cameras saw them"
        wanted = "upright" if poses.upright else "camera_right or camera_left"
        raise UserError(
            f"config.data.synthetic.poses.root: expected {wanted} for poses {kind} "
            f"({field}: {poses.origin}), found {root!r}"
        )


def _assets(config: Config, body: BodyModel, *, train: bool) -> ProxyAssets:
    section = config.data if train else config.eval
    seed = config.seed if train else config.eval.seed
    poses = load_poses(section.poses, "train" if train else "test", seed)
    name = "config.data" if train else "config.eval"
    check_root(config, poses, f"{name}.poses.path")
    textures, backgrounds = section.textures, section.backgrounds
    logging.info("%d poses: %s", len(poses), poses.origin)
    if not backgrounds.path and backgrounds.count < 1:
        raise UserError(
            f"{name}.backgrounds.count: expected at least 1 (or a path), "
            f"found {backgrounds.count}"
        )
    _warn_of_camera(config, body)
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


def _warn_of_camera(config: Config, body: BodyModel) -> None:
    """Say so where the mean camera does not look at the body's middle."""
    pelvis_m = float(rest_joints(body, jnp.zeros(body.num_betas))[0, 1])
    camera_m = float(config.data.synthetic.mean_camera_m[1])
    if abs(pelvis_m - camera_m) > MISPLACED_M:
        logging.warning(
            "config.data.synthetic.mean_camera_m: y is %g m, and the pelvis of the "
            "body is at %.2f m: bodies will not be in the middle of the pictures "
            "(published for SMPL: -0.2)",
            camera_m,
            pelvis_m,
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
        textures = zlib.crc32(np.asarray(assets.textures.images).tobytes())
        self.fingerprint = (
            f"poses {poses.fingerprint}, textures {textures:08x}, "
            f"backgrounds {config.data.backgrounds.path or 'procedural'}"
        )


def train_batches(config: Config, workdir: Any, assets: ProxyAssets) -> TrainBatches:
    """The endless, resumable stream of training batches of this process.

    Args:
        config: an experiment.
        workdir: unused: nothing lies there.
        assets: of ``make_assets``.
    """
    del workdir
    if config.data.batch_size % jax.device_count():
        raise UserError(
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
        if config.eval.batch_size < 1:
            raise UserError(
                "config.eval.batch_size: expected at least 1, "
                f"found {config.eval.batch_size}"
            )
        self._backgrounds = _backgrounds(config.eval.backgrounds)
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
    from hmr_jax.commands import cli, hierprob_datasets, hierprob_eval

    if values.protocols:
        raise cli.UsageError(
            f"--protocols: system {config.system!r} has none; its metrics follow from "
            "config.eval.source"
        )
    synthetic = config.eval.source == "synthetic"
    chosen = hierprob_eval if synthetic else hierprob_datasets
    chosen.score_and_draw(config, values, out)


class BestOf:
    """Whether an evaluation is the best so far by one metric or by several.

    Args:
        names: metrics, lower is better.
        history: earlier evaluations in order, for a resumed run.
    """

    def __init__(
        self, names: Sequence[str], history: Iterable[Mapping[str, float]] = ()
    ):
        self._names, self._count = tuple(names), 0
        self._best: tuple[float, ...] | None = None
        for values in history:
            self(values)

    def __call__(self, values: Mapping[str, float]) -> float:
        """How many times the best was replaced so far; 0 where these values do not.

        As published, all metrics must be no worse than those of the best.
        """
        found = tuple(values[name] for name in self._names)
        best = self._best
        if best is not None and not all(
            x <= y for x, y in zip(found, best, strict=True)
        ):
            return 0.0
        self._best, self._count = found, self._count + 1
        return float(self._count)


def evaluation(
    config: Config, task: Task, body: BodyModel, workdir: Any
) -> Callable[[Variables, int], dict[str, float]] | None:
    """The periodic validation during training, on rendered pictures."""
    del task
    if config.eval.source != "synthetic":
        logging.info("no validation in training: eval.source is %s", config.eval.source)
        return None
    metric = config.eval.best_metric
    names = metric.split("+")
    unknown = sorted(set(names) - set(KNOWN_METRICS))
    if unknown:
        raise UserError(
            f"config.eval.best_metric: expected some of {KNOWN_METRICS} with '+' "
            f"between them, found {unknown}"
        )
    validation = Validation(config, body)
    best: BestOf | None = None

    def evaluate(variables, step):
        nonlocal best
        values = validation(variables).values()
        if len(names) > 1:
            best = best or BestOf(names, _earlier(workdir, step, names))
            values[metric] = best(values)
        return {f"synthetic/{name}": value for name, value in values.items()}

    return evaluate


def _earlier(workdir: Any, step: int, names: Sequence[str]) -> list[dict[str, float]]:
    """What the log of a run says of its evaluations before a step."""
    rows = read_jsonl(location(workdir) / "log.jsonl")
    keys = {name: f"eval/synthetic/{name}" for name in names}
    return [
        {name: row[key] for name, key in keys.items()}
        for row in rows
        if row["step"] < step and all(key in row for key in keys.values())
    ]


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
