"""The building part of the data command."""

import functools
import pathlib
from typing import Any

from hmr_jax.commands import cli
from hmr_jax.errors import UserError

SYNTHETIC = "synthetic"
SYNTHETIC_LINE = "rendered people of the open body in captured poses"


def build(values: Any, name: str) -> int:
    """Convert one dataset and print the report.

    Args:
        values: the command's flags.
        name: ``synthetic`` or a dataset that ``data list`` names.

    Returns:
        0.

    Raises:
        UsageError: no such dataset or option, or a flag that is missing.
    """
    from data_pipelines.builders import layouts

    if name != SYNTHETIC and not layouts.is_known(name):
        names = ", ".join([SYNTHETIC, *layouts.DATASETS])
        raise cli.UsageError(f"data build: expected one of {names}, found {name!r}")
    if values.workers < 0 or values.limit < 0 or values.skip_bad < 0:
        raise cli.UsageError("--workers, --limit, --skip_bad: expected 0 or more")
    if values.workers and (values.beam_runner or values.beam_options):
        raise cli.UsageError("expected --workers or --beam_runner, found both")
    make = _synthetic_factory if name == SYNTHETIC else raw_factory
    factory = make(values, name)

    from data_pipelines import storage
    from data_pipelines.builders import conversion, report

    path = conversion.build(
        factory,
        values.out,
        num_workers=values.workers,
        num_shards=values.num_shards or None,
        skip_bad=values.skip_bad,
        beam_runner=values.beam_runner,
        beam_options=values.beam_options,
        rebuild=values.rebuild,
    )
    content = report.read(storage.clean(path))
    for line in report.lines(content) if content else ():
        print(line)
    for line in report.surprises(content) if content else ():
        print(f"warning: {line}")
    print(f"built {path}")
    return 0


def raw_factory(values: Any, name: str, *, need_out: bool = True) -> Any:
    """A factory of a published dataset from the command's flags.

    Args:
        values: the command's flags.
        name: of a dataset, today's or an old one.
        need_out: whether ``--out`` must be given.

    Returns:
        Picklable, for ``conversion.build``.
    """
    cli.require(values, "raw", *(["out"] if need_out else []))
    from data_pipelines.builders import catalog, layouts

    try:
        options = catalog.parse_options(name, values.option or [])
        if name in layouts.ALIASES:
            print(f"{name}: is now {layouts.choose(name, options).words}")
    except UserError as error:
        raise cli.UsageError(str(error)) from error
    if "://" not in values.raw:
        cli.existing(values.raw, "--raw")
    splits = (values.split,) if values.split else ()
    return functools.partial(
        catalog.open_named, name, values.raw, options, splits, values.limit
    )


def _synthetic_factory(values: Any, name: str) -> Any:
    del name
    cli.require(values, "config", "out")
    if values.raw or values.option:
        raise cli.UsageError("data build synthetic: takes no --raw and no --option")
    settings = values.config.data.synthetic
    counts = {"train": settings.train_count, "test": settings.test_count}
    if values.split:
        if values.split not in counts:
            raise cli.UsageError(f"--split: expected train or test, {values.split!r}")
        counts = {values.split: counts[values.split]}
    if values.limit > 0:
        counts = {split: min(count, values.limit) for split, count in counts.items()}
    for split, count in counts.items():
        if count < 1:
            raise UserError(
                f"config.data.synthetic.{split}_count: expected at least 1, "
                f"found {count}"
            )
    if values.backgrounds:
        cli.existing(values.backgrounds, "--backgrounds")
    return functools.partial(
        open_synthetic,
        counts=counts,
        seed=settings.seed,
        size_px=settings.size_px,
        body=values.config.body.to_dict(),
        backgrounds=values.backgrounds,
        options=settings.options.to_dict(),
    )


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
        "body": _body_name(body),
        "backgrounds": backgrounds or "drawn",
        "options": options,
    }
    return SyntheticRecords(
        make,
        counts,
        seed=seed,
        size_px=size_px,
        config=config,
        files=_files_of(body),
        picture_folders={"backgrounds": backgrounds} if backgrounds else {},
    )


def _files_of(body) -> dict[str, str]:
    """The files of body and motion that samples are made of."""
    import importlib.resources

    from hmr_jax.body.open_assets import BODY_FILE
    from hmr_jax.synthetic.motion import MOTION_FILE

    package = importlib.resources.files("hmr_jax")
    files = {"motion": str(package / "synthetic" / "assets" / MOTION_FILE)}
    if not body["path"]:
        return files | {"body": str(package / "body" / "assets" / BODY_FILE)}
    own = {"body": body["path"], "regressor": body["h36m_regressor"]}
    return files | {name: path for name, path in own.items() if path}


def _body_name(body) -> str:
    """Which body a config's section names; of a folder, which gender."""
    if pathlib.Path(body["path"] or "").is_dir() and body["path"]:
        return f"{body['path']} ({body['gender']})"
    return body["path"] or "open"


def _sample_source(*, split, count, seed, size_px, body, backgrounds, options):
    import ml_collections

    from hmr_jax.synthetic.backgrounds import ProceduralBackgrounds
    from hmr_jax.synthetic.motion import load_motion
    from hmr_jax.synthetic.sampler import SampleSource
    from hmr_jax.systems.bodies import load_body

    options = dict(options)
    clutter_share = options.pop("clutter_share", None)
    if clutter_share is not None and backgrounds is None:
        backgrounds = ProceduralBackgrounds(clutter_share)
    section = ml_collections.ConfigDict({"body": body})
    return SampleSource(
        load_body(section),
        load_motion(),
        split=split,
        image_size_px=size_px,
        seed=seed,
        num_samples=count,
        backgrounds=backgrounds,
        **options,
    )
