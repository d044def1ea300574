"""Build, list, check and show datasets of records.

    hmr-jax data build synthetic --config=configs/quickstart.py --out=DIR
    hmr-jax data list [DIR]
    hmr-jax data check DIR
    hmr-jax data show DIR --split=train --n=24

build writes TFRecords in the one schema of all datasets: in this process, with
--workers=N, or as a Beam pipeline with --beam_runner=NAME. A build that was cut short
leaves nothing and is started again by the same command. list names what can be built,
or the datasets in DIR. check reads every record against checksums and schema. show
draws samples with their labels on a contact sheet.
"""

import functools
import json
import pathlib

from absl import flags, logging

from hmr_jax.commands import cli

BUILDERS = {"synthetic": "rendered people of the open body in captured poses"}


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("out", None, "build: folder to write to.", flag_values=values)
    flags.DEFINE_integer(
        "workers", 0, "build: worker processes; 0: none.", flag_values=values
    )
    flags.DEFINE_string(
        "beam_runner",
        None,
        "build: run on Apache Beam, for example DirectRunner.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "limit", 0, "build: at most so many samples of each split.", flag_values=values
    )
    flags.DEFINE_string(
        "backgrounds",
        None,
        "build synthetic: folder of pictures to stand before; drawn ones by default.",
        flag_values=values,
    )
    flags.DEFINE_string("split", "train", "show: which split.", flag_values=values)
    flags.DEFINE_integer("n", 24, "show: number of samples.", flag_values=values)
    flags.DEFINE_string(
        "picture",
        None,
        "show: PNG to write; beside the records by default.",
        flag_values=values,
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the words after ``data``.

    Returns:
        0.
    """
    values, rest = cli.parse("data", __doc__, _define, argv, with_config=True)
    actions = {"build": _build, "list": _list, "check": _check, "show": _show}
    if not rest or rest[0] not in actions:
        found = rest[0] if rest else "nothing"
        raise cli.UsageError(f"data: expected one of {', '.join(actions)}, got {found}")
    return actions[rest[0]](values, rest[1:])


def _one(words, what) -> str:
    if len(words) != 1:
        raise cli.UsageError(f"expected {what}, found {words or 'nothing'}")
    return words[0]


def _build(values, words) -> int:
    name = _one(words, "the name of one dataset to build (data list names them)")
    if name not in BUILDERS:
        raise cli.UsageError(
            f"data build: expected one of {', '.join(BUILDERS)}, found {name!r}"
        )
    cli.require(values, "config", "out")

    from data_pipelines.builders import base

    settings = values.config.data.synthetic
    counts = {"train": settings.train_count, "test": settings.test_count}
    if values.limit > 0:
        counts = {split: min(count, values.limit) for split, count in counts.items()}
    for split, count in counts.items():
        if count < 1:
            raise ValueError(
                f"config.data.synthetic.{split}_count: expected at least 1, "
                f"found {count}"
            )
    if values.backgrounds:
        cli.existing(values.backgrounds, "--backgrounds")
    factory = functools.partial(
        open_synthetic,
        counts=counts,
        seed=settings.seed,
        size_px=settings.size_px,
        body=values.config.body.to_dict(),
        backgrounds=values.backgrounds,
        options=settings.options.to_dict(),
    )
    path = base.build(
        factory,
        values.out,
        num_workers=values.workers,
        beam_runner=values.beam_runner,
    )
    print(f"built {path}")
    return 0


def open_synthetic(*, counts, seed, size_px, body, backgrounds, options):
    """The synthetic dataset as a source of records; called in each worker process.

    Args:
        counts: split to number of samples.
        seed: of all of them.
        size_px: side of the images.
        body: the config's ``body`` section.
        backgrounds: folder of pictures, or None.
        options: further arguments of ``SampleSource``, and ``clutter_share``.

    Returns:
        A ``data_pipelines.builders.synthetic.SyntheticRecords``.
    """
    from data_pipelines.builders.synthetic import SyntheticRecords

    make = functools.partial(
        _sample_source, body=body, backgrounds=backgrounds, options=options
    )
    config = {
        "body": body["path"] or "open",
        "backgrounds": backgrounds or "drawn",
        "options": options,
    }
    return SyntheticRecords(make, counts, seed=seed, size_px=size_px, config=config)


def _sample_source(*, split, count, seed, size_px, body, backgrounds, options):
    import ml_collections

    from hmr_jax.commands import experiment
    from hmr_jax.synthetic.backgrounds import ProceduralBackgrounds
    from hmr_jax.synthetic.motion import load_motion
    from hmr_jax.synthetic.sampler import SampleSource

    options = dict(options)
    clutter_share = options.pop("clutter_share", None)
    if clutter_share is not None and backgrounds is None:
        backgrounds = ProceduralBackgrounds(clutter_share)
    section = ml_collections.ConfigDict({"body": body})
    return SampleSource(
        experiment.load_body(section),
        load_motion(),
        split=split,
        image_size_px=size_px,
        seed=seed,
        num_samples=count,
        backgrounds=backgrounds,
        **options,
    )


def _list(values, words) -> int:
    del values
    if not words:
        for name, line in BUILDERS.items():
            print(f"{name}: {line}")
        return 0
    from data_pipelines import records

    folder = cli.existing(_one(words, "a folder"), "data list")
    found = sorted({p.parent for p in folder.rglob(records.MANIFEST)})
    for path in found:
        manifest = json.loads((path / records.MANIFEST).read_text())
        counts = []
        for split in sorted(manifest["splits"]):
            size = len(records.open_directory(path).split(split))
            counts.append(f"{split} {size}")
        print(f"{path}: {', '.join(counts)} ({manifest['joint_set']})")
    if not found:
        print(f"no datasets in {folder}")
    return 0


def _check(values, words) -> int:
    del values
    from data_pipelines import records

    folder = cli.existing(_one(words, "a folder"), "data check")
    found = sorted({p.parent for p in folder.rglob(records.MANIFEST)})
    if not found:
        raise FileNotFoundError(f"no {records.MANIFEST} in {folder}")
    for path in found:
        counts = records.verify(path)
        text = ", ".join(f"{split} {count}" for split, count in counts.items())
        print(f"{path}: good ({text})")
    return 0


def _show(values, words) -> int:
    import numpy as np

    from data_pipelines import records
    from hmr_jax.body.joint_sets import JOINT_SETS
    from hmr_jax.render import draw

    folder = cli.existing(_one(words, "a folder"), "data show")
    path = records.find_directory(folder)
    directory = records.open_directory(path)
    size = len(directory.split(values.split))
    if values.n < 1:
        raise cli.UsageError(f"--n: expected at least 1, found {values.n}")
    indices = np.unique(np.linspace(0, size - 1, min(values.n, size)).astype(int))
    joint_set = JOINT_SETS[directory.spec.joint_set]
    pictures, captions = [], []
    for record in records.read_records(path, values.split, indices):
        image = draw.decode_image(record["image"])
        if record["has_keypoints"]:
            joints = record["keypoints_px"]
            image = draw.draw_skeleton(
                image,
                joints,
                joint_set.parents,
                visible=joints[:, 2] > 0,
                joints=joint_set.joints,
            )
        box = np.asarray(record["bbox_xywh_px"])[None]
        pictures.append(draw.draw_boxes(image, box))
        captions.append(f"{record['sequence_id']} {record['frame_id']}")
    default = path.parent / f"samples_{values.split}.png"
    picture = pathlib.Path(values.picture or default)
    draw.save_png(picture, draw.contact_sheet(pictures, columns=6, captions=captions))
    logging.info("%d of %d samples of %s", len(pictures), size, path)
    print(f"wrote {picture}")
    return 0
