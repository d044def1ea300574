"""Train a model from a config; start it again to go on from the last checkpoint.

    hmr-jax train --config=configs/quickstart.py --workdir=runs/quickstart

The workdir receives checkpoints/ (the latest and the best), log.jsonl, events/ for
TensorBoard, loss_curve.png, run.json (config, seed, versions, data) and, at the end,
the last evaluation. Ctrl-C and SIGTERM save before they stop. Several machines: start
the same command on each with --coordinator, --num_processes and --process_id.
"""

import pathlib
import sys

from absl import flags, logging

from hmr_jax.commands import cli


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "Folder of this run.", flag_values=values)
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
    config, workdir = values.config, pathlib.Path(values.workdir)

    from hmr_jax.training import loop, optimizer, parallel, records

    parallel.start_processes(
        values.coordinator, values.num_processes, values.process_id
    )
    import jax

    from hmr_jax.commands import experiment

    body = experiment.load_body(config)
    task = experiment.make_task(config)
    folder = experiment.data_dir(config, workdir)
    batches = experiment.train_batches(config, folder)
    total = experiment.num_steps(config, batches.steps_per_epoch)
    settings = config.optimizer.to_dict()
    tx, schedule = optimizer.from_config(
        settings, total_steps=total, steps_per_epoch=batches.steps_per_epoch
    )
    start = _start(config, task)
    evaluate = _evaluation(config, task, body, folder)
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
        evaluate_every=config.train.evaluate_every,
        keep_latest=config.train.keep_latest,
        progress=values.progress,
        **experiment.best_by(config),
    )
    result = loop.train(
        task,
        lambda: batches,
        tx=tx,
        options=options,
        workdir=workdir,
        assets=body,
        schedule=schedule,
        start_from=start,
        evaluate=evaluate,
        record=record,
    )
    if not result.finished:
        print(f"stopped early; the same command goes on: {workdir}", file=sys.stderr)
        return 3
    print(f"trained {total} steps: {workdir}")
    return 0


def _check_best(config) -> None:
    """Refuse a choice of the best checkpoint that no evaluation could serve."""
    protocols = tuple(config.eval.protocols)
    if config.eval.best_protocol not in protocols:
        raise ValueError(
            f"config.eval.best_protocol: expected one of eval.protocols {protocols}, "
            f"found {config.eval.best_protocol!r}"
        )
    from hmr_jax.evaluation.protocols import get_protocol

    protocol = get_protocol(config.eval.best_protocol)
    metrics: tuple[str, ...]
    metrics = ("PVE",) if protocol.joint_set == "vertices" else ("MPJPE", "PA-MPJPE")
    if protocol.groups is not None:
        metrics += ("PCK", "AUC")
    if not config.eval.best_metric.startswith(metrics):
        raise ValueError(
            f"config.eval.best_metric: expected one of {metrics}, "
            f"found {config.eval.best_metric!r}"
        )


def _start(config, task):
    """What changes the initial variables; read only where a run begins anew."""
    from hmr_jax.commands import experiment

    if not any(config.start.values()):
        return None

    def change(variables):
        return experiment.start_from(config, task)(variables)

    return change


def _evaluation(config, task, body, folder):
    """The periodic evaluation, or None where the config names no data for it."""
    if not config.eval.source:
        return None
    from hmr_jax.commands import experiment, scoring

    _check_best(config)
    scorer = scoring.Scorer(config, task, body, folder)

    def evaluate(variables, step):
        del step
        metrics = experiment.flat_metrics(scorer(variables).values())
        best = experiment.best_by(config)["best_metric"]
        if best not in metrics:
            raise ValueError(
                "config.eval.best_protocol/best_metric: expected one of "
                f"{sorted(metrics)}, found {best!r}"
            )
        return metrics

    return evaluate
