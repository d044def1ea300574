"""Score a trained model on held-out data under named protocols.

    hmr-jax eval --workdir=runs/quickstart --baselines
    hmr-jax eval --config=configs/ikol_finetune.py --params=ikol.safetensors \\
        --out=scores

Without --config the run's own is used. Prints a table and writes eval.json (every
number, per sample too) and overlays.png to the workdir or to --out. --baselines adds
the untrained network and the mean pose of the training set to the table. Millimetres;
percent for PCK and AUC.
"""

import pathlib

from absl import flags, logging

from hmr_jax.commands import cli


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string(
        "checkpoint",
        "best",
        "best, latest, or a step of the workdir.",
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
    if not (values.workdir or values.params):
        raise cli.UsageError("missing --workdir or --params")
    if not (values.out or values.workdir):
        raise cli.UsageError("missing --out (where there is no --workdir)")
    if values.workdir:
        cli.existing(values.workdir, "--workdir")
    config = cli.config_of_run(values)
    out = pathlib.Path(values.out or values.workdir)

    from hmr_jax.commands import experiment, scoring
    from hmr_jax.evaluation.evaluator import format_table
    from hmr_jax.training import records

    body, task, trained = experiment.load_chosen(config, values)
    folder = experiment.data_dir(config, values.workdir)
    scorer = scoring.Scorer(
        config,
        task,
        body,
        folder,
        protocols=tuple(values.protocols),
        progress=True,
    )
    reports = {"trained": scorer(trained.variables)}
    if values.baselines:
        reports["untrained network"] = scorer(
            experiment.initial_variables(task, config)
        )
        reports["mean pose"] = scorer.score(
            scoring.mean_pose_predictor(config, body, folder)
        )
    print(format_table(reports))
    result = {
        "checkpoint": trained.origin,
        "config": config.to_dict(),
        "versions": records.package_versions(),
        "rows": {name: report.to_json() for name, report in reports.items()},
    }
    records.write_json(out / "eval.json", result)
    if values.pictures > 0:
        _draw(scorer, trained, config, body, values.pictures, out / "overlays.png")
    logging.info("results: %s", out / "eval.json")
    return 0


def _draw(scorer, trained, config, body, count, path) -> None:
    import numpy as np

    from hmr_jax.commands import scoring
    from hmr_jax.render import draw

    pictures: list[np.ndarray] = []
    for batch in scorer.batches():
        predictions = scorer.predict(trained.variables, batch)
        vertices = predictions["vertices_cam_m"]
        left = count - len(pictures)
        pictures += scoring.overlays(config, body, batch, vertices, left)
        if len(pictures) >= count:
            break
    draw.save_png(path, draw.contact_sheet(pictures, columns=4))
    logging.info("overlays: %s", path)
