"""The evaluations of a config: rendered pictures, or a dataset's records."""

import functools
from collections.abc import Sequence
from typing import Any

from absl import logging

from hmr_jax.body.model import BodyModel
from hmr_jax.errors import UserError
from hmr_jax.systems.hierprob import dataset_rules, datasets, validation
from hmr_jax.systems.hierprob.mean_body import score_mean_body
from hmr_jax.systems.hierprob.pictures import draw_examples
from hmr_jax.systems.hierprob.scores import format_scores
from hmr_jax.systems.system import Evaluator


def evaluator(
    config: Any,
    body: BodyModel,
    workdir: Any,
    *,
    protocols: tuple[str, ...] = (),
    progress: bool = False,
) -> Evaluator:
    """Scores of ``eval.source``, see ``System``.

    Args:
        config: an experiment.
        body: the body.
        workdir: of the run, whose ``data`` is the default for datasets.
        protocols: none may be named: the metrics follow from the source.
        progress: show a bar.

    Raises:
        UserError: protocols are named, or an unknown dataset.
    """
    source = config.eval.source
    if protocols:
        raise UserError(
            f"--protocols: system {config.system!r} has none; its metrics follow from "
            "config.eval.source"
        )
    scorer: Any
    names: Sequence[str]
    if evaluates_in_training(config):
        scorer = validation.Validation(config, body, show=progress)
        predicted, publish = scorer.assets.body, None
        names = validation.KNOWN_METRICS
    else:
        rules = dataset_rules.rules_of(source)
        folder = datasets.data_folder(config, workdir)
        scorer = datasets.DatasetValidation(config, body, folder, show=progress)
        predicted, publish = body, datasets.write_per_frame
        names = rules.metrics
        _compare_samples(config.eval.num_samples)

    def draw(variables: Any, count: int, out: Any) -> None:
        draw_examples(scorer.results(variables), predicted, count, out)

    return Evaluator(
        metrics=[f"{source}/{name}" for name in names],
        score=scorer,
        table=format_scores,
        draw=draw,
        baselines={
            "mean pose": functools.partial(score_mean_body, config, body, scorer)
        },
        facts={"source": source},
        publish=publish,
    )


def evaluates_in_training(config: Any) -> bool:
    """Whether pictures are rendered for the evaluation, which needs no dataset."""
    return config.eval.source == "synthetic"


def _compare_samples(num_samples: int) -> None:
    if num_samples != dataset_rules.NUM_SAMPLES:
        logging.info(
            "config.eval.num_samples is %d; published numbers have %d",
            num_samples,
            dataset_rules.NUM_SAMPLES,
        )
