"""Which evaluation in training is the best so far."""

import pytest

from hmr_jax.errors import UserError
from hmr_jax.systems.system import Evaluator
from hmr_jax.training.periodic import BestOf, periodic
from tests.training.test_trained import config


class Found(dict):
    def flat(self):
        return dict(self)


def evaluator(*found, metrics=("p/PVE", "p/PCK")):
    rows = iter(found)
    return Evaluator(
        metrics=metrics,
        score=lambda variables: Found(next(rows)),
        table=str,
        draw=lambda *_: None,
        baselines={},
    )


def test_the_best_is_replaced_when_no_metric_is_worse():
    rows = [(3.0, 3.0), (2.0, 4.0), (2.0, 3.0), (2.0, 3.0), (1.0, 3.5), (1.0, 1.0)]
    names = ("p/PVE", "p/MPJPE")
    rows = [dict(zip(names, row, strict=True)) for row in rows]
    best = BestOf(names)
    assert [best(row) for row in rows] == [1, 0, 2, 3, 0, 4]
    resumed = BestOf(names, rows[:3])
    assert [resumed(row) for row in rows[3:]] == [3, 0, 4]


def test_each_metric_says_which_way_it_is_better(tmp_path):
    rows = [(3.0, 50.0), (2.0, 60.0), (1.0, 40.0)]
    rows = [dict(zip(("p/PVE", "p/PCK"), row, strict=True)) for row in rows]
    made = config(**{"eval.best_protocol": "p", "eval.best_metric": "PVE+PCK"})
    evaluate = periodic(evaluator(*rows), made, tmp_path)
    found = [evaluate({}, step)["p/PVE+PCK"] for step in (1, 2, 3)]
    assert found == [1, 2, 0]


@pytest.mark.parametrize(
    ("protocol", "metric", "message"),
    [
        ("smpl", "PVE", r"best_protocol: .*\['p'\], found 'smpl'"),
        ("p", "PVE+AUC", r"best_metric: .*\['PVE', 'PCK'\].*found \['AUC'\]"),
    ],
)
def test_a_choice_that_no_evaluation_serves(protocol, metric, message, tmp_path):
    made = config(**{"eval.best_protocol": protocol, "eval.best_metric": metric})
    with pytest.raises(UserError, match=message):
        periodic(evaluator(), made, tmp_path)
