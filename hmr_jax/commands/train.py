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

    from hmr_jax.commands import experiment
    from hmr_jax.training import loop, optimizer, records

    config = values.config

    system = experiment.system(config)
    body = experiment.load_body(config)
    assets = system.make_assets(config, body)
    batches = system.train_batches(config, workdir, assets)
    total = experiment.num_steps(config, batches.steps_per_epoch)
    settings = config.optimizer.to_dict()
    tx, schedule = optimizer.from_config(
        settings, total_steps=total, steps_per_epoch=batches.steps_per_epoch
    )
    stages = system.stages(config, batches.steps_per_epoch, total)
    task = stages[-1][0]
    start = _start(config, task)
    evaluate = system.evaluation(config, task, body, workdir)
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
        **experiment.best_by(config),
    )
    for number, (task, end) in enumerate(stages, start=1):
        logging.info("stage %d of %d: up to step %d", number, len(stages), end)
        result = loop.train(
            task,
            lambda: batches,
            tx=tx,
            options=dataclasses.replace(options, num_steps=end),
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


def _start(config, task):
    """What changes the initial variables; read only where a run begins anew."""
    from hmr_jax.commands import experiment

    if not any(config.start.values()):
        return None

    def change(variables):
        return experiment.start_from(config, task)(variables)

    return change
