"""Directories of records to batches: shuffled, mixed, shared out, and resumable.

A batch is a pure function of (seed, epoch, step): its records are looked up in the
epoch's order and read by their offset, and augmentation follows numbers hashed from
seed, epoch and place. So a restored iterator continues exactly, whatever the number of
threads, and the global batches are the same however many processes share them. Video
is read as clips of frames of one person.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from data_pipelines import batch_plan, epoch_order, records, schema, storage
from data_pipelines import clips as clip_windows
from hmr_jax.errors import UserError

# AutoGraph's rewriting of mapped functions takes seconds; none of ours needs it.
_as_written = tf.autograph.experimental.do_not_convert
Batch = dict[str, np.ndarray]
_LOCAL_READS, _REMOTE_READS = 4, 64


class Transform(Protocol):
    """What turns records into the batches of one system.

    Attributes:
        joint_set: in which ``labels`` receives joints.
        fields: of the schema that ``labels`` receives, with ``image`` among them.
        num_uniforms: random numbers per record.
        weights: optional; keys of the batch that are made 0 in records which only fill
            it up, beside ``has_smpl`` and those that end in ``_weight``.
        num_clip_uniforms: optional; how many of the random numbers, the first ones, all
            frames of a clip share.
        extras: optional; ``FieldSpec`` of fields beside the schema's that the transform
            reads even where no dataset has them.
        traits: optional; defaults of further facts about datasets that ``labels``
            receives beside ``batch_plan.DEFAULT_TRAITS``.
    """

    joint_set: str
    fields: tuple[str, ...]
    num_uniforms: int

    def labels(self, records: dict, uniforms) -> tuple[dict, dict]:
        """A batch without its image, and per-record plans for ``image``."""

    def image(self, plan: dict) -> Any:
        """The image of one record."""


class RecordIterator(Iterator[Batch]):
    """Batches of numpy arrays, from any position; made by ``make_dataset``.

    Attributes:
        batch_size: records or clips per batch of this process.
        clip_length: frames of a clip; None where records are read one by one.
        steps_per_epoch: batches in one epoch.
        num_records: records in all sources.
        fingerprint: of all sources; goes beside checkpoints.
    """

    def __init__(
        self,
        sources: Sequence[batch_plan.Source],
        transform: Transform,
        record_lookup: batch_plan.RecordLookup,
        *,
        batch_size: int,
        clip_length: int | None,
        num_epochs: int | None,
        num_threads: int | None,
        num_reads: int,
    ):
        self._sources = tuple(sources)
        self._transform = transform
        self._lookup = record_lookup
        self._num_threads, self._num_reads = num_threads, num_reads
        self._extras = schema.merged_extras(
            [source.directory.spec for source in sources],
            getattr(transform, "extras", ()),
        )
        self.batch_size = batch_size
        self.clip_length = clip_length
        self._num_records = batch_size * (clip_length or 1)
        self.steps_per_epoch = record_lookup.steps_per_epoch
        self.num_records = sum(len(s.split) for s in self._sources)
        self.fingerprint = record_lookup.fingerprint
        self._last_step = 2**62
        if num_epochs is not None:
            self._last_step = num_epochs * self.steps_per_epoch
        self._step = self._first_step = 0
        self._dataset: tf.data.Dataset | None = None
        self._batches: Iterator | None = None

    def __next__(self) -> Batch:
        if self._batches is None:
            if self._dataset is None:
                self._dataset = self._pipeline()
            self._first_step = self._step
            self._batches = self._dataset.as_numpy_iterator()
        try:
            batch = next(self._batches)
        except tf.errors.OpError as error:
            # A damaged record is named; else the error is of another kind.
            self._lookup.check(self._step)
            raise OSError(error.message) from error
        self._step += 1
        return batch

    def state(self, unused: int = 0) -> dict[str, Any]:
        """The position, as a small JSON-able dict.

        Args:
            unused: batches that were taken from the iterator but will be wanted again,
                such as those waiting in a prefetch queue.

        Returns:
            What ``restore`` takes.
        """
        epoch, step = divmod(self._step - unused, self.steps_per_epoch)
        return {"epoch": epoch, "step": step, **self._lookup.identity()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue after the batch at which ``state`` was taken.

        Args:
            state: from ``state``, in this or another process.

        Raises:
            UserError: the state belongs to other records, another seed or another
                batch size; naming both.
        """
        for key, expected in self._lookup.identity().items():
            if state.get(key) != expected:
                raise UserError(
                    f"data position: {key}: expected {expected!r}, "
                    f"found {state.get(key)!r}"
                )
        self._step = state["epoch"] * self.steps_per_epoch + state["step"]
        self.close()

    def reset(self) -> None:
        """Start again at the first batch of the first epoch."""
        self._step = 0
        self.close()

    @property
    def epoch(self) -> int:
        """Epoch of the next batch."""
        return self._step // self.steps_per_epoch

    def sample_ids(self, sample_index: Sequence[int]) -> list[str]:
        """Names of records, in the order asked for.

        Args:
            sample_index: as in a batch: place in the sources laid end to end.

        Returns:
            ``sample_id`` of each.
        """
        found = self._lookup.read(sample_index)
        return [record["sample_id"] for record in found]

    def close(self) -> None:
        """Let go of the running pipeline; the next batch starts it again."""
        self._batches = None

    def _plan(self, count: np.ndarray) -> list[Any]:
        """Columns of ``RecordLookup.plan`` and whether the stream goes on."""
        step = self._first_step + int(count)
        shared = getattr(self._transform, "num_clip_uniforms", 0)
        plan = self._lookup.plan(step, self._transform.num_uniforms, shared)
        return [*plan.values(), np.bool_(step < self._last_step)]

    def _pipeline(self) -> tf.data.Dataset:
        """Batches from ``_first_step``, wherever that stands when iteration begins."""
        steps = tf.data.Dataset.range(2**62).map(self._planned)
        plans = steps.take_while(_goes_on)
        plans = plans.map(_without_goes_on)
        files = tf.constant(self._lookup.files)
        # Records are read inside a mapped function: TensorFlow cannot rebuild a
        # top-level dataset that has byte offsets.
        serialized = plans.unbatch().interleave(
            _as_written(
                lambda plan: records.record_at(
                    tf.gather(files, plan["file"]), plan["at"]
                )
            ),
            cycle_length=self._num_reads,
            num_parallel_calls=self._num_reads,
            deterministic=True,
        )
        serialized = serialized.batch(self._num_records, drop_remainder=True)
        batches = tf.data.Dataset.zip(plans, serialized)
        parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        batches = batches.map(self._labels, num_parallel_calls=2, deterministic=True)
        batches = batches.unbatch().map(self._image, **parallel)
        batches = batches.batch(self._num_records, drop_remainder=True)
        if self.clip_length is not None:
            batches = batches.map(self._as_clips)
        options = tf.data.Options()
        options.deterministic = True
        options.autotune.enabled = True
        if self._num_threads is not None:
            options.threading.private_threadpool_size = self._num_threads
        return batches.prefetch(tf.data.AUTOTUNE).with_options(options)

    @_as_written
    def _planned(self, step) -> dict:
        batch = [self._num_records]
        outputs = {
            "sample_index": (tf.int32, batch),
            "source": (tf.int32, batch),
            "file": (tf.int32, batch),
            "at": (tf.int64, batch),
            "uniforms": (tf.float32, [*batch, self._transform.num_uniforms]),
            "valid": (tf.float32, batch),
            "weight": (tf.float32, batch),
            "goes_on": (tf.bool, []),
        }
        kinds = [kind for kind, _ in outputs.values()]
        values = tf.numpy_function(self._plan, [step], kinds)
        plan = dict(zip(outputs, values, strict=True))
        for name, (_, shape) in outputs.items():
            plan[name].set_shape(shape)
        return plan

    @_as_written
    def _labels(self, plan: dict, serialized) -> tuple[dict, dict]:
        fields = self._transform.fields
        spec = self._sources[0].directory.spec
        parsed = schema.parse_batch(serialized, fields, spec, self._extras)
        index = tf.constant(np.stack([s.joint_index for s in self._sources]))
        present = tf.constant(np.stack([s.joint_present for s in self._sources]))
        index, present = (tf.gather(t, plan["source"]) for t in (index, present))
        for name in fields:
            field = schema.FIELD_BY_NAME.get(name)
            if field is not None and "joints" in field.shape:
                parsed[name] = _mapped_joints(parsed[name], index, present)
        for name in self._sources[0].traits:
            values = tf.constant([float(s.traits[name]) for s in self._sources])
            parsed[name] = tf.gather(values, plan["source"])
        labels, pixels = self._transform.labels(parsed, plan["uniforms"])
        labels["valid"] = plan["valid"]
        labels["sample_index"] = plan["sample_index"]
        declared = getattr(self._transform, "weights", ())
        for name, value in labels.items():
            if name in declared or name.endswith("_weight") or name == "has_smpl":
                shape = [-1] + [1] * (len(value.shape) - 1)
                labels[name] = value * tf.reshape(plan["weight"], shape)
        return labels, pixels

    @_as_written
    def _as_clips(self, batch: dict) -> dict:
        """Values [B * T, ...] as [B, T, ...]."""
        size = tf.constant([self.batch_size, self.clip_length])
        return {
            name: tf.reshape(value, tf.concat([size, tf.shape(value)[1:]], 0))
            for name, value in batch.items()
        }

    @_as_written
    def _image(self, labels: dict, pixels: dict) -> dict:
        return {"image": self._transform.image(pixels), **labels}


