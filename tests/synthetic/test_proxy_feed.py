"""The stream of a run is the same however many processes share it."""

import numpy as np

from hmr_jax.synthetic.pose_bank import PoseOrder
from hmr_jax.synthetic.proxy_feed import ProxyFeed


def background(rng, size_px):
    return rng.integers(0, 255, (size_px, size_px, 3), np.uint8)


def feed(**share):
    order = PoseOrder(12, 4, seed=1, **share)
    return ProxyFeed(order, background, size_px=4, seed=2)


def test_processes_share_the_pictures_of_one():
    whole = feed()
    parts = [feed(process_index=index, process_count=2) for index in (0, 1)]
    seen = []
    for _ in range(4):
        expected = next(whole)
        found = [next(part) for part in parts]
        for name in ("pose_index", "background"):
            joined = np.concatenate([batch[name] for batch in found])
            np.testing.assert_array_equal(joined, expected[name])
        seen += list(expected["background"])
    assert len({picture.tobytes() for picture in seen}) == 16


def test_a_restored_stream_goes_on():
    first, again = feed(), feed()
    next(first)
    again.restore(first.state())
    np.testing.assert_array_equal(next(first)["background"], next(again)["background"])
