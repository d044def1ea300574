"""Build, list, check and show datasets of records.

    hmr-jax data list [DIR]
    hmr-jax data build NAME --raw=DIR --out=DIR [--split=S] [--option=key=value ...]
    hmr-jax data build synthetic --config=configs/quickstart.py --out=DIR
    hmr-jax data check DIR [--max_error_px=X]
    hmr-jax data show DIR --split=train --n=24 [--body=FILE]
    hmr-jax data show NAME --raw=DIR

build reads the files as their owners publish them and writes TFRecords in the one
schema of all datasets: in this process, with --workers=N, or as a Beam pipeline with
--beam_runner=NAME and its --beam_options=--KEY=VALUE. A build that was cut short goes
on when it is started again. One that is done stays as it is; where its options or files
have changed since, that is said and --rebuild makes it anew. What was dropped and why,
and how the numbers compare with the public release, is printed and kept in report.json.
list names what can be built, what each needs and where that comes from, or the datasets
in DIR. check reads every record again: checksums, schema, pixels, and that 3D joints
project onto 2D joints. show draws records with their labels on a contact sheet, built
ones or straight from the raw files. Folders may be remote, such as gs://bucket/folder.
"""

from absl import flags

from hmr_jax.commands import cli, data_build, data_show


def _define(values: flags.FlagValues) -> None:
    def string(name: str, doc: str) -> None:
        flags.DEFINE_string(name, None, doc, flag_values=values)

    def number(name: str, default: int, doc: str) -> None:
        flags.DEFINE_integer(name, default, doc, flag_values=values)

    string("raw", "build, show: folder with the files of the dataset's owners.")
    string("out", "build: folder to write to.")
    string("split", "build: only this split; show: which split.")
    flags.DEFINE_multi_string(
        "option",
        None,
        "build, show: key=value; data list names them.",
        flag_values=values,
    )
    number("workers", 0, "build: worker processes; 0: none.")
    string("beam_runner", "build: run on Apache Beam, for example DirectRunner.")
    flags.DEFINE_multi_string(
        "beam_options",
        None,
        "build: options of the Beam pipeline, such as --beam_options=--project=NAME.",
        flag_values=values,
    )
    number("limit", 0, "build: at most so many records of each split; 0: all.")
    number("skip_bad", 0, "build: bad records that may be left out; all are named.")
    number("num_shards", 0, "build: files per split; 0: one per thousand records.")
    flags.DEFINE_bool(
        "rebuild",
        False,
        "build: convert again what was built before; the old records go when the new "
        "ones are whole.",
        flag_values=values,
    )
    string(
        "backgrounds",
        "build synthetic: folder of pictures to stand before; drawn ones by default.",
    )
    flags.DEFINE_float(
        "max_error_px",
        None,
        "check: largest distance of a projected 3D joint from its 2D joint.",
        flag_values=values,
    )
    number("n", 24, "show: number of records.")
    string("body", "show: SMPL or MANO file to draw meshes with.")
    string("picture", "show: PNG to write; beside the records by default.")


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
    what = "the name of one dataset to build (data list names them)"
    return data_build.build(values, _one(words, what))


def _show(values, words) -> int:
    return data_show.show(values, _one(words, "a folder, or the name of a dataset"))


def _list(values, words) -> int:
    del values
    if not words:
        print(f"{data_build.SYNTHETIC}: {data_build.SYNTHETIC_LINE}")
        print("  needs: nothing; --config=FILE says how many and how large")
        _list_catalog()
        return 0
    from data_pipelines import records
    from data_pipelines.builders import layouts

    found = _directories(_one(words, "a folder"), "data list")
    for path in found:
        manifest = records.open_directory(path).manifest
        counts = [
            f"{split} {content['records']}"
            for split, content in sorted(manifest["splits"].items())
        ]
        now = ""
        if manifest["name"] in layouts.ALIASES:
            now = f"; {layouts.choose(manifest['name']).words}"
        print(f"{path}: {', '.join(counts)} ({manifest['joint_set']}{now})")
    if not found:
        print(f"no datasets in {words[0]}")
    return 0


def _list_catalog() -> None:
    """What each dataset needs, where it comes from, and its options."""
    from data_pipelines.builders import layouts

    for dataset, found in layouts.DATASETS.items():
        for layout in found:
            _list_layout(layouts.Choice(dataset, layout, {}))


def _list_layout(choice) -> None:
    from data_pipelines.builders import catalog, layouts

    try:
        source = catalog.load(choice)
    except ImportError as error:  # a package that this one dataset needs
        print(f"{choice.words}: cannot be read here: {error}")
        return
    print(f"{choice.words}: {source.description}")
    if old := layouts.old_names(choice):
        print(f"  replaces: {', '.join(old)}")
    for line in source.needs:
        print(f"  needs: {line}")
    print(f"  from: {source.origin}")
    print(f"  licence: {source.licence}")
    if source.counts:
        counts = (f"{split} {count}" for split, count in source.counts.items())
        print(f"  records: {', '.join(counts)}")
    for parameter in catalog.options_of(choice).values():
        print(f"  option: {catalog.option_text(parameter)}")


def _directories(folder: str, what: str) -> list[str]:
    from data_pipelines import records

    if "://" not in folder:
        cli.existing(folder, what)
    return records.find_directories(folder)


def _check(values, words) -> int:
    from data_pipelines import checking, storage
    from data_pipelines.builders import report
    from data_pipelines.record_index import MANIFEST

    folder = _one(words, "a folder")
    found = _directories(folder, "data check")
    if not found:
        raise FileNotFoundError(f"no {MANIFEST} in {folder}")
    for path in found:
        counts = []
        for result in checking.check(path, max_error_px=values.max_error_px):
            counts.append(f"{result.split} {result.num_records}")
            if result.num_projected:
                print(
                    f"{path}: {result.split}: {result.num_projected} projected joints "
                    f"are {result.median_px:.3g} px from their 2D joints in the "
                    f"median, {result.worst_px:.3g} px at worst "
                    f"({storage.name(result.worst_where)})"
                )
        for line in report.surprises(report.read(path) or report.NOTHING):
            print(f"{path}: warning: {line}")
        print(f"{path}: good ({', '.join(counts)})")
    return 0
