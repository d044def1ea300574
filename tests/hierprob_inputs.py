"""The seeded inputs of the stored vectors, as a module."""

import importlib.util
import sys

import numpy as np
import pytest

SEED = 17


def load_inputs(parity_dir, recipe):
    """The generators beside the vectors; they find ``recipe`` and the seed by name."""
    path = parity_dir / "hierprob" / "inputs.py"
    if not path.is_file():
        pytest.skip("no stored vectors of this system")
    spec = importlib.util.spec_from_file_location("hierprob_vector_inputs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipe"] = recipe
    spec.loader.exec_module(module)
    module.original = SEED
    return module


def load_vectors(parity_dir, name):
    """One file of stored arrays, or a skipped test."""
    path = parity_dir / "hierprob" / f"{name}_public.npz"
    if not path.is_file():
        pytest.skip("no stored vectors of this system")
    with np.load(path) as file:
        return dict(file)
