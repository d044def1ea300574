"""Records as batches for a transform, and chosen random numbers."""

import dataclasses

import numpy as np
import tensorflow as tf

from data_pipelines import batch_plan, schema
from data_pipelines.transforms.random_slots import Slots
from hmr_jax.body.joint_sets import map_joints


def batch_of(
    records: list[dict], spec: schema.RecordSpec, transform, **chosen_traits: float
) -> dict:
    """What reading hands to a transform, from validated records."""
    index, present = map_joints(spec.joint_set, transform.joint_set)
    specs = {field.name: field for field in spec.fields}
    batch = {}
    for name in transform.fields:
        if name not in specs:
            extra = {field.name: field for field in transform.extras}[name]
            batch[name] = tf.zeros([len(records), *extra.shape])
            continue
        values = [record[name] for record in records]
        if "joints" in specs[name].shape:
            values = [v[index] * present[:, None] for v in values]
        if isinstance(values[0], bytes):
            batch[name] = tf.constant(values)
        else:
            batch[name] = tf.constant(np.stack(values))
    traits = (
        batch_plan.DEFAULT_TRAITS | getattr(transform, "traits", {}) | chosen_traits
    )
    for name, value in traits.items():
        batch[name] = tf.fill([len(records)], float(value))
    return batch


def uniforms_of(slots: Slots, count: int, **chosen) -> tf.Tensor:
    """Uniforms [count, n], 0.5 but for the slots that are named."""
    split = slots.split(tf.fill([count, slots.num_uniforms], 0.5))
    columns = []
    for name, values in split.items():
        wide = values[:, None] if len(values.shape) == 1 else values
        if name in chosen:
            given = np.asarray(chosen[name], np.float32)
            given = given.reshape(-1, wide.shape[1])
            wide = tf.constant(np.broadcast_to(given, wide.shape))
        columns.append(wide)
    return tf.concat(columns, 1)


def normal_cdf(value):
    """The uniform number behind a standard normal one."""
    from scipy import special

    return special.ndtr(value)


def rendered(transform, plan: dict) -> np.ndarray:
    """Images of all records of a batch."""
    count = plan["image"].shape[0]
    images = [transform.image({k: v[i] for k, v in plan.items()}) for i in range(count)]
    return np.stack([image.numpy() for image in images])


def vectors(parity_dir, *parts: str) -> dict[str, np.ndarray]:
    """Stored arrays of a file."""
    path = parity_dir.joinpath(*parts)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def numpy(tree: dict) -> dict:
    return {name: np.asarray(value) for name, value in tree.items()}


def validated(records: list[dict], spec: schema.RecordSpec) -> list[dict]:
    return [schema.validate(record, spec) for record in records]


def replaced(spec: schema.RecordSpec, **changes) -> schema.RecordSpec:
    return dataclasses.replace(spec, **changes)