@_as_written
def _goes_on(plan: dict):
    return plan["goes_on"]


@_as_written
def _without_goes_on(plan: dict) -> dict:
    return {name: value for name, value in plan.items() if name != "goes_on"}


def _mapped_joints(joints, index, present):
    """Joints [B, J, C] in the transform's set; the last column is 0 where absent."""
    # A batch in which every record's list is empty has no joints to choose from.
    joints = tf.pad(joints, [[0, 0], [0, 1], [0, 0]])
    joints = tf.gather(joints, index, axis=1, batch_dims=1)
    return joints * present[..., None]


def _hide_accelerators() -> None:
    """Keep TensorFlow from taking the memory of the GPUs that JAX computes on."""
    # It cannot be changed any more where TensorFlow has been used already.
    with contextlib.suppress(RuntimeError, ValueError):
        tf.config.set_visible_devices([], "GPU")


def make_dataset(
    sources: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    split: str,
    batch_size: int,
    transform: Transform,
    seed: int = 0,
    shuffle: bool = False,
    weights: Sequence[float] | None = None,
    groups: Sequence[int] | None = None,
    caps: Sequence[int | None] | None = None,
    clips: clip_windows.ClipOptions | None = None,
    process_index: int = 0,
    process_count: int = 1,
    num_epochs: int | None = None,
    drop_remainder: bool | None = None,
    num_threads: int | None = None,
    num_reads: int | None = None,
) -> RecordIterator:
    """Open records and iterate over transformed batches.

    Args:
        sources: one directory of records or several, as ``builders.conversion.build``
            returned them.
        split: name of the split to read of each.
        batch_size: records, or clips, per batch of this process.
        transform: labels and pixels, such as ``transforms.ikol.IkolTransform``.
        seed: of order and augmentation.
        shuffle: a new order in each epoch.
        weights: mixture: probability of each source; an epoch is then as long as the
            largest source. Without a rule, an epoch is every record once.
        groups: another rule: number of each source's group; groups have equal shares of
            an epoch (``epoch_order.Order``).
        caps: another rule: how many records of each source an epoch has at most, chosen
            anew each time.
        clips: read frames of one person as clips; batches are then [B, T, ...], and
            the rules count clips. ``valid`` [B, T] is 0 where a track that is shorter
            than its window is repeated; weights are not, as such frames are trained on.
        process_index: of this process among those that share the records.
        process_count: number of them; together they read each batch's records once.
        num_epochs: None goes on for ever.
        drop_remainder: leave out the incomplete last batch of an epoch; otherwise it is
            filled up with records whose ``valid`` and weights are 0. By default as
            ``shuffle``.
        num_threads: of tf.data; by default as many as there are cores.
        num_reads: records that are opened at the same time; by default few of local
            folders, and many where one is remote, whose answers take a while.

    Returns:
        The iterator; ``state`` and ``restore`` move it.

    Raises:
        RecordError: a directory, split, shard, schema version or fingerprint that is
            not as expected, or fewer records than one batch.
    """
    if not 0 <= process_index < process_count:
        raise UserError(
            f"expected process_index in 0..{process_count - 1}, found {process_index}"
        )
    for name, number in {"batch_size": batch_size, "num_reads": num_reads}.items():
        if number is not None and number < 1:
            raise UserError(f"expected {name} >= 1, found {number}")
    _hide_accelerators()
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    opened = batch_plan.open_sources(
        sources, split, transform.joint_set, getattr(transform, "traits", {})
    )
    if num_reads is None:
        local = all(storage.is_local(source.directory.path) for source in opened)
        num_reads = _LOCAL_READS if local else _REMOTE_READS
    windows, sizes = None, [len(source.split) for source in opened]
    if clips is not None:
        windows = [clip_windows.Windows.of(source, clips) for source in opened]
        sizes = [len(w) for w in windows]
    record_order = epoch_order.Order(
        tuple(sizes),
        seed,
        shuffle,
        weights=None if weights is None else tuple(weights),
        groups=None if groups is None else tuple(groups),
        caps=None if caps is None else tuple(caps),
    )
    record_lookup = batch_plan.RecordLookup(
        opened,
        record_order,
        batch_size=batch_size,
        process_index=process_index,
        process_count=process_count,
        drop_remainder=shuffle if drop_remainder is None else drop_remainder,
        windows=windows,
    )
    return RecordIterator(
        opened,
        transform,
        record_lookup,
        batch_size=batch_size,
        clip_length=None if clips is None else clips.length,
        num_epochs=num_epochs,
        num_threads=num_threads,
        num_reads=num_reads,
    )
