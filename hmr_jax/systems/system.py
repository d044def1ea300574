"""What a system offers to training, evaluation, export and the commands.

These know no model, no loss and no body: a ``Task`` brings them, and ``assets``
(usually the body model) travels through the step as an argument. A ``System`` says how
a config becomes tasks, data and evaluations. Nothing of the project is imported here,
so that systems and engines can both point at it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax

DEVICE_AXIS = "batch"
"""Name of the mapped axis over devices, for statistics taken over all of them."""
Batch = Mapping[str, Any]
"""Arrays by name, each with the batch as its first axis."""
Variables = dict[str, Any]
"""Flax collections: ``params`` and, where the model has them, ``batch_stats``."""
Terms = dict[str, tuple[jax.Array, jax.Array]]
"""Losses or metrics by name, each as (sum, count): nobody divides early."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A trainable system.

    Attributes:
        init: ``init(rng, batch) -> variables``, pure, so that ``jax.eval_shape`` gives
            the shapes without computing.
        losses: ``losses(variables, batch, assets, *, train, rngs) -> (terms,
            batch_stats, aux)``. Each term is (sum, count); the count depends on the
            batch's masks alone, never on the prediction. The step adds ``batch_row``
            [B] to the batch, each sample's place in the batch of all devices; what is
            random of a sample follows it (``sample_keys``, with ``rngs['samples']``),
            and so does not depend on the number of devices. ``batch_stats`` holds the
            updated running statistics (an empty dict for a model without them).
        weights: what each term's mean is multiplied by in the total. A term without a
            weight is logged and not trained.
        predict: ``predict(variables, batch, assets) -> dict`` of arrays with the batch
            first; None for a task that is never evaluated.
        prepare: ``prepare(rng, batch, assets) -> batch``, the training batch that
            ``losses`` sees, made on the device from what the iterator gave (and
            ``batch_row``, with a key that is the same on all devices): the step
            calls it once, in the same program. None leaves batches as they are.
        trainable: regular expression of whole dotted names of parameters, such as
            ``head\\..*``. The others stand still: they have no gradient and take no
            memory in the optimiser.
        moving: the same of running statistics; None takes ``trainable``.
    """

    init: Callable[..., Variables]
    losses: Callable[..., tuple[Terms, Any, Any]]
    weights: Mapping[str, float]
    predict: Callable[..., dict[str, Any]] | None = None
    prepare: Callable[..., Batch] | None = None
    trainable: str = ".*"
    moving: str | None = None


class Stage(NamedTuple):
    """A part of a training run.

    Attributes:
        name: for the log.
        task: what is trained in it.
        until: its last step.
    """

    name: str
    task: Task
    until: int


class Seen(NamedTuple):
    """Persons cut out of pictures, for ``System.people``.

    Attributes:
        crops: square, RGB in [0, 1], black outside the picture [B, S, S, 3].
        crop_to_image: from pixels of the crop to those of its picture [B, 2, 3].
        intrinsics_inv: inverse camera matrix of each picture [B, 3, 3].
        joints_px: of ``coco_17`` in the crops [B, 17, 2]; None unless the system needs
            them.
        confidence: of these joints [B, 17].
        keys: a random key for each person [B].
    """

    crops: Any
    crop_to_image: Any
    intrinsics_inv: Any
    joints_px: Any
    confidence: Any
    keys: Any


class Stream(Protocol):
    """Endless training batches of one process; may be nested.

    Attributes:
        steps_per_epoch: of the largest source.
        num_records: of it.
        fingerprint: of the data, for the run's record.
    """

    steps_per_epoch: int
    num_records: int
    fingerprint: str

    def __iter__(self) -> Iterator[Batch]:
        """Itself."""

    def __next__(self) -> Batch:
        """The next batch of numpy arrays."""

    def state(self) -> Any:
        """The position, as JSON can hold it."""

    def restore(self, state: Any) -> None:
        """Go on from a position."""


class Scores(Protocol):
    """What an evaluation found."""

    def flat(self) -> dict[str, float]:
        """The overall numbers as ``protocol/metric``."""

    def to_json(self) -> dict[str, Any]:
        """Everything, for a result file."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Scores models on the held-out data of a config.

    Attributes:
        metrics: ``protocol/metric`` of what ``score`` finds at least; a best checkpoint
            can be chosen by any of them.
        score: ``score(variables) -> Scores``.
        table: scores by name to text.
        draw: ``draw(variables, count, folder)`` writes pictures of some predictions.
        baselines: name to what scores something that needs no training.
        facts: more for the result file.
        shown_in_training: persons drawn after each periodic evaluation.
        publish: ``publish(scores, folder)`` writes further files that the paper's
            users know.
        predictions: ``predictions(variables)`` gives, batch by batch, the names of
            records and what is predicted of them.
    """

    metrics: Sequence[str]
    score: Callable[[Variables], Scores]
    table: Callable[[Mapping[str, Any]], str]
    draw: Callable[[Variables, int, Any], None]
    baselines: Mapping[str, Callable[[], Scores]]
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shown_in_training: int = 0
    publish: Callable[[Any, Any], None] | None = None
    predictions: Callable[[Variables], Iterator[Any]] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class System:
    """A method, from a config to everything that is done with it.

    Attributes:
        task: ``task(config) -> Task`` of the last stage, by which it predicts.
        stages: ``stages(config, steps_per_epoch, total)``, in order.
        body: ``body(config)``, what ``Task.predict`` takes as assets.
        assets: ``assets(config, body)``, what travels through the training step.
        train_data: ``train_data(config, workdir, assets) -> Stream``.
        evaluator: ``evaluator(config, body, workdir, *, protocols=(),
            progress=False)``.
        evaluates_in_training: whether a config's evaluation can also go on while it
            is trained.
        inputs: ``inputs(config)``, what the program from crops to named outputs takes:
            name to shape after the batch axis, float32.
        examples: ``examples(config, body, workdir, count)``, such inputs.
        checkpoint: the authors' kind of checkpoint, a ``convert.tables.Checkpoint``.
        people: ``people(config, options)`` gives ``(variables, body, Seen) -> dict`` of
            named outputs, the batch first: at least ``vertices_m`` (y up, the root's
            frame turned as seen by the camera), ``camera`` [B, 3] (weak perspective:
            coordinates of the crop in [-1, 1] are ``s (x + tx)``) and
            ``joints2d_crop_px``, the body's joints in the crop. None for a system
            that does not predict persons in pictures.
        needs_joints2d: whether ``people`` looks at 2D joints.
        padding: margin around boxes as in training.
    """

    task: Callable[[Any], Task]
    stages: Callable[[Any, int, int], Sequence[Stage]]
    body: Callable[[Any], Any]
    assets: Callable[[Any, Any], Any]
    train_data: Callable[[Any, Any, Any], Any]
    evaluator: Callable[..., Evaluator]
    evaluates_in_training: Callable[[Any], bool]
    inputs: Callable[[Any], Mapping[str, tuple[int, ...]]]
    examples: Callable[[Any, Any, Any, int], Mapping[str, Any]]
    checkpoint: Any
    people: Callable[[Any, Mapping[str, Any]], Callable[..., dict[str, Any]]] | None = (
        None
    )
    needs_joints2d: bool = False
    padding: float = 1.2


def collections(params: Any, batch_stats: Any) -> Variables:
    """The variables a model's ``apply`` takes; no empty ``batch_stats`` collection.

    Args:
        params: the trained parameters.
        batch_stats: running statistics, possibly empty.

    Returns:
        ``{'params': ..., 'batch_stats': ...}``.
    """
    variables = {"params": params}
    if batch_stats:
        variables["batch_stats"] = batch_stats
    return variables
