"""Turn a published PyTorch checkpoint into parameters of ours, without PyTorch.

    hmr-jax convert --system=ikol --checkpoint=model.pth --out=ikol.safetensors

Every tensor must find its place, and every place its tensor; what does not fit is
listed. The checkpoint is read by a restricted unpickler: nothing in it is executed.
Use the result with eval --params, or train with --config.start.params.
"""

import pathlib

from absl import flags

from hmr_jax.commands import cli
from hmr_jax.outside import reading


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("system", None, "Whose checkpoint it is.", flag_values=values)
    flags.DEFINE_string("checkpoint", None, "File to read.", flag_values=values)
    flags.DEFINE_string(
        "out", None, "File to write, .npz or .safetensors.", flag_values=values
    )
    flags.DEFINE_string(
        "key",
        None,
        "Where in the file the state dict lies (dots between levels); found where "
        "there is only one.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "dtype",
        None,
        ["float32", "float16", "bfloat16"],
        "Type of the numbers written; float32 by default.",
        flag_values=values,
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the words after ``convert``.

    Returns:
        0.
    """
    values, rest = cli.parse("convert", __doc__, _define, argv, with_config=True)
    cli.no_more(rest)
    cli.require(values, "system", "checkpoint", "out")
    if pathlib.Path(values.out).suffix not in (".npz", ".safetensors"):
        raise cli.UsageError(f"--out: expected .npz or .safetensors: {values.out}")

    import jax

    from hmr_jax import systems
    from hmr_jax.convert.checkpoints import convert_checkpoint
    from hmr_jax.convert.torch_checkpoint import read_torch_checkpoint
    from hmr_jax.export.params import save_params
    from hmr_jax.training.trained import check_finite, variable_shapes

    kind = _kind(values.system)
    state_dict = read_torch_checkpoint(values.checkpoint, key=values.key)
    template = None
    if values.config is not None:
        system = systems.get(values.config.system)
        template = variable_shapes(system, values.config)
    with reading(values.checkpoint, f"a checkpoint of {values.system}"):
        variables = convert_checkpoint(kind, state_dict, template=template)
    check_finite(variables, values.checkpoint)
    metadata = {"system": values.system, "origin": str(values.checkpoint)}
    save_params(variables, values.out, dtype=values.dtype, metadata=metadata)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    print(f"wrote {values.out}: {count:,} parameters")
    return 0


def _kind(name: str):
    """Whose checkpoint it is: a system's, or that of a network that others use."""
    from hmr_jax import systems
    from hmr_jax.convert import hrnet

    networks = {"hrnet": hrnet.CHECKPOINT}
    if name not in (*systems.NAMES, *networks):
        raise cli.UsageError(
            f"--system: expected one of {sorted((*systems.NAMES, *networks))}, "
            f"found {name!r}"
        )
    return networks.get(name) or systems.get(name).checkpoint
