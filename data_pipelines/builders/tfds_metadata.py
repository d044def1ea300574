"""The files by which TFDS reads a directory of records, written by TFDS itself."""

import pathlib
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
        folder: of the records, local or remote.
        source: the dataset.
        shards: split -> its shards in order.
        metadata: goes into ``metadata.json``.
    """
    import tensorflow_datasets as tfds

    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[len(shard.offset) for shard in found],
            num_bytes=sum(shard.size for shard in found),
        )
        for split, found in shards.items()
    ]
    with tempfile.TemporaryDirectory() as name:
        here = pathlib.Path(name)
        # TFDS learns the dataset's name and format from the names of the shards.
        for found in shards.values():
            for shard in found:
                (here / shard.file).touch()
        tfds.folder_dataset.write_metadata(
            data_dir=here,
            features=schema.tfds_features(source.spec),
            split_infos=splits,
            version=schema.SCHEMA_VERSION,
            check_data=False,
            description=source.description or source.name,
            citation=source.citation,
            metadata=tfds.core.MetadataDict(metadata),
            disable_shuffling=True,
        )
        for path in sorted(here.glob("*.json")):
            storage.copy_in(path, storage.join(folder, path.name))
