"""Train a model from a config; start it again to go on from the last checkpoint.

    hmr-jax train --config=configs/quickstart.py --workdir=runs/quickstart

The workdir receives checkpoints/ (the latest and the best), log.jsonl, events/ for
TensorBoard, loss_curve.png, run.json (config, seed, versions, data) and, at the end,
the last evaluation. Ctrl-C and SIGTERM save before they stop. The folder may be remote
(gs://, or whatever fsspec reaches). One training at a time writes to it.

Several processes: start the same command on each machine with --coordinator,
--num_processes and --process_id. They share one --workdir: a network folder or a bucket
that all of them see. Each reads the checkpoint there, process 0 writes.
"""

import dataclasses
import sys

from absl import flags, logging

from hmr_jax.commands import cli
from hmr_jax.errors import UserError
from hmr_jax.remote import Location, location


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of this run, local or remote; shared by all of its processes.",
        flag_values=values,
    )
    flags.DEFINE_bool("progress", True, "Show a progress bar.", flag_values=values)
    flags.DEFINE_string(
        "coordinator",
        None,
        "host:port of process 0, or 'auto' where a cluster says it.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "Processes of this run.", flag_values=values
    )
    flags.DEFINE_integer(
        "process_id", None, "Number of this one, from 0.", flag_values=values
    )


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: the words after ``train``.

    Returns:
        0; 3 where a signal stopped the run early (it can be started again).
    """
    values, rest = cli.parse("train", __doc__, _define, argv, with_config=True)
    cli.no_more(rest)
    cli.require(values, "config", "workdir")
    workdir = location(values.workdir)

    from hmr_jax.training import parallel, processes, settings

    settings.check(values.config.to_dict())
    parallel.start_processes(
        values.coordinator, values.num_processes, values.process_id
    )
    with processes.ending_together():
        return _train(values, workdir)


def _train(values, workdir: Location) -> int:
    import jax

    from hmr_jax import systems
    from hmr_jax.training import loop, optimizer, periodic, records, trained

    config = values.config

    system = systems.get(config.system)
    body = system.body(config)
    assets = system.assets(config, body)
    batches = system.train_data(config, workdir, assets)
    total = _num_steps(config, batches.steps_per_epoch)
    settings = config.optimizer.to_dict()
    tx, schedule = optimizer.from_config(
        settings, total_steps=total, steps_per_epoch=batches.steps_per_epoch
    )
    stages = system.stages(config, batches.steps_per_epoch, total)
    start = None
    if trained.starts_elsewhere(config):
        # Read only where a run begins anew.
        def start(variables):
            return trained.start_from(system, config)(variables)

    evaluate = None
    if system.evaluates_in_training(config):
        evaluator = system.evaluator(config, body, workdir)
        evaluate = periodic.periodic(evaluator, config, workdir)
    else:
        logging.info("no evaluation in training: eval.source %r", config.eval.source)
    record = records.RunRecord(
        workdir / "run.json",
        config=config.to_dict(),
        seed=config.seed,
        data_fingerprint=batches.fingerprint,
        allow_other_data=config.resume_with_other_data,
    )
    logging.info(
        "%d steps of %d samples (%.2f epochs of %d records) on %d device(s)",
        total,
        config.data.batch_size,
        total / batches.steps_per_epoch,
        batches.num_records,
        jax.device_count(),
    )
    options = loop.LoopOptions(
        num_steps=total,
        seed=config.seed,
        accumulate=config.train.accumulate,
        log_every=config.train.log_every,
        checkpoint_every=config.train.checkpoint_every,
        evaluate_every=config.train.evaluate_every
        or config.train.evaluate_every_epochs * batches.steps_per_epoch,
        keep_latest=config.train.keep_latest,
        progress=values.progress,
        **trained.best_by(config),
    )
    for stage in stages:
        logging.info("stage %s: up to step %d", stage.name, stage.until)
        result = loop.train(
            stage.task,
            lambda: batches,
            tx=tx,
            options=dataclasses.replace(options, num_steps=stage.until),
            workdir=workdir,
            assets=assets,
            schedule=schedule,
            start_from=start,
            evaluate=evaluate,
            record=record,
        )
        if not result.finished:
            break
    if not result.finished:
        print(f"stopped early; the same command goes on: {workdir}", file=sys.stderr)
        return 3
    print(f"trained {total} steps: {workdir}")
    return 0


def _num_steps(config, steps_per_epoch: int) -> int:
    """``train.num_steps``, or ``train.num_epochs`` in steps."""
    steps, epochs = config.train.num_steps, config.train.num_epochs
    if (steps > 0) == (epochs > 0):
        raise UserError(
            "config.train: expected one of num_steps and num_epochs to be positive, "
            f"found {steps} and {epochs}"
        )
    return steps or epochs * steps_per_epoch
