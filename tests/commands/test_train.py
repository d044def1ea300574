import pytest

from hmr_jax.commands.train import _num_steps
from tests.training.test_trained import config


def test_length_of_a_run():
    assert _num_steps(config(), 10) == 4
    epochs = {"train.num_steps": 0, "train.num_epochs": 3}
    assert _num_steps(config(**epochs), 10) == 30
    for steps, count in ((0, 0), (4, 3)):
        wrong = {"train.num_steps": steps, "train.num_epochs": count}
        with pytest.raises(ValueError, match=f"found {steps} and {count}"):
            _num_steps(config(**wrong), 10)
