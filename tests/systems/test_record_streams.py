import pytest

from hmr_jax.systems import record_streams
from hmr_jax.systems.ikol import data
from tests.training.test_trained import config


def test_batch_size_must_divide(monkeypatch):
    with pytest.raises(ValueError, match="multiple of the 2 devices, found 3"):
        record_streams.share_of_process(3)


def test_unknown_option_of_the_transform():
    pytest.importorskip("tensorflow")
    wrong = config()
    with wrong.unlocked():
        wrong.data.options.rotations = 3.0
    with pytest.raises(ValueError, match="config.data.options: .*rotations"):
        data.transform(wrong, train=True)


def test_sources_without_a_share_are_refused():
    pytest.importorskip("tensorflow")
    made = config()
    with made.unlocked():
        made.data.sources = {"a": 0.0}
    with pytest.raises(ValueError, match="data.sources: expected a positive share"):
        record_streams.train_stream(made, "nowhere", None)
