"""Write a trained model for use elsewhere: parameters, or the whole program.

    hmr-jax export --workdir=runs/quickstart --out=exported --verify

Without --config the run's own is used. Formats: npz and safetensors (params.npz,
params.safetensors: flat dotted names) and stablehlo (program/: image to vertices for
any batch size, with weights and body). --verify reads everything back and compares it
with the model.
"""

import pathlib

from absl import flags, logging

from hmr_jax.commands import cli

FORMATS = ("npz", "safetensors", "stablehlo")
TOLERANCE_M = 1e-4
NUM_EXAMPLES = 8
NUDGES = (1e-5, -1e-5, 1e-6)


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

    from hmr_jax.commands import experiment
    from hmr_jax.export import params as params_io

    body, task, trained = experiment.load_chosen(config, values)
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
                _verify_params(path, trained.variables, values.dtype)
    if "stablehlo" in values.formats:
        path = out / "program"
        include = values.include_body
        if include is None:
            include = not config.body.path
        _write_program(path, task, trained, body, config, metadata, include)
        print(f"wrote {path}")
        if values.verify:
            inputs = experiment.system(config).example_inputs(
                config, body, values.workdir, NUM_EXAMPLES
            )
            _verify_program(path, task, trained, body, config, inputs)
    return 0


def _verify_params(path, variables, dtype) -> None:
    import jax
    import numpy as np

    from hmr_jax.export import params as params_io

    found = params_io.load_params(path, template=variables)
    # Half precision keeps 8 (bfloat16) or 11 bits.
    relative = {None: 0.0, "float32": 0.0, "float16": 1e-3, "bfloat16": 1e-2}[dtype]

    def compare(key, ours, theirs):
        if not np.allclose(ours, theirs, rtol=relative, atol=1e-7 if dtype else 0.0):
            name = jax.tree_util.keystr(key, simple=True, separator=".")
            raise ValueError(f"{path}: {name} differs from the model")

    jax.tree_util.tree_map_with_path(compare, variables, found)
    print(f"verified {path}: {len(jax.tree.leaves(found))} arrays equal the model's")


def _write_program(path, task, trained, body, config, metadata, include) -> None:
    from hmr_jax.commands import experiment
    from hmr_jax.export import stablehlo

    stablehlo.export_program(
        task.predict,
        trained.variables,
        body,
        experiment.system(config).program_inputs(config),
        path,
        metadata=metadata,
        include_body=include,
    )


def _verify_program(path, task, trained, body, config, inputs) -> None:
    import jax
    import numpy as np

    from hmr_jax.export import stablehlo

    program = stablehlo.load_exported(path, body=body)
    predict = jax.jit(task.predict)
    expected = predict(trained.variables, inputs, body)
    # A network that has hardly learnt puts joints on one another, where a rotation is
    # undetermined and rounding decides: an answer may differ by as much as the model's
    # own does when its picture changes by little more than rounding.
    size = len(inputs["image"])
    moved = np.zeros(size)
    for nudge in NUDGES:
        nudged = {**inputs, "image": inputs["image"] * np.float32(1.0 + nudge)}
        other = predict(trained.variables, nudged, body)
        moved = np.maximum(moved, _largest_gap(expected, other))
    allowed = np.maximum(moved, TOLERANCE_M)
    worst = np.zeros(size)
    for count in (1, size):
        found = program(**{name: value[-count:] for name, value in inputs.items()})
        gap = _largest_gap({k: v[-count:] for k, v in expected.items()}, found)
        worst[-count:] = np.maximum(worst[-count:], gap)
    wrong = np.flatnonzero(~(worst <= allowed))
    if wrong.size:
        at = wrong[np.argmax(worst[wrong])]
        raise ValueError(
            f"{path}: differs from the model by {worst[at]:g} m, expected at most "
            f"{allowed[at]:g} m"
        )
    steady = moved < TOLERANCE_M
    if not steady.any():
        logging.warning(
            "%s: the model's own answers change by %g m or more under rounding; the "
            "comparison shows little",
            path,
            moved.min(),
        )
    print(
        f"verified {path}: batches of 1 and {size}, largest difference "
        f"{worst.max():.1e} m ({steady.sum()} of {size} samples are steady: their own "
        f"answers change by less than {TOLERANCE_M:g} m under rounding)"
    )


def _largest_gap(ours, theirs):
    """Largest difference of each sample over all outputs."""
    import numpy as np

    gaps = [
        np.abs(np.asarray(ours[k]) - np.asarray(theirs[k])).reshape(len(ours[k]), -1)
        for k in ours
    ]
    return np.nan_to_num(np.concatenate(gaps, 1).max(1), nan=np.inf)
