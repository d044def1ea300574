import pytest

from hmr_jax.metrics.kinds import higher_is_better, kind_of
from hmr_jax.systems.hierprob.metrics import METRES_NAMES


@pytest.mark.parametrize(
    ("metric", "unit", "higher"),
    [
        *((name, "mm", False) for name in METRES_NAMES),
        ("PA-MPJPE", "mm", False),
        ("MPJPE_samples_min", "mm", False),
        ("joints2Dsamples-L2E", "px", False),
        ("PCK/Head", "%", True),
        ("AUC", "%", True),
        ("silhouette-IOU", "%", True),
    ],
)
def test_units_and_directions(metric, unit, higher):
    assert kind_of(metric).unit == unit
    assert higher_is_better(metric) == higher


def test_an_unknown_metric():
    with pytest.raises(ValueError, match="metric 'PCP': expected one like"):
        kind_of("PCP")
