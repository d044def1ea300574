"""Score a trained model on held-out data under named protocols.

    hmr-jax eval --workdir=runs/quickstart --baselines
    hmr-jax eval --config=configs/ikol_finetune.py --params=ikol.safetensors \\
        --out=scores

Without --config the run's own is used. Prints a table and writes eval.json (every
number, per sample too) and a sheet of examples (overlays.png, or predictions.png) to
the workdir or to --out. --baselines adds the untrained network and the mean pose of the
training set to the table. What is scored is printed and written at once, before
baselines and pictures that may fail.

Millimetres; percent for PCK, AUC and overlaps of
silhouettes; pixels for 2D joints. Protocols are IKOL's; hierarchical distributions have
their own metrics for each source.
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
        if values.baselines:
            untrained = initial_variables(system, config)
            results.add("untrained network", evaluator.score(untrained))
            for name, score in evaluator.baselines.items():
                results.add_baseline(name, score)
        if values.pictures > 0:
            evaluator.draw(trained.variables, values.pictures, out)
