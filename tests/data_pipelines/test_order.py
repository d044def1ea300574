import numpy as np
import pytest

from data_pipelines import order


def test_an_epoch_is_every_record_once_and_epochs_differ():
    made = order.Order((50, 7), seed=1, shuffle=True)
    epochs = [made.epoch(e) for e in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(57))
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(made.epoch(0), epochs[0])
    other = order.Order((50, 7), seed=2, shuffle=True)
    assert not np.array_equal(other.epoch(0), epochs[0])


def test_unshuffled_epochs_follow_the_disk():
    made = order.Order((3, 2), seed=1, shuffle=False)
    np.testing.assert_array_equal(made.epoch(4), np.arange(5))


STORED_EPOCH = [6, 2, 3, 4, 0, 7, 1, 5]
STORED_UNIFORMS = [0.09568864107131958, 0.4576687216758728, 0.4136560559272766]


def test_the_stream_never_changes():
    # A change here makes every interrupted run continue with other batches.
    made = order.Order((8,), seed=5, shuffle=True)
    assert made.epoch(3).tolist() == STORED_EPOCH
    np.testing.assert_allclose(
        order.uniforms(made.keys(3, np.array([2])), 3)[0], STORED_UNIFORMS, rtol=1e-7
    )


def test_mixture_draws_sources_by_weight_and_records_evenly():
    made = order.Order((10, 4000), seed=0, shuffle=True, weights=(3, 1))
    assert made.epoch_length == 4000
    drawn = np.concatenate([made.epoch(e) for e in range(5)])
    first = drawn < 10
    # 20,000 draws: three standard deviations of the share are 0.009.
    assert abs(first.mean() - 0.75) < 0.01
    counts = np.bincount(drawn[first], minlength=10)
    assert counts.min() > 1350 and counts.max() < 1650
    assert drawn.max() < 4010 and len(np.unique(drawn[~first])) > 2500


def test_uniforms_are_open_and_even():
    numbers = order.uniforms(order.stream(np.uint64(3), 2000), 50)
    assert numbers.dtype == np.float32
    assert 0 < numbers.min() and numbers.max() < 1
    # 100,000 numbers: three standard deviations of the mean are 0.003.
    assert abs(numbers.mean() - 0.5) < 0.003
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.08


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sizes": (3, 0)}, "one record or more"),
        ({"weights": (1.0,)}, "expected 2 weights"),
        ({"weights": (1.0, -1.0)}, "weights >= 0"),
        ({"weights": (1.0, 1.0), "shuffle": False}, "shuffle=True"),
    ],
)
def test_bad_orders_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        order.Order(**({"sizes": (3, 2), "seed": 0, "shuffle": True} | arguments))
