"""Score a trained model on held-out data under named protocols.

    hmr-jax eval --workdir=runs/quickstart --baselines
    hmr-jax eval --config=configs/ikol_finetune.py --params=ikol.safetensors \\
        --out=scores

    hmr-jax eval --predictions=mine.npz --data=data/pw3d --protocols=pw3d_14,pve \\
        --out=scores

Without --config the run's own is used. Prints a table and writes eval.json (every
number, per sample too) and a sheet of examples (overlays.png, or predictions.png) to
the workdir or to --out. --baselines adds the untrained network and the mean pose of the
training set to the table. What is scored is printed and written at once, before
baselines and pictures that may fail.

--predictions scores a file that any program wrote: an .npz with sample_id [N], the
names of the records, and joints_h36m_17_m [N, 17, 3], joints_smpl_24_m [N, 24, 3] or
vertices_m [N, V, 3], whichever the protocols need, in metres. --data is a dataset that
'hmr-jax data build' made. --save_predictions writes such a file of a trained model.

Millimetres; percent for PCK, AUC and overlaps of silhouettes; pixels for 2D joints.
"""

from absl import flags, logging

from hmr_jax.commands import cli
from hmr_jax.remote import Location, location


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string(
        "checkpoint",
        "best",
        "best, latest, or a step of the workdir. A damaged best or latest is named and "
        "passed over; a damaged step is an error.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "params",
        None,
        "Score this file of parameters instead (.npz or .safetensors).",
        flag_values=values,
    )
    flags.DEFINE_list(
        "protocols",
        [],
        "Names with commas between them; the config's by default.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "predictions", None, "Score this file instead (.npz).", flag_values=values
    )
    flags.DEFINE_string(
        "data", None, "With --predictions: the dataset's folder.", flag_values=values
    )
    flags.DEFINE_string(
        "split", "test", "With --predictions: the dataset's split.", flag_values=values
    )
    flags.DEFINE_string(
        "save_predictions",
        None,
        "Also write what the model predicts, to this file (.npz).",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "baselines",
        False,
        "Also score the untrained network and the mean pose.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "pictures", 16, "Overlays on the contact sheet; 0: none.", flag_values=values
    )
    flags.DEFINE_string(
        "out",
        None,
        "Folder to write to; the workdir by default.",
        flag_values=values,
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the words after ``eval``.

    Returns:
        0.
    """
    values, rest = cli.parse("eval", __doc__, _define, argv, with_config=True)
    cli.no_more(rest)
    if values.predictions:
        return _score_file(values)
    if not (values.workdir or values.params):
        raise cli.UsageError("missing --workdir or --params")
    if not (values.out or values.workdir):
        raise cli.UsageError("missing --out (where there is no --workdir)")
    if values.workdir:
        cli.existing(values.workdir, "--workdir")
    config = cli.config_of_run(values)
    out = location(values.out or values.workdir)

    from hmr_jax.training import settings

    settings.check(config.to_dict())
    _score(config, values, out)
    logging.info("results: %s", out / "eval.json")
    return 0


def _score(config, values, out: Location) -> None:
    from hmr_jax.commands.experiment import load_chosen
    from hmr_jax.commands.results import Results
    from hmr_jax.training.trained import initial_variables

    system, body, _, trained = load_chosen(config, values)
    evaluator = system.evaluator(
        config,
        body,
        values.workdir,
        protocols=tuple(values.protocols),
        progress=True,
    )
    with Results(
        config, trained.origin, out, evaluator.table, **evaluator.facts
    ) as results:
        scores = evaluator.score(trained.variables)
        results.add("trained", scores)
        if evaluator.publish is not None:
            evaluator.publish(scores, out)
        if values.save_predictions:
            _save(evaluator, config, trained.variables, values.save_predictions)
        if values.baselines:
            untrained = initial_variables(system, config)
            results.add("untrained network", evaluator.score(untrained))
            for name, score in evaluator.baselines.items():
                results.add_baseline(name, score)
        if values.pictures > 0:
            evaluator.draw(trained.variables, values.pictures, out)


def _save(evaluator, config, variables, path: str) -> None:
    from hmr_jax.evaluation.prediction_file import write_predictions

    if evaluator.predictions is None:
        raise cli.UsageError(
            f"--save_predictions: system {config.system!r} has none by record"
        )
    count = write_predictions(path, evaluator.predictions(variables))
    print(f"wrote {path}: predictions of {count} records")


def _score_file(values) -> int:
    """Score somebody's predictions of a dataset's records."""
    cli.require(values, "predictions", "data", "protocols", "out")
    from data_pipelines import records as stored
    from hmr_jax.body.open_assets import load_open_body
    from hmr_jax.commands.results import Results
    from hmr_jax.evaluation import prediction_file
    from hmr_jax.evaluation.labels import labels_of_record
    from hmr_jax.evaluation.report import format_table
    from hmr_jax.systems.bodies import load_body

    predictions = prediction_file.read_predictions(values.predictions)
    directory = stored.open_directory(values.data)
    config = values.config
    body = load_open_body() if config is None else load_body(config)
    report = prediction_file.score_predictions(
        predictions,
        stored.read_records(values.data, values.split),
        directory.spec.joint_set,
        values.protocols,
        body,
        labels_of=labels_of_record,
    )
    out = location(values.out)
    facts = {
        "data": str(values.data),
        "split": values.split,
        "data_fingerprint": directory.fingerprint,
        "body": body.name,
    }
    origin = str(values.predictions)
    with Results(config, origin, out, format_table, **facts) as results:
        results.add("predictions", report)
    print(f"{values.data}, split {values.split}, {directory.fingerprint}")
    logging.info("results: %s", out / "eval.json")
    return 0
