"""Which errors the command line prints short, and which it shows whole."""

import jax.numpy as jnp
import numpy as np
import pytest

from hmr_jax import errors
from hmr_jax.commands import cli


def _raises(error):
    def main(argv):
        raise error

    return main


MEANT = {
    "UserError": (errors.UserError("a.npz: expected 3, found 4"), 1, "found 4"),
    "UsageError": (cli.UsageError("missing --out"), 2, "missing --out"),
    "no such file": (FileNotFoundError("a.npz: no such file"), 1, "a.npz"),
    "package of data": (
        ModuleNotFoundError("No module named 'h5py'", name="h5py"),
        1,
        "hmr_jax[data]",
    ),
    "package": (errors.MissingPackageError("needs apache-beam"), 1, "apache-beam"),
}


@pytest.mark.parametrize("name", MEANT)
def test_messages_for_users_are_one_line(name, capsys):
    error, code, text = MEANT[name]
    assert cli.run("eval", _raises(error), []) == code
    shown = capsys.readouterr().err
    assert shown.startswith("hmr-jax eval: error: ") and text in shown
    assert len(shown.splitlines()) == 1
    assert cli.run("eval", _raises(error), ["--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def _of_jax(argv):
    return jnp.zeros((2, 3)) @ jnp.zeros((2, 3))


def _of_numpy(argv):
    return np.zeros((2, 3)) + np.zeros((4, 3))


def _of_python(argv):
    return int("three")


@pytest.mark.parametrize("main", [_of_jax, _of_numpy, _of_python, _raises(KeyError(1))])
def test_faults_of_the_program_are_shown_where_they_are(main, capsys):
    assert cli.run("eval", main, []) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and "test_cli.py" in shown
    assert "(a fault of the program)" in shown.splitlines()[-1]


def test_a_module_of_ours_that_is_missing_is_a_fault(capsys):
    error = ModuleNotFoundError("No module named 'hmr_jax.x'", name="hmr_jax.x")
    assert cli.run("eval", _raises(error), []) == 1
    assert "Traceback" in capsys.readouterr().err
