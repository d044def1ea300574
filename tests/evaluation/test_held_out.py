import numpy as np

from hmr_jax.evaluation.held_out import limited


def test_limit_cuts_by_validity():
    batches = [{"valid": np.ones(4, np.float32), "x": np.arange(4)}] * 3
    kept = list(limited(batches, 6))
    assert [b["valid"].tolist() for b in kept] == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert len(list(limited(batches, 0))) == 3
