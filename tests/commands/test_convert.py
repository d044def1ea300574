"""The convert command: what does not fit is the user's error, with the file's name."""

import numpy as np
import pytest

from hmr_jax.__main__ import main
from hmr_jax.convert import checkpoints as systems
from hmr_jax.errors import UserError
from tests.convert import torch_writer as writer

ARRAYS = {"module.conv1.weight": np.zeros((4, 3, 1, 1), np.float32)}


@pytest.mark.parametrize("system", ["ikol", "hierprob", "hrnet"])
def test_another_network_is_named_without_a_traceback(
    tmp_path, capfd, monkeypatch, system
):
    monkeypatch.setattr("hmr_jax.commands.cli.set_up_logging", lambda: None)
    path = tmp_path / "other.pth"
    writer.write_zip(path, {"state_dict": writer.tensors(ARRAYS)})
    words = [f"--checkpoint={path}", f"--out={tmp_path / 'a.npz'}"]
    assert main(["convert", f"--system={system}", *words]) == 1
    said = capfd.readouterr().err
    assert str(path) in said and "Traceback" not in said and "fault" not in said
    assert not (tmp_path / "a.npz").exists()


def test_another_backbone_is_named(tmp_path):
    path = tmp_path / "other.pth"
    writer.write_zip(path, writer.tensors(ARRAYS))
    with pytest.raises(UserError, match=r"other\.pth: expected a ResNet"):
        systems.load_backbone(path)
