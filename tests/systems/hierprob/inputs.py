"""The seeded inputs of the stored vectors, as a module."""

import importlib.util
import sys

import numpy as np

SEED = 17


def load_inputs(parity_dir, recipe):
    """The generators beside the vectors; they find ``recipe`` and the seed by name."""
    path = parity_dir / "hierprob" / "inputs.py"
    spec = importlib.util.spec_from_file_location("hierprob_vector_inputs", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipe"] = recipe
    spec.loader.exec_module(module)
    module.original = SEED
    return module


def load_vectors(parity_dir, name):
    """One file of stored arrays."""
    path = parity_dir / "hierprob" / f"{name}_public.npz"
    with np.load(path) as file:
        return dict(file)
