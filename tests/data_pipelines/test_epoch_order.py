import numpy as np
import pytest

from data_pipelines import epoch_order


def test_an_epoch_is_every_record_once_and_epochs_differ():
    made = epoch_order.Order((50, 7), seed=1, shuffle=True)
    epochs = [made.epoch(e) for e in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(57))
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(made.epoch(0), epochs[0])
    other = epoch_order.Order((50, 7), seed=2, shuffle=True)
    assert not np.array_equal(other.epoch(0), epochs[0])


def test_unshuffled_epochs_follow_the_disk():
    made = epoch_order.Order((3, 2), seed=1, shuffle=False)
    np.testing.assert_array_equal(made.epoch(4), np.arange(5))


STORED_EPOCH = [6, 2, 3, 4, 0, 7, 1, 5]
STORED_UNIFORMS = [0.09568864107131958, 0.4576687216758728, 0.4136560559272766]


def test_the_stream_never_changes():
    # A change here makes every interrupted run continue with other batches.
    made = epoch_order.Order((8,), seed=5, shuffle=True)
    assert made.epoch(3).tolist() == STORED_EPOCH
    np.testing.assert_allclose(
        epoch_order.uniforms(made.keys(3, np.array([2])), 3)[0],
        STORED_UNIFORMS,
        rtol=1e-7,
    )


def test_mixture_draws_sources_by_weight_and_records_evenly():
    made = epoch_order.Order((10, 4000), seed=0, shuffle=True, weights=(3, 1))
    assert made.epoch_length == 4000
    drawn = np.concatenate([made.epoch(e) for e in range(5)])
    first = drawn < 10
    # 20,000 draws: three standard deviations of the share are 0.009.
    assert abs(first.mean() - 0.75) < 0.01
    counts = np.bincount(drawn[first], minlength=10)
    assert counts.min() > 1350 and counts.max() < 1650
    assert drawn.max() < 4010 and len(np.unique(drawn[~first])) > 2500


def test_groups_share_an_epoch_evenly():
    # specs/i2l_meshnet.md, section 8.1: 3D sets of 4 and 3 records, a 2D set of 17.
    made = epoch_order.Order((4, 17, 3), seed=4, shuffle=True, groups=(0, 1, 0))
    assert made.epoch_length == 34
    epochs = [made.epoch(e) for e in range(40)]
    for epoch in epochs:
        counts = np.bincount(epoch, minlength=24)
        in_3d = np.concatenate([counts[:4], counts[21:]])
        assert in_3d.sum() == 17 and in_3d.min() >= 2
        np.testing.assert_array_equal(counts[4:21], 1)
    drawn = np.bincount(np.concatenate(epochs), minlength=24)
    # Three of seven records are drawn a third time in each of 40 epochs.
    extra = np.concatenate([drawn[:4], drawn[21:]]) - 80
    assert extra.sum() == 120 and extra.min() > 5
    assert not np.array_equal(epochs[0], epochs[1])
    alone = epoch_order.Order((5, 6), seed=4, shuffle=True, groups=(0, 0))
    np.testing.assert_array_equal(np.sort(alone.epoch(2)), np.arange(11))


def test_capped_sources_give_a_fresh_choice_each_epoch():
    # specs/pose_hg.md, section 8.5: as many 3D as 2D records at most.
    made = epoch_order.Order((20, 500), seed=4, shuffle=True, caps=(None, 20))
    assert made.epoch_length == 40
    epochs = [made.epoch(e) for e in range(100)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 40
        np.testing.assert_array_equal(np.sort(epoch[epoch < 20]), np.arange(20))
    chosen = np.concatenate([e[e >= 20] for e in epochs])
    assert len(np.unique(chosen)) > 480
    every = epoch_order.Order((20, 500), seed=4, shuffle=True, caps=(None, 900))
    np.testing.assert_array_equal(np.sort(every.epoch(0)), np.arange(520))


def test_uniforms_are_open_and_even():
    numbers = epoch_order.uniforms(epoch_order.stream(np.uint64(3), 2000), 50)
    assert numbers.dtype == np.float32
    assert 0 < numbers.min() and numbers.max() < 1
    # 100,000 numbers: three standard deviations of the mean are 0.003.
    assert abs(numbers.mean() - 0.5) < 0.003
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.08


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": (0, 1), "weights": (1, 1)}, "one rule for epochs, found weights"),
        ({"groups": (1, 2)}, "groups numbered 0, 1, ..., found"),
        ({"caps": (0, None)}, "caps of 1 or more"),
        ({"caps": (1,)}, "2 caps, one per source, found 1"),
        ({"sizes": (3, 0)}, "one record or more"),
        ({"weights": (1.0,)}, "expected 2 weights"),
        ({"weights": (1.0, -1.0)}, "weights >= 0"),
        ({"weights": (1.0, 1.0), "shuffle": False}, "shuffle=True"),
    ],
)
def test_bad_orders_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        epoch_order.Order(**({"sizes": (3, 2), "seed": 0, "shuffle": True} | arguments))
