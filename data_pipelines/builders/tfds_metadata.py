"""The files by which ``tfds.builder_from_directory`` reads a directory of records."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipelines import schema, storage
from data_pipelines.builders.record_source import RecordSource
from data_pipelines.record_index import ShardIndex


def write(
    folder: str,
    source: RecordSource,
    shards: Mapping[str, Sequence[ShardIndex]],
    metadata: Mapping[str, Any],
) -> None:
    """Write ``dataset_info.json``, ``features.json`` and ``metadata.json``.

    Args:
        folder: of the records.
        source: the dataset.
        shards: split -> its shards in order.
        metadata: goes into ``metadata.json``.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info

    with tempfile.TemporaryDirectory() as here:
        identity = dataset_info.DatasetIdentity(
            name=source.name,
            version=tfds.core.Version(schema.SCHEMA_VERSION),
            data_dir=here,
            module_name="",
        )
        info = tfds.core.DatasetInfo(
            builder=identity,
            features=schema.tfds_features(source.spec),
            description=source.description or source.name,
            citation=source.citation,
            metadata=tfds.core.MetadataDict(metadata),
            disable_shuffling=True,
        )
        info.set_file_format("tfrecord")
        info.set_splits(
            tfds.core.splits.SplitDict(
                [
                    tfds.core.SplitInfo(
                        name=split,
                        shard_lengths=[len(s.offset) for s in found],
                        num_bytes=sum(s.size for s in found),
                    )
                    for split, found in shards.items()
                ]
            )
        )
        info.write_to_directory(here)
        for name in sorted(os.listdir(here)):
            storage.copy_in(os.path.join(here, name), storage.join(folder, name))
