"""Write a trained model for use elsewhere: parameters, or the whole program.

    hmr-jax export --workdir=runs/quickstart --out=exported --verify

Without --config the run's own is used. Formats: npz and safetensors (params.npz,
params.safetensors: flat dotted names) and stablehlo (program/: image to vertices for
any batch size, with weights and body). --verify reads everything back and compares it
with the model, within a fixed tolerance; a model whose own answers change under
rounding everywhere cannot be verified, and the command says so and fails.
"""

import pathlib

from absl import flags

from hmr_jax.commands import cli

FORMATS = ("npz", "safetensors", "stablehlo")
NUM_EXAMPLES = 8


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string(
        "checkpoint",
        "best",
        "best, latest, or a step of the workdir.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "params", None, "Export this file of parameters instead.", flag_values=values
    )
    flags.DEFINE_string("out", None, "Folder to write to.", flag_values=values)
    flags.DEFINE_list(
        "formats",
        list(FORMATS),
        f"Some of {', '.join(FORMATS)}.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "dtype",
        None,
        ["float32", "float16", "bfloat16"],
        "Type of the numbers in npz and safetensors; the model's by default.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "include_body",
        None,
        "Put the body's arrays into the program's folder. By default the open body is "
        "put there, a body of your own (SMPL must not be passed on) is not.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "verify", False, "Read back what was written and compare.", flag_values=values
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the words after ``export``.

    Returns:
        0.
    """
    values, rest = cli.parse("export", __doc__, _define, argv, with_config=True)
    cli.no_more(rest)
    cli.require(values, "out")
    if not (values.workdir or values.params):
        raise cli.UsageError("missing --workdir or --params")
    unknown = sorted(set(values.formats) - set(FORMATS))
    if unknown or not values.formats:
        raise cli.UsageError(f"--formats: expected some of {FORMATS}, found {unknown}")
    if values.workdir and not values.params:
        cli.existing(values.workdir, "--workdir")
    config, out = cli.config_of_run(values), pathlib.Path(values.out)

    from hmr_jax.commands.experiment import load_chosen
    from hmr_jax.export import params as params_io
    from hmr_jax.export.verify import verify_params

    system, body, task, trained = load_chosen(config, values)
    metadata = {
        "system": config.system,
        "config": config.to_dict(),
        "origin": trained.origin,
    }
    for name in ("npz", "safetensors"):
        if name in values.formats:
            path = out / f"params.{name}"
            params_io.save_params(
                trained.variables, path, dtype=values.dtype, metadata=metadata
            )
            print(f"wrote {path}")
            if values.verify:
                count = verify_params(path, trained.variables, values.dtype)
                print(f"verified {path}: {count} arrays equal the model's")
    if "stablehlo" in values.formats:
        path = out / "program"
        include = values.include_body
        if include is None:
            include = not config.body.path
        _write_program(path, system, task, trained, body, config, metadata, include)
        print(f"wrote {path}")
        if values.verify:
            inputs = system.examples(config, body, values.workdir, NUM_EXAMPLES)
            _verify_program(path, task, trained, body, inputs)
    return 0


def _write_program(
    path, system, task, trained, body, config, metadata, include
) -> None:
    from hmr_jax.export import stablehlo

    stablehlo.export_program(
        task.predict,
        trained.variables,
        body,
        system.inputs(config),
        path,
        metadata=metadata,
        include_body=include,
    )


def _verify_program(path, task, trained, body, inputs) -> None:
    from hmr_jax.export.verify import verify_program

    shown = verify_program(path, task.predict, trained.variables, body, inputs)
    fewest = min(shown.steady.values())
    print(
        f"verified {path}: batches of 1 and {shown.samples}, largest "
        f"difference {shown.largest:.1e}; each output was compared in at least "
        f"{fewest} of {shown.samples} samples, those in which the model's own "
        "does not change under rounding"
    )
