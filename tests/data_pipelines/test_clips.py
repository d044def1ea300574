"""Windows, frames of clips and their validity, against INT's published rule."""

import numpy as np
import pytest

from data_pipelines import clips, epoch_order

LENGTHS = (130, 20, 300, 128)
"""The videos of the public vectors (chunks_L_STRIDE of int_data_public.npz)."""
FIRST_LAST_128_64 = [
    *([0, 127], [64, 67], [128, 3], [130, 143], [150, 277], [214, 341]),
    *([278, 405], [342, 429], [406, 365], [450, 577]),
]
FIRST_LAST_128_128 = [
    *([0, 127], [128, 3], [130, 143], [150, 277], [278, 405], [406, 365]),
    [450, 577],
]
KEYS = epoch_order.stream(np.uint64(3), 4000)


def videos():
    """Track and frame of each record of the videos, laid end to end."""
    track = np.repeat(np.arange(4), LENGTHS)
    return track, np.concatenate([np.arange(n) for n in LENGTHS])


def windows(*arguments, **options):
    return clips.Windows(*videos(), clips.ClipOptions(*arguments, **options))


def whole(made):
    """Every window, all frames of it."""
    return made.draw(np.arange(len(made)), KEYS[: len(made)])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"overlap": 0.5}, FIRST_LAST_128_64),
        ({"stride": 64}, FIRST_LAST_128_64),
        ({}, FIRST_LAST_128_128),
    ],
)
def test_windows_are_the_published_ones(options, expected):
    records, _ = whole(windows(128, sampling="all", **options))
    np.testing.assert_array_equal(records[:, [0, -1]], expected)


@pytest.mark.parametrize(("pool", "stride", "count"), [(128, 8, 52), (16, 8, 72)])
def test_numbers_of_windows_are_the_published_ones(pool, stride, count):
    assert len(windows(pool, stride=stride)) == count


def test_each_frame_counts_once_and_the_published_rule_is_an_option():
    records, counts = whole(windows(128, sampling="all"))
    assert counts.sum(1).tolist() == [128, 2, 20, 128, 128, 44, 128]
    np.testing.assert_array_equal(np.sort(records[counts]), np.arange(578))
    _, counts = whole(windows(128, sampling="all", published_valid=True))
    # valid_128_128 of the public vectors: the video of 20 frames has 71.
    assert counts.sum(1).tolist() == [128, 2, 71, 128, 128, 44, 128]


def test_sampling_follows_its_name():
    chosen = np.zeros(4000, int)
    start, _ = windows(16, 128, sampling="start").draw(chosen, KEYS)
    assert (start == 8 * np.arange(16)).all()
    made = windows(16, 128, overlap=0.5, sampling="random_start")
    found, _ = made.draw(chosen, KEYS)
    offset = found[:, 0]
    assert (found - offset[:, None] == 8 * np.arange(16)).all()
    # 4,000 draws of 8: three standard deviations are 63.
    assert np.abs(np.bincount(offset, minlength=8) - 500).max() < 90
    cells, _ = windows(16, 128, sampling="random_per_cell").draw(chosen, KEYS)
    inside = cells - 8 * np.arange(16)
    assert inside.min() == 0 and inside.max() == 7
    assert abs(np.corrcoef(inside[:, 0], inside[:, 1])[0, 1]) < 0.07
    again, _ = made.draw(chosen[:5], KEYS[:5])
    np.testing.assert_array_equal(again, found[:5])
    # 64 // 20 = 3: the last frame that can be taken is 3 * 19 + 2.
    odd, _ = windows(20, 64, sampling="random_per_cell").draw(chosen, KEYS)
    assert odd.max() == 59


def test_tracks_are_persons_of_sequences_in_order_of_frames():
    track = np.array([1, 0, 1, -1, 0, 1, -1])
    frame = np.array([5, 2, 3, 9, 1, 4, 0])
    found = clips.tracks(track, frame)
    assert [t.tolist() for t in found] == [[2, 5, 0], [4, 1], [3], [6]]
    made = clips.Windows(track, frame, clips.ClipOptions(4, sampling="all"))
    records, counts = whole(made)
    assert records.tolist() == [[2, 5, 0, 5], [4, 1, 4, 1], [3] * 4, [6] * 4]
    assert counts.sum(1).tolist() == [3, 2, 1, 1]


def test_numbers_of_a_clip_and_of_its_frames():
    keys = KEYS[:300]
    found = clips.uniforms(keys, 5, 4, shared=2).reshape(300, 5, 4)
    assert (found[:, :, :2] == found[:, :1, :2]).all()
    assert len(np.unique(found[:, :, 2:])) > 2990
    assert len(np.unique(found[:, 0, :2])) == 600
    with pytest.raises(ValueError, match="0 to 4"):
        clips.uniforms(keys, 5, 4, shared=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": "middle"}, "sampling: expected one of random_start"),
        ({"window": 3}, "length <= window, found 4 and 3"),
        ({"window": 8, "sampling": "all"}, "length = window"),
        ({"overlap": 1.0}, "overlap < 1"),
        ({"stride": 0}, "stride >= 1"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        clips.ClipOptions(4, **options)
